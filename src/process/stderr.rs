//! Standard error, without waiting for it: a thread writes the lines. If nobody reads them, lines
//! are lost, and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// The most lines that wait to be written: a few MiB.
const MAX_LINES: usize = 8192;
/// How long to wait for a full terminal or pipe that another program has made non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(10);

static LINES: OnceLock<Lines> = OnceLock::new();

struct Lines {
    writer: NonBlocking,
    lost: ErrorCounter,
    thread: Mutex<Option<WorkerGuard>>,
}

fn lines() -> &'static Lines {
    LINES.get_or_init(|| {
        let (writer, thread) = NonBlockingBuilder::default()
            .buffered_lines_limit(MAX_LINES)
            .thread_name("stderr")
            .finish(Stderr { said: 0 });
        Lines {
            lost: writer.error_counter(),
            writer,
            thread: Mutex::new(Some(thread)),
        }
    })
}

/// A writer of whole lines, one in each call.
#[must_use]
pub fn writer() -> NonBlocking {
    lines().writer.clone()
}

/// Writes a line.
pub fn line(text: &str) {
    // It always takes the line, or counts it as lost.
    writer().write_all(format!("{text}\n").as_bytes()).ok();
}

/// How many lines were lost because nobody read the earlier ones.
#[must_use]
pub fn lost_lines() -> usize {
    LINES.get().map_or(0, |lines| lines.lost.dropped_lines())
}

/// Waits until the lines so far are written, for about a second at most. Later ones are not
/// written.
pub fn finish() {
    let Some(lines) = LINES.get() else {
        return;
    };
    let thread = lines.thread.lock();
    let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
    let lost = lost_lines();
    writer().write_all(b"").ok();
    if lost_lines() > lost {
        // Nobody reads. Dropping the guard would print on stdout that it could not wait.
        std::mem::forget(thread);
    }
}

/// Logs panics by their place, also those that are caught. The default report may contain a
/// message's text, and would block.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a part of the program panicked");
    }));
}

/// Standard error, and the number of lost lines that was reported last.
struct Stderr {
    said: usize,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(FULL_PAUSE);
                }
                written => return written,
            }
        }
    }

    /// Called when all waiting lines are written: somebody reads again.
    fn flush(&mut self) -> io::Result<()> {
        let lost = lost_lines();
        if lost > self.said {
            let lines = lost - self.said;
            self.said = lost;
            tracing::warn!(lines, "log lines lost: earlier ones were not read");
        }
        io::stderr().flush()
    }
}
