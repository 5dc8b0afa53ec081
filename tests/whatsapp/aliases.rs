//! Who a customer is: a number and a user id of one person lead to one conversation, and a number
//! that somebody else has got does not.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::whatsapp::{
    ANN, ANN_ID, BOB, BOB_ID, CONNECTED, NOON, body, by_both, change, messages, post, start, text,
};

fn both(id: &str, seconds: i64, number: &str, user_id: &str, says: &str) -> Value {
    by_both(text(id, number, seconds, says), number, user_id)
}

/// Meta's word that somebody has another number.
fn moved(id: &str, seconds: i64, from: &str, to: &str) -> Value {
    json!({
        "id": id, "from": from, "timestamp": (NOON + seconds).to_string(), "type": "system",
        "system": { "type": "user_changed_number", "body": "Changed", "wa_id": to },
    })
}

#[tokio::test]
async fn a_number_with_a_user_id_and_the_user_id_alone_are_one_conversation() {
    let system = start().await;
    system
        .receives(&[both("w1", 0, ANN, ANN_ID, "With both")])
        .await;
    system.receives(&[text("w2", ANN_ID, 1, "By id")]).await;
    system.receives(&[text("w3", ANN, 2, "By number")]).await;
    assert_eq!(system.texts(ANN).await, ["With both", "By id", "By number"]);
    // The other way round, and within one body.
    let items = [
        text("w4", BOB_ID, 0, "By id"),
        both("w5", 1, BOB, BOB_ID, "With both"),
        text("w6", BOB, 2, "By number"),
        text("w7", BOB_ID, 3, "By id again"),
    ];
    system.receives(&items).await;
    assert_eq!(system.texts(BOB_ID).await.len(), 4);
    assert_eq!(system.participants().await, [ANN, BOB_ID]);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn of_two_conversations_neither_is_merged_and_both_ids_lead_to_the_numbers() {
    let system = start().await;
    system
        .receives(&[
            text("w1", ANN, 0, "By number"),
            text("w2", ANN_ID, 1, "By id"),
        ])
        .await;
    assert_eq!(system.participants().await, [ANN, ANN_ID]);
    system
        .receives(&[both("w3", 2, ANN, ANN_ID, "With both")])
        .await;
    system
        .receives(&[text("w4", ANN_ID, 3, "By id again")])
        .await;
    assert_eq!(
        system.texts(ANN).await,
        ["By number", "With both", "By id again"]
    );
    assert_eq!(system.texts(ANN_ID).await, ["By id"]);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn who_gets_a_number_later_is_another_person_and_late_events_give_nothing_back() {
    let system = start().await;
    system
        .receives(&[both("w1", 0, ANN, ANN_ID, "I am Ann")])
        .await;
    system
        .receives(&[both("w2", 10, ANN, BOB_ID, "I have her number now")])
        .await;
    assert_eq!(system.texts(BOB_ID).await, ["I have her number now"]);
    // What Ann wrote before comes late, and once more; she writes by her id.
    system
        .receives(&[both("w3", 1, ANN, ANN_ID, "Before")])
        .await;
    system
        .takes(
            &messages(&[both("w1", 0, ANN, ANN_ID, "I am Ann")]),
            [1, 1, 0],
        )
        .await;
    system.receives(&[text("w4", ANN_ID, 20, "Still me")]).await;
    system
        .receives(&[text("w5", ANN, 21, "Bob, by number")])
        .await;
    assert_eq!(system.texts(ANN).await, ["I am Ann", "Before", "Still me"]);
    assert_eq!(
        system.texts(BOB_ID).await,
        ["I have her number now", "Bob, by number"]
    );
    let closed = "select count(*) from aliases where changed_hands and alias = '491510000001'";
    assert_eq!(system.database.count(closed).await, 1);
    assert_eq!(system.participants().await, [ANN, BOB_ID]);
}

#[tokio::test]
async fn metas_word_that_somebody_has_another_number_or_user_id_is_believed() {
    let system = start().await;
    system.receives(&[both("w1", 0, ANN, ANN_ID, "Hi")]).await;
    system
        .takes(&messages(&[moved("w2", 1, ANN, BOB)]), [1, 0, 0])
        .await;
    system
        .receives(&[both("w3", 2, BOB, BOB_ID, "From my new number")])
        .await;
    system
        .receives(&[text("w4", BOB_ID, 3, "By my new id")])
        .await;
    let update = json!({ "user_id_update": [{
        "user_id": { "previous": BOB_ID, "current": "DE.1003" }, "timestamp": "1735732804",
    }] });
    system
        .takes(&body(&[change("user_id_update", update)]), [1, 0, 0])
        .await;
    system
        .receives(&[text("w5", "DE.1003", 5, "By a third id")])
        .await;
    assert_eq!(system.participants().await, [ANN]);
    assert_eq!(system.texts(ANN).await.len(), 4);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn metas_word_that_comes_late_gives_the_number_back() {
    let system = start().await;
    system.receives(&[both("w1", 0, ANN, ANN_ID, "Hi")]).await;
    // It has overtaken the word that the new id is hers.
    system
        .receives(&[both("w2", 3, ANN, "DE.1003", "With my new id")])
        .await;
    let to_ann = json!({ "channel": "whatsapp", "to": ANN, "text": "Hello" });
    let refused = system.client.post("/messages/send", &to_ann).await;
    refused.expect_problem(409, "participant_changed");
    let update = json!({ "user_id_update": [{
        "wa_id": ANN, "user_id": { "previous": ANN_ID, "current": "DE.1003" },
        "timestamp": "1735732802",
    }] });
    system
        .takes(&body(&[change("user_id_update", update)]), [1, 0, 0])
        .await;
    system
        .receives(&[
            both("w3", 4, ANN, "DE.1003", "With both"),
            text("w4", "DE.1003", 5, "By my new id"),
        ])
        .await;
    assert_eq!(system.texts(ANN).await, ["Hi", "With both", "By my new id"]);
    assert_eq!(system.texts("DE.1003").await, ["With my new id"]);
    let sent = system.client.post("/messages/send", &to_ann).await;
    assert_eq!(sent.expect(201)["participantId"], ANN);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_says_nothing_new_of_a_person_writes_no_alias() {
    let system = start().await;
    system.receives(&[both("w1", 0, ANN, ANN_ID, "Hi")]).await;
    let rows = "select sum(hashtext(xmin::text || alias))::bigint from aliases";
    let before = system.database.count(rows).await;
    for n in 1..5 {
        system
            .receives(&[both(&format!("w{}", n + 1), n, ANN, ANN_ID, "Hi")])
            .await;
        system
            .receives(&[text(&format!("v{n}"), ANN_ID, n, "Hi")])
            .await;
    }
    assert_eq!(system.database.count(rows).await, before);
    system
        .receives(&[both("w9", 3601, ANN, ANN_ID, "An hour later")])
        .await;
    assert_ne!(system.database.count(rows).await, before);
}

#[tokio::test]
async fn first_messages_of_one_person_at_two_gateways_at_once_are_one_conversation() {
    let system = start().await;
    let (_other, client) = system.another(&CONNECTED).await;
    for round in 0..10 {
        let (number, user_id) = (format!("4915200000{round:02}"), format!("DE.20{round:02}"));
        let bodies: Vec<Value> = (0..20)
            .map(|n| {
                let id = format!("w-{round}-{n}");
                messages(&[match n % 3 {
                    0 => both(&id, n, &number, &user_id, "With both"),
                    1 => text(&id, &number, n, "By number"),
                    _ => both(&id, n, &number, &user_id, "With both again"),
                }])
            })
            .collect();
        let posts = bodies.iter().enumerate().map(|(n, body)| {
            let client = if n % 2 == 0 { &system.client } else { &client };
            post(client, body)
        });
        for answer in join_all(posts).await {
            assert_eq!(answer.expect(200)["duplicates"], 0);
        }
        assert_eq!(system.texts(&number).await.len(), 20);
    }
    assert_eq!(system.participants().await.len(), 10);
    system.database.assert_consistent().await;
}
