//! Amendments: what has come about another message, a reaction, an edit or a deletion, whichever of
//! both comes first. They are kept for some time, and written into the message that they are about.

pub(crate) mod store;

use sqlx::PgConnection;

/// What the text of a message is that its sender has deleted.
pub const DELETED: &str = "[deleted]";

/// Writes what has come about these messages into them, by the provider's ids. A statement of its
/// own, after amendments were stored, after messages were stored, and after a message was given its
/// id: only a fresh snapshot sees what the others wrote. Repeating it changes nothing.
pub async fn apply(connection: &mut PgConnection, wamids: &[&str]) -> sqlx::Result<()> {
    if wamids.is_empty() {
        return Ok(());
    }
    store::apply(connection, wamids).await.map(drop)
}
