"""What must be true: at any moment, at the end, and at each change of a delivery (by triggers)."""
import time

from . import told
from .run import SCHEMA
from .statements import state
from .values import PREVIEW_LENGTH, chance, columns

# What mark_read read; by when each may go at the latest; and what a lease must never go through,
# seen at the moment of the change itself.
AUDIT = """
create table reads (conversation_id uuid, n int);
create function note_read() returns trigger language plpgsql as $$ begin
  insert into {schema}.reads values (old.id, old.unread_count - new.unread_count); return null; end $$;
create trigger note_read after update on conversations for each row
  when (new.last_read_at is distinct from old.last_read_at) execute function note_read();

create table leases (message_id uuid, channel text, at timestamptz);
create function note_lease() returns trigger language plpgsql as $$ begin
  insert into {schema}.leases values (new.message_id, new.channel, now()); return null; end $$;
create trigger note_first_lease after insert on deliveries for each row
  when (new.lease_token is not null) execute function note_lease();
create trigger note_lease after update on deliveries for each row
  when (new.lease_token is not null and new.lease_token is distinct from old.lease_token) execute function note_lease();

create table places (message_id uuid, seq bigint, deadline timestamptz, primary key (message_id, seq));
create table broken (rule text, message_id uuid);
create function note_delivery() returns trigger language plpgsql as $$
declare held boolean := tg_op = 'UPDATE' and old.lease_token is not null and old.due_at > now();
begin
  if tg_op = 'INSERT' or new.seq <> old.seq then
    insert into {schema}.places values (new.message_id, new.seq, now() + make_interval(secs => {max_wait}));
  end if;
  if tg_op = 'UPDATE' then
    insert into {schema}.broken select rule, new.message_id from (values
      ('leased_twice', held and new.lease_token <> old.lease_token),
      ('canceled_in_flight', held and new.due_at is null and new.failures = old.failures and new.attempt = old.attempt),
      ('requeued_in_flight', held and new.attempt = 0),
      ('leased_while_parked', old.due_at is null and new.lease_token is not null)) as t(rule, broken) where broken;
  end if;
  return null;
end $$;
create trigger note_delivery after insert or update on deliveries for each row execute function note_delivery();
"""

# True at any moment: each lists what it is not true of.
INVARIANTS = {
    "sent_and_queued": """select m.id from messages m left join deliveries d on d.message_id = m.id
        where m.direction = 'OUTBOUND' and (m.status = 'SENT') = (d.message_id is not null) and not (m.status = 'FAILED' and
          exists (select from forgotten f where f.conversation_id = m.conversation_id))""",
    "parked_not_failed": """select m.id from messages m join deliveries d on d.message_id = m.id
        where d.due_at is null and m.status <> 'FAILED'""",
    "next_attempt": """select m.id, m.status, m.next_attempt_at, d.due_at
        from messages m left join deliveries d on d.message_id = m.id
        where (m.status <> 'FAILED' or d.due_at is null) <> (m.next_attempt_at is null)
           or d.due_at is not null and d.lease_token is null and d.attempt > 0 and m.next_attempt_at <> d.due_at""",
    "canceled_not_failed": "select id from messages where error_kind = 'canceled' and status not in ('FAILED', 'SENT')",
    "sender": """select m.id from messages m join deliveries d on d.message_id = m.id
        where d.sent_by is distinct from m.sent_by""",
    "same_place": """select conversation_id, seq from deliveries where due_at is not null
        group by 1, 2 having count(*) > 1""",
    "orphan": """select m.id from messages m where not exists (select from conversations c
        where c.id = m.conversation_id and c.channel = m.channel and c.participant_id = m.participant_id)""",
    "empty_conversation": """select id from conversations c
        where not exists (select from messages m where m.conversation_id = c.id)""",
    "unread": """select c.id, c.unread_count, r.n, m.n from conversations c,
        lateral (select coalesce(sum(n), 0) as n from reads r where r.conversation_id = c.id) r,
        lateral (select count(*) as n from messages m where m.conversation_id = c.id and direction = 'INBOUND') m
        where c.unread_count + r.n <> m.n or c.inbound_count <> m.n""",
    "event_without_body": """select event_id from (select * from webhook_events where message_id is not null) e
        full join webhook_bodies b on b.message_id = e.message_id and b.received_at = e.received_at
        where (e.event_id is null or b.message_id is null or e.body is not null) and coalesce(e.message_id, b.message_id) not in (
          select m.id from messages m join forgotten f on f.conversation_id = m.conversation_id)""",
    "event_without_message": """select event_id from (select * from webhook_events where message_id is not null) e
        full join (select id from messages where direction = 'INBOUND' or origin is not null) m on m.id = e.message_id
        where e.event_id is null or m.id is null""",
    "preview": f"""select c.id from conversations c,
        lateral (select * from messages m where m.conversation_id = c.id order by sort_at desc, id desc limit 1) m
        where (c.last_message_at, c.last_message_id, c.last_message_preview)
          is distinct from (m.sort_at, m.id, left(m.text, {PREVIEW_LENGTH}))
          and not exists (select from forgotten f where f.conversation_id = c.id and not f.is_done)""",
    **told.INVARIANTS,
}

# Statements of the checks, beside those of the program.
BLOCKED = state("blocked").replace("now()", "clock_timestamp()")
IN_FRONT = """exists (select from deliveries b
    where b.conversation_id = d.conversation_id and b.seq < d.seq and b.due_at is not null)"""
# Nobody writes to its participant, or did a moment ago, before the last sweep.
LEFT_ALONE = """exists (select from conversations c
    where c.id = d.conversation_id and c.paused_until > clock_timestamp() - interval '1 second')"""
STATEMENTS = {
    "test::blocked": f"select message_id, seq from deliveries d where {BLOCKED} and not {LEFT_ALONE}",
    "test::blocked_heads": f"select message_id, seq from deliveries d where {BLOCKED} and not {IN_FRONT} and not {LEFT_ALONE}",
    "test::overtakers": f"""select d.message_id from deliveries d
        join places p on p.message_id = d.message_id and p.seq = d.seq
        where d.message_id = any($1::uuid[]) and d.lease_token = any($2::uuid[])
          and p.deadline > clock_timestamp() and {IN_FRONT}""",
    **told.STATEMENTS,
}
# From when a pause was known.
LEASED_WHILE_PAUSED = """select l.channel, l.at, p.known
    from unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) as p(channel, known, until)
    join leases l on l.channel = p.channel and l.at > p.known and l.at < p.until
    where not exists (select from lifts f where f.channel = p.channel and f.paused_until >= p.until)"""
MOST_IN_A_SECOND = """select * from (
    select channel, at, (select count(*) from leases b
      where b.channel = a.channel and b.at >= a.at and b.at < a.at + interval '1 second') as n
    from leases a) counted where n > $1"""


def audit(options):
    return (AUDIT + told.AUDIT).format(schema=SCHEMA, max_wait=options.max_wait)


def watcher(run):
    """The invariants while all goes on, and that no head stays blocked through a whole sweep."""
    connection = run.connect()
    first_seen = {}
    while not run.drained.wait(0.1):
        before = time.time()
        swept = run.last_sweep
        heads = connection.execute(run.sql["test::blocked_heads" if run.ordered else "test::blocked"]).fetchall()
        after = time.time()
        first_seen = {head: first_seen.get(head, after) for head in heads}
        for head, at in first_seen.items():
            if not run.ordered:
                run.bad("blocked_without_order", head)
            elif at <= swept[0] and swept[1] <= before:
                run.bad("head_left_blocked", head)
        for rule, message_id in connection.execute("select rule, message_id from broken limit 1").fetchall():
            run.bad(rule, message_id)
        if chance(0.2):
            check_invariants(run, connection)


def each(run, connection, promise, sql, *parameters):
    """Each row that it finds breaks the promise."""
    for row in connection.execute(sql, parameters).fetchall():
        run.bad(promise, row)


def check_invariants(run, connection):
    for promise, sql in INVARIANTS.items():
        each(run, connection, promise, sql)
    with run.lock:
        pauses = columns(run.pauses) or [[], [], []]
    each(run, connection, "leased_while_paused", LEASED_WHILE_PAUSED, *pauses)
    if run.per_second:
        each(run, connection, "pace", MOST_IN_A_SECOND, run.per_second)


def check_end(run):
    connection = run.connect()

    def every(*what):
        each(run, connection, *what)

    check_invariants(run, connection)
    for promise, message_id in connection.execute("select rule, message_id from broken").fetchall():
        run.bad(promise, message_id)
    every("stuck", "select message_id from deliveries where due_at is not null")
    missing = "select i from unnest($1::uuid[]) i where not exists (select from messages where id = i)"
    every("acknowledged_message_lost", missing, list(run.new_messages))
    every("acknowledged_event_lost", missing, [ids[0] for ids in run.receipt_of_event.values()])
    not_sent = """select id from messages m where id = any($1::uuid[]) and status <> 'SENT'
        and not exists (select from forgotten f where f.conversation_id = m.conversation_id)"""
    every("acceptance_lost", not_sent, list(run.accepted_by_provider))
    told.check_end(run, connection, every)
    for message_id, n in run.settled_as_sent.items():
        if n > 1:
            run.bad("sent_twice", message_id)
    for message_id in run.message_of_key.values():
        if run.new_messages[message_id] != 1:
            run.bad("message_not_new_once", (message_id, run.new_messages[message_id]))
    for event_id in run.receipt_of_event:
        if run.new_events[event_id] != 1:
            run.bad("event_not_new_once", (event_id, run.new_events[event_id]))
    sizes = "select (select count(*) from conversations), (select count(*) from messages)"
    run.counts["conversations"], run.counts["messages"] = connection.execute(sizes).fetchone()
    if not run.counts["sweeps"]:
        run.bad("no_sweep_ended", "")
