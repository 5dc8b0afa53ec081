//! The provider as a program: exits with 0 when stopped, 1 when it cannot run, 2 for wrong usage.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, FromArgMatches, Parser};
use mimalloc::MiMalloc;
use mock_meta_provider::edge::listen_address;
use mock_meta_provider::process::{environment, memory, signal, stderr};
use mock_meta_provider::{Config, Mock};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A messaging provider that misbehaves like the real ones
#[derive(Parser)]
#[command(
    version,
    after_help = "WEBHOOK_SECRET in the environment, or in the file that WEBHOOK_SECRET_FILE names, \
    signs the posts to the webhook (X-Hub-Signature-256).\n\
    WHATSAPP_ACCESS_TOKEN, META_APP_SECRET and META_VERIFY_TOKEN, or files likewise, are WhatsApp's: the \
    token that its calls must have, what signs its posts, and what the handshake shows; of a list the \
    first one counts.\n\
    RUST_LOG sets what is logged [default: info]."
)]
struct Cli {
    /// Address to listen on
    #[arg(long, env, default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 picks a free one
    #[arg(long, env, default_value_t = 4000)]
    port: u16,

    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = environment::matches(&Cli::command(), std::env::args_os())
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .unwrap_or_else(|error| error.exit());
    let code = match configured(cli) {
        Ok((cli, config)) => match run(cli, config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, ExitCode::FAILURE),
        },
        Err(error) => failed(&error, ExitCode::from(2)),
    };
    stderr::finish();
    code
}

fn failed(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    stderr::line(&format!("error: {error:#}"));
    code
}

/// Starts the log, and reads the secret from the environment.
fn configured(cli: Cli) -> anyhow::Result<(Cli, Config)> {
    let filter = match environment::variable("RUST_LOG")? {
        Some(directives) => {
            EnvFilter::try_new(directives).map_err(|error| anyhow!("RUST_LOG: {error}"))?
        }
        None => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        // It would write to stderr that stderr is gone, and panic.
        .log_internal_errors(false)
        .with_writer(stderr::writer)
        .with_ansi(io::stderr().is_terminal())
        .init();
    stderr::log_panics();
    if let Err(error) = memory::keep_private() {
        tracing::warn!(%error, "a core dump of this process would contain secrets and texts");
    }
    let config = cli.config.clone().with_secret_from_env()?;
    Ok((cli, config))
}

async fn run(cli: Cli, config: Config) -> anyhow::Result<()> {
    let listener = match listen_address(&cli.host) {
        Some(address) => TcpListener::bind((address, cli.port)).await,
        None => TcpListener::bind((cli.host.as_str(), cli.port)).await,
    };
    let listener =
        listener.with_context(|| format!("cannot listen on {}:{}", cli.host, cli.port))?;
    signal::outlive_terminal()?;
    let stopped = signal::stop()?;
    let mock = Mock::start(config, listener)?;
    tracing::info!(seed = mock.seed(), "listening on {}", mock.url());
    if !mock.address().ip().is_loopback() {
        tracing::warn!("other machines can reach this, and it asks nobody for a key");
    }
    stopped.cancelled().await;
    tracing::info!("stopping");
    mock.stop().await;
    Ok(())
}
