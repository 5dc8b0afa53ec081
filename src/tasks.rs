//! Work that must not be cut short. It runs in its own task, so it goes on when the caller goes
//! away, and shutdown waits for it.

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{Error, Result};

/// The tasks of this process that shutdown waits for.
#[derive(Debug, Clone, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Runs work to its end and returns its result.
    ///
    /// # Errors
    /// `Interrupted`: it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.spawn(work).await.map_err(|_| Error::Interrupted)
    }

    /// Begins work, in the current span.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.spawn(work.in_current_span())
    }

    /// The tracker, to wait for the tasks.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.0
    }
}
