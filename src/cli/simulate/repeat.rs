//! Requests that are repeated until they are acknowledged, as providers and backends do. The proofs
//! by crash and by failover (tests/load) ask by it, too.

use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;

/// Why a request has no answer to count.
#[derive(Debug)]
pub enum Refusal {
    /// It may be repeated: 503, or no answer at all.
    Again(String),
    /// It will not be any better the next time.
    Final(anyhow::Error),
}

/// Asks again after a pause, for as long as that may help and no longer than `patience`.
pub async fn repeat<T, A: Future<Output = Result<T, Refusal>>>(
    patience: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> A,
) -> Result<T, Refusal> {
    let started_at = Instant::now();
    loop {
        match ask().await {
            Err(Refusal::Again(_)) if started_at.elapsed() <= patience => {
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
}

/// What to do about an answer of this status.
pub(super) fn hint(status: u16) -> &'static str {
    if status == 401 {
        "; set API_KEYS and WEBHOOK_SECRET as the gateway has them"
    } else {
        ""
    }
}

/// The answer to a request.
pub async fn answered<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Refusal> {
    let (_, answer) = answered_with(request).await?;
    Ok(answer)
}

/// The status of the answer to a request, and the answer.
pub async fn answered_with<T: DeserializeOwned>(
    request: RequestBuilder,
) -> Result<(u16, T), Refusal> {
    let again = |error: reqwest::Error| Refusal::Again(format!("{:#}", anyhow::Error::from(error)));
    let answer = request.send().await.map_err(again)?;
    let (status, url) = (answer.status(), answer.url().clone());
    let body = answer.bytes().await.map_err(again)?;
    if status.as_u16() == 503 {
        return Err(Refusal::Again("it answers 503".to_owned()));
    }
    if !status.is_success() {
        let body = String::from_utf8_lossy(&body);
        let error = anyhow::anyhow!("{url} answers {status}{}: {body}", hint(status.as_u16()));
        return Err(Refusal::Final(error));
    }
    let answer = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answers {status} with something else than expected"))
        .map_err(Refusal::Final)?;
    Ok((status.as_u16(), answer))
}
