//! What was written to a customer elsewhere: in the business's app, or by an agent of Meta's.

use serde_json::{Value, json};

use crate::support::id;
use crate::support::whatsapp::{
    ANN, ANN_ID, answering, body, by_both, change, echo, echoes, messages, start, text,
};

async fn act(system: &crate::support::System, verb: &str) {
    let conversation = system.client.conversation(ANN).await;
    let path = format!("/conversations/{}/{verb}", id(&conversation));
    system.client.post_empty(&path).await.expect(200);
}

#[tokio::test]
async fn what_a_person_writes_in_the_app_is_outbound_and_neither_reopens_nor_is_unread() {
    let system = start().await;
    system.receives(&[text("w1", ANN, 0, "Hi")]).await;
    for verb in ["read", "close", "archive"] {
        act(&system, verb).await;
    }
    let said = echoes(&[echo(text("w2", "", 1, "Hello Ann"), ANN)]);
    system.takes(&said, [1, 0, 0]).await;
    system.takes(&said, [1, 1, 0]).await;
    let message = system.by_wamid("w2").await;
    for (field, expected) in [
        ("direction", json!("OUTBOUND")),
        ("status", json!("SENT")),
        ("origin", json!("app")),
        ("providerMessageId", json!("w2")),
        ("participantName", Value::Null),
        ("sentAt", message["timestamp"].clone()),
    ] {
        assert_eq!(message[field], expected, "{field}: {message}");
    }
    let path = format!(
        "/conversations/{}",
        message["conversationId"].as_str().unwrap()
    );
    let conversation = system.client.get(&path).await.expect(200);
    assert_eq!(conversation["status"], "closed", "{conversation}");
    assert!(!conversation["archivedAt"].is_null());
    assert_eq!(
        (&conversation["unreadCount"], &conversation["inboundCount"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(conversation["lastMessagePreview"], "Hello Ann");
    let window = "select extract(epoch from window_from)::bigint - 1735732800 from conversations";
    assert_eq!(system.database.count(window).await, 0);
    let bound =
        "select count(*) from receipts where provider_message_id = 'w2' and message_id is not null";
    assert_eq!(system.database.count(bound).await, 1);
    // The customer answers it, and reopens the conversation.
    system
        .receives(&[answering(text("w3", ANN, 2, "Thanks"), "w2")])
        .await;
    let answer = system.by_wamid("w3").await;
    assert_eq!(answer["replyTo"]["messageId"], message["id"]);
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(conversation["status"], "open");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_echo_opens_a_conversation_in_which_nothing_is_unread() {
    let system = start().await;
    system
        .takes(&echoes(&[echo(text("w1", "", 0, "Hello"), ANN)]), [1, 0, 0])
        .await;
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(
        (&conversation["unreadCount"], &conversation["inboundCount"]),
        (&json!(0), &json!(0))
    );
    let unread = system
        .client
        .get("/conversations?unread=true")
        .await
        .expect(200);
    assert_eq!(unread["data"], json!([]));
    system.receives(&[text("w2", ANN, 1, "Hi")]).await;
    let unread = system
        .client
        .get("/conversations?unread=true")
        .await
        .expect(200);
    assert_eq!(unread["data"].as_array().unwrap().len(), 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn the_echo_of_a_message_that_the_gateway_has_sent_makes_no_second_one() {
    let system = start().await;
    system.receives(&[text("w1", ANN, 0, "Hi")]).await;
    let sent = system.send(ANN, "Hello").await;
    let bind = format!(
        "insert into receipts (provider_message_id, message_id) values ('w2', '{}') on conflict do nothing",
        &id(&sent)[4..]
    );
    system.database.execute(&bind).await;
    system
        .takes(&echoes(&[echo(text("w2", "", 1, "Hello"), ANN)]), [1, 1, 0])
        .await;
    assert_eq!(system.texts(ANN).await, ["Hi", "Hello"]);
}

#[tokio::test]
async fn messages_in_standby_are_not_unread_and_echoes_in_it_are_an_agents() {
    let system = start().await;
    system.receives(&[text("w1", ANN, 0, "Hi")]).await;
    for verb in ["read", "close"] {
        act(&system, verb).await;
    }
    let standby = |inner: Value| body(&[change("standby", json!({ "standby": inner }))]);
    let question = text("w2", ANN, 1, "Are you open?");
    system
        .takes(&standby(json!({ "messages": [question] })), [1, 0, 0])
        .await;
    let reply = json!({ "to": ANN, "type": "text", "text": { "body": "Until six." } });
    let reply = json!({ "id": "w3", "timestamp": "1735732802", "message": reply });
    system
        .takes(&standby(json!({ "message_echoes": [reply] })), [1, 0, 0])
        .await;
    assert_eq!(
        system.texts(ANN).await,
        ["Hi", "Are you open?", "Until six."]
    );
    assert_eq!(system.by_wamid("w2").await["direction"], "INBOUND");
    assert_eq!(system.by_wamid("w3").await["origin"], "agent");
    let conversation = system.client.conversation(ANN).await;
    assert_eq!(
        (&conversation["unreadCount"], &conversation["inboundCount"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(conversation["status"], "open");
    let window = "select extract(epoch from window_from)::bigint - 1735732800 from conversations";
    assert_eq!(system.database.count(window).await, 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_echo_is_in_the_conversation_of_the_person_that_it_went_to() {
    let system = start().await;
    system
        .takes(
            &messages(&[by_both(text("w1", ANN, 0, "Hi"), ANN, ANN_ID)]),
            [1, 0, 0],
        )
        .await;
    system
        .takes(
            &echoes(&[echo(text("w2", "", 1, "Hello"), ANN_ID)]),
            [1, 0, 0],
        )
        .await;
    assert_eq!(system.texts(ANN).await, ["Hi", "Hello"]);
    assert_eq!(system.participants().await, [ANN]);
}
