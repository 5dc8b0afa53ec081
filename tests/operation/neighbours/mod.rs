//! Bad neighbours: whatever they do, the gateway's memory is bounded, it says what is wrong, and afterwards it is in full service.

mod clients;
mod databases;
mod providers;
mod strangers;

use serde_json::json;
use uuid::Uuid;

use crate::support::{Client, Program, event};

/// A webhook is stored, and a message is sent.
async fn assert_full_service(client: &Client) {
    let key = Uuid::now_v7().to_string();
    let hello = event(&key, &key, "Hello", "2025-01-01T10:00:00Z");
    client.webhook(&hello).await.expect(200);
    let send = json!({ "channel": "whatsapp", "to": key, "text": "Merhaba" });
    let message = client.post("/messages/send", &send).await.expect(201);
    assert_eq!(message["status"], "SENT", "{message}");
    client.get("/ready").await.expect(200);
}

/// That a program's memory never grows by more than this.
struct Bounded<'a> {
    program: &'a Program,
    at_most_mib: u64,
}

impl<'a> Bounded<'a> {
    fn to(growth_mib: u64, program: &'a Program) -> Self {
        Self {
            program,
            at_most_mib: program.peak_memory_mib() + growth_mib,
        }
    }

    #[track_caller]
    fn check(&self) {
        let peak = self.program.peak_memory_mib();
        assert!(
            peak <= self.at_most_mib,
            "{peak} MiB, more than {} MiB",
            self.at_most_mib
        );
    }
}
