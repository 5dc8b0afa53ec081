//! The tables that statements are planned for, and used on.

/// What PostgreSQL knows of the tables when it plans, and what they are like when the plan is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Analysed while they were empty, then filled.
    Empty,
    /// Never analysed, and filled since.
    New,
    /// Analysed while they had a few rows, then filled.
    Young,
    /// All are large and known, but the queue was analysed while it was empty: the usual state of
    /// one that keeps up.
    Drained,
    /// Large, and known.
    Known,
    /// The queue's statistics are those of a backlog, all of which is parked by now.
    Gone,
    /// The same, vacuumed and analysed: what is parked lies behind pages that are free.
    Settled,
    /// Analysed while they had a few rows of every kind, then filled with what is parked.
    Outgrown,
    /// Nearly all of the queue is parked, and PostgreSQL knows.
    Parked,
}
use Tables::{Drained, Empty, Gone, Known, New, Outgrown, Parked, Settled, Young};

pub const OUTBOUND: u16 = 0x8000;
pub const CONVERSATION: u16 = 0x9000;
pub const INBOUND: u16 = 0xb000;
pub const FRESH: u16 = 0xc000;
pub const TOKEN: &str = "00000000-0000-7000-a000-000000000000";

pub fn id(kind: u16, number: usize) -> String {
    format!("00000000-0000-7000-{kind:04x}-{number:012x}")
}

/// The same in SQL.
fn id_of(kind: u16, number: &str) -> String {
    format!("('00000000-0000-7000-{kind:04x}-' || lpad(to_hex({number}), 12, '0'))::uuid")
}

/// Conversations up to the 10,000th, messages out, and up to the 20,000th messages in. What comes
/// after the 30,000th is of one conversation.
fn messages(first: u32, last: u32) -> String {
    let (conversation, of) = (id_of(CONVERSATION, "n"), id_of(CONVERSATION, "k"));
    let (outbound, inbound) = (id_of(OUTBOUND, "n"), id_of(INBOUND, "n"));
    format!(
        "insert into conversations (id, channel, participant_id, status, last_message_id, last_message_at, last_message_preview, archived_at)
          select {conversation}, (array['whatsapp', 'instagram'])[1 + n % 2], 'user-' || n, (array['open', 'closed'])[1 + n / 2 % 2],
            gen_random_uuid(), timestamptz '2025-01-01T00:00:00Z' - n * interval '1 second', 'Hi', case when n % 3 = 0 then now() end
          from generate_series({first}, least({last}, 10000)) n;
        insert into messages (id, conversation_id, channel, participant_id, direction, text, status, client_message_id, error_kind, sent_by, provider_message_id, timestamp, sort_at)
          select {outbound}, {of}, (array['whatsapp', 'instagram'])[1 + k % 2], 'user-' || k, 'OUTBOUND', 'Hi',
            case when n % 10 in (6, 9) then 'PENDING' else 'FAILED' end, 'key-' || n, case when n % 10 in (6, 9) then null else 'timeout' end,
            case when n % 16 = 0 then 'shop' end, 'wamid-' || n, at, at
          from generate_series({first}, {last}) n cross join lateral (
            select case when n > 30000 then 1 else 1 + (n - 1) % 10000 end as k, timestamptz '2025-01-01T00:00:00Z' + n * interval '1 second' as at) m;
        insert into messages (id, conversation_id, channel, participant_id, direction, text, status, timestamp, sort_at)
          select {inbound}, {of}, (array['whatsapp', 'instagram'])[1 + k % 2], 'user-' || k, 'INBOUND', 'Hi', 'RECEIVED', at, at
          from generate_series({first}, least({last}, 20000)) n cross join lateral (
            select 1 + (n - 1) % 10000 as k, timestamptz '2024-01-01T00:00:00Z' + n * interval '1 second' as at) m;
        insert into webhook_events (provider, event_id, message_id)
          select 'mock-meta', 'evt-' || n, {inbound} from generate_series({first}, least({last}, 20000)) n;
        insert into receipts (provider_message_id, message_id, accepted_at, received_at)
          select 'wamid-' || n, case when n % 2 = 0 then {outbound} end, case when n % 2 = 0 then now() - n * interval '1 second' end,
            case when n % 5 > 0 then now() - n * interval '1 second' end
          from generate_series({first}, {last}) n;
        insert into amendments (target_id, kind, sender, participant_id, at, type, text, content)
          select 'wamid-' || n, 'edit', '', 'user-' || (1 + (n - 1) % 10000), now(), 'text', 'Edited', '{{}}'
          from generate_series({first}, {last}) n where n % 10 = 0;
        insert into aliases (alias, participant_id, since)
          select 'alias-' || n, 'user-' || n, now() from generate_series({first}, least({last}, 10000)) n;"
    )
}

/// Deliveries of those that go out: parked, due, leased, waiting and blocked ones.
fn queue(first: u32, last: u32) -> String {
    let outbound = id_of(OUTBOUND, "n");
    format!(
        "insert into deliveries (message_id, conversation_id, channel, seq, due_at, lease_token, attempt, failures, sent_by)
          select m.id, m.conversation_id, m.channel, n,
            case when s in ('due', 'new') then now() - interval '1 day' + n * interval '1 second' when s <> 'parked' then now() + interval '1 hour' end,
            case when s = 'leased' then '{TOKEN}'::uuid end, case when s in ('new', 'blocked') then 0 else 1 end,
            case when s in ('new', 'blocked') then 0 else 1 end, m.sent_by
          from generate_series({first}, {last}) n join messages m on m.id = {outbound} cross join lateral (
            select case when n > 30000 then 'blocked' when n % 10 < 4 then 'parked' when n % 10 in (4, 5) then 'due' when n % 10 in (6, 9) then 'new'
              when n > 10000 then 'blocked' when n % 10 = 7 then 'waiting' else 'leased' end as s) state;"
    )
}

/// Messages of one conversation that are parked, and among them a few that are not.
fn parked(first: u32, last: u32) -> String {
    let (conversation, outbound) = (id_of(CONVERSATION, "1"), id_of(OUTBOUND, "n"));
    format!(
        "insert into messages (id, conversation_id, channel, participant_id, direction, text, status, error_kind, sent_by, timestamp, sort_at)
          select {outbound}, {conversation}, 'whatsapp', 'user-1', 'OUTBOUND', 'Hi', case n % 500 when 7 then 'PENDING' else 'FAILED' end,
            case n % 500 when 7 then null else 'timeout' end, case when n % 16 = 0 then 'shop' end, now(), now()
          from generate_series({first}, {last}) n;
        insert into deliveries (message_id, conversation_id, channel, seq, due_at, attempt, failures, sent_by)
          select {outbound}, {conversation}, 'whatsapp', n, case n % 500 when 7 then now() when 8 then now() + interval '1 hour' end,
            case n % 500 when 7 then 0 else 1 end, case n % 500 when 7 then 0 else 1 end, case when n % 16 = 0 then 'shop' end
          from generate_series({first}, {last}) n;
        insert into receipts (provider_message_id, received_at) select 'wamid-' || n, now() from generate_series({first}, {last}) n;"
    )
}

/// How a database comes to be as it is planned for, and what it becomes afterwards.
pub fn stories() -> [(String, Vec<(Tables, String)>); 5] {
    const LAST: u32 = 30_600;
    let all = || messages(1, LAST) + &queue(1, LAST);
    let few = messages(1, 30) + &queue(1, 30) + "analyze";
    let gone = "update channels set paused_until = now() + interval '1 hour', ramp_until = now() + interval '1 hour';
        update deliveries set due_at = null, lease_token = null";
    [
        (
            "analyze".to_owned(),
            vec![
                (Empty, all()),
                (Known, "analyze".to_owned()),
                (Gone, gone.to_owned()),
                (Settled, "vacuum analyze deliveries".to_owned()),
            ],
        ),
        (String::new(), vec![(New, all())]),
        (
            few.clone(),
            vec![(Young, messages(31, LAST) + &queue(31, LAST))],
        ),
        (
            messages(1, LAST) + "analyze",
            vec![(Drained, queue(1, LAST))],
        ),
        (
            few,
            vec![
                (Outgrown, parked(31, 20_000)),
                (Parked, "analyze".to_owned()),
            ],
        ),
    ]
}
