//! How PostgreSQL is to plan the statements of each kind of connection: all its settings for that, in one table.

use clap::ValueEnum;

/// Settings of a connection, by name.
pub type Settings = &'static [(&'static str, &'static str)];

/// Whose plans the batches that are written run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Plans {
    /// Each statement is planned once for a connection.
    #[default]
    Generic,
    /// Each statement is planned each time, and the planner is told nothing more: for databases that cannot do otherwise.
    Custom,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Batches of small writes.
    Batches,
    /// The same, of statements that join nothing but their own input, so that a join by hash cannot read a table whole.
    InputBatches,
    /// Reads, operators' actions and claims.
    Reads,
    /// Statements that make thousands of rows.
    Bulk,
}

/// Planning such a statement costs more than running it, so a writer's connection plans each once. A plan made while the
/// tables were small must not read them whole when they are large: it may only walk indexes.
const BATCHES: Settings = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// The same with joins by hash.
const INPUT_BATCHES: Settings = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "on"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// A plan made for an empty queue reads a full one from end to end; statements of reads take little time to plan.
const EACH_TIME: Settings = &[("plan_cache_mode", "force_custom_plan")];
/// What makes a large statement fast: memory for what it generates, and a plan by hash whatever it believes its input to be.
const BULK: Settings = &[
    ("work_mem", "32MB"),
    ("enable_nestloop", "off"),
    ("jit", "off"),
];
/// What of that is not about plans.
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
