//! Statuses: how far a message has come is never told backwards, and one whose answer was lost is
//! settled by them.

use std::slice::from_ref;

use futures_util::future::join_all;
use mock_meta_provider::Fault;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::support::whatsapp::{
    ANN, ANN_ID, APP_SECRET, BOB, CONNECTED, NOON, body, by_both, change, post, text,
};
use crate::support::{
    Held, LONG_ATTEMPT, Listener, NO_RETRY, ORDERED, SHORT_WAIT, System, event, eventually, id,
    mock, signature,
};

const HOLD: (&str, &str) = ("AMBIGUOUS_POLICY", "hold");
const FOREIGN: &str = "gateway_foreign_statuses_total";
const DOUBLES: &str = "gateway_double_sends_total";

/// A gateway whose channel whatsapp is connected to the mock, which sends no statuses of itself.
async fn start(environment: &[(&str, &str)]) -> System {
    let mock = mock().await;
    let url = mock.url();
    let settings = [&CONNECTED[..], &[("GRAPH_URL", &*url)], environment].concat();
    let system = System {
        mock,
        ..System::with(&settings).await
    };
    let mut quiet = system.mock.whatsapp_behaviour();
    quiet.status_never_rate = 1.0;
    system.mock.set_whatsapp_behaviour(quiet).unwrap();
    system
}

/// One whose calls a test answers by hand.
async fn start_held(environment: &[(&str, &str)]) -> (System, Held) {
    let provider = Held::start().await;
    let settings = [
        &CONNECTED[..],
        &[("GRAPH_URL", provider.url()), LONG_ATTEMPT, SHORT_WAIT],
        environment,
    ];
    let system = System::without_worker(&settings.concat()).await;
    (system, provider)
}

/// Graph's answer to a send.
fn accepted(wamid: &str) -> Value {
    json!({ "messaging_product": "whatsapp", "contacts": [{ "input": ANN, "wa_id": ANN }], "messages": [{ "id": wamid }] })
}

fn status(wamid: &str, step: &str, seconds: i64) -> Value {
    json!({ "id": wamid, "status": step, "timestamp": (NOON + seconds).to_string() })
}

fn failed(wamid: &str, seconds: i64, code: i64) -> Value {
    let mut failed = status(wamid, "failed", seconds);
    let error = json!({ "code": code, "title": format!("Error {code}"), "error_data": { "details": "It cannot be delivered" } });
    failed["errors"] = json!([error]);
    failed
}

fn to(mut status: Value, field: &str, recipient: &str) -> Value {
    status[field] = recipient.into();
    status
}

/// What a message was sent with in this attempt.
fn sent_with(message: &Value, attempt: u32, secret: &str) -> String {
    let signed = format!("gw1.{}.{attempt}", &id(message)["msg_".len()..]);
    let tag = &signature(secret, &signed)["sha256=".len()..][..12];
    format!("{signed}.{tag}")
}

/// With what its message was sent with.
fn of(mut status: Value, message: &Value) -> Value {
    status["biz_opaque_callback_data"] = sent_with(message, 1, APP_SECRET).into();
    status
}

fn statuses(items: &[Value]) -> Value {
    body(&[change("messages", json!({ "statuses": items }))])
}

/// The fields that statuses change.
fn shown(message: &Value) -> Value {
    let fields = [
        "status",
        "deliveryStatus",
        "deliveredAt",
        "readAt",
        "deliveryError",
    ];
    fields
        .iter()
        .map(|field| (*field, message[*field].clone()))
        .collect()
}

fn at(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(NOON + seconds, 0).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// What is stored of a message by the provider's id, but for our own times.
async fn receipt(system: &System, wamid: &str) -> Option<String> {
    let sql = "select row(sent_at, delivered_at, read_at, played_at, failed_at, error_code, error_title, error_detail)::text
      from receipts where provider_message_id = $1";
    let row = sqlx::query(sql)
        .bind(wamid)
        .fetch_optional(system.database.pool());
    row.await.unwrap().map(|row| row.get(0))
}

/// A counter or gauge, as it is written.
async fn count(system: &System, metric: &str) -> String {
    system.client.metric(metric).await.to_string()
}

impl System {
    async fn told(&self, items: &[Value], duplicates: u64) {
        self.takes(&statuses(items), [items.len() as u64, duplicates, 0])
            .await;
    }
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
async fn a_status_before_the_answer_settles_the_message_and_the_answer_changes_nothing() {
    let (system, provider) = start_held(&[]).await;
    for (wamid, status_code) in [("w1", 200), ("w2", 500), ("w3", 200)] {
        let message = system.send(ANN, "Hi").await;
        let call = provider.call().await;
        let value = call.body["biz_opaque_callback_data"].clone();
        assert_eq!(value, sent_with(&message, 1, APP_SECRET), "{}", call.body);
        let told = of(to(status(wamid, "sent", 1), "recipient_id", ANN), &message);
        system.told(&[told], 0).await;
        let sent = system.message(id(&message)).await;
        assert_eq!(sent["status"], "SENT");
        assert_eq!(sent["providerMessageId"], wamid);
        assert_eq!(sent["deliveryStatus"], "sent");
        call.answer(status_code, &accepted(wamid)).await;
        eventually("the attempt has ended", async || {
            (count(&system, "gateway_attempts_in_flight").await == "0").then_some(())
        })
        .await;
        assert_eq!(system.message(id(&message)).await, sent);
    }
    assert_eq!(count(&system, DOUBLES).await, "0");
    assert_eq!(count(&system, FOREIGN).await, "0");
}

#[tokio::test]
async fn a_lost_answer_is_found_again_whatever_the_message_waits_for() {
    let system = start(&[HOLD]).await;
    let lost = async |text: &str| {
        system.mock.script(ANN, [Fault::LostAnswer]);
        let message = system.send(ANN, text).await;
        assert_eq!(message["lastError"]["ambiguous"], true, "{message}");
        message
    };
    // Held for an operator; canceled by one; and failed, as the provider says later.
    for (wamid, step) in [("w1", "sent"), ("w2", "delivered"), ("w3", "failed")] {
        let message = lost(wamid).await;
        assert_eq!(message["nextAttemptAt"], Value::Null);
        if step == "delivered" {
            system
                .database
                .execute("update deliveries set due_at = now() + interval '1 hour'")
                .await;
            system.act(&message, "cancel", 200).await;
        }
        system
            .told(&[of(status(wamid, step, 1), &message)], 0)
            .await;
        let sent = system.message(id(&message)).await;
        assert_eq!(sent["status"], "SENT", "{sent}");
        assert_eq!(sent["providerMessageId"], wamid);
        assert_eq!(sent["deliveryStatus"], step);
        assert_eq!(sent["nextAttemptAt"], Value::Null);
        system.act(&message, "retry", 409).await;
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from deliveries")
            .await,
        0
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn one_that_waits_for_its_status_is_sent_once_and_lets_the_next_go() {
    let system = start(&[ORDERED]).await;
    system.mock.script(ANN, [Fault::LostAnswer]);
    let first = system.send(ANN, "first").await;
    assert_eq!(first["lastError"]["ambiguous"], true, "{first}");
    let second = system.send(ANN, "second").await;
    assert_eq!(second["status"], "PENDING");
    system.told(&[of(status("w1", "sent", 1), &first)], 0).await;
    system.message_becomes(id(&second), "SENT").await;
    assert_eq!(system.message(id(&first)).await["providerMessageId"], "w1");
    let texts = system
        .mock
        .texts(mock_meta_provider::Channel::Whatsapp, ANN);
    assert_eq!(texts, ["first", "second"]);
}

#[tokio::test]
async fn a_value_that_was_forged_or_went_to_somebody_else_settles_nothing() {
    let system = start(&[HOLD]).await;
    system.mock.script(ANN, [Fault::LostAnswer]);
    let lost = system.send(ANN, "Hi").await;
    system
        .database
        .execute("update channels set paused_until = now() + interval '1 hour', ramp_until = now() + interval '1 hour'")
        .await;
    let never_tried = system.send(ANN, "Later").await;
    assert_eq!(never_tried["status"], "PENDING");
    system.receives(&[text("hello", ANN, 0, "Hello")]).await;
    let told = system.by_wamid("hello").await;
    let with = |value: String| to(status("x", "sent", 1), "biz_opaque_callback_data", &value);
    let value = sent_with(&lost, 1, APP_SECRET);
    let (begin, tag) = value.rsplit_once('.').unwrap();
    let forged = [
        with(sent_with(&lost, 1, "another-secret")),
        with(begin.to_owned()),
        with(format!(
            "{begin}.{}",
            tag.to_uppercase().replace(char::is_numeric, "A")
        )),
        with(format!("{}.{tag}", begin.replace(".1", ".2"))),
        with(id(&lost).to_owned()),
        // Signed, but of no message that was sent.
        of(status("x", "sent", 1), &never_tried),
        of(status("x", "sent", 1), &told),
        of(
            status("x", "sent", 1),
            &json!({ "id": format!("msg_{}", "0".repeat(32)) }),
        ),
        // Signed, but sent to somebody else.
        of(to(status("x", "sent", 1), "recipient_id", BOB), &lost),
        of(
            to(status("x", "sent", 1), "recipient_user_id", ANN_ID),
            &lost,
        ),
    ];
    for (n, mut item) in (1..).zip(forged) {
        let wamid = format!("x{n}");
        item["id"] = (*wamid).into();
        system.told(from_ref(&item), 0).await;
        for message in [&lost, &never_tried, &told] {
            let now = system.message(id(message)).await;
            assert_eq!(shown(&now), shown(message), "{item}");
        }
        assert!(receipt(&system, &wamid).await.is_some(), "{item}");
        assert_eq!(count(&system, FOREIGN).await, n.to_string(), "{item}");
    }
    // Of the right one it is taken.
    let right = of(to(status("w", "sent", 1), "recipient_id", ANN), &lost);
    system.told(&[right], 0).await;
    assert_eq!(system.message(id(&lost)).await["status"], "SENT");
    assert_eq!(count(&system, DOUBLES).await, "0");
}

#[tokio::test]
async fn a_recipient_is_known_by_any_id_of_theirs_or_needs_not_be_named() {
    let system = start(&[HOLD]).await;
    let hello = by_both(text("hello", ANN, 0, "Hello"), ANN, ANN_ID);
    system.receives(&[hello]).await;
    let sent = |n| status(&format!("w{n}"), "sent", 1);
    let mexican = "5215512345678";
    for (n, recipient, told) in [
        (1, ANN, to(sent(1), "recipient_user_id", ANN_ID)),
        (2, ANN_ID, to(sent(2), "recipient_id", ANN)),
        (3, ANN, sent(3)),
        // Meta takes a digit away that we were called with.
        (4, mexican, to(sent(4), "recipient_id", "525512345678")),
    ] {
        for name in [ANN, ANN_ID, mexican] {
            system.mock.script(name, [Fault::LostAnswer]);
        }
        let message = system.send(recipient, "Hi").await;
        assert_eq!(message["status"], "FAILED", "{message}");
        system.told(&[of(told, &message)], 0).await;
        let now = system.message(id(&message)).await;
        assert_eq!(now["status"], "SENT", "{n}: {now}");
    }
    assert_eq!(count(&system, FOREIGN).await, "0");
}

#[tokio::test]
async fn a_second_id_of_a_message_is_counted_once_and_logged_without_it() {
    let system = start(&[]).await;
    let message = system.send(ANN, "Hi").await;
    let sent = system.message(id(&message)).await;
    let wamid = "wamid.HBgMNDkxNTEwMDAwMDAx";
    for (step, seconds) in [("sent", 1), ("delivered", 2), ("sent", 1)] {
        let told = statuses(&[of(status(wamid, step, seconds), &message)]);
        assert_eq!(post(&system.client, &told).await.status, 200);
        assert_eq!(count(&system, DOUBLES).await, "1");
    }
    assert_eq!(shown(&system.message(id(&message)).await), shown(&sent));
    assert_eq!(count(&system, FOREIGN).await, "0");
    let line = system.gateway.logged("a message was sent twice").await;
    assert_eq!(line["message_id"], message["id"]);
    let log = system.gateway.log().concat();
    assert!(!log.contains(wamid) && !log.contains(ANN), "{log}");
}

#[tokio::test]
async fn two_ids_of_one_lost_message_in_one_body_are_one_settlement_and_one_double() {
    let system = start(&[HOLD]).await;
    system.mock.script(ANN, [Fault::LostAnswer]);
    let message = system.send(ANN, "Hi").await;
    let told = [
        of(status("w1", "sent", 1), &message),
        of(status("w2", "sent", 2), &message),
    ];
    system.told(&told, 0).await;
    let sent = system.message(id(&message)).await;
    assert_eq!(sent["providerMessageId"], "w1", "{sent}");
    assert_eq!(count(&system, DOUBLES).await, "1");
}

#[tokio::test]
async fn a_late_status_of_an_old_message_is_no_evidence_for_what_was_sent_after_it() {
    let system = start(&[]).await;
    let lost = async |to: &str| {
        system.mock.script(to, [Fault::LostAnswer]);
        let message = system.send(to, "Hi").await;
        assert!(message["nextAttemptAt"].is_string(), "{message}");
        message
    };
    let (old, newer) = (lost(ANN).await, lost(BOB).await);
    system.told(&[of(status("w1", "sent", 1), &old)], 0).await;
    assert_eq!(system.message(id(&old)).await["status"], "SENT");
    system.skip_backoffs().await;
    let held = eventually("it waits for an operator", async || {
        let message = system.message(id(&newer)).await;
        message["nextAttemptAt"].is_null().then_some(message)
    })
    .await;
    assert_eq!(held["status"], "FAILED", "{held}");
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
