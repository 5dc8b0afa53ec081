//! Signals: the first SIGTERM or Ctrl-C asks for an orderly end, a further Ctrl-C ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Cancelled by SIGTERM or Ctrl-C; listened for as soon as this returns, within a runtime.
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
        // Not so a second SIGTERM: some send it to a process and to its group.
        interrupt.recv().await;
        tracing::warn!("interrupted again: ends at once");
        super::stderr::finish();
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

/// Lives on when a terminal closes (SIGHUP), and says that there is nothing to reload.
pub fn outlive_terminal() -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP changes nothing: settings are read at the start");
        }
    });
    Ok(())
}
