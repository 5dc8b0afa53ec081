//! How PostgreSQL plans the statements of each kind of connection. All settings for that are here.

use clap::ValueEnum;

/// Settings of a connection, by name.
pub type Settings = &'static [(&'static str, &'static str)];

/// How the statements of batches are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Plans {
    /// Each statement is planned once for a connection.
    #[default]
    Generic,
    /// Each statement is planned each time, without hints for the planner: for databases that
    /// cannot do otherwise.
    Custom,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Batches of small writes.
    Batches,
    /// The same, for statements that join only their own input: a hash join cannot read a whole
    /// table there.
    InputBatches,
    /// Reads, operators' actions and claims.
    Reads,
    /// Statements that make thousands of rows.
    Bulk,
}

/// Planning such a statement costs more than running it, so a connection plans each once. That plan
/// may be made while the tables are small, and must still be right when they are large: it may only
/// use indexes.
const BATCHES: Settings = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// The same, but hash joins are allowed.
const INPUT_BATCHES: Settings = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "on"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// A plan made for an empty queue would read a full one from end to end. Reads take little time to
/// plan, so they are planned each time.
const EACH_TIME: Settings = &[("plan_cache_mode", "force_custom_plan")];
/// What makes a large statement fast: memory for the rows that it makes, and hash joins, since the
/// planner cannot know how large its input is.
const BULK: Settings = &[
    ("work_mem", "32MB"),
    ("enable_nestloop", "off"),
    ("jit", "off"),
];
/// The part of `BULK` that does not change plans.
const BULK_EACH_TIME: Settings = &[
    ("work_mem", "32MB"),
    ("plan_cache_mode", "force_custom_plan"),
];

impl Plans {
    /// The settings of a connection for this work.
    #[must_use]
    pub fn of(self, work: Work) -> Settings {
        match (self, work) {
            (_, Work::Reads) | (Self::Custom, Work::Batches | Work::InputBatches) => EACH_TIME,
            (Self::Generic, Work::Batches) => BATCHES,
            (Self::Generic, Work::InputBatches) => INPUT_BATCHES,
            (Self::Generic, Work::Bulk) => BULK,
            (Self::Custom, Work::Bulk) => BULK_EACH_TIME,
        }
    }
}
