//! A collector of traces, as OpenTelemetry's protocol (OTLP over HTTP) has it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use tokio::net::TcpListener;

use super::eventually;

/// Keeps what it is sent.
pub struct Collector {
    url: String,
    exports: Exports,
}

type Exports = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace_id: String,
    pub id: String,
    pub parent_id: String,
    pub attributes: Vec<(String, String)>,
}

impl Span {
    /// Its attribute of this name, as text; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let exports = Exports::default();
        let router = Router::new()
            .route("/v1/traces", post(export))
            .route("/exactly", post(export))
            .with_state(Arc::clone(&exports));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, exports }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let exports = self.exports.lock().unwrap();
        let resources = exports.iter().flat_map(|export| &export.resource_spans);
        let spans = resources.flat_map(|resource| {
            let about = resource.resource.clone().unwrap_or_default();
            let service = texts(&about.attributes)
                .into_iter()
                .find(|(key, _)| key == "service.name")
                .map_or(String::new(), |(_, value)| value);
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| Span {
                service: service.clone(),
                name: span.name.clone(),
                trace_id: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                attributes: texts(&span.attributes),
            })
        });
        spans.collect()
    }

    /// Waits for a span of which this is true.
    pub async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually(what, async || self.spans().into_iter().find(&is_it)).await
    }
}

async fn export(State(exports): State<Exports>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    exports.lock().unwrap().push(export);
    StatusCode::OK
}

fn hex(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| {
        let value = match attribute.value.clone()?.value? {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        Some((attribute.key.clone(), value))
    };
    attributes.iter().filter_map(text).collect()
}
