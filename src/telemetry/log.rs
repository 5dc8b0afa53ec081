//! Logs, to stderr.

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, registry};

use super::fields::Fields;
use crate::error::UsageError;
use crate::process::{environment, stderr};
use crate::trace::{self, Collector};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The filter of a process that keeps running. The built-in mock logs each call, which the gateway
/// logs anyway; PostgreSQL's notices are about the migrator's own table.
pub const INFO: &str = "info,mock_meta_provider=warn,sqlx::postgres::notice=warn";
/// The filter of a command that ends by itself, and prints the rest. While `simulate` kills the
/// server, its mock finds nobody there.
pub const WARN: &str = "warn,mock_meta_provider::post=error";

/// Begins to log to stderr, filtered by `RUST_LOG`, else by these directives. Also traces, if there
/// is a collector.
pub fn log(format: LogFormat, default: &str, collector: Option<&Collector>) -> anyhow::Result<()> {
    let filter = match environment::variable("RUST_LOG").map_err(UsageError::from)? {
        Some(directives) => EnvFilter::try_new(directives)
            .map_err(|error| UsageError(format!("RUST_LOG: {error}")))?,
        None => EnvFilter::new(default),
    };
    let set = match collector {
        None => registry().with(filter).with(lines(format)).try_init(),
        // Traces do not depend on the log's filter.
        Some(collector) => registry()
            .with(trace::start(collector)?)
            .with(lines(format).with_filter(filter))
            .try_init(),
    };
    stderr::log_panics();
    set.map_err(|error| anyhow::anyhow!("logging could not be set up: {error}"))
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        // It would report on stderr that stderr is gone, and panic.
        .log_internal_errors(false)
        .with_writer(stderr::writer);
    match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(is_coloured())
            .fmt_fields(Fields)
            .boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// See <https://no-color.org>.
fn is_coloured() -> bool {
    let is_unwanted = environment::variable("NO_COLOR").is_ok_and(|value| value.is_some());
    !is_unwanted && std::io::IsTerminal::is_terminal(&std::io::stderr())
}
