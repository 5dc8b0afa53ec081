//! What a listener is told, and how.

use mock_meta_provider::Behaviour;
use serde_json::{Value, json};

use super::{conversations, texts, write};
use crate::support::{Event, Listener, System, event, eventually, id};

#[tokio::test]
async fn each_change_is_told_with_the_record_as_the_api_shows_it() {
    let system = System::start().await;
    let mut listener = Listener::open(&system.client, "").await;
    write(&system.client, ["Hello"]).await;
    let events = listener.until_text("Hello").await;
    assert_eq!(texts(&events), ["Hello"]);
    let conversation = system.client.conversation("user-Hello").await;
    assert_eq!(conversations(&events), [&conversation]);
    let message = events.last().unwrap().message("message.created").unwrap();
    assert_eq!(*message, system.message(id(message)).await);
    let ids: Vec<bool> = events.iter().map(|event| event.id.is_some()).collect();
    assert_eq!(ids, [false, true], "the last of a group has an id");

    let path = format!("/conversations/{}", id(&conversation));
    for verb in ["close", "reopen", "archive", "unarchive", "read"] {
        let now = system.client.post_empty(&format!("{path}/{verb}")).await;
        let now = now.expect(200);
        let events = listener.until(|event| event.id.is_some()).await;
        assert_eq!(conversations(&events), [&now], "{verb}");
        assert_eq!(events.len(), 1, "{verb}: {events:?}");
    }

    let sent = system.send("user-Hello", "Merhaba").await;
    let is_sent = |event: &Event| event.data["message"]["status"] == "SENT";
    let events = listener.until(is_sent).await;
    assert!(texts(&events).len() <= 1, "{events:?}");
    let last = &events.last().unwrap().data["message"];
    assert_eq!(*last, system.message(id(&sent)).await);
}

#[tokio::test]
async fn a_message_that_fails_is_retried_and_canceled_before_the_eyes_of_a_listener() {
    let system = System::with(&[("RETRY_BASE_MS", "3600000")]).await;
    let rejects = Behaviour {
        reject_rate: 1.0,
        ..Behaviour::CALM
    };
    system.mock.set_behaviour(rejects).unwrap();
    let mut listener = Listener::open(&system.client, "").await;
    let message = system.send("user-1", "no").await;
    let is_failed = |event: &Event| event.data["message"]["status"] == "FAILED";
    listener.until(is_failed).await;
    system.act(&message, "retry", 202).await;
    let retried = listener
        .until(|event| event.kind == "message.updated")
        .await;
    assert_eq!(id(&retried.last().unwrap().data["message"]), id(&message));
}

#[tokio::test]
async fn a_listener_is_told_what_other_processes_do() {
    let system = System::start().await;
    let (_other, other) = system.another(&[]).await;
    let mut tabs = [
        Listener::open(&system.client, "").await,
        Listener::open(&system.client, "").await,
        Listener::open(&other, "").await,
    ];
    write(&other, ["one"]).await;
    write(&system.client, ["two"]).await;
    for tab in &mut tabs {
        let mut told = Vec::new();
        while told.len() < 2 {
            let events = tab.until(|event| event.id.is_some()).await;
            told.extend(texts(&events));
        }
        told.sort();
        assert_eq!(told, ["one", "two"]);
    }
}

#[tokio::test]
async fn a_filter_narrows_messages_to_a_thread_and_everything_to_a_channel() {
    let system = System::start().await;
    write(&system.client, ["first"]).await;
    let conversation = system.client.conversation("user-first").await;
    let thread = format!("?conversation={}", id(&conversation));
    let mut of_thread = Listener::open(&system.client, &thread).await;
    let mut of_channel = Listener::open(&system.client, "?channel=instagram").await;

    let mut instagram = event("evt-ig", "user-ig", "picture", "2025-01-01T10:00:00Z");
    instagram["channel"] = json!("instagram");
    write(&system.client, ["elsewhere"]).await;
    system.client.webhook(&instagram).await.expect(200);
    let here = event("evt-here", "user-first", "here", "2025-01-01T11:00:00Z");
    system.client.webhook(&here).await.expect(200);

    let told = of_thread.until_text("here").await;
    assert_eq!(texts(&told), ["here"]);
    let mut participants: Vec<&Value> = conversations(&told);
    participants.sort_by_key(|row| row["participantId"].to_string());
    participants.dedup_by_key(|row| row["participantId"].clone());
    assert_eq!(participants.len(), 3, "conversations always come");

    let told = of_channel.until_text("picture").await;
    assert_eq!(texts(&told), ["picture"]);
    assert_eq!(conversations(&told).len(), 1);
    assert!(told.last().unwrap().id.is_some());
}

#[tokio::test]
async fn a_filter_that_means_nothing_is_refused() {
    let system = System::start().await;
    for (query, fields) in [
        ("?channel=sms", &["channel"][..]),
        ("?channel=", &["channel"]),
        ("?channel=whatsapp&channel=whatsapp", &["channel"]),
        ("?lastEventId=a&lastEventId=b", &["lastEventId"]),
        ("?conversation=a&conversation=b", &["conversation"]),
    ] {
        let answer = system.client.get(&format!("/events{query}")).await;
        assert_eq!(answer.fields(), fields, "{query}");
    }
    for unknown in ["conv_01941f297c0070008000000000000001", "conv_1", ""] {
        let answer = system
            .client
            .get(&format!("/events?conversation={unknown}"))
            .await;
        answer.expect_problem(404, "not_found");
    }
    assert!(system.client.metric("gateway_feed_streams").await < 1.0);
}

#[tokio::test]
async fn nobody_keeps_or_changes_a_stream_and_its_life_is_no_latency() {
    let system = System::start().await;
    let answer = system.client.get("/events").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store, no-transform")
    );
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("content-encoding"), None);
    let hellos = r#"gateway_feed_events_total{type="hello"}"#;
    let before = system.client.metric(hellos).await;
    let head = system.client.ask("HEAD", "/events", &[], "").await;
    assert_eq!(head.status, 200);
    let after = system.client.metric(hellos).await;
    assert!(after <= before, "HEAD opens no stream");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));

    let mut listener = Listener::open(&system.client, "").await;
    // The first stream was dropped: it is gone with the first event that it does not take.
    eventually("one listens", async || {
        write(&system.client, [uuid::Uuid::now_v7().to_string()]).await;
        listener.next().await;
        (system.client.metric("gateway_feed_streams").await < 2.0).then_some(())
    })
    .await;
    // `/metrics` has them although the streams go on.
    let metrics = system.client.get("/metrics").await.text;
    let answered = r#"gateway_http_request_duration_seconds_count{method="GET",route="/events"} 2"#;
    assert!(metrics.contains(answered), "{metrics}");
}
