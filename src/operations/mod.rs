//! How a process is: for operators, and for the machines that look after it.

pub mod http;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How old the look at the database may be that `/ready` answers from.
const FRESH: Duration = Duration::from_secs(1);

/// The last look at the database, for all who ask whether this process is ready: however many those are, it is one look a second.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// What the last look has seen, or a new one; whoever asks meanwhile waits for that.
    pub async fn of(&self, look: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, seen)) if at.elapsed() < FRESH => seen.clone(),
            _ => {
                let seen = look.await;
                *last = Some((Instant::now(), seen.clone()));
                seen
            }
        }
    }
}
