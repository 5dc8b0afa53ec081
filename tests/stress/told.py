"""What must be true of WhatsApp's messages: by triggers at each change, and by a recount at the end."""
import collections

from .customers import DELETED, STEPS

AUDIT = """
create function note_receipt() returns trigger language plpgsql as $$ begin
  insert into {schema}.broken select rule, coalesce(new.message_id, '00000000-0000-0000-0000-000000000000') from (values
    ('receipt_backwards', new.sent_at is distinct from least(new.sent_at, old.sent_at)
      or new.delivered_at is distinct from least(new.delivered_at, old.delivered_at)
      or new.read_at is distinct from least(new.read_at, old.read_at)
      or new.played_at is distinct from least(new.played_at, old.played_at)
      or old.failed_at is not null and new.failed_at is null or old.error_code is not null and new.error_code is null
      or old.received_at is distinct from new.received_at and old.received_at is not null
      or old.accepted_at is distinct from new.accepted_at and old.accepted_at is not null
      or new.revision < old.revision),
    ('bound_twice', old.message_id is not null and new.message_id is distinct from old.message_id)) as t(rule, broken) where broken;
  return null;
end $$;
create trigger note_receipt after update on receipts for each row execute function note_receipt();

create function note_reactions() returns trigger language plpgsql as $$ begin
  insert into {schema}.broken select 'reaction_lost', new.id from jsonb_each(old.reactions) r
    where coalesce(new.reactions -> r.key ->> 'at' < r.value ->> 'at', true); return null; end $$;
create trigger note_reactions after update on messages for each row
  when (old.reactions is not null and new.reactions is not null) execute function note_reactions();

create table forgotten (conversation_id uuid primary key, at timestamptz, is_done bool not null default false);
create table lifts (channel text, paused_until timestamptz);
create function note_lift() returns trigger language plpgsql as $$ begin
  insert into {schema}.lifts values (old.channel, old.paused_until); return null; end $$;
create trigger note_lift after update on channels for each row
  when (new.paused_until < old.paused_until) execute function note_lift();
"""

STATEMENTS = {
    "test::begin_forget": "insert into forgotten values ($1, $2)",
    "test::lock_message": """select from messages where id = any(array(
        select message_id from webhook_events where event_id = $1 and provider = 'whatsapp' and $2::text[] is not null
        union all select message_id from receipts where provider_message_id = $1)) order by id for update""",
    "test::hold_message": """select pg_sleep(0.02) from (select id from messages where id = (
        select message_id from webhook_events where event_id = $1 and provider = 'whatsapp') for update) held""",
    "test::lock_conversation": """select from conversations where channel = 'whatsapp' and participant_id = any($2::text[]) and $1::text <> ''
        order by participant_id for no key update""",
    "test::lock_amendments": """select from amendments where target_id = $1 and $2::text[] is not null
        order by target_id, kind, sender for update""",
    "test::lock_aliases": "select from aliases where alias = any($2::text[]) and $1::text <> '' order by alias for update",
    "test::lock_receipt": "select from receipts where provider_message_id = $1 and $2::text[] is not null for update",
    "test::end_forget": "update forgotten set is_done = true where conversation_id = $1",
}

# True at any moment.
INVARIANTS = {
    "doubt_without_time": "select message_id from deliveries where doubts > 0 and unsure_since is null",
    "doubt_of_another_wire": """select message_id from deliveries
        where channel <> 'whatsapp' and (doubts > 0 or spared > 0 or unsure_since is not null)""",
    # The answer and the statuses may say it in any order, but never leave a message without what is told of it.
    "sent_without_receipt": """select m.id from messages m
        where m.direction = 'OUTBOUND' and m.channel = 'whatsapp' and m.status = 'SENT'
          and not exists (select from receipts r where r.provider_message_id = m.provider_message_id and r.message_id = m.id)""",
}

AT_THE_END = {
    "double_conversation": """select c.id from conversations c join aliases a on a.alias = c.participant_id
        where c.channel = 'whatsapp' and a.participant_id <> c.participant_id""",
    "not_forgotten": """select m.id, m.text, m.reactions from messages m join forgotten f on f.conversation_id = m.conversation_id
        where f.is_done and m.created_at <= f.at
          and (m.text <> '' or m.content is not null or m.reactions is not null or m.participant_name is not null)
          and not coalesce(m.sent_at > f.at, false) and not exists (select from deliveries d where d.message_id = m.id)""",
    "amendment_not_forgotten": """select a.target_id from amendments a join conversations c on c.participant_id = a.participant_id
        join forgotten f on f.conversation_id = c.id where f.is_done and a.stored_at <= f.at""",
    "window": """select c.id, c.window_from, m.newest from conversations c, lateral (
          select max(sort_at) as newest from messages m
          where m.conversation_id = c.id and direction = 'INBOUND' and provider_message_id is not null) m
        where c.window_from is distinct from m.newest""",
}


def check_end(run, connection, each):
    for promise, sql in AT_THE_END.items():
        each(promise, sql)
    check_statuses(run, connection)
    check_bound(run, connection)
    check_items(run, connection)
    check_amendments(run, connection)


def check_statuses(run, connection):
    """Of all that was told exactly that is known."""
    columns = ", ".join(f"{step}_at" for step in STEPS)
    known = {wamid: steps for wamid, *steps in connection.execute(
        f"select provider_message_id, {columns}, error_code from receipts").fetchall()}
    for wamid, told in run.told.items():
        if known.get(wamid) != [told.get(step) for step in (*STEPS, "code")]:
            run.bad("status_lost", (wamid, known.get(wamid), told))


def check_bound(run, connection):
    """Each id that the provider has given leads to its message; and a second one was reported once."""
    bound = dict(connection.execute("select provider_message_id, message_id from receipts").fetchall())
    first = dict(connection.execute(
        "select id, provider_message_id from messages where direction = 'OUTBOUND' and channel = 'whatsapp'").fetchall())
    gone = {row[0] for row in connection.execute(
        "select m.id from messages m join forgotten f on f.conversation_id = m.conversation_id").fetchall()}
    for wamid, message_id in run.wamids:
        if message_id in gone and first[message_id] is None:
            continue    # it was forgotten before anybody told of it
        if bound.get(wamid) != message_id:
            run.bad("receipt_unbound", (wamid, message_id, bound.get(wamid)))
        reported = run.doubles[message_id, wamid]
        is_second = wamid != first[message_id]
        run.count("doubles", is_second)
        # Where the connection was lost, so was the report.
        if reported > is_second or not run.options.kill and reported < is_second:
            run.bad("double_not_reported_once", (message_id, wamid, reported))


def check_items(run, connection):
    made = dict(connection.execute(
        "select e.event_id, e.message_id from webhook_events e where provider = 'whatsapp'").fetchall())
    for event_id, n in run.new_items.items():
        if n != 1 or made.get(event_id) is None:
            run.bad("item_not_new_once", (event_id, n))
    for event_id, (item, _) in run.said.items():
        if event_id in made and made[event_id] is not None:
            run.bad("amendment_made_a_message", item)


def check_amendments(run, connection):
    """A message looks as if all that was said about it had come after it, one by one."""
    rows = connection.execute(
        """select k.wamid, m.id, m.participant_id, m.direction, m.text, m.reactions, m.deleted_at is not null
        from messages m join (
          select event_id as wamid, message_id from webhook_events where provider = 'whatsapp' and message_id is not null
          union select provider_message_id, message_id from receipts where message_id is not null) k on k.message_id = m.id
        where not exists (select from forgotten f where f.conversation_id = m.conversation_id)""").fetchall()
    said = collections.defaultdict(list)
    message_of = {row[0]: row[1] for row in rows}
    for item, who in run.said.values():
        if item.target in message_of:
            said[message_of[item.target]].append((item, who))
    for wamid, message_id, participant, direction, text, reactions, is_deleted in rows:
        own = [(item, who) for item, who in said[message_id] if who == participant and (
            item.change == "reaction" or item.is_by_customer == (direction == "INBOUND"))]
        newest = {}
        for item, who in own:
            if item.change == "reaction":
                sender, order = who if item.is_by_customer else "", (item.at, item.text is None, item.text or "")
                newest[sender] = max(newest.get(sender, order), order)
        expected = {sender: emoji or None for sender, (_, _, emoji) in newest.items()}
        if {sender: one["emoji"] for sender, one in (reactions or {}).items()} != expected:
            run.bad("reactions", (wamid, message_id, reactions, expected))
        edits = [(item.at, item.text) for item, _ in own if item.change == "edit"]
        if any(item.change == "deletion" for item, _ in own) != is_deleted:
            run.bad("deletion", (wamid, message_id, is_deleted))
        shown = DELETED if is_deleted else max(edits)[1] if edits else None
        if text != shown and (shown or text == DELETED or text.startswith("edit ")):
            run.bad("edit", (wamid, message_id, text, shown))
