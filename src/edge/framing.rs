//! Finds requests whose end is not certain. One with both `Content-Length` and `Transfer-Encoding`,
//! or with an unknown coding, may end elsewhere for a proxy in front, which would take the rest of
//! it for another client's request. It is refused. The HTTP parser drops the length of such a
//! request, so heads are read here as they arrive.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, header};

const LENGTH: &[u8] = b"content-length:";

/// Why the end of a request is not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// It has a length and a coding; or it is pipelined, and its head was not seen apart from
    /// others.
    TwoLengths,
    /// Its coding is not `chunked`.
    Coding,
}

impl Ambiguous {
    /// For people.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::TwoLengths => "Transfer-Encoding goes with no Content-Length, and in no pipeline",
            Self::Coding => "Transfer-Encoding must be chunked, and nothing else",
        }
    }
}

/// The head of a request, as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The beginning and the length of the current line.
    line: [u8; LENGTH.len()],
    length: usize,
    has_begun: bool,
    /// The number of its header fields so far.
    fields: u32,
    has_length: bool,
    is_over: bool,
}

impl Head {
    /// Reads what has arrived, up to the end of the head.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !self.is_over && !bytes.is_empty() {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if let Some(room) = self.line.get_mut(self.length..) {
                let kept = room.len().min(piece.len());
                room[..kept].copy_from_slice(&piece[..kept]);
            }
            self.length += piece.len();
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let is_blank = self.length == 0 || self.length == 1 && self.line[0] == b'\r';
        if is_blank {
            // Blank lines may come before a request.
            self.is_over = self.has_begun;
        } else if self.has_begun {
            self.fields = self.fields.saturating_add(1);
            let is_length = self.length >= LENGTH.len() && self.line.eq_ignore_ascii_case(LENGTH);
            self.has_length |= is_length;
        } else {
            self.has_begun = true;
        }
        self.length = 0;
    }
}

/// What was seen of the current request's head, shared with the task that serves the request.
#[derive(Debug, Default)]
pub(super) struct Seen(AtomicU64);

const HAS_LENGTH: u64 = 1 << 31;
const IS_OVER: u64 = 1 << 30;

impl Seen {
    pub(super) fn set(&self, turn: u64, head: &Head) {
        let length = if head.has_length { HAS_LENGTH } else { 0 };
        let over = if head.is_over { IS_OVER } else { 0 };
        let fields = u64::from(head.fields).min(IS_OVER - 1);
        let seen = turn << 32 | length | over | fields;
        self.0.store(seen, Ordering::Relaxed);
    }

    /// Why the end of this turn's request is not certain. Its head was seen if it has as many
    /// fields as the parser found.
    pub(super) fn ambiguous(&self, turn: u64, headers: &HeaderMap) -> Option<Ambiguous> {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let coding = codings.next()?;
        let fields = u64::try_from(headers.len()).unwrap_or(u64::MAX);
        if self.0.load(Ordering::Relaxed) != (turn << 32 | IS_OVER | fields) {
            return Some(Ambiguous::TwoLengths);
        }
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        (!is_chunked || codings.next().is_some()).then_some(Ambiguous::Coding)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    /// What is said of a request whose head came in pieces of this size.
    fn said(head: &str, pieces: usize) -> Option<Ambiguous> {
        let mut read = Head::default();
        for piece in head.as_bytes().chunks(pieces) {
            read.read(piece);
        }
        let seen = Seen::default();
        seen.set(4, &read);
        let mut headers = HeaderMap::new();
        for line in head
            .trim_start()
            .lines()
            .skip(1)
            .take_while(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(':').unwrap();
            // As the parser does.
            if !name.eq_ignore_ascii_case("content-length") {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
            }
        }
        seen.ambiguous(4, &headers)
    }

    #[test]
    fn a_length_beside_a_coding_is_seen_however_it_comes() {
        let with = |fields: &str| format!("\r\nPOST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nbody\r\n");
        for pieces in [1, 2, 7, 15, 16, 1000] {
            for (fields, expected) in [
                ("Transfer-Encoding: chunked\r\n", None),
                ("transfer-encoding:Chunked\r\n", None),
                ("Content-Length: 5\r\n", None),
                ("Transfer-Encoding: chunked\nX-Content-Length: 5\n", None),
                (
                    "Transfer-Encoding: gzip, chunked\r\n",
                    Some(Ambiguous::Coding),
                ),
                (
                    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                    Some(Ambiguous::Coding),
                ),
                (
                    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                    Some(Ambiguous::TwoLengths),
                ),
                (
                    "Transfer-Encoding: chunked\r\nCONTENT-LENGTH:5\r\n",
                    Some(Ambiguous::TwoLengths),
                ),
                (
                    "Transfer-Encoding: gzip, chunked\nContent-length: 5\n",
                    Some(Ambiguous::TwoLengths),
                ),
            ] {
                assert_eq!(
                    said(&with(fields), pieces),
                    expected,
                    "{fields} in {pieces}"
                );
            }
        }
    }

    #[test]
    fn a_head_of_which_a_part_came_before_is_not_taken_for_seen() {
        let headers = [("host", "a"), ("transfer-encoding", "chunked")];
        let headers = headers.map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_static(value),
            )
        });
        let headers: HeaderMap = headers.into_iter().collect();
        for rest in [
            "Transfer-Encoding: chunked\r\n\r\n",
            "",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let mut read = Head::default();
            read.read(rest.as_bytes());
            let seen = Seen::default();
            seen.set(2, &read);
            assert_eq!(
                seen.ambiguous(2, &headers),
                Some(Ambiguous::TwoLengths),
                "{rest}"
            );
        }
        let mut whole = Head::default();
        whole.read(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let seen = Seen::default();
        seen.set(2, &whole);
        assert_eq!(seen.ambiguous(2, &headers), None);
        assert_eq!(
            seen.ambiguous(4, &headers),
            Some(Ambiguous::TwoLengths),
            "of another turn"
        );
    }
}
