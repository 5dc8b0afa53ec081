//! Work that must not be cut short: it runs in a task of its own, also when whoever began it goes away, and shutdown waits for it.

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{Error, Result};

/// The tasks of this process that shutdown waits for.
#[derive(Debug, Clone, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Runs work to its end and returns what it returns.
    ///
    /// # Errors
    /// `Interrupted`: it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.spawn(work).await.map_err(|_| Error::Interrupted)
    }

    /// Begins work, in the present span.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.spawn(work.in_current_span())
    }

    /// The tracker itself, for whoever waits for its tasks.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.0
    }
}
