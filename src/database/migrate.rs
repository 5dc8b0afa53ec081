//! The migrations: which of them a database lacks, and how they are applied.

use std::collections::HashSet;

use sqlx::{Connection as _, PgConnection};

use super::connect::{self, Limits};
use super::target::Target;
use super::{apply, store};
use crate::error::Result;

/// One migration that this binary knows.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Applies the migrations that the database lacks, and returns how many those were. Safe beside others that do the same. Where none
/// is lacking, nothing is written, and no right to change the schema needed.
pub async fn migrate(target: &Target) -> Result<usize> {
    let (mut connection, _) = connect::connect(target, Limits::None, &[]).await?;
    let mut applied = 0;
    let before = pending(&migrations(&mut connection).await?);
    if before > 0 {
        apply::apply(&mut connection, &sqlx::migrate!()).await?;
        applied = before - pending(&migrations(&mut connection).await?);
    }
    connection.close().await?;
    Ok(applied)
}

/// The migrations that this binary knows, and which of them the database has.
pub async fn migrations(connection: &mut PgConnection) -> sqlx::Result<Vec<Migration>> {
    let applied: HashSet<i64> = store::applied_migrations(connection).await?;
    Ok(sqlx::migrate!()
        .iter()
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// How many of them it lacks.
#[must_use]
pub fn pending(migrations: &[Migration]) -> usize {
    let applied = migrations.iter().filter(|migration| migration.applied);
    migrations.len() - applied.count()
}
