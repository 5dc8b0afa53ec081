//! Traces: one from the caller through the gateway and its queue to the provider, and none where
//! nobody asked for them.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::{
    Answer, Client, Collector, Database, Held, NO_RETRY, Program, Span, hello, serve_at,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
async fn serve(database: &Database, provider: &Held, environment: &[(&str, &str)]) -> Program {
    let arguments = ["serve", "--no-worker"];
    let environment = [&[NO_RETRY], environment].concat();
    let (database, provider) = (database.url(), provider.url());
    serve_at(database, provider, &arguments, &environment)
        .await
        .0
}

fn worker(database: &Database, provider: &Held, environment: &[(&str, &str)]) -> Program {
    Program::on(database.url(), &["worker"])
        .env("PROVIDER_URL", provider.url())
        .envs(environment)
        .start()
}

async fn post_traced(client: &Client, path: &str, body: &Value) -> Answer {
    let request = client.http.post(client.url(path)).json(body);
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    client.call(request).await.unwrap()
}

/// Sends a message in the caller's trace, while the provider answers the first attempt with this
/// status.
async fn send(client: &Client, provider: &Held, status: u16) -> (Value, Option<String>) {
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba!" });
    let (answer, traceparent) = tokio::join!(post_traced(client, "/messages/send", &body), async {
        let call = provider.call().await;
        let traceparent = call.traceparent.clone();
        call.answer(status, &json!({})).await;
        traceparent
    });
    (answer.expect(201), traceparent)
}

#[tokio::test]
async fn a_request_its_attempt_and_a_retry_by_another_process_are_one_trace_that_the_provider_sees()
{
    let (collector, provider, database) = (
        Collector::start().await,
        Held::start().await,
        Database::new().await,
    );
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())];
    let mut gateway = serve(&database, &provider, &environment).await;
    let client = Client::new(gateway.url());
    let (message, first) = send(&client, &provider, 503).await;
    assert_eq!(message["status"], "FAILED", "{message}");

    let due = "update deliveries set due_at = now()";
    assert_eq!(database.execute(due).await, 1);
    let named = [
        environment[0],
        ("OTEL_SERVICE_NAME", "retries"),
        ("RUST_LOG", "gateway=info"),
    ];
    let mut worker = worker(&database, &provider, &named);
    let call = provider.call().await;
    let second = call.traceparent.clone();
    call.accept("provider-1").await;
    worker.logged("sent").await;
    assert_eq!(worker.terminate().await.code(), Some(0));
    assert_eq!(gateway.terminate().await.code(), Some(0));

    // Whatever was not exported at the end never will be.
    let request = collector
        .span("the request", |span| span.name == "POST /messages/send")
        .await;
    let attempt = |number: &'static str| {
        let is_it =
            move |span: &Span| span.name == "attempt" && span.attribute("attempt") == number;
        collector.span(number, is_it)
    };
    let (first_attempt, second_attempt) = (attempt("1").await, attempt("2").await);
    assert_eq!((&*request.trace_id, &*request.parent_id), (TRACE, CALLER));
    assert_eq!(request.attribute("http.response.status_code"), "201");
    assert!(
        request.attribute("request_id").starts_with("req_"),
        "{request:?}"
    );
    for (span, traceparent, outcome, service) in [
        (&first_attempt, first, "server_error", "gateway"),
        (&second_attempt, second, "sent", "retries"),
    ] {
        assert_eq!(span.trace_id, TRACE, "{span:?}");
        assert_eq!(span.parent_id, request.id, "{span:?}");
        assert_eq!(span.attribute("message_id"), message["id"], "{span:?}");
        assert_eq!(
            span.attribute("conversation_id"),
            message["conversationId"],
            "{span:?}"
        );
        assert_eq!(span.attribute("outcome"), outcome, "{span:?}");
        assert_eq!(span.service, service, "{span:?}");
        let expected = format!("00-{TRACE}-{}-01", span.id);
        assert_eq!(traceparent.as_ref(), Some(&expected), "the provider's");
    }
}

#[tokio::test]
async fn a_webhook_is_a_span_of_its_callers_trace_and_a_nonsensical_header_begins_a_new_one() {
    let (collector, provider, database) = (
        Collector::start().await,
        Held::start().await,
        Database::new().await,
    );
    let endpoint = format!("{}/", collector.url());
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)];
    let mut gateway = serve(&database, &provider, &environment).await;
    let client = Client::new(gateway.url());
    let body = hello("evt_1");
    post_traced(&client, "/webhooks/mock-meta", &body)
        .await
        .expect(200);
    let nonsense = client.http.get(client.url("/conversations"));
    let nonsense = nonsense.header("traceparent", "00-zz-00f067aa0ba902b7-01");
    client.call(nonsense).await.unwrap().expect(200);
    assert_eq!(gateway.terminate().await.code(), Some(0));

    let webhook = |span: &Span| span.name == "POST /webhooks/mock-meta";
    let webhook = collector.span("the webhook", webhook).await;
    assert_eq!((&*webhook.trace_id, &*webhook.parent_id), (TRACE, CALLER));
    assert_eq!(webhook.attribute("event_id"), "evt_1");
    let list = |span: &Span| span.name == "GET /conversations";
    let list = collector.span("the list", list).await;
    assert_eq!((list.trace_id.len(), &*list.parent_id), (32, ""));
}

#[tokio::test]
async fn without_the_option_no_header_is_sent_and_nothing_is_stored_or_connected_to() {
    let (collector, provider, database) = (
        Collector::start().await,
        Held::start().await,
        Database::new().await,
    );
    let mut gateway = serve(&database, &provider, &[("OTEL_SERVICE_NAME", "gateway")]).await;
    let (message, traceparent) = send(&Client::new(gateway.url()), &provider, 503).await;
    assert_eq!(traceparent, None);
    let stored = "select count(*) from deliveries where traceparent is not null";
    assert_eq!(database.count(stored).await, 0);

    // Also where another process has traced it.
    let trace =
        format!("update deliveries set due_at = now(), traceparent = '00-{TRACE}-{CALLER}-01'");
    assert_eq!(database.execute(&trace).await, 1);
    let mut worker = worker(&database, &provider, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]);
    let call = provider.call().await;
    assert_eq!(
        (&*call.key, call.traceparent.clone()),
        (message["id"].as_str().unwrap(), None)
    );
    call.accept("provider-1").await;
    worker.logged("sent").await;
    assert_eq!(worker.terminate().await.code(), Some(0));
    assert_eq!(gateway.terminate().await.code(), Some(0));
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn the_url_of_traces_is_used_as_it_is_and_wins_over_the_general_one() {
    let (general, collector) = (Collector::start().await, Collector::start().await);
    let (provider, database) = (Held::start().await, Database::new().await);
    let exactly = format!("{}/exactly?tenant=1", collector.url());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", general.url()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*exactly),
        ("OTEL_TRACES_EXPORTER", "console, OTLP"),
        ("OTEL_SDK_DISABLED", "no"),
    ];
    let mut gateway = serve(&database, &provider, &environment).await;
    let unknown = "OTEL_TRACES_EXPORTER has an exporter other than otlp and none: it is ignored";
    let line = gateway.logged(unknown).await;
    assert_eq!(
        (&line["level"], &line["exporter"]),
        (&json!("WARN"), &json!("console"))
    );
    send(&Client::new(gateway.url()), &provider, 503).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let is_it = |span: &Span| span.name == "POST /messages/send";
    collector.span("the request", is_it).await;
    assert!(general.spans().is_empty());
}

#[tokio::test]
async fn traces_are_switched_off_by_the_variables_of_opentelemetry() {
    let (collector, provider, database) = (
        Collector::start().await,
        Held::start().await,
        Database::new().await,
    );
    let exactly = format!("{}/exactly", collector.url());
    for off in [
        ("OTEL_SDK_DISABLED", "True"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*exactly),
            off,
        ];
        let mut gateway = serve(&database, &provider, &environment).await;
        let (_, traceparent) = send(&Client::new(gateway.url()), &provider, 200).await;
        assert_eq!(traceparent, None, "{off:?}");
        assert_eq!(gateway.terminate().await.code(), Some(0));
    }
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn a_user_and_a_password_of_a_collector_are_a_header_of_its_calls() {
    let (provider, database) = (Held::start().await, Database::new().await);
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://me:secret@{}", collector.local_addr().unwrap());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("RUST_LOG", "trace"),
    ];
    let gateway = serve(&database, &provider, &environment).await;
    let client = Client::new(gateway.url());
    let (sent, asked) = tokio::join!(send(&client, &provider, 503), async {
        let (mut stream, _) = collector.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        String::from_utf8_lossy(&head).into_owned()
    });
    assert_eq!(sent.0["status"], "FAILED");
    // me:secret
    assert!(
        asked.contains("\r\nauthorization: Basic bWU6c2VjcmV0\r\n"),
        "{asked}"
    );
    let log = gateway.log();
    assert!(
        log.iter().all(|line| !line.contains("me:secret")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_costs_spans_and_nothing_else() {
    // One takes connections and never answers, the other takes none.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = tokio::net::TcpSocket::new_v4().unwrap();
    away.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    for address in [hanging.local_addr().unwrap(), away.local_addr().unwrap()] {
        let (provider, database) = (Held::start().await, Database::new().await);
        let endpoint = format!("http://user:secret@{address}");
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ];
        let mut gateway = serve(&database, &provider, &environment).await;
        let client = Client::new(gateway.url());
        send(&client, &provider, 503).await;
        let lost = "spans lost: the export failed";
        let line = gateway.logged(lost).await;
        assert_eq!(line["level"], "WARN", "{line}");
        send(&client, &provider, 503).await;
        assert_eq!(gateway.terminate().await.code(), Some(0));
        let log = gateway.log();
        let said = log
            .iter()
            .filter(|line| line.contains("span"))
            .filter(|line| line.contains(lost));
        assert_eq!(said.count(), 1, "{log:#?}");
        assert!(log.iter().all(|line| !line.contains("secret")), "{log:#?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_no_url_is_refused_at_the_start() {
    let serve = Program::new("serve")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")
        .finish()
        .await;
    assert_eq!(serve.code, Some(2), "{}", serve.stderr);
    assert!(
        serve.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT"),
        "{}",
        serve.stderr
    );
}
