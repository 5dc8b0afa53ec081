//! Metrics, for Prometheus: base units in names, `_total` for counters, labels with few values.

use std::time::Duration;

use clap::ValueEnum;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use strum::VariantArray;

use crate::database::batch::Batch;
use crate::delivery::settle::Settle;
use crate::feed::{Reason, event::Kind};
use crate::http::audit::Failure;
use crate::message::enqueue::Enqueue;
use crate::provider::ErrorKind;
use crate::receipt::receipts::Receipts;
use crate::webhook::ingest::Ingest;

/// How often samples are put into their buckets. Until then each is kept.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to collect metrics. Needs a runtime.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    const SECONDS: [f64; 15] = [
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        30.0,
    ];
    const SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("gateway_batch_size".into()), &SIZES)?
        .install_recorder()?;
    describe();
    start_at_zero();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// A metric's name and its help.
type Described = (&'static str, &'static str);

const COUNTERS: [Described; 17] = [
    (
        "gateway_http_requests_total",
        "Requests, by method, route and status",
    ),
    (
        "gateway_http_requests_abandoned_total",
        "Requests whose caller was gone before the answer",
    ),
    (
        "gateway_auth_failures_total",
        "Requests whose caller did not prove who it is, by kind: missing_key, wrong_key, missing_scope, missing_signature, wrong_signature, web_page, wrong_session, wrong_login or too_many_logins",
    ),
    (
        "gateway_webhook_events_total",
        "Webhooks, and items of WhatsApp's, by result: new, duplicate, ignored, refused, not_stored, or unreadable (a signed body that is no JSON object)",
    ),
    (
        "gateway_whatsapp_items_total",
        "Items of WhatsApp's webhooks, by what they are: message, echo, reaction, edit, deletion, status or link, or why they are ignored",
    ),
    (
        "gateway_webhook_bodies_emptied_total",
        "Bodies of webhook events that were emptied because they were old; of a whole month as many as PostgreSQL estimates",
    ),
    (
        "gateway_attempts_total",
        "Attempts at messages, by outcome: sent, or the kind of error",
    ),
    (
        "gateway_attempts_refused_total",
        "Attempts whose outcome the record refused: the lease had ended, or the message was settled already",
    ),
    (
        "gateway_claims_total",
        "Deliveries that this process's worker has claimed",
    ),
    (
        "gateway_claims_unsettled_total",
        "Those of them of which an earlier claim was never settled: its process died, or was slower than its lease",
    ),
    (
        "gateway_double_sends_total",
        "Messages of which a second id has come from the provider: they were sent twice",
    ),
    (
        "gateway_foreign_statuses_total",
        "Statuses of messages that are not known here: others have sent them, or they come before the answer",
    ),
    (
        "gateway_batch_failures_total",
        "Batches that were not written and are repeated, by writer",
    ),
    (
        "gateway_queue_full_total",
        "Items that were refused with 503 because the queue was full, by writer",
    ),
    (
        "gateway_feed_events_total",
        "Events of the live feed, by type; one that several streams share is counted once",
    ),
    (
        "gateway_feed_resets_total",
        "Times that a stream's reader was told to fetch again, by reason: expired, epoch, too_slow, too_far or bulk",
    ),
    (
        "gateway_log_lines_lost_total",
        "Log lines that were lost because nobody read the earlier ones",
    ),
];

const GAUGES: [Described; 13] = [
    (
        "gateway_attempts_in_flight",
        "Attempts of this process that have begun and are not settled yet",
    ),
    (
        "gateway_batch_oldest_seconds",
        "Age of the oldest item that a writer has taken and not answered yet, by writer",
    ),
    (
        "gateway_queue_depth",
        "Items that wait for a writer, when it took its last batch, by writer",
    ),
    (
        "gateway_deliveries",
        "Unsent messages, by state: due, paused (due, but their channel is paused after a 429), leased, waiting, blocked or parked",
    ),
    (
        "gateway_deliveries_due_age_seconds",
        "How long the oldest due delivery could have been sent already",
    ),
    (
        "gateway_send_permits_free",
        "First attempts that could begin at this moment",
    ),
    ("gateway_feed_streams", "Open streams of the live feed"),
    (
        "gateway_feed_lag_seconds",
        "Age of the oldest change that the live feed has read, when it last read",
    ),
    (
        "gateway_feed_pending",
        "Writers of which the live feed does not know yet whether they have changed something",
    ),
    (
        "gateway_build_info",
        "Always 1; the version that this process runs is a label",
    ),
    (
        "gateway_database_pool_connections",
        "Connections of the pool, by state",
    ),
    (
        "gateway_database_up",
        "Whether the database could be written to when these metrics were read",
    ),
    (
        "gateway_database_durable",
        "Whether the database's fsync and full_page_writes are on, when a writer last looked",
    ),
];

const HISTOGRAMS: [Described; 4] = [
    (
        "gateway_http_request_duration_seconds",
        "Time from a request's headers to its answer's, by method and route",
    ),
    (
        "gateway_attempt_duration_seconds",
        "Time that the provider took for an attempt, by outcome",
    ),
    ("gateway_batch_size", "Items of a batch, by writer"),
    (
        "gateway_batch_wait_seconds",
        "Time that a batch's oldest item waited for its writer",
    ),
];

/// Gives `/metrics` its help texts. A test compares the tables with the guide.
fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
    metrics_process::Collector::default().describe();
}

/// An alert cannot see a counter that is missing until something goes wrong.
fn start_at_zero() {
    gauge!("gateway_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for gauge in [
        "gateway_attempts_in_flight",
        "gateway_feed_streams",
        "gateway_feed_lag_seconds",
        "gateway_feed_pending",
    ] {
        gauge!(gauge).set(0.0);
    }
    for kind in Kind::VARIANTS {
        counter!("gateway_feed_events_total", "type" => kind.as_str()).absolute(0);
    }
    for reason in Reason::VARIANTS {
        counter!("gateway_feed_resets_total", "reason" => reason.as_str()).absolute(0);
    }
    for counter in [
        "gateway_attempts_refused_total",
        "gateway_claims_total",
        "gateway_claims_unsettled_total",
        "gateway_double_sends_total",
        "gateway_foreign_statuses_total",
        "gateway_http_requests_abandoned_total",
        "gateway_log_lines_lost_total",
        "gateway_webhook_bodies_emptied_total",
    ] {
        counter!(counter).absolute(0);
    }
    for writer in [Ingest::NAME, Receipts::NAME, Enqueue::NAME, Settle::NAME] {
        counter!("gateway_batch_failures_total", "writer" => writer).absolute(0);
    }
    // Settlements wait for room instead.
    for writer in [Ingest::NAME, Receipts::NAME, Enqueue::NAME] {
        counter!("gateway_queue_full_total", "writer" => writer).absolute(0);
    }
    for result in [
        "new",
        "duplicate",
        "ignored",
        "refused",
        "not_stored",
        "unreadable",
    ] {
        counter!("gateway_webhook_events_total", "result" => result).absolute(0);
    }
    for item in [
        "message", "echo", "reaction", "edit", "deletion", "status", "link",
    ] {
        counter!("gateway_whatsapp_items_total", "item" => item).absolute(0);
    }
    for failure in Failure::ALL {
        counter!("gateway_auth_failures_total", "kind" => failure.kind()).absolute(0);
    }
    let kinds = ErrorKind::value_variants().iter().map(|kind| kind.as_str());
    for outcome in kinds
        .chain(["sent"])
        .filter(|&kind| kind != ErrorKind::Canceled.as_str())
    {
        counter!("gateway_attempts_total", "outcome" => outcome).absolute(0);
    }
}
