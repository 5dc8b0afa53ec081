//! Statuses: how far a message has come is told, and never backwards.

use std::slice::from_ref;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::told::{FOREIGN, accepted, count, receipt, start, start_held, status, statuses};
use crate::support::whatsapp::{ANN, CONNECTED, NOON, post};
use crate::support::{Listener, NO_RETRY, event, id};

fn failed(wamid: &str, seconds: i64, code: i64) -> Value {
    let mut failed = status(wamid, "failed", seconds);
    let error = json!({ "code": code, "title": format!("Error {code}"), "error_data": { "details": "It cannot be delivered" } });
    failed["errors"] = json!([error]);
    failed
}

fn at(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(NOON + seconds, 0).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[tokio::test]
async fn each_step_is_shown_with_its_first_time_and_none_goes_back() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    assert_eq!(message["status"], "SENT", "{message}");
    assert_eq!(message["deliveryStatus"], Value::Null);
    let wamid = message["providerMessageId"].as_str().unwrap();
    let mut revision = message["revision"].as_i64().unwrap();
    for (told, is_known, expected, delivered, read) in [
        (status(wamid, "sent", 1), false, "sent", None, None),
        (status(wamid, "read", 9), false, "read", None, Some(9)),
        (
            status(wamid, "delivered", 5),
            false,
            "read",
            Some(5),
            Some(9),
        ),
        (
            status(wamid, "delivered", 6),
            true,
            "read",
            Some(5),
            Some(9),
        ),
        (status(wamid, "sent", 2), true, "read", Some(5), Some(9)),
        (
            status(wamid, "delivered", 4),
            false,
            "read",
            Some(4),
            Some(9),
        ),
        (
            status(wamid, "played", 12),
            false,
            "played",
            Some(4),
            Some(9),
        ),
        (
            failed(wamid, 13, 131_026),
            false,
            "played",
            Some(4),
            Some(9),
        ),
    ] {
        system.told(from_ref(&told), u64::from(is_known)).await;
        let now = system.message(id(&message)).await;
        assert_eq!(now["status"], "SENT", "{told}");
        assert_eq!(now["deliveryStatus"], expected, "{told}");
        assert_eq!(now["deliveredAt"], json!(delivered.map(at)), "{told}");
        assert_eq!(now["readAt"], json!(read.map(at)), "{told}");
        let next = now["revision"].as_i64().unwrap();
        assert_eq!(next, revision + i64::from(!is_known), "{told}");
        revision = next;
    }
    assert_eq!(count(&system, FOREIGN).await, "0");
}

#[tokio::test]
async fn a_failure_is_shown_until_it_is_delivered_and_its_reason_stays() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    let wamid = message["providerMessageId"].as_str().unwrap();
    let error =
        json!({ "code": 131_026, "title": "Error 131026", "detail": "It cannot be delivered" });
    for (told, expected) in [
        (failed(wamid, 5, 131_026), "failed"),
        // Whatever came first.
        (status(wamid, "sent", 9), "failed"),
        // One without a reason takes none away.
        (status(wamid, "failed", 20), "failed"),
        (status(wamid, "delivered", 3), "delivered"),
        (failed(wamid, 4, 131_000), "delivered"),
    ] {
        assert_eq!(
            post(&system.client, &statuses(from_ref(&told)))
                .await
                .status,
            200
        );
        let now = system.message(id(&message)).await;
        assert_eq!(now["status"], "SENT");
        assert_eq!(now["deliveryStatus"], expected, "{told}");
        assert_eq!(now["deliveryError"], error, "{told}");
    }
    // The newest that has one.
    system.told(&[failed(wamid, 30, 131_053)], 0).await;
    let now = system.message(id(&message)).await;
    assert_eq!(now["deliveryError"]["code"], 131_053);
    assert_eq!(now["deliveryStatus"], "delivered");
    assert_eq!(now["lastError"], Value::Null);
}

/// Statuses of one message: any of the steps, some more than once, some at the same second.
fn any_statuses() -> impl Strategy<Value = Vec<(&'static str, i64, i64)>> {
    let step = prop::sample::select(vec![
        "sent",
        "delivered",
        "read",
        "played",
        "failed",
        "failed",
    ]);
    prop::collection::vec((step, 0..4_i64, 131_000..131_003_i64), 1..8)
}

#[tokio::test]
async fn any_order_of_any_statuses_by_two_gateways_and_in_one_body_makes_the_same_record() {
    let system = start(&[]).await;
    let (_other, other) = system
        .another(&[&CONNECTED[..], &[("GRAPH_URL", &*system.mock.url())]].concat())
        .await;
    let mut runner = TestRunner::deterministic();
    for case in 0..30 {
        let told = any_statuses().new_tree(&mut runner).unwrap().current();
        let make = |wamid: &str| -> Vec<Value> {
            let one = |(step, seconds, code): &(&str, i64, i64)| match *step {
                "failed" if *code < 131_002 => failed(wamid, *seconds, *code),
                step => status(wamid, step, *seconds),
            };
            told.iter().map(one).collect()
        };
        let [one, two, three] = ["one", "two", "three"].map(|name| format!("{name}-{case}"));
        // One after the other.
        for item in make(&one) {
            assert_eq!(post(&system.client, &statuses(&[item])).await.status, 200);
        }
        // In one body, the other way round, and again.
        let mut items = make(&two);
        items.reverse();
        let both = [&items[..], &items[..]].concat();
        assert_eq!(post(&system.client, &statuses(&both)).await.status, 200);
        // Each twice, by two gateways, all at once.
        let at_once = make(&three).into_iter().map(async |item| {
            let item = statuses(&[item]);
            tokio::join!(post(&system.client, &item), post(&other, &item))
        });
        for (here, there) in join_all(at_once).await {
            assert_eq!((here.status, there.status), (200, 200));
        }
        let expected = receipt(&system, &one).await;
        assert!(expected.is_some(), "{told:?}");
        assert_eq!(receipt(&system, &two).await, expected, "{told:?}");
        assert_eq!(receipt(&system, &three).await, expected, "{told:?}");
    }
}

#[tokio::test]
async fn of_one_body_each_status_counts_once_and_a_second_body_changes_nothing() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    let wamid = message["providerMessageId"].as_str().unwrap();
    let items = [
        status(wamid, "read", 3),
        status(wamid, "sent", 1),
        status(wamid, "sent", 1),
        status("unknown", "delivered", 2),
        status(wamid, "delivered", 2),
    ];
    system.told(&items, 1).await;
    let known = system.message(id(&message)).await;
    assert_eq!(known["deliveryStatus"], "read");
    system.told(&items, 5).await;
    assert_eq!(system.message(id(&message)).await, known);
    // Some of it is new.
    system
        .told(&[status(wamid, "sent", 1), status(wamid, "played", 4)], 1)
        .await;
    assert_eq!(count(&system, FOREIGN).await, "1");
}

#[tokio::test]
async fn a_status_without_a_value_that_comes_before_the_answer_is_shown_with_it() {
    let (system, provider) = start_held(&[]).await;
    let message = system.send(ANN, "Hi").await;
    assert_eq!(message["status"], "PENDING");
    let call = provider.call().await;
    system.told(&[status("w1", "delivered", 2)], 0).await;
    assert_eq!(system.message(id(&message)).await["status"], "PENDING");
    call.answer(200, &accepted("w1")).await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["deliveryStatus"], "delivered", "{sent}");
    system.told(&[status("w1", "read", 3)], 0).await;
    let read = system.message(id(&message)).await;
    assert_eq!(read["deliveryStatus"], "read");
    assert!(read["revision"].as_i64() > sent["revision"].as_i64());
}

#[tokio::test]
async fn the_feed_tells_each_change_with_a_higher_revision() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    let wamid = message["providerMessageId"].as_str().unwrap();
    let mut listener = Listener::open(&system.client, "").await;
    let mut revision = message["revision"].as_i64().unwrap();
    for (step, seconds) in [("sent", 1), ("delivered", 2), ("read", 3)] {
        system.told(&[status(wamid, step, seconds)], 0).await;
        let told = listener
            .until(|event| {
                let message = event.message("message.updated");
                message.is_some_and(|message| message["deliveryStatus"] == step)
            })
            .await;
        let shown = told.last().unwrap().message("message.updated").unwrap();
        let next = shown["revision"].as_i64().unwrap();
        assert!(next > revision, "{next} > {revision}");
        revision = next;
        assert_eq!(shown, &system.message(id(&message)).await);
        // What changes nothing is not told: the next event is that of the next step.
        system.told(&[status(wamid, step, seconds)], 1).await;
    }
}

#[tokio::test]
async fn what_has_come_about_unknown_messages_goes_after_thirty_days() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    let wamid = message["providerMessageId"].as_str().unwrap().to_owned();
    let told = ["old", "young", &wamid].map(|wamid| status(wamid, "sent", 1));
    system.told(&told, 0).await;
    system
        .database
        .execute(
            "update receipts set received_at = now() - interval '31 days' where provider_message_id <> 'young';
             insert into amendments (target_id, kind, sender, participant_id, at, stored_at)
             select name, 'reaction', '1', '1', now(), now() - case name when 'old' then interval '31 days' else '29 days' end
             from (values ('old'), ('young')) n(name)",
        )
        .await;
    let worker = system.worker(&CONNECTED).await;
    let line = worker
        .logged("removed what has come about unknown messages")
        .await;
    assert_eq!(
        (&line["receipts"], &line["amendments"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(receipt(&system, "old").await, None);
    assert!(receipt(&system, "young").await.is_some());
    assert_eq!(system.message(id(&message)).await["deliveryStatus"], "sent");
    let left = "select count(*) from amendments where target_id = 'young'";
    assert_eq!(system.database.count(left).await, 1);
}

#[tokio::test]
async fn statuses_have_their_own_connection_where_whatsapp_is_connected() {
    let system = start(&[NO_RETRY]).await;
    // Another channel's events go on as before.
    let mut other = event("evt-1", "user-1", "Hello", "2025-01-01T10:00:00Z");
    other["channel"] = "instagram".into();
    system.client.webhook(&other).await.expect(200);
    system.told(&[status("w1", "sent", 1)], 0).await;
    let writers = "select count(*) from pg_stat_activity where datname = current_database() and query like '-- receipt::record%'";
    assert_eq!(system.database.count(writers).await, 1);
    let metrics = system.client.get("/metrics").await.text;
    assert!(
        metrics.contains(r#"gateway_batch_size_count{writer="receipts"}"#),
        "{metrics}"
    );
}
