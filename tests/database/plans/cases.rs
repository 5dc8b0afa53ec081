//! The fences, each with its statement.

mod reads;
mod whatsapp;

use std::fmt::Display;

use gateway::database::plans::{Plans, Work};

use super::tables::Tables::{self, Drained, Empty, Known, New, Outgrown, Parked, Young};
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
    let all = [
        reads::lists(),
        reads::operations(),
        reads::shown(),
        claims(),
        batches(),
        vec![failures()],
        whatsapp::arrivals(),
        whatsapp::receipts(),
        whatsapp::outcomes(),
        settings(),
    ];
    all.into_iter().flatten().collect()
}
