//! Whatever stands between the gateway and PostgreSQL. A session that others get into is found out before it is used, and where that shows
//! only later, the process ends: any statement could be another's.
//!
//! Each connection asks for a name of its own when it begins. A session that begins with it has it at once; a pooler keeps it back. Behind
//! one, two connections name their sessions, and look whether those are still there.

use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Mutex, Notify};

use super::store;
use crate::error::fault::{Unfit, unfit};

/// The setting that is a session's name.
pub const SESSION: &str = "gateway.session";

/// How often is looked: where sessions are dealt out at random, half of the looks, and at least one of two in turn, are into another's.
const LOOKS: usize = 8;

/// A name that no other session has.
#[must_use]
pub fn new_name() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Whether a new connection behind a pooler has its session for itself, which is called `name` then: beside one more, one at a time.
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
    for _ in 0..LOOKS {
        // Twice: where two sessions are dealt out in turn, each look after the other's would be into one's own.
        for _ in 0..2 {
            look(connection, name).await?;
        }
        look(&mut other, &others_name).await?;
    }
    other.close().await
}

async fn look(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    if store::session_name(connection).await?.as_deref() == Some(name) {
        Ok(())
    } else {
        Err(Unfit::Shared.into())
    }
}

static SHARED: Notify = Notify::const_new();

/// Looks at an error: one that says that sessions are shared is the last that this process meets.
pub fn note(error: &sqlx::Error) {
    if unfit(error) == Some(Unfit::Shared) {
        SHARED.notify_one();
    }
}

/// Waits until such an error was seen.
pub async fn shared_session() -> Unfit {
    SHARED.notified().await;
    Unfit::Shared
}
