//! Signals: the first SIGTERM or Ctrl-C starts an orderly shutdown, another Ctrl-C ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code that shells use for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// A token that SIGTERM or Ctrl-C cancels. It listens from the moment this returns. Needs a
/// runtime.
pub fn stop() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopped.cancel();
        // A second SIGTERM does not count: some tools send it to a process and to its group.
        interrupt.recv().await;
        tracing::warn!("interrupted again, exiting at once");
        super::stderr::finish();
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

/// Survives the end of a terminal (SIGHUP), and logs that there is nothing to reload.
pub fn outlive_terminal() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP changes nothing: settings are read at the start");
        }
    });
    Ok(())
}
