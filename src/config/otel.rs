//! Where traces go, by OpenTelemetry's variables. As OpenTelemetry requires, wrong values of most
//! of them do not stop the program.

use std::time::Duration;

use clap::Args;

use super::usage::url_of;
use crate::error::UsageError;
use crate::peer::{self, Peer};
use crate::process::{environment, hidden::Hidden};
use crate::trace::Collector;

/// OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The options for traces.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Where to send traces, by OTLP over HTTP: a collector's base URL such as
    /// `http://localhost:4318`; unset: nowhere, as with `OTEL_SDK_DISABLED=true` or
    /// `OTEL_TRACES_EXPORTER=none`
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        global = true,
        display_order = 1001
    )]
    otlp_endpoint: Option<Hidden<String>>,
    /// Where to send traces: exactly this URL, which wins over --otlp-endpoint
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        hide_env_values = true,
        value_name = "URL",
        global = true,
        display_order = 1002
    )]
    otlp_traces_endpoint: Option<Hidden<String>>,
}

impl TraceArgs {
    /// The collector, if traces are asked for.
    pub fn collector(&self) -> Result<Option<Collector>, UsageError> {
        if !is_wanted() {
            return Ok(None);
        }
        let url = if let Some(url) = &self.otlp_traces_endpoint {
            let name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
            url_of(name, peer::http_url(url), "http://localhost:4318/v1/traces")?
        } else if let Some(url) = &self.otlp_endpoint {
            let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
            let base = url_of(name, peer::base_url(url), "http://localhost:4318")?;
            peer::below(&base, "/v1/traces")
        } else {
            return Ok(None);
        };
        Ok(Some(Collector {
            peer: Peer::at(url),
            timeout: timeout(),
        }))
    }

    /// Warns of exporters that do not exist here. OpenTelemetry wants a warning, not an error.
    pub fn warn_of_unknown_exporters(&self) {
        for name in exporters().filter(|name| !matches!(&**name, "otlp" | "none")) {
            tracing::warn!(exporter = %name, "OTEL_TRACES_EXPORTER has an exporter other than otlp and none: it is ignored");
        }
    }
}

/// Whether traces are not switched off.
fn is_wanted() -> bool {
    let is_disabled = value("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true");
    let is_none = exporters().any(|name| name == "none") && !exporters().any(|name| name == "otlp");
    !is_disabled && !is_none
}

fn exporters() -> impl Iterator<Item = String> {
    let names = value("OTEL_TRACES_EXPORTER").to_ascii_lowercase();
    let names: Vec<String> = names
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect();
    names.into_iter().filter(|name| !name.is_empty())
}

/// The timeout of traces, else the general one, in milliseconds. What is not a number is ignored.
fn timeout() -> Duration {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let mut given = names.iter().filter_map(|name| value(name).parse().ok());
    given.next().map_or(TIMEOUT, Duration::from_millis)
}

/// What is not Unicode is ignored too.
fn value(name: &'static str) -> String {
    let value = environment::variable(name).unwrap_or_default();
    value.unwrap_or_default()
}
