//! A listener of the live feed: the lines of a stream, as events.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::time::timeout;

use super::{Client, DEADLINE};

/// One server-sent event.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Event {
    /// The message that it shows, if it is of this kind.
    pub fn message(&self, kind: &str) -> Option<&Value> {
        (self.kind == kind).then(|| &self.data["message"])
    }

    /// Why it says that the listener has to fetch again.
    #[track_caller]
    pub fn reason(&self) -> &str {
        assert_eq!(self.kind, "reset", "{self:?}");
        self.data["reason"].as_str().unwrap()
    }
}

/// A stream that is being read.
pub struct Listener {
    response: reqwest::Response,
    unread: Vec<u8>,
    events: VecDeque<Event>,
    /// The last position that it was told.
    pub id: String,
}

impl Listener {
    /// Listens, such as to `?channel=whatsapp`, and has read the `hello`.
    pub async fn open(client: &Client, query: &str) -> Self {
        Self::open_with(client, query, &[]).await
    }

    /// The same behind a position.
    pub async fn resume(client: &Client, id: &str) -> Self {
        Self::open_with(client, "", &[("last-event-id", id)]).await
    }

    pub async fn open_with(client: &Client, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = client.http.get(client.url(&format!("/events{query}")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut listener = Self {
            response,
            unread: Vec::new(),
            events: VecDeque::new(),
            id: String::new(),
        };
        let hello = listener.next().await;
        assert_eq!(hello.kind, "hello");
        assert!(hello.id.is_some(), "{hello:?}");
        listener
    }

    /// The next event; waits for it.
    pub async fn next(&mut self) -> Event {
        self.try_next().await.expect("the stream has ended")
    }

    /// The next event, or none at the end of the stream.
    pub async fn try_next(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let chunk = timeout(DEADLINE, self.response.chunk()).await;
            let chunk = chunk.expect("nothing comes");
            self.take(&chunk.ok()??);
        }
        let event = self.events.pop_front()?;
        if let Some(id) = &event.id {
            self.id.clone_from(id);
        }
        Some(event)
    }

    /// Reads until an event is the last one; all of them, pings aside.
    pub async fn until(&mut self, mut is_last: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        let read = async {
            loop {
                let event = self.next().await;
                if event.kind == "ping" {
                    continue;
                }
                let is_last = is_last(&event);
                events.push(event);
                if is_last {
                    return;
                }
            }
        };
        // Pings come for as long as the stream lasts.
        let read = timeout(DEADLINE, read).await;
        assert!(read.is_ok(), "it is never told; but {events:?}");
        events
    }

    /// Reads until a message with this text is told as new.
    pub async fn until_text(&mut self, text: &str) -> Vec<Event> {
        self.until(|event| {
            let message = event.message("message.created");
            message.is_some_and(|message| message["text"] == text)
        })
        .await
    }

    fn take(&mut self, chunk: &[u8]) {
        self.unread.extend_from_slice(chunk);
        while let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.unread.drain(..end + 2).collect();
            let block = String::from_utf8(block).unwrap();
            let of = |name: &str| {
                let mut lines = block.lines().rev();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::to_owned)
            };
            self.events.push_back(Event {
                kind: of("event: ").unwrap_or_else(|| panic!("no event in {block:?}")),
                id: of("id: "),
                data: serde_json::from_str(&of("data: ").unwrap()).unwrap(),
            });
        }
    }
}
