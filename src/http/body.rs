//! Reads bodies, up to a size and within a time.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::problem::Problem;

/// The largest body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How much of a larger one is read and thrown away, so that the caller reads the answer, in bytes.
const MAX_DISCARDED: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body, or the beginning of one that was refused.
#[derive(Debug)]
pub struct Received {
    /// At most [`MAX_BODY`] of it.
    pub bytes: Bytes,
    /// Why it was refused.
    pub problem: Option<Problem>,
}

/// Reads a body.
pub async fn read(mut body: Body) -> Received {
    let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
    let mut kept = BytesMut::new();
    let mut length = 0;
    let problem = loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_) => break Some(Problem::too_slow("the body did not arrive in time")),
            Ok(Some(Err(_))) => break Some(Problem::invalid("the body broke off")),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if length <= MAX_BODY => break None,
            Ok(None) => break Some(too_large()),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        let room = MAX_BODY - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if length > MAX_DISCARDED {
            break Some(too_large());
        }
    };
    Received {
        bytes: kept.freeze(),
        problem,
    }
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("the body is larger than {MAX_BODY} bytes"),
    )
}
