//! Large bodies and bad items: nothing in a body stops or hides another, and nothing is answered
//! 5xx but a database that is away.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::System;
use crate::support::whatsapp::{
    ANN, BOB, answering, body, change, deletion, echo, edit, item, messages, post, post_raw,
    reaction, start, text,
};

/// Items that somebody must bear, each of another kind.
fn odd_items() -> Vec<String> {
    let valid = [
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({ "id": 7, "from": ANN }),
        json!({ "id": "", "from": ANN, "type": "text", "text": { "body": "No id" } }),
        json!({ "id": "x".repeat(10_000), "from": ANN, "type": "text", "text": { "body": "Long id" } }),
        json!({ "id": "o1", "type": "text", "text": { "body": "Of nobody" } }),
        json!({ "id": "o2", "from": { "a": [1] }, "type": ["text"], "timestamp": {} }),
        json!({ "id": "o3", "from": ANN, "timestamp": "99999999999999999999", "type": "text" }),
        json!({ "id": "o4", "from": ANN, "timestamp": -1, "type": "image", "image": null }),
        item("o5", ANN, 0, "interactive", json!({ "type": "list_reply" })),
        item("o6", ANN, 0, "reaction", json!({ "emoji": 3 })),
        item("o7", ANN, 0, "edit", json!({ "original_message_id": [] })),
        item("o8", ANN, 0, "revoke", json!(null)),
        item("o9", ANN, 0, "contacts", json!("nobody")),
        item(
            "o10",
            &"9".repeat(500),
            0,
            "text",
            json!({ "body": "Long number" }),
        ),
        answering(text("o11", ANN, 0, "Answers itself"), "o11"),
        reaction("o12", ANN, 0, "o12", "👍"),
        deletion("o13", ANN, 0, &"t".repeat(9000)),
        edit("o14", ANN, 0, "o14", ""),
    ];
    let mut odd: Vec<String> = valid.iter().map(Value::to_string).collect();
    let plain = text("o20", ANN, 0, "TEXT").to_string();
    for (n, escaped) in [r"a\u0000b", r"\ud83d", r"\ude00\ud83d"].iter().enumerate() {
        odd.push(
            plain
                .replace("TEXT", escaped)
                .replace("o20", &format!("o2{n}")),
        );
    }
    // In the id, and in a name of a field.
    odd.push(plain.replace("o20", r"\u0000\ud800"));
    odd.push(
        plain
            .replace("\"body\"", r#""\ud800""#)
            .replace("o20", "o30"),
    );
    odd.push(format!(
        "{{\"id\":\"o31\",\"from\":\"{ANN}\",\"type\":\"deep\",\"deep\":{}{}}}",
        "[".repeat(100),
        "]".repeat(100)
    ));
    odd
}

#[tokio::test]
async fn a_thousand_items_with_a_bad_one_of_each_kind_are_all_taken_and_the_good_ones_kept_in_order()
 {
    let system = start().await;
    let odd = odd_items();
    let mut items: Vec<String> = (0..1000)
        .map(|n| text(&format!("w{n}"), BOB, 0, &format!("{n:04}")).to_string())
        .collect();
    for (n, odd) in odd.iter().enumerate() {
        items.insert(n * 31, odd.clone());
    }
    let whole = messages(&[]).to_string();
    let whole = whole.replace(
        "\"messages\":[]",
        &format!("\"messages\":[{}]", items.join(",")),
    );
    let answer = post_raw(&system.client, whole.clone()).await.expect(200);
    assert_eq!(answer["received"], json!(1000 + odd.len()), "{answer}");
    assert_eq!(answer["duplicates"], 0, "{answer}");
    let stored = "select count(*) from messages where participant_id = '491510000002'";
    assert_eq!(system.database.count(stored).await, 1000);
    let in_order = "select count(*) from (select text, lag(text) over (order by sort_at, id) as before from messages
        where participant_id = '491510000002') m where before >= text";
    assert_eq!(system.database.count(in_order).await, 0);
    let again = post_raw(&system.client, whole).await.expect(200);
    let (duplicates, ignored) = (&again["duplicates"], &again["ignored"]);
    let known = duplicates.as_u64().unwrap() + ignored.as_u64().unwrap();
    assert_eq!(again["received"], known, "{again}");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn more_than_a_thousand_items_are_taken_in_all_the_same() {
    let system = start().await;
    let items: Vec<Value> = (0..2500)
        .map(|n| text(&format!("w{n}"), ANN, n / 10, &format!("{n:04}")))
        .collect();
    system.receives(&items).await;
    system.takes(&messages(&items), [2500, 2500, 0]).await;
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(conversation["inboundCount"], 2500);
    assert_eq!(conversation["lastMessagePreview"], "2499");
}

#[tokio::test]
async fn an_item_that_the_database_refuses_is_kept_as_it_came_and_harms_no_other() {
    let system = start().await;
    // Something that no validation of ours can know.
    system
        .database
        .execute("alter table messages add constraint no_poison check (text <> 'poison')")
        .await;
    let mut items: Vec<Value> = (0..100)
        .map(|n| text(&format!("w{n}"), ANN, n, "good"))
        .collect();
    items.insert(50, text("bad", BOB, 0, "poison"));
    system.takes(&messages(&items), [101, 0, 1]).await;
    assert_eq!(system.texts(ANN).await.len(), 100);
    let kept =
        "select count(*) from unreadable_webhooks where convert_from(body, 'UTF8') like '%poison%'";
    assert_eq!(system.database.count(kept).await, 1);
    let line = system
        .gateway
        .logged("an item of a webhook could not be stored: it is kept as it came")
        .await;
    assert!(!line.to_string().contains("bad\""), "{line}");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_a_locked_conversation_holds_up_is_answered_503_and_the_rest_is_stored() {
    let system = start().await;
    system
        .receives(&[text("w1", ANN, 0, "Hi"), text("w2", BOB, 0, "Hi")])
        .await;
    let mut blocker = system.database.pool().acquire().await.unwrap();
    sqlx::raw_sql(
        "begin; select * from conversations where participant_id = '491510000001' for update",
    )
    .execute(&mut *blocker)
    .await
    .unwrap();
    let both = messages(&[text("w3", ANN, 1, "Wait"), text("w4", BOB, 1, "Go on")]);
    let answer = post(&system.client, &both).await;
    answer.expect_problem(503, "database_unavailable");
    assert_eq!(system.texts(BOB).await, ["Hi", "Go on"]);
    sqlx::raw_sql("rollback")
        .execute(&mut *blocker)
        .await
        .unwrap();
    system.takes(&both, [2, 1, 0]).await;
    assert_eq!(system.texts(ANN).await, ["Hi", "Wait"]);
}

/// Any JSON, more often of the names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("text".to_owned()),
        Just("reaction".to_owned()),
        Just("edit".to_owned()),
        Just("revoke".to_owned()),
        Just("system".to_owned()),
        Just("user_changed_number".to_owned()),
        Just("sent".to_owned()),
        Just(ANN.to_owned()),
        Just("DE.1001".to_owned()),
        Just("w1".to_owned()),
        Just("1735732800".to_owned()),
        Just(crate::support::whatsapp::NUMBER_ID.to_owned()),
        Just("whatsapp_business_account".to_owned()),
        "\\PC{0,8}",
    ];
    let name = prop::sample::select(vec![
        "object",
        "entry",
        "changes",
        "field",
        "value",
        "metadata",
        "phone_number_id",
        "contacts",
        "messages",
        "statuses",
        "message_echoes",
        "standby",
        "id",
        "from",
        "from_user_id",
        "to",
        "timestamp",
        "type",
        "text",
        "body",
        "reaction",
        "message_id",
        "emoji",
        "edit",
        "revoke",
        "original_message_id",
        "system",
        "wa_id",
        "context",
        "status",
        "errors",
        "group_id",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        let entry = (name.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(entry, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

#[tokio::test]
async fn whatever_is_signed_is_never_answered_5xx_and_hides_no_message_beside_it() {
    let system: System = start().await;
    let mut runner = TestRunner::deterministic();
    for n in 0..200 {
        let odd = any_json().new_tree(&mut runner).unwrap().current();
        let good = format!("good-{n}");
        let good = change(
            "messages",
            json!({ "messages": [odd, text(&good, BOB, n, "Hi")] }),
        );
        let odd = any_json().new_tree(&mut runner).unwrap().current();
        let echoes =
            json!({ "message_echoes": [echo(text(&format!("e-{n}"), "", n, "Hi"), BOB), odd] });
        let odd = any_json().new_tree(&mut runner).unwrap().current();
        let mixed = body(&[odd, good, change("smb_message_echoes", echoes)]);
        post(&system.client, &mixed).await.expect(200);
        let odd = any_json().new_tree(&mut runner).unwrap().current();
        post(&system.client, &odd).await.expect(200);
        let cut = mixed.to_string();
        let at = (0..=cut.len() * usize::try_from(n).unwrap() / 200)
            .rev()
            .find(|at| cut.is_char_boundary(*at));
        post_raw(&system.client, &cut[..at.unwrap()])
            .await
            .expect(200);
    }
    let stored = "select count(*) from messages where participant_id = '491510000002'";
    assert_eq!(system.database.count(stored).await, 400);
    system.database.assert_consistent().await;
}
