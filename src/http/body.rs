//! Reads bodies, up to a size and within a time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::problem::{Problem, kind};
use super::route::BodyLimit;

/// How much of a larger one is read and thrown away, so that the caller reads the answer, in bytes.
const MAX_DISCARDED: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body, or the beginning of one that was refused.
#[derive(Debug)]
pub struct Received {
    /// At most as much of it as the route takes.
    pub bytes: Bytes,
    /// Why it was refused.
    pub problem: Option<Problem>,
}

/// Reads a body, up to the limit of its route.
pub async fn read(mut body: Body, BodyLimit(limit): BodyLimit) -> Received {
    let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
    let mut kept = BytesMut::new();
    let mut length = 0;
    let problem = loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => break Some(Problem::too_slow("the body did not arrive in time")),
            Ok(Some(Err(_))) => break Some(Problem::invalid("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if length <= limit => break None,
            Ok(None) => break Some(too_large(limit)),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let room = limit - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if length > limit.max(MAX_DISCARDED) {
            break Some(too_large(limit));
        }
    };
    Received {
        bytes: kept.freeze(),
        problem,
    }
}

fn too_large(limit: usize) -> Problem {
    let detail = format!("the body is larger than {limit} bytes");
    Problem::of(kind::TOO_LARGE, detail)
}
