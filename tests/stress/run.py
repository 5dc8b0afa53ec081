"""One run: its options and statements, its connections, and all that its actors know of each other."""
import collections
import threading
import time
import traceback

import psycopg

from .breaks import BREAKS

SCHEMA = "gateway_stress"


class Run:
    """What all threads share. `lock` guards everything below it."""

    def __init__(self, options, sql, settings):
        self.options, self.sql, self.settings = options, sql, settings
        self.ordered = options.order == "conversation"
        self.per_second = options.per_second or None
        self.expected = set(BREAKS[options.broken].noticed_by) if options.broken else set()
        self.began = time.time()
        # Nothing new begins; and: nothing is left to be done. And: what is broken was noticed.
        self.stop, self.drained, self.noticed = threading.Event(), threading.Event(), threading.Event()
        self.spare = [(Connections(self), threading.Lock()) for _ in range(6)]

        self.lock = threading.RLock()
        self.noticed_after = None
        self.counts, self.errors = collections.Counter(), collections.Counter()
        self.violations, self.examples = collections.Counter(), {}
        self.backends = {}
        self.last_sweep = (0.0, 0.0)
        self.leases = {}            # message: [token, end, settling]
        self.conversation_of = {}   # message: its conversation
        self.parked = []            # messages that were parked once
        self.recent = collections.deque(maxlen=150)    # messages accepted of late: leased, blocked, due or waiting
        self.recent_conversations = collections.deque(maxlen=150)
        self.pauses = []            # (channel, when that was known, until)
        self.accepted_by_provider = set()
        self.settled_as_sent = collections.Counter()
        self.new_messages = collections.Counter()    # message: how many were told that they made it
        self.new_events = collections.Counter()
        self.message_of_key, self.receipt_of_event = {}, {}
        # WhatsApp's:
        self.wamids = []            # (the id that the provider has given, the message), in the order of acceptance
        self.told = {}              # by that id: what statuses have told
        self.doubles = collections.Counter()         # (message, its second id): how often that was reported
        self.new_items = collections.Counter()       # message that came in: how many were told that it is new
        self.said = {}              # event: (what it says about another message, by whose conversation)
        self.items = collections.deque(maxlen=80)    # what came in of late, or comes yet
        self.named = collections.deque(maxlen=80)    # (id, person, whether they wrote it): what more is said about
        self.forgotten = set()      # conversations
        self.requeued_carelessly = set()    # messages that an operator has made due although they may have arrived

    def age(self):
        """In seconds."""
        return time.time() - self.began

    def bad(self, promise, example):
        """A promise is broken."""
        with self.lock:
            self.violations[promise] += 1
            self.examples.setdefault(promise, str(example)[-500:])
            if promise in self.expected and self.noticed_after is None:
                self.noticed_after = round(self.age(), 2)
                self.noticed.set()

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def connect(self, settings=()):
        # Much longer than the program's lock_timeout: a deadlock is to be seen as one.
        of_the_run = {
            "search_path": SCHEMA, "deadlock_timeout": "200ms", "lock_timeout": "5s", "client_min_messages": "warning"}
        options = " ".join(f"-c{name}={value}" for name, value in [*of_the_run.items(), *settings])
        return psycopg.connect(
            self.options.url, autocommit=True, prepare_threshold=1, cursor_factory=psycopg.RawCursor, options=options)

    def guarded(self, work):
        try:
            work()
        except Exception:
            self.bad("exception", traceback.format_exc())

    def start(self, actor, n=1):
        threads = [threading.Thread(target=self.guarded, args=(lambda: actor(self),), daemon=True) for _ in range(n)]
        for thread in threads:
            thread.start()
        return threads

    def beside(self, work):
        """Runs work(connections) beside the caller, where spare ones are free; what it returns waits
        for that. For a batch that is sent again while the first is still under way."""
        for connections, busy in self.spare:
            if busy.acquire(blocking=False):
                def keep(connections=connections, busy=busy):
                    try:
                        work(connections)
                    finally:
                        busy.release()
                thread = threading.Thread(target=self.guarded, args=(keep,))
                thread.start()
                return thread.join
        return lambda: None


class Link:
    """A connection that is opened again when it is lost. A batch is then repeated, as the program does."""

    def __init__(self, run, settings):
        self.owner, self.settings, self.connection = run, settings, None

    def run(self, name, *parameters, repeat=True):
        owner = self.owner
        for _ in range(60):
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = owner.connect(self.settings)
                    with owner.lock:
                        owner.backends[self] = self.connection.info.backend_pid
                cursor = self.connection.execute(owner.sql[name], parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.errors.ForeignKeyViolation:
                if name != "message::enqueue":
                    raise
                owner.count("accept_lost_race")
            except psycopg.OperationalError as error:
                with owner.lock:
                    owner.errors[f"{name} {error.sqlstate}"] += 1
                if error.sqlstate == "40P01":
                    owner.bad("deadlock", f"{name}: {error.diag.message_detail}")
                    continue
                if error.sqlstate not in ("57P01", None):
                    raise
                self.connection = None
                if not repeat:
                    return []
        raise RuntimeError(f"{name} does not come through")


class Connections:
    """A link for each batch, and one for all else, each with the settings that the program gives it."""

    def __init__(self, run):
        self.ingest, self.accept, self.settle, self.receipts, self.reads = (
            Link(run, run.settings[kind]) for kind in ("ingest", "accept", "settle", "receipts", "reads"))
