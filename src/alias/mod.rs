//! Who a customer is: the ids of one person, numbers and user ids, lead to the participant of one
//! conversation. Who has somebody's number later is somebody else.

mod book;
mod route;
mod said;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use self::book::Book;
pub use self::route::{ChangedHands, Route};
pub use self::said::Said;
use crate::database::pool::Pool;

/// How often it is resolved anew, if others change meanwhile what was read.
const TRIES: usize = 5;

/// Finds the participant that each of these is about, one after the other, and keeps what they say.
/// None: nobody is named. What says nothing new writes nothing.
pub async fn resolve(
    connection: &mut PgConnection,
    said: &[Said<'_>],
) -> sqlx::Result<Vec<Option<String>>> {
    let mut ids: Vec<&str> = said.iter().flat_map(|said| said.ids()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(vec![None; said.len()]);
    }
    let mut participants = Vec::new();
    for _ in 0..TRIES {
        let mut book = Book::new(store::find(connection, &ids).await?);
        participants = said.iter().map(|said| book.hear(*said)).collect();
        let changes = book.changes();
        if changes.is_empty() || store::write(connection, &changes).await? == changes.len() {
            break;
        }
    }
    Ok(participants)
}

/// The answers to sends whose second id differs from the first one: both lead to one conversation
/// from then on.
pub async fn learn(
    connection: &mut PgConnection,
    answers: &[(&str, &str, DateTime<Utc>)],
) -> sqlx::Result<()> {
    let said: Vec<Said<'_>> = answers
        .iter()
        .filter(|(asked, told, _)| asked != told)
        .map(|&(asked, told, at)| Said::Answer(asked, told, at))
        .collect();
    resolve(connection, &said).await.map(drop)
}

/// Whose conversation a message to this id belongs to, and what the provider is called with.
pub async fn resolve_send(pool: &Pool, to: &str) -> sqlx::Result<Result<Route, ChangedHands>> {
    let known = store::list_for_route(pool, to).await?;
    Ok(route::route(to, &known))
}

/// The ids that lead to a participant, the newest first.
pub async fn list(pool: &Pool, participant_id: &str) -> sqlx::Result<Vec<store::Alias>> {
    store::list(pool, participant_id).await
}
