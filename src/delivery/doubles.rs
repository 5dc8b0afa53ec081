//! Messages that the provider has accepted twice: it must not happen, so it is counted and logged.

use metrics::counter;
use sqlx::PgConnection;

use super::store::{self, Accepted, Settled};
use crate::id::MessageId;
use crate::provider::hashed_id;

/// Binds those of these ids whose messages were settled before, and reports whose message has
/// another id already.
pub async fn bind(
    connection: &mut PgConnection,
    accepted: &[Accepted<'_>],
    settled: &[Settled],
) -> sqlx::Result<()> {
    // By its id too: of two acceptances of one message in one batch, only one has settled it.
    let is_new = |it: &Accepted<'_>| {
        settled.iter().any(|row| {
            row.message_id == it.message_id
                && row.provider_message_id.as_deref() == Some(it.provider_message_id)
        })
    };
    let known: Vec<&Accepted<'_>> = accepted.iter().filter(|it| !is_new(it)).collect();
    if known.is_empty() {
        return Ok(());
    }
    for double in store::bind(connection, &known).await? {
        report(double.message_id, &double.first, &double.second);
    }
    Ok(())
}

/// Counts and logs that a message has two ids of the provider's, whoever has found it out.
pub fn report(message_id: MessageId, first: &str, second: &str) {
    counter!("gateway_double_sends_total").increment(1);
    let (first, second) = (hashed_id(first), hashed_id(second));
    tracing::error!(%message_id, first, second, "a message was sent twice");
}
