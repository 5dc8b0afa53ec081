"""Who does all that at the same time. Each goes on until `stop`, those that finish what is left until `drained`."""
import collections
import random
import time
from datetime import datetime, timezone

from . import cloud
from .customers import CHANNEL
from .inbound import ingest
from .outbound import accept_at_provider, attempt, claim, conversations_of, enqueue, mark_sent, release
from .run import Connections
from .values import LONGEST_RAMP, Request, chance, events, new_id, requests, rival_events, rival_requests


def accepter(run):
    connections = Connections(run)
    recent_keys = collections.deque(maxlen=50)
    while not run.stop.is_set():
        time.sleep(random.random() * 0.02)
        batch, asked_at = requests(run, recent_keys), time.time()
        joined = lambda: None
        if len(batch) > 3 and chance(0.3):
            rivals = rival_requests(run, batch)
            if rivals:
                joined = run.beside(lambda others: enqueue(run, others.accept, rivals, asked_at))
        if chance(0.05):
            enqueue(run, connections.accept, batch, asked_at, answered=False)
        held = enqueue(run, connections.accept, batch, asked_at)
        joined()
        if held and chance(run.options.crash):
            run.count("crash_after_accept")
        elif held:
            attempt(run, connections, held)


def ingester(run):
    connections = Connections(run)
    recent = collections.deque(maxlen=60)
    while not run.stop.is_set():
        time.sleep(random.random() * 0.02)
        batch = events(run, recent)
        joined = lambda: None
        if len(batch) > 3 and chance(0.3):
            rivals = rival_events(batch)
            joined = run.beside(lambda others: ingest(run, others.ingest, rivals))
        if chance(0.05):
            ingest(run, connections.ingest, batch, answered=False)
        ingest(run, connections.ingest, batch)
        joined()
        with run.lock:
            conversation_id = run.receipt_of_event[random.choice(batch).event_id][1]
        reads = connections.reads
        if chance(0.3):
            seen = random.choice([random.randrange(30), 2**63 - 1])
            run.count("read", len(reads.run("conversation::mark_read", seen, conversation_id)))
        if chance(0.1):
            reads.run("conversation::set_status", conversation_id, random.choice(["open", "closed"]))
            reads.run("conversation::set_archived", conversation_id, chance(0.5))


def claimer(run):
    connections = Connections(run)
    while not run.drained.is_set():
        ids = None
        if chance(0.15):
            with run.lock:
                ids = random.sample(run.recent, min(40, len(run.recent)))
        if claim(run, connections, ids) == 0:
            time.sleep(0.005)


def some_messages(run):
    """Parked ones, any, and those just now in flight: these must stay as they are."""
    with run.lock:
        ids = random.sample(run.parked, min(len(run.parked), random.randint(0, 6)))
        ids += random.sample(run.recent, min(20, len(run.recent)))
        ids += [message_id for message_id, lease in list(run.leases.items())[-20:] if not lease[2]]
    random.shuffle(ids)
    return list(dict.fromkeys(ids))


def cancel(run, link, message_id):
    rows = link.run("delivery::cancel", message_id, "canceled", [CHANNEL])
    if rows:
        run.count("canceled")
        with run.lock:
            run.parked.append(message_id)
        release(run, link, [rows[0][0]], run.options.crash)
    return rows


def operator(run):
    connections = Connections(run)
    link = connections.reads
    while not run.stop.is_set():
        time.sleep(random.random() * 0.05)
        ids = some_messages(run)
        if not ids:
            continue
        if chance(0.5):
            ids = [message_id for message_id in ids[:8] if cancel(run, link, message_id)]
            if not ids or chance(0.5):
                continue
        careful = [CHANNEL] if chance(0.5) else None
        if not careful:
            with run.lock:
                run.requeued_carelessly.update(ids)
        rows = link.run("delivery::requeue", ids + ids[:1], run.options.max_wait if run.ordered else 0.0, careful)
        run.count("requeued", len(rows))
        release(run, link, [row[1] for row in rows], run.options.crash)
        if chance(0.3):
            claim(run, connections, [row[0] for row in rows])


def outsider(run):
    """Somebody's open transaction: statements have to wait in their middle, and much happens meanwhile."""
    connection = run.connect()
    while not run.stop.is_set():
        with run.lock:
            message_id = random.choice(run.recent) if run.recent else None
        with connection.transaction():
            connection.execute("select from deliveries where message_id = $1 for update", [message_id])
            time.sleep(random.random() * 0.05)


def repeater(run):
    """Repeating a release is harmless, at any time."""
    link = Connections(run).reads
    while not run.stop.is_set():
        time.sleep(random.random() * 0.02)
        with run.lock:
            conversation_ids = list(run.recent_conversations)
        if conversation_ids:
            run.count("released_again", len(link.run("delivery::release", conversation_ids)))


def racer(run):
    """A release that waits for one head, while the other is parked and requeued: it is no head any more."""
    connections, outside = Connections(run), run.connect()
    while not run.stop.is_set():
        time.sleep(0.1)
        ids = sorted(new_id() for _ in range(5))
        stamp = f"race-{time.time()}"
        batch = [
            Request(message_id, new_id(), "whatsapp", f"{stamp}-{name}", "text", None, new_id())
            for message_id, name in zip(ids, "aabbb")]
        asked_at = time.time()
        held = enqueue(run, connections.accept, batch, asked_at)
        if not held:    # the channel is paused
            continue
        accepted = [accept_at_provider(run, one) for one in held]
        mark_sent(run, connections.settle, accepted, crash=1.0)
        conversation_ids = conversations_of(run, [one.message_id for one in held])
        with outside.transaction():
            outside.execute("select from deliveries where message_id = $1 for update", [ids[1]])
            joined = run.beside(lambda others: others.reads.run("delivery::release", conversation_ids))
            time.sleep(0.03)
            connections.reads.run("delivery::cancel", ids[3], "canceled", [])
            with run.lock:
                run.requeued_carelessly.add(ids[3])
            connections.reads.run("delivery::requeue", [ids[3]], run.options.max_wait, None)
        joined()
        run.count("races")


def pacer(run):
    """Channels are paused now and then. Whoever begins a statement afterwards must not lease anything."""
    link = Connections(run).settle
    while not run.stop.is_set():
        time.sleep(random.uniform(0.5, 1.5) * run.options.pause)
        channel, wait = random.choice(["whatsapp", "instagram"]), random.uniform(0.05, 0.3)
        rows = link.run("channel::pause", [channel], [wait], LONGEST_RAMP, [None])
        known = datetime.now(timezone.utc)
        with run.lock:
            run.pauses.extend((channel, known, until) for channel, until, _ in rows)
        run.count("pauses", len(rows))


def sweeper(run):
    link = Connections(run).reads
    while not run.drained.is_set():
        began = time.time()
        conversation_ids = [row[0] for row in link.run("delivery::list_unreleased", 1000)]
        if conversation_ids:
            run.count("swept", len(link.run("delivery::release", conversation_ids)))
        with run.lock:
            run.last_sweep = (began, time.time())
        run.count("sweeps")
        run.drained.wait(run.options.sweep)


def killer(run):
    connection = run.connect()
    while not run.stop.is_set():
        time.sleep(run.options.kill)
        with run.lock:
            pid = random.choice(list(run.backends.values()) or [0])
        is_at_work = "select 1 from pg_stat_activity where pid = $1 and state = 'active'"
        if connection.execute(is_at_work, [pid]).fetchone():
            connection.execute("select pg_terminate_backend($1)", [pid])
            run.count("killed")


def start(run):
    """Starts all: the threads that end with `stop`, and those that end with `drained`."""
    options = run.options
    lasting = run.start(sweeper) + run.start(claimer, options.claimers)
    passing = run.start(accepter, options.accepters) + run.start(ingester, options.ingesters)
    passing += run.start(operator, options.operators) + run.start(outsider)
    if run.ordered:
        passing += run.start(repeater) + run.start(racer)
    passing += cloud.start(run)
    passing += run.start(killer, int(options.kill > 0)) + run.start(pacer, int(options.pause > 0))
    return passing, lasting
