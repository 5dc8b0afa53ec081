//! The state of a process: for operators, and for the machines that look after it.

pub mod http;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How old the check may be that `/ready` answers from.
const FRESH: Duration = Duration::from_secs(1);

/// The last check of the database, shared by all who ask whether this process is ready. However many
/// ask, the database is checked once a second.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// The result of the last check, or of a new one. Others that ask meanwhile wait for it.
    pub async fn of(&self, check: impl Future<Output = Result<(), String>>) -> Result<(), String> {
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, result)) if at.elapsed() < FRESH => result.clone(),
            _ => {
                let result = check.await;
                *last = Some((Instant::now(), result.clone()));
                result
            }
        }
    }
}
