//! Applies migrations as sqlx does, with its table and its checks, but sends each statement alone:
//! some databases that speak PostgreSQL's protocol (Citus is one) take only one at a time. Each
//! schema has its own lock, so that migrating one waits for no other.

use std::collections::HashMap;

use crc::{CRC_32_ISO_HDLC, Crc};
use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::store::{self, MIGRATIONS_TABLE};

/// What a new database gets instead of the text of a file: the same, in words that those databases
/// take too. The files themselves never change: older databases and older programs know their
/// checksums.
const PORTABLE: [(i64, &str); 3] = [
    (
        4,
        include_str!("../../migrations/portable/0004_traceparent.sql"),
    ),
    (
        7,
        include_str!("../../migrations/portable/0007_key_order.sql"),
    ),
    (
        11,
        include_str!("../../migrations/portable/0011_deferred.sql"),
    ),
];

/// Applies the migrations that the database lacks, each as one transaction. Migrations that only
/// newer programs know are left as they are.
pub async fn apply(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), MigrateError> {
    let database = database_key(connection).await?;
    store::lock_migrations(connection, database).await?;
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    if let Some(version) = connection.dirty_version(MIGRATIONS_TABLE).await? {
        return Err(MigrateError::Dirty(version));
    }
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;
    let applied: HashMap<_, _> = applied
        .into_iter()
        .map(|applied| (applied.version, applied.checksum))
        .collect();
    for migration in migrator.iter() {
        match applied.get(&migration.version) {
            Some(checksum) if *checksum != migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version));
            }
            Some(_) => {}
            None => apply_one(connection, migration, applied.is_empty()).await?,
        }
    }
    store::unlock_migrations(connection, database).await?;
    Ok(())
}

/// The key that `sqlx` locks while it migrates a database. Older programs lock it too.
async fn database_key(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let name = store::database_name(connection).await?;
    let checksum = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(name.as_bytes());
    Ok(0x3d32_ad9e * i64::from(checksum))
}

#[allow(clippy::disallowed_methods)] // a migration is many statements, of a process that waits for nothing else
async fn apply_one(
    connection: &mut PgConnection,
    migration: &Migration,
    is_new: bool,
) -> Result<(), MigrateError> {
    let portable = PORTABLE
        .iter()
        .find(|(version, _)| is_new && *version == migration.version);
    let script = portable.map_or(migration.sql.as_str(), |(_, script)| script);
    let mut transaction = connection.begin().await?;
    for statement in statements(script) {
        store::change_schema(&mut transaction, statement)
            .await
            .map_err(|error| MigrateError::ExecuteMigration(error, migration.version))?;
    }
    transaction.skip(MIGRATIONS_TABLE, migration).await?;
    Ok(transaction.commit().await?)
}

/// The statements of a script. Each ends with a line whose last character is its `;`, ignoring
/// comments and the insides of `$$ … $$`.
fn statements(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut begun, mut end) = (0, 0);
    let (mut in_body, mut is_blank) = (false, true);
    for line in script.split_inclusive('\n') {
        end += line.len();
        let code = line.split("--").next().unwrap_or_default().trim();
        is_blank &= code.is_empty();
        in_body ^= code.matches("$$").count() % 2 == 1;
        if code.ends_with(';') && !in_body {
            statements.push(&script[begun..end]);
            (begun, is_blank) = (end, true);
        }
    }
    if !is_blank {
        statements.push(&script[begun..]);
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_behind_each_statement_and_nowhere_else() {
        for (script, expected) in [
            ("", vec![]),
            ("-- Nothing;\n\n", vec![]),
            ("select 1", vec!["select 1"]),
            ("select 1;\nselect 2;", vec!["select 1;\n", "select 2;"]),
            (
                "-- One;\nselect 1,  -- first;\n  2; -- last\n\nselect 3;\n-- The end;\n",
                vec![
                    "-- One;\nselect 1,  -- first;\n  2; -- last\n",
                    "\nselect 3;\n",
                ],
            ),
            (
                "do $$\nbegin\n  perform 1;\nend $$;\nselect 1;\n",
                vec!["do $$\nbegin\n  perform 1;\nend $$;\n", "select 1;\n"],
            ),
            (
                "do $$ begin perform 1; end $$;\n",
                vec!["do $$ begin perform 1; end $$;\n"],
            ),
        ] {
            assert_eq!(statements(script), expected, "{script}");
        }
    }

    #[test]
    fn every_migration_is_whole_statements_in_one_transaction() {
        let migrator = sqlx::migrate!();
        let scripts = migrator.iter().map(|migration| {
            assert!(!migration.no_tx, "{}", migration.version);
            migration.sql.as_str()
        });
        for script in scripts.chain(PORTABLE.map(|(_, script)| script)) {
            let statements = statements(script);
            assert_eq!(statements.concat(), script);
            for statement in statements {
                let code = |line: &str| line.split("--").next().unwrap().to_owned();
                let code: Vec<_> = statement.lines().map(code).collect();
                let code = code.concat();
                let mut outside = code.split("$$").step_by(2).collect::<String>();
                assert_eq!(
                    outside.trim_end().chars().next_back(),
                    Some(';'),
                    "{statement}"
                );
                outside.retain(|character| character == ';');
                assert_eq!(outside, ";", "{statement}");
            }
        }
    }

    #[test]
    fn what_a_new_database_gets_is_of_a_migration() {
        let migrator = sqlx::migrate!();
        for (version, _) in PORTABLE {
            assert!(migrator.version_exists(version), "{version}");
        }
    }
}
