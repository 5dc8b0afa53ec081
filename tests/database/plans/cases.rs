//! The fences, each with its statement.

use std::fmt::Display;

use gateway::database::plans::{Plans, Work};

use super::tables::Tables::{
    self, Drained, Empty, Gone, Known, New, Outgrown, Parked, Settled, Young,
};
use super::tables::{CONVERSATION, FRESH, OUTBOUND, TOKEN, id};
use crate::support::statement;

/// 30,600 deliveries in every state.
const BACKLOG: &[Tables] = &[Empty, New, Young, Drained, Known];
const PARKED: &[Tables] = &[Outgrown, Parked];

/// How a statement is planned: with the settings of which connection.
pub type Mode = (Plans, Work);
const READS: &[Mode] = &[(Plans::Generic, Work::Reads)];
const SETTLE: &[Mode] = &[
    (Plans::Generic, Work::Batches),
    (Plans::Custom, Work::Batches),
];
const ENQUEUE: &[Mode] = &[
    (Plans::Generic, Work::InputBatches),
    (Plans::Custom, Work::InputBatches),
];

/// What a plan may cost.
#[derive(Debug, Clone, Copy)]
pub enum Most {
    /// Rows that a part of it reads, makes or compares.
    Rows(f64),
    /// Pages that all of it reads.
    Pages(f64),
}

/// What is taken away.
pub enum Fence {
    /// Texts of the statement, and what one would write without the fence.
    Text(Vec<(&'static str, &'static str)>),
    /// A setting of the connection.
    Setting(&'static str),
}

pub struct Case {
    pub statement: &'static str,
    /// The fence's name, as in the margin of the SQL.
    pub word: &'static str,
    pub fence: Fence,
    pub modes: &'static [Mode],
    pub arguments: String,
    pub most: Most,
    /// Where that is all that it costs.
    pub holds: &'static [Tables],
    /// Where it costs more without the fence, in the first of the modes. None: another statement of
    /// the same text needs it.
    pub needed: Option<Tables>,
}

impl Case {
    pub fn is_measured(&self, mode: Mode, tables: Tables, is_fenced: bool) -> bool {
        if is_fenced {
            let is_usual = mode.0 == Plans::Generic || matches!(tables, Drained | Known);
            is_usual && self.holds.contains(&tables)
        } else {
            mode == self.modes[0] && self.needed == Some(tables)
        }
    }

    /// The statement, and the setting that its connection lacks.
    pub fn text(&self, is_fenced: bool) -> (String, Option<&'static str>) {
        let mut text = statement(self.statement);
        match &self.fence {
            Fence::Setting(setting) => (text, Some(*setting).filter(|_| !is_fenced)),
            Fence::Text(parts) => {
                for (fence, without) in parts {
                    assert!(text.contains(fence), "{} has no {fence}", self.statement);
                    if !is_fenced {
                        text = text.replace(fence, without);
                    }
                }
                (text, None)
            }
        }
    }
}

pub const LOOKUP: &str = "lookup";
pub const KEYS: &str = "keys";
pub const ORDERED: &str = "ordered";
pub const BRANCHES: &str = "branches";
pub const HIDDEN: &str = "hidden";
pub const ONCE: &str = "once";
pub const PLACE: &str = "place";
pub const GUESS: &str = "guess";
pub const SETTING: &str = "setting";

/// What a process sends to.
const CHANNELS: &str = "'{whatsapp,instagram}'";

fn array(kind: &str, items: impl Iterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.map(|item| format!("'{item}'")).collect();
    format!("array[{}]::{kind}[]", items.join(", "))
}

fn ids(kind: u16, numbers: impl Iterator<Item = usize>) -> String {
    array("uuid", numbers.map(|number| id(kind, number)))
}

/// As often as a batch is large.
fn each(value: &str) -> String {
    format!("array_fill({value}, array[64])")
}

/// The lists that the API shows.
fn lists() -> Vec<Case> {
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
fn operations() -> Vec<Case> {
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

/// Claims. `claim` has the text of `claim_only`, but is planned each time, so that it would do
/// without.
fn claims() -> Vec<Case> {
    let is_due = |n: &usize| matches!(n % 10, 4 | 5 | 6 | 9);
    let only = ids(OUTBOUND, (1..).filter(is_due).take(64));
    let claim =
        format!("64, '{TOKEN}', 30, 10000, 50, 2, 10, 20, {CHANNELS}, 0.001, '{{}}', '{{}}', 4");
    let claim_only = format!("64, '{TOKEN}', 30, 10000, 50, 2, 10, 20, {CHANNELS}, 0.001, {only}");
    let ordered = (
        "(select due_at from deliveries where channel = c.channel and due_at <= now() order by due_at limit 1) is not null",
        "exists (select from deliveries where channel = c.channel and due_at <= now())",
    );
    let keys = (
        "where d.message_id = any(array(select message_id from due))",
        "from due where d.message_id = due.message_id",
    );
    let lookup = (
        "where id = l.message_id limit 1)",
        "where id = l.message_id)",
    );
    let hidden = ("coalesce(due_at <= now(), false)", "due_at <= now()");
    let case = |statement, word, fence, needed| Case {
        statement,
        word,
        fence: Fence::Text(vec![fence]),
        modes: if statement == "delivery::claim" {
            READS
        } else {
            ENQUEUE
        },
        arguments: if statement == "delivery::claim" {
            claim.clone()
        } else {
            claim_only.clone()
        },
        most: Most::Rows(500.0),
        holds: BACKLOG,
        needed,
    };
    let mut cases = vec![case("delivery::claim_only", HIDDEN, hidden, Some(Drained))];
    for (word, fence, needed) in [
        (ORDERED, ordered, Drained),
        (KEYS, keys, Drained),
        (LOOKUP, lookup, Young),
    ] {
        cases.push(case("delivery::claim_only", word, fence, Some(needed)));
        cases.push(case("delivery::claim", word, fence, None));
    }
    cases
}

/// Failures of a batch. At worst its joins look all of the batch up for each of it.
fn failures() -> Case {
    let token = each(&format!("'{TOKEN}'::uuid"));
    let arguments = format!(
        "{}, {token}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}",
        ids(OUTBOUND, (0..64).map(|n| 10 * n + 8)),
        each("false"),
        each("1::float8"),
        each("'timeout'::text"),
        each("null::int"),
        each("'late'::text"),
        each("true"),
        each("true"),
        each("null::bigint"),
        each("false"),
        each("false"),
    );
    let keys = vec![
        ("where d.message_id = any($1::uuid[])", ""),
        (" and d.message_id = any($1::uuid[])", ""),
        (" and m.id = any($1::uuid[])", ""),
    ];
    Case {
        statement: "delivery::mark_failed",
        word: KEYS,
        fence: Fence::Text(keys),
        modes: SETTLE,
        arguments,
        most: Most::Rows(6400.0),
        holds: BACKLOG,
        needed: Some(Drained),
    }
}

/// What writers run for each batch.
#[allow(clippy::too_many_lines)] // a list
fn batches() -> Vec<Case> {
    let write = |statement, word, fence, modes, arguments: &str, needed| Case {
        statement,
        word,
        fence: Fence::Text(fence),
        modes,
        arguments: arguments.to_owned(),
        most: Most::Rows(200.0),
        holds: BACKLOG,
        needed: Some(needed),
    };
    let batch = || 1..=64_usize;
    let channels = array("text", batch().map(|n| ["whatsapp", "instagram"][n % 2]));
    let token = each(&format!("'{TOKEN}'::uuid"));
    let none = each("null::text");
    let known = format!(
        "'mock-meta', {}",
        array("text", batch().map(|n| format!("evt-{n}")))
    );
    let replayed = format!(
        "{}, {channels}, {}, {token}",
        ids(FRESH, batch()),
        array("text", batch().map(|n| format!("key-{n}")))
    );
    let enqueue = format!(
        "{}, {}, {channels}, {}, {}, {}, {token}, 30, 600, true, {none}, false, {none}, 200, {}",
        ids(FRESH, batch()),
        ids(FRESH, batch().map(|n| 1000 + n)),
        array("text", batch().map(|n| format!("user-{n}"))),
        each("'Hi'::text"),
        array("text", batch().map(|n| format!("new-{n}"))),
        each("null::jsonb"),
    );
    let sent = format!(
        "{}, {}, {}, {}",
        ids(OUTBOUND, batch()),
        array("text", batch().map(|n| format!("mid-{n}"))),
        each("false"),
        each("null::float8"),
    );
    let shown = (
        "where provider_message_id = s.provider_message_id limit 1)",
        "where provider_message_id = s.provider_message_id)",
    );
    let release = ids(CONVERSATION, (0..64).map(|n| 10 * n + 8));
    let replayed_lookup = (
        "where message_id = m.id limit 1)",
        "where message_id = m.id)",
    );
    let known_lookup = (
        "where id = e.message_id limit 1)",
        "where id = e.message_id)",
    );
    let enqueue_lookup = (
        "and participant_id = i.participant_id limit 1)",
        "and participant_id = i.participant_id)",
    );
    let place = (
        "($2::text[])[pg_catalog.array_position($1::uuid[], id)]",
        "(select p from unnest($1::uuid[], $2::text[]) as t(i, p) where i = id)",
    );
    let head = (
        "= any(array(select message_id from head))",
        "in (select message_id from head)",
    );
    let free = (
        "= any(array(select message_id from free))",
        "in (select message_id from free)",
    );
    let held = (
        "= any(array(select message_id from held))",
        "in (select message_id from held)",
    );
    let gone = (
        "= any(array(select message_id from gone))",
        "in (select message_id from gone)",
    );
    let hidden = (
        "from head)) order by",
        "from head)) and attempt = 0 and lease_token is null and due_at > now() order by",
    );
    let ordered = (" order by d.seq limit 1)", " limit 1)");
    vec![
        write(
            "webhook::find_known",
            LOOKUP,
            vec![known_lookup],
            &ENQUEUE[..1],
            &known,
            Young,
        ),
        write(
            "message::find_replayed",
            LOOKUP,
            vec![replayed_lookup],
            ENQUEUE,
            &replayed,
            Young,
        ),
        write(
            "message::enqueue",
            LOOKUP,
            vec![enqueue_lookup],
            ENQUEUE,
            &enqueue,
            Young,
        ),
        write(
            "message::enqueue",
            ORDERED,
            vec![ordered],
            ENQUEUE,
            &enqueue,
            Drained,
        ),
        Case {
            needed: None,
            ..write(
                "delivery::mark_sent",
                LOOKUP,
                vec![shown],
                SETTLE,
                &sent,
                Known,
            )
        },
        write(
            "delivery::mark_sent",
            PLACE,
            vec![place],
            SETTLE,
            &sent,
            Known,
        ),
        write(
            "delivery::mark_sent",
            KEYS,
            vec![held, gone],
            SETTLE,
            &sent,
            Drained,
        ),
        write(
            "delivery::release",
            HIDDEN,
            vec![hidden],
            SETTLE,
            &release,
            Drained,
        ),
        write(
            "delivery::release",
            KEYS,
            vec![head, free],
            SETTLE,
            &release,
            Drained,
        ),
        write(
            "delivery::release",
            KEYS,
            vec![head, free],
            ENQUEUE,
            &release,
            Drained,
        ),
    ]
}

/// Messages with what has come about them: the same text in each of these statements.
fn shown() -> Vec<Case> {
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

/// What follows an attempt on WhatsApp. Its joins look all of the batch up for each of it.
fn outcomes() -> Vec<Case> {
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
fn arrivals() -> Vec<Case> {
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
fn receipts() -> Vec<Case> {
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

/// Each setting, with a statement that needs it.
fn settings() -> Vec<Case> {
    let mut cases = Vec::new();
    for (setting, mode, statement) in [
        ("enable_seqscan", &SETTLE[..1], "delivery::release"),
        ("enable_seqscan", &ENQUEUE[..1], "delivery::claim_only"),
        ("plan_cache_mode", READS, "delivery::claim"),
    ] {
        let of = |case: &Case| case.statement == statement;
        let case = batches().into_iter().chain(claims()).find(of).unwrap();
        cases.push(Case {
            word: SETTING,
            fence: Fence::Setting(setting),
            modes: mode,
            needed: Some(Drained),
            ..case
        });
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let failures = vec![failures()];
    let all = [
        lists(),
        operations(),
        claims(),
        batches(),
        failures,
        shown(),
        receipts(),
        outcomes(),
        arrivals(),
        settings(),
    ];
    all.into_iter().flatten().collect()
}
