//! What is read to be shown: lists, messages, gauges and what operators' commands look up.

use super::{BACKLOG, BRANCHES, CHANNELS, Case, ENQUEUE, Fence, GUESS, HIDDEN, LOOKUP, Most, ONCE};
use super::{ORDERED, PARKED, READS, ids};
use crate::database::plans::tables::Tables::{
    Drained, Empty, Gone, Known, New, Outgrown, Parked, Settled, Young,
};
use crate::database::plans::tables::{CONVERSATION, OUTBOUND, id};

/// The lists that the API shows.
pub fn lists() -> Vec<Case> {
    let end = "'2025-01-01', 'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    let by_page = "order by last_message_at desc, id desc limit $3::bigint + $4::bigint)";
    let by_cursor = "order by last_message_at desc, id desc limit $3::bigint)";
    let mut cases = Vec::new();
    for (statement, order, start) in [
        ("conversation::list_page", by_page, "0"),
        ("conversation::list_archived_page", by_page, "0"),
        ("conversation::list_after", by_cursor, end),
        ("conversation::list_archived_after", by_cursor, end),
    ] {
        for (word, fence) in [
            (
                LOOKUP,
                ("where id = page.id limit 1)", "where id = page.id)"),
            ),
            (BRANCHES, (order, ")")),
        ] {
            cases.push(Case {
                statement,
                word,
                fence: Fence::Text(vec![fence]),
                modes: READS,
                arguments: format!("null, null, 101, {start}"),
                most: Most::Rows(410.0),
                holds: BACKLOG,
                needed: Some(Known),
            });
        }
    }
    for (statement, rest) in [
        ("conversation::count_matching", ""),
        (
            "conversation::list_matching",
            ", null, null, false, false, null, null, 21, 0",
        ),
    ] {
        let guess = vec![
            ("(select $1::text)", "$1::text"),
            (
                "(participant_id, channel) < ((select $2::text), '')",
                "participant_id < $2::text",
            ),
        ];
        cases.push(Case {
            statement,
            word: GUESS,
            fence: Fence::Text(guess),
            modes: READS,
            arguments: format!("'user-', 'user.', 101{rest}"),
            most: Most::Rows(110.0),
            holds: BACKLOG,
            needed: Some(New),
        });
    }
    let list = |statement, word, fence| Case {
        statement,
        word,
        fence: Fence::Text(fence),
        modes: READS,
        arguments: match statement {
            "message::list_pending" => "'PENDING', null, 'instagram', null, 21".to_owned(),
            _ => "'FAILED', null, 'instagram', null, 21".to_owned(),
        },
        most: Most::Rows(100.0),
        holds: PARKED,
        needed: Some(Outgrown),
    };
    let live = (
        "where id = d.message_id limit 1)",
        "where id = d.message_id)",
    );
    let failed = (
        "where id = f.message_id limit 1)",
        "where id = f.message_id)",
    );
    let once = ("materialized", "");
    let hidden = vec![
        ("channel >= c.channel", "channel = c.channel"),
        (
            "(channel, message_id) < (c.channel, coalesce($2::uuid, ",
            "message_id < (coalesce($2::uuid, ",
        ),
    ];
    cases.extend([
        list("message::list_pending", LOOKUP, vec![live]),
        list("message::list_pending", ONCE, vec![once]),
        list("message::list_failed_latest", LOOKUP, vec![live, failed]),
        list("message::list_failed_latest", ONCE, vec![once]),
        list("message::list_failed_latest", HIDDEN, hidden),
    ]);
    cases
}

/// What operators' commands and gauges read.
pub fn operations() -> Vec<Case> {
    let read = |statement, word, fence, arguments, most, holds, needed| Case {
        statement,
        word,
        fence: Fence::Text(fence),
        modes: READS,
        arguments,
        most,
        holds,
        needed: Some(needed),
    };
    let of_d = (
        "where id = d.message_id limit 1)",
        "where id = d.message_id)",
    );
    let of_t = vec![
        ("where id = t.id limit 1) m", "where id = t.id) m"),
        (
            "where message_id = t.id limit 1) d",
            "where message_id = t.id) d",
        ),
    ];
    let window = format!(
        "'FAILED', '{}', null, '{{}}', null, '{}'",
        id(OUTBOUND, 10_000),
        id(OUTBOUND, 10_500)
    );
    let ended = format!("{}, array_fill(1, array[500])", ids(OUTBOUND, 1..=500));
    let crowded = format!("'{}', 'infinity'", id(CONVERSATION, 1));
    let mut cases = vec![
        read(
            "message::list_failed",
            LOOKUP,
            vec![of_d],
            window,
            Most::Rows(500.0),
            &[Known, Outgrown, Parked],
            Parked,
        ),
        read(
            "message::list_ended",
            LOOKUP,
            of_t,
            ended,
            Most::Rows(500.0),
            BACKLOG,
            Known,
        ),
        read(
            "forget::list_unsent",
            LOOKUP,
            vec![of_d],
            crowded,
            Most::Rows(610.0),
            BACKLOG,
            Known,
        ),
        read(
            "delivery::backlog",
            ORDERED,
            vec![(" order by channel, message_id limit", " limit")],
            "1001".to_owned(),
            Most::Pages(100.0),
            &[Settled],
            Settled,
        ),
    ];
    for (statement, arguments) in [
        ("delivery::is_idle", format!("7200, {CHANNELS}")),
        ("channel::list_paused", String::new()),
        ("channel::next_call_in", CHANNELS.to_owned()),
    ] {
        cases.push(read(
            statement,
            ORDERED,
            vec![(" order by due_at limit 1)", " limit 1)")],
            arguments,
            Most::Rows(10.0),
            &[Empty, New, Young, Drained, Known, Gone],
            Gone,
        ));
    }
    cases
}

/// Messages with what has come about them: the same text in each of these statements.
pub fn shown() -> Vec<Case> {
    let receipt = (
        "where provider_message_id = m.provider_message_id limit 1)",
        "where provider_message_id = m.provider_message_id)",
    );
    let of_batch = ids(OUTBOUND, 1..=64);
    let newest = "'2030-01-01', 'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    let crowded = id(CONVERSATION, 1);
    let read = |statement, arguments: String, modes, needed| Case {
        statement,
        word: LOOKUP,
        fence: Fence::Text(vec![receipt]),
        modes,
        arguments,
        most: Most::Rows(700.0),
        holds: BACKLOG,
        needed,
    };
    vec![
        read(
            "message::list_by_id",
            of_batch.clone(),
            ENQUEUE,
            Some(Empty),
        ),
        read(
            "message::list_changed",
            format!("{of_batch}, 64"),
            READS,
            None,
        ),
        read(
            "message::find",
            format!("'{}'", id(OUTBOUND, 1)),
            READS,
            None,
        ),
        read(
            "message::find_by_key",
            "'whatsapp', 'key-1', 1".to_owned(),
            READS,
            None,
        ),
        read(
            "message::list_thread_page",
            format!("'{crowded}', 51, 0"),
            READS,
            None,
        ),
        read(
            "message::list_thread_after",
            format!("'{crowded}', {newest}, 51"),
            READS,
            None,
        ),
    ]
}
