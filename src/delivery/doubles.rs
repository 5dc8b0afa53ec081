//! Messages that the provider has accepted twice: it must not happen, so it is counted and logged.

use metrics::counter;
use sqlx::PgConnection;

use super::store::{self, Accepted, Settled};
use crate::provider::hashed_id;

/// Binds those of these ids whose messages were settled before, and reports whose message has
/// another id already.
pub async fn bind(
    connection: &mut PgConnection,
    accepted: &[Accepted<'_>],
    settled: &[Settled],
) -> sqlx::Result<()> {
    let is_new = |it: &Accepted<'_>| settled.iter().any(|row| row.message_id == it.message_id);
    let known: Vec<&Accepted<'_>> = accepted.iter().filter(|it| !is_new(it)).collect();
    if known.is_empty() {
        return Ok(());
    }
    for double in store::bind(connection, &known).await? {
        counter!("gateway_double_sends_total").increment(1);
        tracing::error!(
            message_id = %double.message_id,
            first = hashed_id(&double.first),
            second = hashed_id(&double.second),
            "a message was sent twice"
        );
    }
    Ok(())
}
