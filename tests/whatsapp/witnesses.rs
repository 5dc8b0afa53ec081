//! A message whose answer was lost is settled by a status with the value that it was sent with, and
//! by no other one.

use std::slice::from_ref;

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use super::told::{
    DOUBLES, FOREIGN, HOLD, accepted, count, of, receipt, sent_with, shown, start, start_held,
    status, statuses, to,
};
use crate::support::whatsapp::{ANN, ANN_ID, APP_SECRET, BOB, BOB_ID, by_both, post, text};
use crate::support::{ORDERED, eventually, id};

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
    let bob = by_both(text("bob", BOB, 0, "Hello"), BOB, BOB_ID);
    system
        .receives(&[text("hello", ANN, 0, "Hello"), bob])
        .await;
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
            to(status("x", "sent", 1), "recipient_user_id", BOB_ID),
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
        // The answer that would have said whose the id is was lost.
        (5, BOB, to(sent(5), "recipient_user_id", BOB_ID)),
    ] {
        for name in [ANN, ANN_ID, mexican, BOB] {
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
