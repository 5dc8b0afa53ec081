//! The media that can be downloaded; the oldest are dropped to make room.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// How many bytes are kept.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// A media object.
#[derive(Debug, Clone)]
pub(crate) struct Media {
    pub(crate) mime_type: String,
    pub(crate) bytes: Bytes,
    /// In base64, as Meta has it.
    pub(crate) sha256: String,
}

impl Media {
    pub(crate) fn new(mime_type: &str, bytes: Bytes) -> Self {
        Self {
            mime_type: mime_type.to_owned(),
            sha256: STANDARD.encode(Sha256::digest(&bytes)),
            bytes,
        }
    }

    /// A small object of this type, which differs from id to id.
    pub(crate) fn example(mime_type: &str, id: &str) -> Self {
        let beginning: &[u8] = match mime_type.split(['/', ';']).nth(1).unwrap_or_default() {
            "png" => b"\x89PNG\r\n\x1a\n",
            "jpeg" => b"\xff\xd8\xff\xe0\0\x10JFIF\0",
            "webp" => b"RIFF\x24\0\0\0WEBPVP8 ",
            "ogg" => b"OggS\0\x02",
            "pdf" => b"%PDF-1.4\n",
            "mp4" => b"\0\0\0\x18ftypmp42",
            _ => b"",
        };
        Self::new(mime_type, [beginning, id.as_bytes()].concat().into())
    }
}

#[derive(Debug, Default)]
pub(crate) struct MediaStore {
    by_id: HashMap<String, Media>,
    ids: VecDeque<String>,
    bytes: usize,
}

impl MediaStore {
    /// Keeps an object; one with the same id is replaced.
    pub(crate) fn keep(&mut self, id: &str, media: Media) {
        self.bytes += media.bytes.len();
        match self.by_id.insert(id.to_owned(), media) {
            Some(replaced) => self.bytes -= replaced.bytes.len(),
            None => self.ids.push_back(id.to_owned()),
        }
        while self.bytes > MAX_BYTES || self.ids.len() > 100_000 {
            let Some(oldest) = self.ids.pop_front() else {
                return;
            };
            let dropped = self.by_id.remove(&oldest);
            self.bytes -= dropped.map_or(0, |media| media.bytes.len());
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Media> {
        self.by_id.get(id).cloned()
    }
}
