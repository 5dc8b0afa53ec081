//! Made-up customers, so that the page can be tried before anybody writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Url;
use serde_json::json;

use crate::peer::{Peer, PeerError, below, http_url};

/// How long the mock provider may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who writes, on which channel, and what.
const MESSAGES: [(&str, &str, &str); 8] = [
    (
        "905321112233",
        "whatsapp",
        "Hi! Is order 1042 on its way? It should have come yesterday.",
    ),
    ("lena.b", "instagram", "Do you have the blue one in size M?"),
    (
        "4915112345678",
        "whatsapp",
        "Guten Tag, kann ich meine Bestellung noch ändern?",
    ),
    ("905321112233", "whatsapp", "Sorry, I meant order 1024 🙈"),
    (
        "mert_design",
        "instagram",
        "Merhaba, kargo ücreti ne kadar?",
    ),
    (
        "4915112345678",
        "whatsapp",
        "Es geht um die Farbe: lieber schwarz als weiß.",
    ),
    ("966501234567", "whatsapp", "السلام عليكم، متى يصل طلبي؟"),
    (
        "lena.b",
        "instagram",
        "Great, thank you!\nThen I'll take two 🙂",
    ),
];

/// Lets customers write, by way of the built-in mock provider.
#[derive(Debug)]
pub struct Demo {
    url: Url,
    client: reqwest::Client,
    next: AtomicUsize,
}

impl Demo {
    /// By the mock provider at this URL.
    ///
    /// # Errors
    /// No client could be made for it.
    pub fn new(mock: &str) -> Result<Self, PeerError> {
        let url = http_url(mock).expect("a mock that runs has a URL");
        let url = below(&url, "/simulate/inbound");
        let peer = Peer::at(url.clone());
        let client = peer.built(peer.client().timeout(TIMEOUT).build())?;
        Ok(Self {
            url,
            client,
            next: AtomicUsize::new(0),
        })
    }

    /// Has the next customer write; who that is. The message comes by the webhook, as all do.
    ///
    /// # Errors
    /// The mock provider did not do it.
    pub async fn write(&self) -> reqwest::Result<&'static str> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let (from, channel, text) = MESSAGES[next % MESSAGES.len()];
        let message = json!({
            "channel": channel, "from": from, "text": text, "duplicate": false, "outOfOrder": false,
        });
        let answer = self.client.post(self.url.clone()).json(&message).send();
        answer.await?.error_for_status()?;
        Ok(from)
    }
}
