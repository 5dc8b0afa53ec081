//! PostgreSQL: how connections are made, checked, pooled and migrated, and how writes share a
//! statement.
//!
//! From the bottom up: `limits`, `plans` and `target` say how and where to connect, `url` reads
//! that from `DATABASE_URL`. `store` has the statements, `pooler` finds shared sessions, `connect`
//! makes every connection. `pool`, `migrate` and `inspect` stand on it and, with `queue`, the group
//! commit of `batch`.

mod apply;
pub mod batch;
pub mod connect;
pub mod embedded;
mod inspect;
mod limits;
pub mod migrate;
pub mod plans;
pub mod pool;
pub mod pooler;
pub mod queue;
mod search;
pub mod store;
pub mod target;
pub mod url;
pub mod writer;

pub use self::inspect::{Inspection, inspect};
pub use self::limits::{CONNECT_TIMEOUT, LOCK_TIMEOUT, STATEMENT_TIMEOUT, bounded};
pub use self::migrate::{Migration, migrate, migrate_within, migrations, pending};
pub use self::store::TABLES;
