//! A file on its way: in small pieces, of which the last one waits until the hash of all is known.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::MediaError;
use super::places::Place;
use super::types::TELLING;
use crate::id::MessageId;

/// The largest file, in bytes; that is Meta's own limit.
pub const MOST_BYTES: u64 = 100 * 1024 * 1024;
/// The largest piece that is passed on, in bytes.
const PIECE: usize = 64 * 1024;
/// How long nothing may come.
const STALL: Duration = Duration::from_mins(1);
/// How long all of it may take, so that whoever reads slowly gives its place back.
const LONGEST: Duration = Duration::from_mins(15);

/// A file's beginning, and the rest of it.
pub struct File {
    response: reqwest::Response,
    length: Option<u64>,
    hash: Sha256,
    expected: [u8; 32],
    /// What has come and was not passed on. The last byte of it may be the last of all.
    held: Bytes,
    received: u64,
    until: Instant,
    /// All of it has come, and is what it should be.
    is_checked: bool,
}

/// Why a file broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("nothing came in time")]
    Stalled,
    #[error("the connection broke")]
    Connection,
    #[error("it is larger than 100 MiB")]
    TooLarge,
    #[error("it is not what its hash says")]
    Hash,
}

impl From<Broken> for MediaError {
    /// Before anything was answered, it is an error like any other.
    fn from(why: Broken) -> Self {
        Self::failed(why.to_string())
    }
}

impl File {
    /// Reads the beginning of a file that must have this hash.
    pub async fn begin(
        response: reqwest::Response,
        expected: [u8; 32],
    ) -> Result<Self, MediaError> {
        // Later this would be the length of the rest.
        let length = response.content_length();
        if length.is_some_and(|length| length > MOST_BYTES) {
            return Err(Broken::TooLarge.into());
        }
        let mut file = Self {
            response,
            length,
            hash: Sha256::new(),
            expected,
            held: Bytes::new(),
            received: 0,
            until: Instant::now() + LONGEST,
            is_checked: false,
        };
        let mut start = BytesMut::new();
        while start.len() < TELLING
            && let Some(bytes) = file.receive().await?
        {
            start.extend_from_slice(&bytes);
        }
        file.held = start.freeze();
        if length == Some(file.received) {
            // It has come in one piece: whoever asks can be told.
            file.check()?;
        }
        Ok(file)
    }

    /// Its length, if that is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// How it begins.
    pub fn start(&self) -> &[u8] {
        &self.held[..self.held.len().min(TELLING)]
    }

    /// All of it. Where it breaks off, the stream ends with an error, and the answer without an end.
    pub fn stream(
        self,
        message_id: MessageId,
        place: Place,
    ) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        let parts = (Some(self), place);
        stream::unfold(parts, move |(file, place)| async move {
            let mut file = file?;
            match file.next().await {
                Ok(Some(piece)) => Some((Ok(piece), (Some(file), place))),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(%message_id, %error, "a file broke off, and so does the answer");
                    Some((Err(error), (None, place)))
                }
            }
        })
    }

    /// The next piece; none at the end of what was checked.
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        while !self.is_checked {
            if self.held.len() > PIECE {
                return Ok(Some(self.held.split_to(PIECE)));
            }
            let Some(bytes) = self.receive().await? else {
                self.check()?;
                break;
            };
            let before = std::mem::replace(&mut self.held, bytes);
            if !before.is_empty() {
                return Ok(Some(before));
            }
        }
        let last = std::mem::take(&mut self.held);
        Ok(Some(last).filter(|last| !last.is_empty()))
    }

    fn check(&mut self) -> Result<(), Broken> {
        if self.hash.clone().finalize()[..] != self.expected {
            return Err(Broken::Hash);
        }
        self.is_checked = true;
        Ok(())
    }

    /// What comes next; nothing at the end.
    async fn receive(&mut self) -> Result<Option<Bytes>, Broken> {
        let deadline = self.until.min(Instant::now() + STALL);
        let received = timeout_at(deadline, self.response.chunk()).await;
        let bytes = received.map_err(|_| Broken::Stalled)?;
        let Some(bytes) = bytes.map_err(|_| Broken::Connection)? else {
            return Ok(None);
        };
        self.received += bytes.len() as u64;
        if self.received > MOST_BYTES {
            return Err(Broken::TooLarge);
        }
        self.hash.update(&bytes);
        Ok(Some(bytes))
    }
}
