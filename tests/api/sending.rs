//! Sending: each message is stored before the provider is called, and a key is never sent twice.

use futures_util::future::join_all;
use mock_meta_provider::{Channel, Fault};
use serde_json::{Value, json};

use crate::support::{
    ALL_LINES, Answer, Held, LONG_ATTEMPT, NO_FIRST_ATTEMPT, NO_RETRY, SHORT_WAIT, System,
    eventually, hello, id,
};

/// Waits and timeouts that no busy machine reaches.
const PATIENT: [(&str, &str); 2] = [("SEND_WAIT_MS", "60000"), LONG_ATTEMPT];

fn keyed(to: &str, text: &str, key: &str) -> Value {
    json!({ "channel": "whatsapp", "to": to, "text": text, "clientMessageId": key })
}

#[tokio::test]
async fn a_message_is_delivered_once_under_its_own_id() {
    let system = System::start().await;
    let answer = system
        .client
        .post("/messages/send", &keyed("user-1", "Merhaba!", "order-1"))
        .await;
    assert_eq!(answer.header("idempotent-replayed"), None);
    let message = answer.expect(201);
    let at_provider = system.mock.message(id(&message)).unwrap();
    assert_eq!((at_provider.calls, at_provider.deliveries), (1, 1));
    assert_eq!(at_provider.client_message_id, "order-1");
    assert_eq!(system.mock.texts(Channel::Whatsapp, "user-1"), ["Merhaba!"]);

    let conversation = system.client.conversation("user-1").await;
    let expected = json!({
        "id": message["id"], "conversationId": conversation["id"], "channel": "whatsapp", "participantId": "user-1",
        "direction": "OUTBOUND", "type": "text", "text": "Merhaba!", "content": null, "replyTo": null,
        "participantName": null, "origin": "api", "reactions": [], "editedAt": null, "deletedAt": null, "status": "SENT",
        "deliveryStatus": null, "deliveredAt": null, "readAt": null, "deliveryError": null,
        "clientMessageId": "order-1", "sentBy": null, "providerMessageId": at_provider.provider_message_id,
        "retryCount": 0, "nextAttemptAt": null, "lastError": null,
        "timestamp": message["createdAt"], "createdAt": message["createdAt"],
        "updatedAt": message["sentAt"], "sentAt": message["sentAt"],
        "cursor": message["cursor"], "revision": 2,
    });
    assert!(
        message["createdAt"].is_string() && message["sentAt"].is_string(),
        "{message}"
    );
    assert_eq!(message, expected);
    assert_eq!(system.message(id(&message)).await, message);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn without_a_key_every_call_is_a_new_message() {
    let system = System::start().await;
    let first = system.send("user-1", "Merhaba!").await;
    let second = system.send("user-1", "Merhaba!").await;
    assert_ne!(first["id"], second["id"]);
    for message in [&first, &second] {
        assert!(message["clientMessageId"].is_null(), "{message}");
        // The provider always gets one.
        assert_eq!(
            system.mock.message(id(message)).unwrap().client_message_id,
            id(message)
        );
    }
    assert_eq!(
        system.mock.texts(Channel::Whatsapp, "user-1"),
        ["Merhaba!", "Merhaba!"]
    );
}

#[tokio::test]
async fn one_key_by_twenty_callers_of_two_gateways_at_once_is_one_message() {
    let system = System::with(&PATIENT).await;
    let (_other, other_client) = system.another(&PATIENT).await;
    let body = keyed("user-1", "Merhaba!", "order-1");
    let clients = (0..20).map(|n| {
        if n % 2 == 0 {
            &system.client
        } else {
            &other_client
        }
    });
    let answers = join_all(clients.map(|client| client.post("/messages/send", &body))).await;

    let (new, replays): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0].header("idempotent-replayed"), None);
    let message = new[0].json();
    for replay in replays {
        assert_eq!(replay.expect(200)["id"], message["id"]);
        assert_eq!(replay.header("idempotent-replayed"), Some("true"));
        assert_eq!(replay.header("idempotent-mismatch"), None);
    }
    let ledger = system.mock.ledger();
    assert_eq!(ledger.messages.len(), 1);
    assert_eq!((ledger.messages[0].calls, ledger.deliveries()), (1, 1));
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        1
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_replay_that_asks_for_something_else_is_told_so_and_the_record_wins() {
    let system = System::start().await;
    let original = keyed("user-1", "Merhaba!", "order-1");
    let message = system
        .client
        .post("/messages/send", &original)
        .await
        .expect(201);
    let before = system.client.conversation("user-1").await;
    for (other, mismatch) in [
        (original, None),
        (keyed("user-1", "Another text", "order-1"), Some("true")),
        (keyed("user-2", "Merhaba!", "order-1"), Some("true")),
    ] {
        let replay = system.client.post("/messages/send", &other).await;
        assert_eq!(replay.expect(200), message);
        assert_eq!(replay.header("idempotent-replayed"), Some("true"));
        assert_eq!(replay.header("idempotent-mismatch"), mismatch, "{other}");
    }
    assert_eq!(system.client.conversation("user-1").await, before);
    assert_eq!(
        system
            .database
            .count("select count(*) from conversations")
            .await,
        1
    );
    assert_eq!(system.mock.stats().calls, 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_replay_shows_how_the_message_stands_and_makes_no_attempt() {
    let system = System::with(&[NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(503)]);
    let body = keyed("user-1", "Merhaba!", "order-1");
    let failed = system
        .client
        .post("/messages/send", &body)
        .await
        .expect(201);
    assert_eq!(failed["status"], "FAILED");
    assert_eq!(
        system
            .client
            .post("/messages/send", &body)
            .await
            .expect(200),
        failed
    );
    assert_eq!(system.mock.stats().calls, 1);

    system.skip_waits().await;
    let sent = system.message_becomes(id(&failed), "SENT").await;
    assert_eq!(
        system
            .client
            .post("/messages/send", &body)
            .await
            .expect(200),
        sent
    );
    assert_eq!(system.mock.stats().calls, 2);
}

#[tokio::test]
async fn the_same_key_on_another_channel_is_another_message() {
    let system = System::start().await;
    let mut body = keyed("user-1", "Merhaba!", "order-1");
    let on_whatsapp = system
        .client
        .post("/messages/send", &body)
        .await
        .expect(201);
    body["channel"] = json!("instagram");
    let on_instagram = system
        .client
        .post("/messages/send", &body)
        .await
        .expect(201);
    assert_ne!(on_whatsapp["id"], on_instagram["id"]);
    assert_ne!(
        on_whatsapp["conversationId"],
        on_instagram["conversationId"]
    );
    assert_eq!(
        system.mock.texts(Channel::Instagram, "user-1"),
        ["Merhaba!"]
    );
}

#[tokio::test]
async fn first_messages_to_one_participant_at_once_make_one_conversation() {
    let system = System::with(&PATIENT).await;
    let (_other, other_client) = system.another(&PATIENT).await;
    let bodies: Vec<_> = (0..40)
        .map(|n| keyed("user-1", &format!("text {n}"), &format!("order-{n}")))
        .collect();
    let sends = bodies.iter().enumerate().map(|(n, body)| {
        let client = if n % 2 == 0 {
            &system.client
        } else {
            &other_client
        };
        client.post("/messages/send", body)
    });
    let messages: Vec<_> = join_all(sends)
        .await
        .iter()
        .map(|answer| answer.expect(201))
        .collect();
    for message in &messages {
        assert_eq!(message["status"], "SENT", "{message}");
        assert_eq!(message["conversationId"], messages[0]["conversationId"]);
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from conversations")
            .await,
        1
    );
    assert_eq!(system.mock.texts(Channel::Whatsapp, "user-1").len(), 40);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_attempt_that_takes_longer_than_the_wait_is_answered_pending_and_goes_on() {
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), LONG_ATTEMPT, SHORT_WAIT]).await;
    let message = system.send("user-1", "Merhaba!").await;
    assert_eq!(message["status"], "PENDING");
    let call = provider.call().await;
    assert_eq!(call.key, id(&message));
    assert_eq!(system.message(id(&message)).await, message);
    call.accept("late").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["providerMessageId"], "late");
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn the_attempt_goes_on_when_the_caller_hangs_up() {
    let provider = Held::start().await;
    let system = System::with(&[("PROVIDER_URL", provider.url()), ALL_LINES]).await;
    let client = system.client.clone();
    let caller = tokio::spawn(async move {
        client
            .try_post("/messages/send", &keyed("user-1", "Merhaba!", "order-1"))
            .await
    });
    let call = provider.call().await;
    caller.abort();
    let key = call.key.clone();
    call.accept("unheard").await;
    let said = "a caller went away before its answer";
    system.gateway.logged(said).await;
    let sent = system.message_becomes(&key, "SENT").await;
    assert_eq!(sent["providerMessageId"], "unheard");
    let again = system
        .client
        .post("/messages/send", &keyed("user-1", "Merhaba!", "order-1"))
        .await;
    assert_eq!(again.expect(200), sent);
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn a_slow_provider_does_not_refuse_sends_beyond_the_concurrency() {
    let system = System::with(&[("SEND_CONCURRENCY", "1"), PATIENT[0], PATIENT[1]]).await;
    system.mock.script_always("user-slow", Fault::Hang);
    let client = system.client.clone();
    let slow = tokio::spawn(async move {
        client
            .try_post("/messages/send", &keyed("user-slow", "first", "order-1"))
            .await
    });
    eventually("the first is in flight", async || {
        (system.mock.stats().calls == 1).then_some(())
    })
    .await;

    let second = system.send("user-2", "second").await;
    assert_eq!(second["status"], "PENDING");
    system.message_becomes(id(&second), "SENT").await;
    assert_eq!(system.mock.message(id(&second)).unwrap().calls, 1);
    assert!(!slow.is_finished(), "the first is still in flight");
    slow.abort();
}

#[tokio::test]
async fn without_any_first_attempts_the_worker_sends_everything() {
    let system = System::with(&[NO_FIRST_ATTEMPT]).await;
    let bodies: Vec<_> = (0..20)
        .map(|n| keyed("user-1", "Merhaba!", &format!("order-{n}")))
        .collect();
    let answers = join_all(
        bodies
            .iter()
            .map(|body| system.client.post("/messages/send", body)),
    )
    .await;
    for answer in answers {
        let message = answer.expect(201);
        assert_eq!(message["status"], "PENDING");
        system.message_becomes(id(&message), "SENT").await;
        assert_eq!(system.mock.message(id(&message)).unwrap().calls, 1);
    }
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_send_moves_the_preview_and_nothing_else_of_its_conversation() {
    let system = System::start().await;
    let receipt = system.client.webhook(&hello("evt_1")).await.expect(200);
    let path = format!(
        "/conversations/{}",
        receipt["conversationId"].as_str().unwrap()
    );
    for verb in ["close", "archive"] {
        system
            .client
            .post(&format!("{path}/{verb}"), &json!({}))
            .await
            .expect(200);
    }
    let mut expected = system.client.get(&path).await.expect(200);
    let message = system.send("user-1", &"ş".repeat(201)).await;

    let conversation = system.client.get(&path).await.expect(200);
    assert_eq!(conversation["messages"][0], message);
    for moved in ["messages", "meta", "cursor", "revision"] {
        expected[moved] = conversation[moved].clone();
    }
    expected["lastMessagePreview"] = json!("ş".repeat(200));
    expected["lastMessageAt"] = message["timestamp"].clone();
    expected["lastMessageDirection"] = json!("OUTBOUND");
    assert_eq!(conversation, expected);
    assert_eq!(
        (&conversation["status"], &conversation["unreadCount"]),
        (&json!("closed"), &json!(1))
    );
}

/// Sends with headers.
async fn send_with(system: &System, headers: &[(&str, &[u8])], body: &Value) -> Answer {
    let mut request = system.client.http.post(system.client.url("/messages/send"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    system.client.call(request.json(body)).await.unwrap()
}

#[tokio::test]
async fn an_idempotency_key_stands_for_a_missing_client_message_id() {
    let system = System::start().await;
    let longest = "~".repeat(128);
    for key in ["!", "order-1", "\"quoted\",'2'", &longest] {
        let header: [(&str, &[u8]); 1] = [("Idempotency-Key", key.as_bytes())];
        let keyless = json!({ "channel": "whatsapp", "to": "user-1", "text": key });
        let first = send_with(&system, &header, &keyless).await.expect(201);
        assert_eq!(first["clientMessageId"], key);
        let at_provider = system.mock.message(id(&first)).unwrap();
        assert_eq!(at_provider.client_message_id, key);
        let same = keyed("user-1", key, key);
        let mut null = keyless.clone();
        null["clientMessageId"] = Value::Null;
        for (headers, body) in [
            (&header[..], &keyless),
            (&[], &same),
            (&header, &same),
            (&header, &null),
        ] {
            let again = send_with(&system, headers, body).await;
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{body}");
            assert_eq!(again.header("idempotent-mismatch"), None);
            assert_eq!(again.expect(200)["id"], first["id"]);
        }
        let other = json!({ "channel": "whatsapp", "to": "user-1", "text": "another" });
        let again = send_with(&system, &header, &other).await;
        assert_eq!(again.header("idempotent-mismatch"), Some("true"));
        assert_eq!(system.mock.message(id(&first)).unwrap().deliveries, 1);
    }
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        4
    );
}

#[tokio::test]
async fn an_idempotency_key_that_is_another_or_none_is_refused_by_name() {
    let system = System::start().await;
    let keyless = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi" });
    let long = "x".repeat(129);
    for bad in ["", " ", "a b", "a\tb", "ş", &long] {
        let header: [(&str, &[u8]); 1] = [("idempotency-key", bad.as_bytes())];
        for body in [&keyless, &keyed("user-1", "Hi", "order-1")] {
            let answer = send_with(&system, &header, body).await;
            assert_eq!(answer.fields(), ["Idempotency-Key"], "{bad:?}");
        }
        let empty = send_with(&system, &header, &json!({ "clientMessageId": "" })).await;
        let all = [
            "Idempotency-Key",
            "channel",
            "clientMessageId",
            "text",
            "to",
        ];
        assert_eq!(empty.fields(), all);
    }
    for second in ["a", "b"] {
        let twice: [(&str, &[u8]); 2] = [
            ("idempotency-key", b"a"),
            ("idempotency-key", second.as_bytes()),
        ];
        let answer = send_with(&system, &twice, &keyless).await;
        assert_eq!(answer.fields(), ["Idempotency-Key"]);
    }
    let header: [(&str, &[u8]); 1] = [("idempotency-key", b"order-1")];
    for different in ["order-2", "Order-1", "order-1 ", "\"order-1\""] {
        let answer = send_with(&system, &header, &keyed("user-1", "Hi", different)).await;
        assert_eq!(answer.fields(), ["clientMessageId"], "{different}");
    }
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        0
    );
}
