"""Runs the statements of the queue, as they ship, against each other: many connections, random batches, racing repetitions,
lost answers, killed backends, crashes before a settlement or a release, holders slower than their leases. Then it recounts.

    python3 -m venv v && v/bin/pip install 'psycopg[binary]>=3.2'
    v/bin/python tests/stress.py postgres://… [--seconds N] [--seed N] [--order none|conversation] [--break NAME]
    v/bin/python tests/stress.py --list-breaks

Statements come from src/**/store.rs, by the comment on their first line, tables from migrations/. It makes a schema
`gateway_stress` in that database and drops it, unless a promise was broken. Prints one line of JSON; exit 0 when every
promise held, 1 when one was broken, 2 for a mistake on the command line. `--break` takes one rule away, and the run must
then end with 1; it brings the other options that the rule needs.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import sys
import threading
import time
import traceback
import uuid
from datetime import datetime, timezone

import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCHEMA = "gateway_stress"
PROVIDER = "mock-meta"
NEWEST_PAIR = "(excluded.last_message_at, excluded.last_message_id) > (c.last_message_at, c.last_message_id)"
CALM = {"crash": 0.0, "kill": 0.0}

# What each rule is for: the statement, its text, what replaces it, and options that make the loss of it likely to show.
BREAKS = {
    "no_release": ("delivery::release", "d.attempt = 0 and d.lease_token is null and d.due_at > now()", "false", CALM),
    "no_release_place": ("delivery::release", "join head using (message_id, seq)", "join head using (message_id)", CALM),
    "no_sweep": ("delivery::list_unreleased", "limit $1", "limit 0 * $1", {"crash": 0.1}),
    "no_claim_lock": ("delivery::claim", " for update skip locked", "", CALM),
    "no_claim_only_lock": ("delivery::claim_only", " for update skip locked", "", CALM),
    "no_seq": ("message::accept", "or c.outbound_seq - a.n <> f.seen", "", CALM),
    "no_pair": ("message::accept", NEWEST_PAIR, "true", CALM),
    "no_foreign_key": ("migrations", "alter constraint messages_conversation_id_fkey deferrable initially deferred", "drop constraint messages_conversation_id_fkey", CALM),
    "no_requeue_guard": ("delivery::requeue", "d.lease_token is null or d.due_at <= now() and", "d.lease_token is null or", CALM),
    "no_requeue_order": ("delivery::requeue", "seq = case when p.parked then p.seq else d.seq end", "seq = d.seq", CALM),
    "no_cancel_guard": ("delivery::cancel", " and (lease_token is null or due_at <= now())", "", CALM),
    "no_sort_events": ("webhook::ingest", "from first order by event_id", "from first order by random()", CALM),
    "no_fresh_body": ("webhook::ingest", "select message_id, body from fresh\n", "select message_id, body from first\n", CALM),
    "no_sort_messages": ("message::accept", "from place order by channel, client_message_id, id", "from place order by random()", CALM),
    "no_fence": ("delivery::reschedule", " and i.lease_token = d.lease_token", "", {"zombie": 0.2, "lease": 0.3}),
    "no_share": ("delivery::claim", "where nth <= $7", "", CALM),
    "no_pause": ("delivery::claim", " and c.paused_until <= now()", "", CALM),
    "no_pause_of_accept": ("message::accept", "$12::bool or ramp_until > now() as spread", "$12::bool as spread", CALM),
    "no_pace_lock": ("delivery::claim", " for update of c\n", "\n", {**CALM, "per_second": 150}),
    "no_sort_channels": ("delivery::claim_only", "order by c.channel for update of c", "order by random() for update of c", {**CALM, "per_second": 150}),
    "no_sent_by": ("message::accept", "client_message_id, sent_by, sort_at", "client_message_id, null, sort_at", CALM),
    "no_trace": ("message::accept", "then 0 else 1 end, traceparent", "then 0 else 1 end, null", CALM),
    # A rule of the program around the statement: whoever finds its own id among the known ones made it.
    "no_known_own": (None, "", "", {}),
}


def options():
    ap = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    a = ap.add_argument
    a("url", nargs="?", metavar="DATABASE_URL")
    a("--seconds", type=float, default=8)
    a("--seed", type=int, default=1)
    a("--order", choices=["none", "conversation"], default="conversation")
    a("--break", dest="broken", choices=BREAKS, metavar="NAME", help="take this rule away")
    a("--list-breaks", action="store_true")
    a("--lease", type=float, default=0.4, help="seconds")
    a("--max-wait", type=float, default=6.0, help="seconds that one waits behind another at the most")
    a("--sweep", type=float, default=0.3, help="seconds between sweeps")
    a("--fail", type=float, default=0.3, help="share of attempts that fail")
    a("--crash", type=float, default=0.03, help="share of steps that a crash keeps from being taken")
    a("--kill", type=float, default=0.05, help="seconds between killed backends; 0: none")
    a("--zombie", type=float, default=0.02, help="share of attempts slower than their lease")
    a("--no-permit", type=float, default=0.2, help="share of messages accepted without a lease")
    a("--pause", type=float, default=0.7, help="seconds between pauses of a channel; 0: none")
    a("--per-second", type=float, default=0, help="calls of a channel in a second at most; 0: no limit")
    a("--new", type=float, default=0.05, help="share of messages with a participant nobody knows yet")
    a("--conversations", type=int, default=120)
    a("--accepters", type=int, default=5)
    a("--claimers", type=int, default=4)
    a("--ingesters", type=int, default=3)
    a("--operators", type=int, default=3)
    first, _ = ap.parse_known_args()
    if first.list_breaks:
        print("\n".join(BREAKS))
        sys.exit(0)
    if first.broken:
        ap.set_defaults(**BREAKS[first.broken][3])
    parsed = ap.parse_args()
    if not parsed.url:
        ap.error("DATABASE_URL is missing")
    return parsed


def shipped_statements():
    """Each statement by its name. The macros that complete a CTE with a select list are read from where they are defined."""
    found = {}
    for path in sorted(ROOT.glob("src/**/store.rs")):
        text = path.read_text()
        for name, sql in re.findall(r'r#"-- (\w+::\w+)\n(.*?)"#', text, re.S):
            found[name] = sql
        for macro, definition in re.findall(r'macro_rules! (\w+) \{(.*?)\n\}\n', text, re.S):
            first, *second = re.findall(r'r#"(.*?)"#', definition, re.S)
            for name, head, completion in re.findall(macro + r'!\(\s*r#"-- (\w+::\w+)\n?(.*?)"#,\s*"(.*?)"', text, re.S):
                found[name] = head + first + completion + "".join(second)
    found["migrations"] = "\n".join(p.read_text() for p in sorted(ROOT.glob("migrations/*.sql")))
    return found


def writer_settings():
    """The settings that shape the plans of the program's writers."""
    block = re.search(r"const BATCHES: .*?\];", (ROOT / "src/database/plans.rs").read_text(), re.S)
    return [f"{name}={value}" for name, value in re.findall(r'\("(\w+)", "(\w+)"\)', block.group())]


A = options()
random.seed(A.seed)
ORDERED = A.order == "conversation"
PER_SECOND = A.per_second or None
SQL = shipped_statements()
WRITER_SETTINGS = writer_settings()
if A.broken and BREAKS[A.broken][0]:
    NAME, RULE, WITHOUT, _ = BREAKS[A.broken]
    if RULE not in SQL[NAME]:
        print(f"{NAME} has no {RULE!r}: bring BREAKS up to date", file=sys.stderr)
        sys.exit(2)
    SQL[NAME] = SQL[NAME].replace(RULE, WITHOUT)

# Of this test only. What mark_read read; by when each may go at the latest; and what a lease must never go through,
# seen at the moment of the change itself.
AUDIT = f"""
create table reads (conversation_id uuid, n int);
create function note_read() returns trigger language plpgsql as $$ begin
  insert into {SCHEMA}.reads values (old.id, old.unread_count); return null; end $$;
create trigger note_read after update on conversations for each row
  when (new.last_read_at is distinct from old.last_read_at) execute function note_read();

create table leases (message_id uuid, channel text, at timestamptz);
create function note_lease() returns trigger language plpgsql as $$ begin
  insert into {SCHEMA}.leases values (new.message_id, new.channel, now()); return null; end $$;
create trigger note_first_lease after insert on deliveries for each row when (new.lease_token is not null) execute function note_lease();
create trigger note_lease after update on deliveries for each row
  when (new.lease_token is not null and new.lease_token is distinct from old.lease_token) execute function note_lease();

create table places (message_id uuid, seq bigint, deadline timestamptz, primary key (message_id, seq));
create table broken (rule text, message_id uuid);
create function note_delivery() returns trigger language plpgsql as $$
declare held boolean := tg_op = 'UPDATE' and old.lease_token is not null and old.due_at > now();
begin
  if tg_op = 'INSERT' or new.seq <> old.seq then
    insert into {SCHEMA}.places values (new.message_id, new.seq, now() + make_interval(secs => {A.max_wait}));
  end if;
  if tg_op = 'UPDATE' then
    insert into {SCHEMA}.broken select rule, new.message_id from (values
      ('leased_twice', held and new.lease_token <> old.lease_token),
      ('canceled_in_flight', held and new.due_at is null and new.failures = old.failures),
      ('requeued_in_flight', held and new.attempt = 0),
      ('leased_while_parked', old.due_at is null and new.lease_token is not null)) as t(rule, broken) where broken;
  end if;
  return null;
end $$;
create trigger note_delivery after insert or update on deliveries for each row execute function note_delivery();
"""

# True at any moment.
INVARIANTS = {
    "sent_and_queued": "select m.id from messages m left join deliveries d on d.message_id = m.id where m.direction = 'OUTBOUND' and (m.status = 'SENT') = (d.message_id is not null)",
    "parked_not_failed": "select m.id from messages m join deliveries d on d.message_id = m.id where d.due_at is null and m.status <> 'FAILED'",
    "next_attempt": """select m.id, m.status, m.next_attempt_at, d.due_at from messages m left join deliveries d on d.message_id = m.id
        where (m.status <> 'FAILED' or d.due_at is null) <> (m.next_attempt_at is null)
           or d.due_at is not null and d.lease_token is null and d.attempt > 0 and m.next_attempt_at <> d.due_at""",
    "canceled_not_failed": "select id from messages where error_kind = 'canceled' and status not in ('FAILED', 'SENT')",
    "sender": "select m.id from messages m join deliveries d on d.message_id = m.id where d.sent_by is distinct from m.sent_by",
    "same_place": "select conversation_id, seq from deliveries where due_at is not null group by 1, 2 having count(*) > 1",
    "orphan": "select m.id from messages m where not exists (select from conversations c where c.id = m.conversation_id and c.channel = m.channel and c.participant_id = m.participant_id)",
    "empty_conversation": "select id from conversations c where not exists (select from messages m where m.conversation_id = c.id)",
    "unread": """select c.id, c.unread_count, r.n, m.n from conversations c,
        lateral (select coalesce(sum(n), 0) as n from reads r where r.conversation_id = c.id) r,
        lateral (select count(*) as n from messages m where m.conversation_id = c.id and direction = 'INBOUND') m where c.unread_count + r.n <> m.n""",
    "event_without_body": "select event_id from webhook_events e full join webhook_bodies b on b.message_id = e.message_id and b.received_at = e.received_at where e.event_id is null or b.message_id is null or e.body is not null",
    "event_without_message": "select event_id from webhook_events e full join (select id from messages where direction = 'INBOUND') m on m.id = e.message_id where e.event_id is null or m.id is null",
    "preview": """select c.id from conversations c, lateral (select * from messages m where m.conversation_id = c.id order by sort_at desc, id desc limit 1) m
        where (c.last_message_at, c.last_message_id, c.last_message_preview) is distinct from (m.sort_at, m.id, left(m.text, 200))""",
}
BLOCKED = "attempt = 0 and lease_token is null and due_at > clock_timestamp()"
SQL["test::blocked_heads"] = f"""select message_id, seq from deliveries d where {BLOCKED}
    and not exists (select from deliveries b where b.conversation_id = d.conversation_id and b.seq < d.seq and b.due_at is not null)"""
SQL["test::blocked"] = f"select message_id, seq from deliveries where {BLOCKED}"
SQL["test::overtakers"] = """select d.message_id from deliveries d join places p on p.message_id = d.message_id and p.seq = d.seq
    where d.message_id = any($1::uuid[]) and d.lease_token = any($2::uuid[]) and p.deadline > clock_timestamp()
      and exists (select from deliveries b where b.conversation_id = d.conversation_id and b.seq < d.seq and b.due_at is not null)"""

stop, drained = threading.Event(), threading.Event()
mutex = threading.Lock()
T0 = time.time()
counts, errors, violations = collections.Counter(), collections.Counter(), collections.Counter()
examples = {}
leases = {}             # message: [token, end, settling]
parked = []             # messages that were parked once
recent = collections.deque(maxlen=150)  # messages accepted of late: leased, blocked, due or waiting
recent_conversations = collections.deque(maxlen=150)
pauses = []             # (channel, when that was known, until)
accepted_by_provider = set()
settled_as_sent = collections.Counter()
new_messages = collections.Counter()    # message: how many were told that they made it
message_of_key, receipt_of_event = {}, {}
new_events = collections.Counter()
backends = {}
last_sweep = (0.0, 0.0)


def bad(rule, example):
    with mutex:
        violations[rule] += 1
        examples.setdefault(rule, str(example)[-500:])


def count(what, n=1):
    with mutex:
        counts[what] += n


def chance(share):
    return random.random() < share


def columns(rows):
    return [list(column) for column in zip(*rows)]


def traceparent(mid):
    """That of a message: every other one has been accepted in a trace."""
    return f"00-{mid.hex}-{mid.hex[:16]}-01" if mid.int % 2 else None


def sent_by(mid):
    """The name of the key that sends it, where it has one."""
    return f"key-{mid.int % 3}" if mid.int % 3 else None


def new_id():
    """A UUIDv7."""
    return uuid.UUID(int=(int(time.time() * 1000) << 80) | (7 << 76) | (random.getrandbits(12) << 64) | (2 << 62) | random.getrandbits(62))


def connect(*settings):
    # Much longer than the program's lock_timeout: a deadlock is to be seen as one.
    settings = (f"search_path={SCHEMA}", "deadlock_timeout=200ms", "lock_timeout=5s", "client_min_messages=warning", *settings)
    return psycopg.connect(A.url, autocommit=True, prepare_threshold=1, cursor_factory=psycopg.RawCursor, options=" ".join(f"-c{s}" for s in settings))


class Link:
    """A connection that is opened again when it is lost. A writer's statement is then repeated, as the program does."""

    def __init__(self, *settings):
        self.settings, self.connection = settings, None

    def run(self, name, *parameters, repeat=True):
        for _ in range(60):
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = connect(*self.settings)
                    with mutex:
                        backends[self] = self.connection.info.backend_pid
                return self.connection.execute(SQL[name], parameters).fetchall()
            except psycopg.errors.ForeignKeyViolation:
                if name != "message::accept":
                    raise
                count("accept_lost_race")
            except psycopg.OperationalError as error:
                with mutex:
                    errors[f"{name} {error.sqlstate}"] += 1
                if error.sqlstate == "40P01":
                    bad("deadlock", f"{name}: {error.diag.message_detail}")
                    continue
                if error.sqlstate not in ("57P01", None):
                    raise
                self.connection = None
                if not repeat:
                    return []
        raise RuntimeError(f"{name} does not come through")


def writer():
    return Link(*WRITER_SETTINGS)


def pool():
    return Link()


# Writers beside the threads' own: for a batch that is sent again while the first is still under way.
spare_writers = [(writer(), threading.Lock()) for _ in range(6)]


def guarded(work):
    try:
        work()
    except Exception:
        bad("exception", traceback.format_exc())


def beside(work):
    """Runs work(writer) beside the caller, where a spare writer is free."""
    for link, busy in spare_writers:
        if busy.acquire(False):
            def run(link=link, busy=busy):
                try:
                    work(link)
                finally:
                    busy.release()
            thread = threading.Thread(target=guarded, args=(run,))
            thread.start()
            return thread.join
    return lambda: None


# Deliveries


def release(link, conversation_ids, crash):
    if not ORDERED or not conversation_ids:
        return
    if chance(crash):
        return count("crash_before_release")
    count("released", len(link.run("delivery::release", list(conversation_ids))))


def finish(link, accepted, crash=A.crash):
    with mutex:
        accepted_by_provider.update(mid for mid, _ in accepted)
    rows = link.run("delivery::finish", *columns(accepted))
    count("sent", len(rows))
    count("sent_before", len(accepted) - len(rows))
    with mutex:
        settled_as_sent.update(row[0] for row in rows)
    release(link, [row[1] for row in rows], crash)
    return rows


def reschedule(link, failed, lost):
    rows = link.run("delivery::reschedule", *columns(failed))
    count("failed", len(rows))
    count("failure_refused", len(failed) - len(rows))
    for mid, _, _, next_attempt_at, _ in rows:
        if mid in lost:
            bad("lost_lease_settled", mid)
        if next_attempt_at is None:
            count("parked")
            with mutex:
                parked.append(mid)
    release(link, [row[1] for row in rows if row[3] is None], A.crash)


def attempt(link, reader, held):
    """Attempts at (message, token, failures), all leased at one time, and their settlement."""
    if ORDERED:
        for mid, in reader.run("test::overtakers", [h[0] for h in held], [h[1] for h in held]):
            bad("order", mid)
    if chance(0.5):
        time.sleep(random.random() * 0.01)
    if chance(A.zombie):
        count("slower_than_lease")
        time.sleep(A.lease * random.uniform(1.1, 2.1))
    if chance(A.crash):
        return count("crash_before_settle")
    accepted, failed, lost = [], [], set()
    for mid, token, failures in held:
        if chance(1 - A.fail):
            accepted.append((mid, f"provider-{mid}"))
        else:
            final = chance(0.15) or failures >= 4
            failed.append((mid, token, None if final else random.randint(0, 80) / 1000, "rate_limited", 429, "detail", not final, False))
    random.shuffle(accepted)
    random.shuffle(failed)
    with mutex:
        for mid, token, _ in held:
            if leases[mid][0] != token:
                lost.add(mid)
            else:
                leases[mid][2] = True
    if accepted:
        joined = lambda: None
        if len(accepted) > 1 and chance(0.15):    # the connection was lost, the backend is still at it, the batch is sent again
            again = random.sample(accepted, len(accepted))
            joined = beside(lambda other: finish(other, again))
        finish(link, accepted)
        joined()
        if chance(0.1):
            finish(link, accepted)
    if failed:
        reschedule(link, failed, lost)


def take(mid, token, before, after):
    with mutex:
        other = leases.get(mid)
        twice = other and not other[2] and after < other[1]
        leases[mid] = [token, before + A.lease, False]
    if twice:
        bad("two_leases", mid)


def claim(reader, link, ids=None):
    token, before = new_id(), time.time()
    limit = random.choice([1, 3, 10, 30])
    if ids is None:
        share = random.choice([1, 2, 1000])
        with mutex:    # of this claimer nothing is in flight: a claim ends with the settlement
            full = random.sample(recent_conversations, min(3, len(recent_conversations)))
        full = list(dict.fromkeys(full))
        held = [random.randint(0, 2) for _ in full]
        rows = reader.run("delivery::claim", limit, token, A.lease, PER_SECOND, full, held, share, repeat=False)
        had = dict(zip(full, held))
        for conversation_id, n in collections.Counter(row[7] for row in rows).items():
            if n + had.get(conversation_id, 0) > share:
                bad("more_than_its_share", (conversation_id, n, had.get(conversation_id, 0), share))
    else:
        rows = reader.run("delivery::claim_only", limit, token, A.lease, PER_SECOND, ids, repeat=False)
    after = time.time()
    for row in rows:
        take(row[0], token, before, after)
        if row[8] != traceparent(row[0]):
            bad("trace_lost", row)
    if rows:
        count("claimed" if ids is None else "claimed_only", len(rows))
        attempt(link, reader, [(row[0], token, row[6]) for row in rows])
    return len(rows)


def claimer():
    reader, link = pool(), writer()
    while not drained.is_set():
        ids = None
        if chance(0.15):
            with mutex:
                ids = random.sample(recent, min(40, len(recent)))
        if claim(reader, link, ids) == 0:
            time.sleep(0.005)


def some_messages():
    """Parked ones, any, and those just now in flight: these must stay as they are."""
    with mutex:
        ids = random.sample(parked, min(len(parked), random.randint(0, 6))) + random.sample(recent, min(20, len(recent)))
        ids += [mid for mid, lease in list(leases.items())[-20:] if not lease[2]]
    random.shuffle(ids)
    return list(dict.fromkeys(ids))


def cancel(reader, mid):
    rows = reader.run("delivery::cancel", mid, "canceled")
    if rows:
        count("canceled")
        with mutex:
            parked.append(mid)
        release(reader, [rows[0][0]], A.crash)
    return rows


def operator():
    reader, link = pool(), writer()
    while not stop.is_set():
        time.sleep(random.random() * 0.05)
        ids = some_messages()
        if not ids:
            continue
        if chance(0.5):
            ids = [mid for mid in ids[:8] if cancel(reader, mid)]
            if not ids or chance(0.5):
                continue
        rows = reader.run("delivery::requeue", ids + ids[:1], A.max_wait if ORDERED else 0.0)
        count("requeued", len(rows))
        release(reader, [row[1] for row in rows], A.crash)
        if chance(0.3):
            claim(reader, link, [row[0] for row in rows])


def outsider():
    """Somebody's open transaction: statements have to wait in their middle, and much happens meanwhile."""
    connection = connect()
    while not stop.is_set():
        with mutex:
            mid = random.choice(recent) if recent else None
        with connection.transaction():
            connection.execute("select from deliveries where message_id = $1 for update", [mid])
            time.sleep(random.random() * 0.05)


def repeater():
    """Repeating a release is harmless, at any time."""
    link = pool()
    while not stop.is_set():
        time.sleep(random.random() * 0.02)
        with mutex:
            conversation_ids = list(recent_conversations)
        if conversation_ids:
            count("released_again", len(link.run("delivery::release", conversation_ids)))


def pacer():
    """Channels are paused now and then. Whoever begins a statement afterwards must not lease anything."""
    link = writer()
    while not stop.is_set():
        time.sleep(random.uniform(0.5, 1.5) * A.pause)
        rows = link.run("pace::pause", [random.choice(["whatsapp", "instagram"])], [random.uniform(0.05, 0.3)])
        known = datetime.now(timezone.utc)
        with mutex:
            pauses.extend((channel, known, until) for channel, until in rows)
        count("pauses", len(rows))


def sweeper():
    global last_sweep
    link = pool()
    while not drained.is_set():
        began = time.time()
        conversation_ids = [row[0] for row in link.run("delivery::list_unreleased", 1000)]
        if conversation_ids:
            count("swept", len(link.run("delivery::release", conversation_ids)))
        last_sweep = (began, time.time())
        count("sweeps")
        drained.wait(A.sweep)


# Outbound


def participant():
    if chance(A.new):
        return f"new-{random.getrandbits(2)}-{int((time.time() - T0) * 20)}"
    return f"user-{int(random.paretovariate(0.4)) % A.conversations}"


def channel_of(key):
    """A key is one on its channel only."""
    return random.Random(key).choice(["whatsapp", "instagram"]) if key else "whatsapp"


def requests(recent_keys):
    """(id, conversation if new, channel, participant, text, key, token)"""
    made = []
    for _ in range(random.choice([1, 1, 2, 4, 8, 16])):
        x = random.random()
        if x < 0.15:
            key = None
        elif x < 0.5:    # many race on these, each with a participant of its own
            key = f"hot-{int((time.time() - T0) * 10)}-{random.randrange(8)}"
        elif x < 0.6 and recent_keys:
            key = random.choice(recent_keys)
        else:
            key = f"key-{random.getrandbits(60)}"
            recent_keys.append(key)
        token = None if chance(A.no_permit) else new_id()
        made.append((new_id(), new_id(), channel_of(key), participant(), f"text {random.getrandbits(40)}", key, token))
    return made


def accept(link, batch, asked_at, answered=True):
    """Accepts a batch as the program does; the leases that it got. Not answered: nobody learns of the answer."""
    rows = {row[0]: row for row in link.run("message::accept", *columns(batch), A.lease, A.max_wait, ORDERED, [traceparent(r[0]) for r in batch], PER_SECOND is not None, [sent_by(r[0]) for r in batch])}
    token = new_id()
    claimable = [mid for mid, row in rows.items() if row[4]]
    claimed = {row[0] for row in link.run("delivery::claim_only", len(claimable), token, A.lease, PER_SECOND, claimable)} if claimable else set()
    count("claimed_when_accepted", len(claimed))
    waiting, leased, asked, answers = [], [], [], []    # the first two: (request, conversation)
    for request in batch:
        _, conversation_id, _, is_leased, _ = rows.get(request[0], (None,) * 5)
        if request[0] in claimed:
            request, is_leased = (*request[:6], token), True
        if conversation_id is None:
            asked.append(request)
            continue
        answers.append((request, request[0]))
        (leased if is_leased else waiting).append((request, conversation_id))
        if is_leased and request[6] is None or not (ORDERED or A.pause or PER_SECOND) and is_leased != (request[6] is not None):
            bad("leased_wrongly", request[0])
    if asked:
        ids, _, channels, _, _, keys, tokens = columns(asked)
        found = link.run("message::find_replayed", ids, channels, keys, tokens)
        records = {row[0]: row for row in link.run("message::list_by_id", [row[1] for row in found])}
        if len(found) != len(asked):
            bad("record_missing", (len(asked), found))
        for place, mid, is_leased in found:
            request, record = asked[place - 1], records[mid]
            if record[-1] != sent_by(mid):
                bad("sender_lost", mid)
            answers.append((request, mid))
            if mid != request[0]:
                count("replayed")
                if record[7] is None or record[7] != request[5]:
                    bad("replay_of_another_key", mid)
                continue
            count("answer_was_lost")
            if (record[3], record[5]) != (request[3], request[4]):
                bad("own_record_differs", mid)
            (leased if is_leased else waiting).append((request, record[1]))
    release(link, [conversation_id for _, conversation_id in waiting], A.crash)
    if not answered:
        return []
    with mutex:
        recent.extend(mid for _, mid in answers)
        recent_conversations.extend(conversation_id for _, conversation_id in waiting)
        for request, mid in answers:
            new_messages[mid] += mid == request[0]
            if request[5] and message_of_key.setdefault(request[5], mid) != mid:
                violations["key_has_two_messages"] += 1
        for request, _ in leased:
            # Whoever is there already has claimed it after the end of this lease.
            leases.setdefault(request[0], [request[6], asked_at + A.lease, False])
    count("accepted_waiting", len(waiting))
    return [(request[0], request[6], 0) for request, _ in leased]


def racer():
    """A release that waits for one head, while the other is parked and requeued: it is no head any more."""
    link, reader, outside = writer(), pool(), connect()
    while not stop.is_set():
        time.sleep(0.1)
        ids = sorted(new_id() for _ in range(5))
        stamp = f"race-{time.time()}"
        batch = [(mid, new_id(), "whatsapp", f"{stamp}-{name}", "text", None, new_id()) for mid, name in zip(ids, "aabbb")]
        asked_at = time.time()
        held = accept(link, batch, asked_at)
        if not held:    # the channel is paused
            continue
        conversation_ids = [row[1] for row in finish(link, [(mid, f"provider-{mid}") for mid, _, _ in held], crash=1.0)]
        with outside.transaction():
            outside.execute("select from deliveries where message_id = $1 for update", [ids[1]])
            joined = beside(lambda other: other.run("delivery::release", conversation_ids))
            time.sleep(0.03)
            reader.run("delivery::cancel", ids[3], "canceled")
            reader.run("delivery::requeue", [ids[3]], A.max_wait)
        joined()
        count("races")


def accepter():
    link, reader = writer(), pool()
    recent_keys = collections.deque(maxlen=50)
    while not stop.is_set():
        time.sleep(random.random() * 0.02)
        batch, asked_at = requests(recent_keys), time.time()
        joined = lambda: None
        if len(batch) > 3 and chance(0.3):    # the same keys at the same moment, in another order and to others; never sent
            rivals = [(new_id(), new_id(), r[2], participant(), r[4], r[5], new_id()) for r in random.sample(batch, len(batch)) if r[5]]
            if rivals:
                joined = beside(lambda other: accept(other, rivals, asked_at))
        if chance(0.05):
            accept(link, batch, asked_at, answered=False)
        held = accept(link, batch, asked_at)
        joined()
        if held and chance(A.crash):
            count("crash_after_accept")
        elif held:
            attempt(link, reader, held)


# Inbound


def events(recent):
    """(event, channel, participant, text, time, conversation if new, message, body); all but the ids follow from the event."""
    made = []
    for _ in range(random.choice([1, 2, 5, 20])):
        x = random.random()
        if x < 0.2 and recent:
            event_id = random.choice(recent)
        elif x < 0.5:
            event_id = f"hot-{int((time.time() - T0) * 10)}-{random.randrange(8)}"
        else:
            event_id = f"event-{random.getrandbits(60)}-{int((time.time() - T0) * 20)}"
        recent.append(event_id)
        of_event = random.Random(event_id)
        who = f"new-{of_event.getrandbits(2)}-{event_id.split('-')[-1]}" if of_event.random() < A.new else f"user-{of_event.randrange(A.conversations)}"
        at = datetime.fromtimestamp(int(T0) + of_event.randrange(-500, 1500), timezone.utc)
        made.append((event_id, "whatsapp", who, f"in {event_id}", at, new_id(), new_id(), b"{}"))
    return made


def ingest(link, batch, answered=True):
    fresh = dict(link.run("webhook::ingest", PROVIDER, *columns(batch)))
    asked = [event[0] for event in batch if event[6] not in fresh]
    known = {row[0]: row[1:] for row in link.run("webhook::find_known", PROVIDER, asked)} if asked else {}
    if not answered:
        return
    for event in batch:
        new, ids = True, (event[6], fresh.get(event[6]))
        if event[6] not in fresh:
            ids = known.get(event[0])
            if ids is None:
                bad("known_event_not_found", event[0])
                continue
            new = ids[0] == event[6] and A.broken != "no_known_own"
        count("events_new" if new else "events_known")
        with mutex:
            first = receipt_of_event.setdefault(event[0], ids)
            new_events[event[0]] += new
        if first != ids or new and ids[0] != event[6]:
            bad("event_has_two_receipts", event[0])


def ingester():
    link, reader = writer(), pool()
    recent = collections.deque(maxlen=60)
    while not stop.is_set():
        time.sleep(random.random() * 0.02)
        batch = events(recent)
        joined = lambda: None
        if len(batch) > 3 and chance(0.3):    # the provider delivers the same once more, at the same moment, in another order
            rivals = [e[:5] + (new_id(), new_id(), b"{}") for e in random.sample(batch, len(batch))]
            joined = beside(lambda other: ingest(other, rivals))
        if chance(0.05):
            ingest(link, batch, answered=False)
        ingest(link, batch)
        joined()
        with mutex:
            conversation_id = receipt_of_event[random.choice(batch)[0]][1]
        if chance(0.3):
            count("read", len(reader.run("conversation::mark_read", conversation_id, 0)))
        if chance(0.1):
            reader.run("conversation::set_status", conversation_id, random.choice(["open", "closed"]))
            reader.run("conversation::set_archived", conversation_id, chance(0.5))


# Watching


def killer():
    connection = connect()
    while not stop.is_set():
        time.sleep(A.kill)
        with mutex:
            pid = random.choice(list(backends.values()) or [0])
        if connection.execute("select 1 from pg_stat_activity where pid = $1 and state = 'active'", [pid]).fetchone():
            connection.execute("select pg_terminate_backend($1)", [pid])
            count("killed")


def watcher():
    """The invariants while all goes on, and that no head stays blocked through a whole sweep."""
    connection = connect()
    first_seen = {}
    while not drained.wait(0.1):
        before = time.time()
        swept = last_sweep
        heads = connection.execute(SQL["test::blocked_heads" if ORDERED else "test::blocked"]).fetchall()
        after = time.time()
        first_seen = {head: first_seen.get(head, after) for head in heads}
        for head, at in first_seen.items():
            if not ORDERED:
                bad("blocked_without_order", head)
            elif at <= swept[0] and swept[1] <= before:
                bad("head_left_blocked", head)
        if chance(0.2):
            check_invariants(connection)


def check_invariants(connection):
    for rule, sql in INVARIANTS.items():
        for row in connection.execute(sql).fetchall():
            bad(rule, row)


def check_end(connection):
    check_invariants(connection)
    query = lambda sql, *parameters: connection.execute(sql, parameters).fetchall()
    for rule, mid in query("select rule, message_id from broken"):
        bad(rule, mid)
    for row in query("select message_id from deliveries where due_at is not null"):
        bad("stuck", row)
    missing = "select i from unnest($1::uuid[]) i where not exists (select from messages where id = i)"
    for row in query(missing, list(new_messages)):
        bad("acknowledged_message_lost", row)
    for row in query(missing, [ids[0] for ids in receipt_of_event.values()]):
        bad("acknowledged_event_lost", row)
    for row in query("select id from messages where id = any($1::uuid[]) and status <> 'SENT'", list(accepted_by_provider)):
        bad("acceptance_lost", row)
    for channel, known, until in pauses:
        for row in query("select channel, at, $2::timestamptz from leases where channel = $1 and at > $2 and at < $3", channel, known, until):
            bad("leased_while_paused", row)
    if PER_SECOND:
        for row in query("""select * from (select channel, at, (select count(*) from leases b
              where b.channel = a.channel and b.at >= a.at and b.at < a.at + interval '1 second') as n from leases a) counted where n > $1""", PER_SECOND):
            bad("pace", row)
    for mid, n in settled_as_sent.items():
        if n > 1:
            bad("sent_twice", mid)
    for mid in message_of_key.values():
        if new_messages[mid] != 1:
            bad("message_not_new_once", (mid, new_messages[mid]))
    for event_id in receipt_of_event:
        if new_events[event_id] != 1:
            bad("event_not_new_once", (event_id, new_events[event_id]))
    counts["conversations"], counts["messages"] = query("select (select count(*) from conversations), (select count(*) from messages)")[0]
    if not counts["sweeps"]:
        bad("no_sweep_ended", "")


def main():
    admin = psycopg.connect(A.url, autocommit=True, prepare_threshold=None, options="-cclient_min_messages=warning")
    admin.execute(f"drop schema if exists {SCHEMA} cascade; create schema {SCHEMA}; set search_path = {SCHEMA}")
    admin.execute(SQL["migrations"])
    admin.execute(AUDIT)

    def start(work, n=1):
        threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for _ in range(n)]
        for thread in threads:
            thread.start()
        return threads

    lasting = start(sweeper) + start(watcher) + start(claimer, A.claimers)
    passing = start(accepter, A.accepters) + start(ingester, A.ingesters) + start(operator, A.operators) + start(outsider) + (start(repeater) + start(racer) if ORDERED else []) + start(killer, int(A.kill > 0)) + start(pacer, int(A.pause > 0))
    time.sleep(A.seconds)
    stop.set()
    for thread in passing:
        thread.join()
    end = time.time() + A.lease * 2 + A.max_wait + (80 if PER_SECOND else 20)
    while time.time() < end and admin.execute("select from deliveries where due_at is not null limit 1").fetchall():
        time.sleep(0.1)
    drained.set()
    for thread in lasting:
        thread.join()
    check_end(connect())
    if not violations:
        admin.execute(f"drop schema {SCHEMA} cascade")
    print(json.dumps({"seed": A.seed, "order": A.order, "broken": A.broken, "violations": violations, "examples": examples,
                      "errors": errors, "counts": dict(sorted(counts.items()))}))
    sys.exit(1 if violations else 0)


main()
