//! The live feed: everything is told, to everybody, and nothing is lost where a listener comes back.

mod crash;
mod gaps;
mod limits;
mod protocol;
mod resets;
mod resume;
mod rows;

use serde_json::Value;

use crate::support::{Client, Event, event};

/// Customers write, each his own message, one after the other.
async fn write(client: &Client, texts: impl IntoIterator<Item = impl AsRef<str>>) {
    for text in texts {
        let text = text.as_ref();
        let event = event(
            &format!("evt-{text}"),
            &format!("user-{text}"),
            text,
            "2025-01-01T10:00:00Z",
        );
        client.webhook(&event).await.expect(200);
    }
}

/// The texts of the messages that these events tell as new.
fn texts(events: &[Event]) -> Vec<String> {
    let created = events
        .iter()
        .filter_map(|event| event.message("message.created"));
    let mut texts: Vec<String> = created
        .map(|message| message["text"].as_str().unwrap().to_owned())
        .collect();
    texts.sort();
    texts
}

/// The conversations that these events show.
fn conversations(events: &[Event]) -> Vec<&Value> {
    let shown = events
        .iter()
        .filter(|event| event.kind == "conversation.updated");
    shown.map(|event| &event.data["conversation"]).collect()
}
