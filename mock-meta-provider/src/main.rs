//! The provider as a program of its own: exits with 0 when it was stopped, 1 when it cannot run, 2 for usage.

use std::io::{self, IsTerminal};

use anyhow::Context;
use clap::Parser;
use mock_meta_provider::{Config, Mock};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// A messaging provider that misbehaves like the real ones
#[derive(Parser)]
#[command(
    version,
    after_help = "WEBHOOK_SECRET in the environment signs the posts to the webhook \
    (X-Hub-Signature-256).\nRUST_LOG sets what is logged [default: info]."
)]
struct Cli {
    /// Address to listen on
    #[arg(long, env, default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 is any free one
    #[arg(long, env, default_value_t = 4000)]
    port: u16,

    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would tell stderr that stderr is gone, and panic.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    run(cli).await
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = cli.config.with_secret_from_env()?;
    let listener = TcpListener::bind((cli.host.as_str(), cli.port))
        .await
        .with_context(|| format!("cannot listen on {}:{}", cli.host, cli.port))?;
    let stopped = stop_signal()?;
    let mock = Mock::start(config, listener)?;
    tracing::info!(seed = mock.seed(), "listening on {}", mock.url());
    if !mock.address().ip().is_loopback() {
        tracing::warn!("reachable from other machines, and open to all of them");
    }
    stopped.await;
    tracing::info!("stopping");
    mock.stop().await;
    Ok(())
}

/// Waits for SIGTERM or Ctrl-C; both are listened for as soon as this returns.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
