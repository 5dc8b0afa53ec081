//! What a test of the page plays on: a gateway, its provider and database, a gate, and a browser.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;

use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::chromium;
use crate::gate::Gate;
use crate::page::Page;
use crate::support::{Database, Program, System, seconds_from_now};

pub struct Stage {
    pub system: System,
    pub gate: Gate,
    pub page: Page,
    /// Further pages, which end as the first does.
    pub others: Vec<Page>,
    /// Further gateways, which outlive the pages.
    pub gateways: Vec<Program>,
}

/// Plays on a stage with a gateway that has its defaults.
pub async fn play(test: impl AsyncFnOnce(&mut Stage)) {
    play_with(&[], test).await;
}

/// The same with these environment variables. In the end no browser may have a complaint; of one
/// in which something never happened there is a picture in `target/inbox_page`.
pub async fn play_with(environment: &[(&str, &str)], test: impl AsyncFnOnce(&mut Stage)) {
    if is_skipped() {
        return;
    }
    let database = Database::new().await;
    play_on(System::on(database, environment).await, test).await;
}

/// The same with this system.
pub async fn play_on(system: System, test: impl AsyncFnOnce(&mut Stage)) {
    if is_skipped() {
        return;
    }
    let gate = Gate::before(system.gateway.url()).await;
    let page = Page::new(gate.url()).await;
    let mut stage = Stage {
        system,
        gate,
        page,
        others: Vec::new(),
        gateways: Vec::new(),
    };
    let played = AssertUnwindSafe(test(&mut stage)).catch_unwind().await;
    let pages = std::iter::once(stage.page).chain(stage.others);
    end(played, pages).await;
}

/// Plays in a browser alone, which goes where the test wants.
pub async fn without_gateway(test: impl AsyncFnOnce(&mut Page)) {
    if is_skipped() {
        return;
    }
    let mut page = Page::new("about:blank").await;
    let played = AssertUnwindSafe(test(&mut page)).catch_unwind().await;
    end(played, std::iter::once(page)).await;
}

async fn end(played: Result<(), Box<dyn Any + Send>>, pages: impl Iterator<Item = Page>) {
    let Err(panic) = played else {
        for page in pages {
            page.close().await;
        }
        return;
    };
    for (number, page) in pages.enumerate() {
        picture(&page, &format!("failed-{}-{number}", test_name())).await;
        page.driver.quit().await.ok();
    }
    resume_unwind(panic);
}

#[allow(clippy::print_stderr)] // where a test says what it did not do
pub fn is_skipped() -> bool {
    let is_skipped = !chromium::is_here();
    if is_skipped {
        eprintln!("SKIPPED: the page is not tested, there is no chromedriver and no Chromium");
    }
    is_skipped
}

/// A file below `target/inbox_page`.
pub fn artefact(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("inbox_page");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Keeps a picture of the page.
pub async fn picture(page: &Page, name: &str) -> PathBuf {
    let path = artefact(&format!("{name}.png"));
    // A browser that has died has none.
    if let Ok(png) = page.driver.screenshot_as_png().await {
        std::fs::write(&path, png).unwrap();
    }
    path
}

fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test");
    name.replace("::", "-")
}

impl Stage {
    /// One more browser, of another person.
    pub async fn another(&mut self) -> usize {
        let page = Page::new(self.gate.url()).await;
        self.others.push(page);
        self.others.len() - 1
    }

    /// A customer writes now; the id of the conversation.
    pub async fn writes(&self, customer: &str, text: &str) -> String {
        self.writes_at(customer, text, &seconds_from_now(0)).await
    }

    /// A customer has written at this time.
    pub async fn writes_at(&self, customer: &str, text: &str, time: &str) -> String {
        let id = uuid::Uuid::now_v7().to_string();
        let event = json!({ "eventId": id, "channel": "whatsapp", "from": customer, "text": text, "timestamp": time });
        let answer = self.system.client.webhook(&event).await.expect(200);
        answer["conversationId"].as_str().unwrap().to_owned()
    }

    /// A customer has written so often, a second apart, the last time now.
    pub async fn writes_often(&self, customer: &str, times: i64) -> String {
        let mut conversation = String::new();
        for number in 1..=times {
            let time = seconds_from_now(number - times);
            let text = format!("Message {number} of {customer}");
            conversation = self.writes_at(customer, &text, &time).await;
        }
        conversation
    }

    /// Somebody has read all of a conversation.
    pub async fn reads(&self, conversation: &str) {
        let path = format!("/conversations/{conversation}/read");
        let answer = self.system.client.ask("POST", &path, &[], "").await;
        answer.expect(200);
    }

    /// A conversation as the API has it.
    pub async fn conversation(&self, id: &str) -> Value {
        let path = format!("/conversations/{id}?limit=200");
        self.system.client.get(&path).await.expect(200)
    }

    /// The texts of what was sent in a conversation, oldest first.
    pub async fn sent(&self, conversation: &str) -> Vec<String> {
        let conversation = self.conversation(conversation).await;
        let messages = conversation["messages"].as_array().unwrap().iter().rev();
        let sent = messages.filter(|message| message["direction"] == "OUTBOUND");
        sent.map(|message| message["text"].as_str().unwrap().to_owned())
            .collect()
    }
}
