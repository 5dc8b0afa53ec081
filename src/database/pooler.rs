//! Finds poolers between the gateway and PostgreSQL that share a session among clients: any
//! statement there could run with another client's settings. Such a session is found before it is
//! used. If it shows only later, the process ends.
//!
//! Each connection asks for a session name when it starts. PostgreSQL sets it at once, a pooler
//! drops it. Behind a pooler, two connections name their sessions and check several times whether
//! each still has its own name.

use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Mutex, Notify};

use super::store;
use crate::error::fault::{Unfit, unfit};

/// The setting that is a session's name.
pub const SESSION: &str = "gateway.session";

/// How often to check. A pooler that deals out sessions at random fails half of the checks; one
/// that deals them out in turn fails at least one of two.
const CHECKS: usize = 8;

/// A name that no other session has.
#[must_use]
pub fn new_name() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Checks that a new connection behind a pooler has its session, now called `name`, for itself. A
/// second connection is opened for that, and only one check runs at a time.
pub async fn check(
    connection: &mut PgConnection,
    name: &str,
    other: impl Future<Output = sqlx::Result<PgConnection>>,
) -> sqlx::Result<()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let mut other = other.await?;
    let others_name = new_name();
    store::name_session(connection, name).await?;
    store::name_session(&mut other, &others_name).await?;
    for _ in 0..CHECKS {
        // Twice: with two sessions dealt out in turn, checks that alternate would always find their
        // own.
        for _ in 0..2 {
            check_name(connection, name).await?;
        }
        check_name(&mut other, &others_name).await?;
    }
    other.close().await
}

async fn check_name(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    if store::session_name(connection).await?.as_deref() == Some(name) {
        Ok(())
    } else {
        Err(Unfit::Shared.into())
    }
}

static SHARED_SESSION: Notify = Notify::const_new();

/// Takes note of an error. If it shows that sessions are shared, the process has to end.
pub fn note(error: &sqlx::Error) {
    if unfit(error) == Some(Unfit::Shared) {
        SHARED_SESSION.notify_one();
    }
}

/// Waits until such an error was seen.
pub async fn shared_session() -> Unfit {
    SHARED_SESSION.notified().await;
    Unfit::Shared
}
