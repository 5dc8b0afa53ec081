//! What an operator sees of a running gateway: its log lines, and its metrics.

use std::collections::{BTreeMap, BTreeSet};

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::{ALL_LINES, NO_RETRY, Program, System, eventually, hello};

/// The one line of a log with this message.
async fn line(program: &Program, message: &str) -> Value {
    program.logged(message).await;
    let mut lines = program.lines(message);
    assert_eq!(lines.len(), 1, "{message}: {lines:#?}");
    lines.remove(0)
}

#[tokio::test]
async fn a_message_is_followed_by_its_ids_from_its_request_to_its_retry_in_another_process() {
    let system = System::without_worker(&[NO_RETRY, ALL_LINES]).await;
    system.mock.script("user-1", [Fault::server_error(503)]);
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba!" });
    let request = system.client.http.post(system.client.url("/messages/send"));
    let request = request.header("x-request-id", "follow-me").json(&body);
    let message = system.client.call(request).await.unwrap().expect(201);
    let (id, conversation_id) = (&message["id"], &message["conversationId"]);

    system.gateway.logged("answered").await;
    let answered = system.gateway.lines("answered");
    let answered = answered
        .iter()
        .find(|line| line["request_id"] == "follow-me");
    let answered = answered.unwrap();
    assert_eq!(answered["level"], "DEBUG", "{answered}");
    assert_eq!(answered["method"], "POST", "{answered}");
    assert_eq!(answered["route"], "/messages/send", "{answered}");
    assert_eq!(answered["status"], 201, "{answered}");
    assert!(answered["elapsed_ms"].as_f64().unwrap() > 0.0, "{answered}");

    let accepted = line(&system.gateway, "accepted").await;
    let failed = line(&system.gateway, "an attempt failed").await;
    for line in [&accepted, &failed] {
        assert_eq!(&line["message_id"], id, "{line}");
        assert_eq!(&line["conversation_id"], conversation_id, "{line}");
        assert_eq!(line["spans"][0]["request_id"], "follow-me", "{line}");
    }
    assert_eq!(failed["level"], "WARN", "{failed}");
    assert_eq!(failed["attempt"], 1, "{failed}");
    assert_eq!(failed["kind"], "server_error", "{failed}");
    assert_eq!(failed["http_status"], 503, "{failed}");
    assert!(failed["next_attempt_at"].is_string(), "{failed}");

    system.skip_waits().await;
    let worker = system.worker(&[NO_RETRY]).await;
    let sent = worker.logged("sent").await;
    assert_eq!(sent["level"], "INFO", "{sent}");
    assert_eq!(&sent["message_id"], id, "{sent}");
    assert_eq!(&sent["conversation_id"], conversation_id, "{sent}");
    assert_eq!(sent["attempt"], 2, "{sent}");
}

#[tokio::test]
async fn what_is_given_up_for_good_is_an_error_in_the_log_and_one_line() {
    let system = System::without_worker(&[]).await;
    system.mock.script("user-1", [Fault::Reject]);
    let message = system.send("user-1", "Merhaba!").await;
    let failed = line(&system.gateway, "a message has failed for good").await;
    assert_eq!(failed["level"], "ERROR", "{failed}");
    assert_eq!(failed["message_id"], message["id"], "{failed}");
    assert_eq!(failed["conversation_id"], message["conversationId"]);
    assert_eq!(failed["kind"], "rejected", "{failed}");
    assert_eq!(system.gateway.lines("an attempt failed"), [] as [Value; 0]);
}

#[tokio::test]
async fn a_webhook_is_one_line_with_its_ids_where_somebody_asks_for_it() {
    let system = System::with(&[ALL_LINES]).await;
    let body = hello("evt_1");
    let receipt = system.client.webhook(&body).await.expect(200);
    let received = line(&system.gateway, "received").await;
    assert_eq!(received["level"], "DEBUG", "{received}");
    assert_eq!(received["event_id"], "evt_1", "{received}");
    assert_eq!(received["message_id"], receipt["messageId"], "{received}");
    assert_eq!(
        received["conversation_id"], receipt["conversationId"],
        "{received}"
    );
}

/// A metric: its help, its type, and the samples with their values.
#[derive(Debug, Default)]
struct Metric {
    help: String,
    kind: String,
    samples: Vec<(String, String)>,
}

/// What a scrape says, by the name of the metric; of the text format, what is needed here.
fn scraped(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap_or((help, ""));
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let name = name.strip_suffix(suffix)?;
                let metric = metrics.get(name)?;
                (metric.kind == "histogram").then(|| name.to_owned())
            });
            let metric = metrics.entry(of_histogram.unwrap_or(name.to_owned()));
            let sample = (series.to_owned(), value.to_owned());
            metric.or_default().samples.push(sample);
        }
    }
    metrics
}

/// Names in the pages about operations and alerts that look like those of metrics.
fn named_in_pages() -> BTreeSet<String> {
    let pages = concat!(
        include_str!("../../src/docs/operations.md"),
        include_str!("../../src/docs/alerts.yml")
    );
    let words = pages.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("gateway_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_metric_is_described_and_named_by_the_rules_and_those_of_the_pages_exist() {
    let system = System::without_worker(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(503)]);
    let body = hello("evt_1");
    system.client.webhook(&body).await.expect(200);
    system.send("user-1", "Merhaba!").await;
    let metrics = scraped(&system.client.get("/metrics").await.text);
    for (name, metric) in &metrics {
        assert!(!metric.help.is_empty(), "{name} has no description");
        let kinds = ["counter", "gauge", "histogram"];
        assert!(kinds.contains(&&*metric.kind), "{name}: {metric:?}");
        assert_eq!(
            metric.kind == "counter",
            name.ends_with("_total"),
            "{name}: {metric:?}"
        );
        assert!(!metric.samples.is_empty(), "{name}");
        for unit in ["milli", "_ms", "_minutes", "_kilobytes", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
    }
    let unknown: Vec<String> = named_in_pages()
        .into_iter()
        .filter(|name| !metrics.contains_key(name))
        .collect();
    assert_eq!(unknown, [] as [String; 0], "only in the pages");
    let untold: Vec<&String> = metrics
        .keys()
        .filter(|name| name.starts_with("gateway_") && !named_in_pages().contains(*name))
        .collect();
    assert_eq!(untold, [] as [&String; 0], "not in the pages");
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let system = System::without_worker(&[NO_RETRY]).await;
    let (other, client) = system.another(&[("SEND_CONCURRENCY", "0"), NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(503)]);
    system.send("user-1", "Merhaba!").await;
    let value = |text: &str, series: &str| {
        let metrics = scraped(text);
        let mut samples = metrics.values().flat_map(|metric| &metric.samples);
        let found = samples.find(|(name, _)| name == series);
        let (_, value) = found.unwrap_or_else(|| panic!("{series}: {text}"));
        value.clone()
    };
    let text = system.client.get("/metrics").await.text;
    for (series, expected) in [
        ("gateway_attempts_total{outcome=\"server_error\"}", "1"),
        ("gateway_attempts_total{outcome=\"sent\"}", "0"),
        (
            "gateway_attempt_duration_seconds_count{outcome=\"server_error\"}",
            "1",
        ),
        ("gateway_attempts_in_flight", "0"),
        (
            "gateway_http_request_duration_seconds_count{method=\"POST\",route=\"/messages/send\"}",
            "1",
        ),
        ("gateway_queue_full_total{writer=\"ingest\"}", "0"),
        ("gateway_deliveries{state=\"waiting\"}", "1"),
        ("gateway_claims_total", "0"),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    // As if a process had died in the middle of an attempt.
    let takeover =
        "update deliveries set attempt = attempt + 1, due_at = now(), lease_token = message_id";
    system.database.execute(takeover).await;
    eventually("the other process has taken over", async || {
        let text = client.get("/metrics").await.text;
        (value(&text, "gateway_claims_unsettled_total") == "1").then_some(())
    })
    .await;
    let text = client.get("/metrics").await.text;
    assert_eq!(value(&text, "gateway_claims_total"), "1");
    drop(other);
}
