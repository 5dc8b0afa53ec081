//! Traces for OpenTelemetry. Without an endpoint, everything here does nothing. A trace begins with
//! a request, or before it if the caller says so. It goes on to the provider, and through the queue
//! to every later attempt, in whichever process. If the collector is away, only spans are lost.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TraceContextExt, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use reqwest::blocking::ClientBuilder;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::registry::LookupSpan;

use crate::error::UsageError;
use crate::peer::Peer;

/// A collector of traces.
#[derive(Debug)]
pub struct Collector {
    /// The exact URL that spans are posted to.
    pub peer: Peer,
    /// The longest time of an export.
    pub timeout: Duration,
}

/// The name of the header, and of the column that carries it through the queue.
pub const TRACEPARENT: &str = "traceparent";
const SERVICE_NAME: Key = Key::from_static_str("service.name");
/// How often to warn that spans are lost.
const WARN_EVERY: Duration = Duration::from_mins(1);

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Begins to send the spans of requests and attempts to this collector, by OTLP over HTTP. Returns
/// the layer that gathers them.
pub fn start<S>(collector: &Collector) -> anyhow::Result<impl Layer<S> + use<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let exporter = Exporter {
        inner: exporter(collector).context("traces could not be set up")?,
        through: collector.peer.through(),
        lost: Mutex::default(),
    };
    // The queue has a limit, and its own thread: nothing waits for it.
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_batch_exporter(exporter)
        .build();
    let tracer = PROVIDER.get_or_init(|| provider).tracer("gateway");
    let is_ours = |metadata: &tracing::Metadata<'_>| {
        metadata.is_span() && metadata.target().starts_with("gateway")
    };
    Ok(tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // Nothing reads OpenTelemetry's own current context. Places in the code, threads and idle
        // times would only make each span larger.
        .with_context_activation(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(is_ours).with_max_level_hint(LevelFilter::ERROR)))
}

/// An exporter whose client is set up like every other client here.
fn exporter(collector: &Collector) -> anyhow::Result<SpanExporter> {
    let peer = &collector.peer;
    let client = ClientBuilder::from(peer.client()).timeout(collector.timeout);
    let client = peer
        .built(client.build())
        .map_err(|error| UsageError(error.to_string()))?;
    // A user and a password in the URL become a header.
    let post = client.post(peer.url().clone()).build()?;
    let authorization = post
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let headers = authorization.map(|value| (AUTHORIZATION.to_string(), value.to_owned()));
    Ok(SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(post.url().as_str())
        .with_timeout(collector.timeout)
        .with_headers(headers.into_iter().collect())
        .with_http_client(client)
        .build()?)
}

/// What OpenTelemetry's variables say, with the name `gateway` if they give none.
fn resource() -> Resource {
    let resource = Resource::builder().build();
    let is_named = resource
        .get(&SERVICE_NAME)
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named {
        resource.build()
    } else {
        resource.with_service_name("gateway").build()
    }
}

/// Sends the remaining spans, for at most this long.
pub async fn stop(limit: Duration) {
    let Some(provider) = PROVIDER.get() else {
        return;
    };
    let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
    if tokio::time::timeout(limit, stopped).await.is_err() {
        tracing::warn!("last spans lost: the export timed out");
    }
}

fn is_on() -> bool {
    PROVIDER.get().is_some()
}

/// Names a new span of a request, and puts it into the trace that its headers carry.
pub fn begin_request(span: &Span, headers: &HeaderMap, method: &str, route: &str) {
    if is_on() {
        span.record("otel.name", format!("{method} {route}"));
        span.record("otel.kind", "server");
        let traceparent = headers.get(TRACEPARENT);
        join(span, traceparent.and_then(|value| value.to_str().ok()));
    }
}

/// Ends a request's span now: an attempt that it began may keep a handle of it.
pub fn end_request(span: &Span, status: u16) {
    if is_on() {
        span.set_attribute("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.context().span().end();
    }
}

/// Puts a new span of an attempt into the trace of its message's request.
pub fn begin_attempt(span: &Span, traceparent: Option<&str>) {
    if is_on() {
        span.record("otel.kind", "client");
        join(span, traceparent);
    }
}

/// Records in the current span how its attempt ended.
pub fn end_attempt(outcome: &'static str, is_sent: bool) {
    if is_on() {
        let span = Span::current();
        span.set_attribute("outcome", outcome);
        if !is_sent {
            span.set_status(Status::error(Cow::Borrowed(outcome)));
        }
    }
}

/// The current span as a header, for whoever comes next.
#[must_use]
pub fn traceparent() -> Option<String> {
    if !is_on() {
        return None;
    }
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
    headers.remove(TRACEPARENT)
}

/// What is not a valid `traceparent` is ignored.
fn join(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else {
        return;
    };
    let headers = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&headers);
    if context.span().span_context().is_valid()
        && let Err(error) = span.set_parent(context)
    {
        tracing::debug!(%error, "a span has no parent");
    }
}

/// Wraps the exporter to warn of lost spans, with their number, at most once a minute.
/// OpenTelemetry's own log would have a line for each batch, without it.
#[derive(Debug)]
struct Exporter {
    inner: SpanExporter,
    /// The proxy in between.
    through: String,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    spans: usize,
    warned_at: Option<Instant>,
}

impl Exporter {
    fn lose(&self, spans: usize, error: &OTelSdkError) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.spans += spans;
        if lost.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            let error = format!("{error}{}", self.through);
            tracing::warn!(spans = lost.spans, error, "spans lost: the export failed");
            *lost = Lost {
                spans: 0,
                warned_at: Some(Instant::now()),
            };
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        if let Err(error) = self.inner.export(batch).await {
            self.lose(spans, &error);
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
