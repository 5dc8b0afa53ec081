//! Files of messages: fetched from Meta when somebody asks, checked, passed on, and not kept.

pub mod fetch;
pub mod http;
mod places;
mod stream;
mod types;

use std::fmt;

use serde_json::Value;

use crate::channel::Channel;
use crate::message::Message;

/// The kinds of messages that are a file.
const KINDS: [&str; 6] = ["image", "video", "audio", "voice", "document", "sticker"];

/// Meta's id of a file: it becomes a part of a path, so it is digits and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaId(String);

impl MediaId {
    /// The longest one, in digits.
    const LONGEST: usize = 64;

    fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit());
        is_id.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file of a message, by what the message says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    id: MediaId,
    mime_type: Option<String>,
    sha256: Option<String>,
    file_name: Option<String>,
}

impl Attachment {
    /// The file of this message, if it has one that Meta keeps.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        let is_file = message.channel == Channel::Whatsapp && KINDS.contains(&&*message.kind);
        if !is_file || message.deleted_at.is_some() {
            return None;
        }
        Self::parse(message.content.as_deref()?)
    }

    fn parse(content: &str) -> Option<Self> {
        let content: Value = serde_json::from_str(content).ok()?;
        let text = |name: &str| content.get(name).and_then(Value::as_str);
        Some(Self {
            id: MediaId::parse(text("id")?)?,
            mime_type: text("mime_type").map(str::to_owned),
            sha256: text("sha256").map(str::to_owned),
            file_name: text("filename").map(str::to_owned),
        })
    }
}

/// Why a file is not handed out. No text of Meta's is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// Meta has no such file, or no longer.
    #[error("Meta has no such file: it keeps a customer's for seven days")]
    Gone,
    /// Meta wants fewer calls.
    #[error("Meta throttles the calls of this number")]
    Throttled,
    /// Too many files are on their way.
    #[error("too many files are on their way")]
    Busy,
    /// Meta did not hand it out.
    #[error("Meta did not hand the file out: {0}")]
    Failed(String),
}

impl MediaError {
    fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_digits_never_becomes_a_part_of_a_path() {
        let parsed = |id: &str| {
            let content = serde_json::json!({ "id": id, "mime_type": 7 });
            Attachment::parse(&content.to_string()).map(|file| file.id.to_string())
        };
        let longest = "1".repeat(64);
        for id in ["1", "1037543291543636", &longest] {
            assert_eq!(parsed(id).as_deref(), Some(id));
        }
        for id in [
            "",
            "../me/accounts",
            "1/../2",
            "1?fields=x",
            "1%2F2",
            "wamid.X",
            "-1",
            "1 ",
            "١",
            &"1".repeat(65),
        ] {
            assert_eq!(parsed(id), None, "{id}");
        }
    }

    #[test]
    fn content_without_an_id_is_no_file() {
        for content in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"link":"https://a/b"}"#,
            r#"{"id":5}"#,
            r#"["id"]"#,
        ] {
            assert_eq!(Attachment::parse(content), None, "{content}");
        }
    }
}
