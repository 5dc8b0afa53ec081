"""Who does what is WhatsApp's alone: webhooks come in and statuses are told, a channel is held and tried,
customers are forgotten. Each goes on until `stop`."""
import collections
import random
import threading
import time
import uuid
from datetime import datetime, timezone

from .customers import CHANNEL, Person, Status, amendment, message, news, rival_news, statuses
from .outbound import enqueue, release
from .run import Connections
from .values import LONGEST_RAMP, Request, chance, new_id
from .whatsapp import arrive, nowhere, tell

# What a bystander locks.
LOCKS = ["test::lock_message", "test::lock_conversation", "test::lock_amendments", "test::lock_aliases", "test::lock_receipt"]
FAR = (datetime.max.replace(tzinfo=timezone.utc), uuid.UUID(int=2**128 - 1))


class Meeting:
    """Two wait for each other, but not for long, before each statement."""

    def __init__(self):
        self.barriers = collections.defaultdict(lambda: threading.Barrier(2, timeout=0.05))

    def at(self, statement):
        try:
            self.barriers[statement].wait()
        except threading.BrokenBarrierError:
            pass


def arriver(run):
    connections = Connections(run)
    while not run.stop.is_set():
        time.sleep(random.random() * 0.03)
        batch, rivals, meeting = news(run), [], Meeting()
        joined = lambda: None
        if len(batch) > 1 and chance(0.6):
            rivals = rival_news(batch)
            if chance(0.5):    # two tell of the same at once, each another part
                batch, rivals = batch[::2], batch[1::2]
        if rivals:
            joined = run.beside(lambda others: arrive(run, others.ingest, rivals, meeting.at))
        arrive(run, connections.ingest, batch, meeting.at if rivals else nowhere)
        joined()


def bystander(run):
    """Somebody's open transaction: statements have to wait in their middle, each at another row."""
    connection = run.connect()
    while not run.stop.is_set():
        with run.lock:
            one = random.choice(run.named) if run.named else None
        if one is None:
            time.sleep(0.05)
            continue
        wamid, who, _ = one
        with connection.transaction():
            connection.execute(run.sql[random.choice(LOCKS)], [wamid, who.ids()])
            time.sleep(random.random() * 0.05)


def teller(run):
    connections = Connections(run)
    while not run.stop.is_set():
        time.sleep(random.random() * 0.03)
        batch = statuses(run)
        if not batch:
            continue
        joined = lambda: None
        if len(batch) > 1 and chance(0.4):
            rivals = random.sample(batch, len(batch))
            joined = run.beside(lambda others: tell(run, others.receipts, rivals, release))
        tell(run, connections.receipts, batch, release)
        joined()


def holder(run):
    """The token is at fault now and then, and an operator has the channel tried."""
    link = Connections(run).settle
    while not run.stop.is_set():
        time.sleep(random.uniform(1, 3) * run.options.pause)
        rows = link.run("channel::pause", [CHANNEL], [random.uniform(0.02, 0.1)], LONGEST_RAMP, ["token"])
        run.count("held", len(rows))
        if chance(0.5):
            time.sleep(random.random() * 0.1)
            with run.lock:
                ids = random.sample(run.recent, min(5, len(run.recent)))
            run.count("tried_now", len(link.run("channel::try_now", ids)))
            link.run("delivery::wake_refused", [CHANNEL], "unauthorized")


def forgetter(run):
    """Customers are forgotten, while what they have said is delivered once more and told of."""
    connections = Connections(run)
    while not run.stop.is_set():
        who = Person(None, f"gone-{random.getrandbits(40)}")
        said = [message(run, who) for _ in range(8)]
        about = [amendment(run, random.choice(said).event_id, who, change, True)
                 for change in ["reaction"] * 8 + ["edit"] * 4 + ["deletion"]]
        sends = [Request(new_id(), new_id(), CHANNEL, who.user_id, "text", None, None) for _ in range(4)]
        arrive(run, connections.ingest, said + about)
        enqueue(run, connections.accept, sends, time.time())
        (conversation_id, at), = connections.reads.run("forget::find", CHANNEL, who.user_id, CHANNEL)
        connections.reads.run("test::begin_forget", conversation_id, at)
        with run.lock:
            run.forgotten.add(conversation_id)

        def deliver(others, again=said + about):
            for _ in range(6):
                arrive(run, others.ingest, rival_news(again))

        def look(others):
            for _ in range(20):
                others.reads.run("test::hold_message", random.choice(said).event_id)
        joined, looked = run.beside(deliver), run.beside(look)
        if forget(run, connections.reads, conversation_id, at):
            connections.reads.run("test::end_forget", conversation_id)
        joined()
        looked()


def forget(run, link, conversation_id, at):
    """As src/forget/service.rs does; whether it came to its end."""
    end = time.time() + 2
    while unsent := link.run("forget::list_unsent", conversation_id, at):
        if time.time() > end:
            return False
        for message_id, in unsent:
            link.run("delivery::cancel", message_id, "canceled", [CHANNEL])
        time.sleep(0.02)
    link.run("forget::empty_names", conversation_id, at, CHANNEL)
    before = FAR
    while before[0]:
        _, _, *before = link.run("forget::empty", conversation_id, at, *before, 500)[0]
    link.run("forget::empty_preview", conversation_id, "")
    release(run, link, [conversation_id], 0.0)
    run.count("forgotten")
    return True


def tell_all(run):
    """At the end the provider tells of whatever it has accepted: several at once, each in an order of its own."""
    told = [Status(wamid, "delivered", datetime.fromtimestamp(int(run.began) + 60, timezone.utc), None, message_id)
            for wamid, message_id in run.wamids]

    def work():
        link, own = Connections(run).receipts, random.sample(told, len(told))
        for n in range(0, len(own), 64):
            tell(run, link, own[n:n + 64], release)
    threads = [threading.Thread(target=run.guarded, args=(work,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def start(run):
    options = run.options
    passing = run.start(arriver, options.arrivers) + run.start(teller, options.tellers)
    passing += run.start(forgetter) + run.start(bystander)
    # A hold that ends lets what was saved up go at once: with a limit that would be more than it.
    return passing + run.start(holder, int(options.pause > 0 and not run.per_second))
