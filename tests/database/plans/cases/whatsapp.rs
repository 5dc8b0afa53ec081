//! What WhatsApp's webhook runs, and what follows an attempt at its messages.

use super::{BACKLOG, Case, ENQUEUE, Fence, HIDDEN, KEYS, LOOKUP, Most, ORDERED, SETTLE};
use super::{array, each, ids};
use crate::database::plans::tables::Tables::{Empty, Young};
use crate::database::plans::tables::{CONVERSATION, OUTBOUND, TOKEN};

/// What follows an attempt on WhatsApp. Its joins look all of the batch up for each of it.
pub fn outcomes() -> Vec<Case> {
    let leased = || (0..64).map(|n| 10 * n + 8);
    let token = each(&format!("'{TOKEN}'::uuid"));
    let wamids = array("text", (0..64).map(|n| format!("wamid-{}", 10 * n + 1)));
    let messages = ids(OUTBOUND, (0..64).map(|n| 10 * n + 1));
    let leave = format!("{}, {token}", ids(OUTBOUND, leased()));
    let pause = format!("{}, {}", ids(CONVERSATION, leased()), each("60::float8"));
    let of_held = (
        "where d.message_id = any($1::uuid[])",
        "where d.message_id is not null",
    );
    let of_parked = (
        "where id = any(array(select message_id from parked))",
        "where id in (select message_id from parked)",
    );
    let of_conversations = (" and c.id = any($1::uuid[])", "");
    let of_queued = (" order by seq limit 1000000) q", " limit 1000000) q");
    let of_due = (" and m.id = any(array(select message_id from due))", "");
    let of_double = (
        "where id = b.message_id limit 1)",
        "where id = b.message_id)",
    );
    let of_dated = (" and r.provider_message_id = any($2::text[])", "");
    let of_refused = (
        "where id = d.message_id limit 1)",
        "where id = d.message_id)",
    );
    let case = |statement, word, fence, arguments: &str, most| Case {
        statement,
        word,
        fence: Fence::Text(fence),
        modes: SETTLE,
        arguments: arguments.to_owned(),
        most: Most::Rows(most),
        holds: BACKLOG,
        needed: None,
    };
    let refused = "'{whatsapp}', 'unauthorized'";
    let bind = format!("{messages}, {wamids}, {}", each("1::float8"));
    vec![
        case("delivery::bind", LOOKUP, vec![of_double], &bind, 6400.0),
        case("delivery::bind", KEYS, vec![of_dated], &bind, 6400.0),
        case(
            "delivery::leave",
            KEYS,
            vec![of_held, of_parked],
            &leave,
            6400.0,
        ),
        // All that waits in these conversations.
        case(
            "delivery::pause_conversations",
            KEYS,
            vec![of_conversations],
            &pause,
            20_000.0,
        ),
        case(
            "delivery::pause_conversations",
            ORDERED,
            vec![of_queued],
            &pause,
            20_000.0,
        ),
        // All of the queue: seldom, when a channel is held no longer.
        case(
            "delivery::wake_refused",
            KEYS,
            vec![of_due],
            refused,
            40_000.0,
        ),
        case(
            "delivery::wake_refused",
            LOOKUP,
            vec![of_refused],
            refused,
            40_000.0,
        ),
    ]
}

/// What a webhook of WhatsApp's runs beside what it stores.
pub fn arrivals() -> Vec<Case> {
    let batch = || 1..=64_usize;
    let people = array("text", batch().map(|n| format!("user-{n}")));
    let alias = ("where alias = t.id limit 1)", "where alias = t.id)");
    let conversation = (
        "and participant_id = t.id limit 1)",
        "and participant_id = t.id)",
    );
    let changed = array("text", batch().map(|n| format!("wamid-{}", 10 * n)));
    let messages = (" and m.id = any(array(select id from next))", "");
    let conversations = (" and c.id = any(array(select id from shown))", "");
    vec![
        Case {
            statement: "alias::find",
            word: LOOKUP,
            fence: Fence::Text(vec![alias, conversation]),
            modes: ENQUEUE,
            arguments: format!("'whatsapp', {people}"),
            most: Most::Rows(200.0),
            holds: BACKLOG,
            needed: Some(Empty),
        },
        // Its joins look all of the batch up for each of it.
        Case {
            statement: "amendment::apply",
            word: KEYS,
            fence: Fence::Text(vec![messages, conversations]),
            modes: SETTLE,
            arguments: format!("{changed}, 'whatsapp', '[deleted]', 200"),
            most: Most::Rows(5000.0),
            holds: BACKLOG,
            needed: Some(Empty),
        },
    ]
}

/// What statuses run.
pub fn receipts() -> Vec<Case> {
    let batch = || 1..=64_usize;
    let wamids = array("text", batch().map(|n| format!("wamid-{}", 10 * n + 1)));
    let messages = ids(OUTBOUND, batch().map(|n| 10 * n + 1));
    let aliases = array("text", batch().map(|n| format!("alias-{n}")));
    let witnessed = format!("{messages}, {aliases}, {aliases}, 'whatsapp'");
    let of_t = (
        "where id = t.message_id limit 1)",
        "where id = t.message_id)",
    );
    let of_d = (
        "where message_id = t.message_id limit 1)",
        "where message_id = t.message_id)",
    );
    let keys = (" and r.provider_message_id = any($1::text[])", "");
    let hidden = (
        "any($1::text[]) order by provider_message_id",
        "any($1::text[]) and message_id is null order by provider_message_id",
    );
    let case = |statement, word, fence, modes, arguments: &str, most, needed| Case {
        statement,
        word,
        fence: Fence::Text(fence),
        modes,
        arguments: arguments.to_owned(),
        most: Most::Rows(most),
        holds: BACKLOG,
        needed: Some(needed),
    };
    // Its joins look all of the batch up for each of it.
    let bind = |word, fence, needed| {
        let arguments = format!("{wamids}, {messages}");
        case(
            "receipt::bind",
            word,
            vec![fence],
            SETTLE,
            &arguments,
            5000.0,
            needed,
        )
    };
    vec![
        case(
            "receipt::find_witnessed",
            LOOKUP,
            vec![of_t, of_d],
            SETTLE,
            &witnessed,
            200.0,
            Young,
        ),
        Case {
            needed: None,
            ..bind(LOOKUP, of_t, Young)
        },
        bind(KEYS, keys, Empty),
        bind(HIDDEN, hidden, Young),
    ]
}
