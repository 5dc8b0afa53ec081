//! Reading up to what was seen: what came in since then stays unread, and nothing becomes unread
//! again.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::inbox::receive;
use super::{UNKNOWN, post_as, post_raw};
use crate::support::{Answer, Client, System, hello};

/// Reads a conversation up to its first so many inbound messages.
async fn read(client: &Client, id: &str, seen: i64) -> Value {
    let path = format!("/conversations/{id}/read");
    let body = json!({ "inboundCount": seen });
    client.post(&path, &body).await.expect(200)
}

/// How many have come in, and how many of them are unread.
fn counts(conversation: &Value) -> (i64, i64) {
    let count = |name: &str| conversation[name].as_i64().unwrap();
    (count("inboundCount"), count("unreadCount"))
}

/// So many messages of one customer; the conversation's id.
async fn received(system: &System, count: u32) -> String {
    for second in 1..=count {
        receive(system, "user-1", second).await;
    }
    let conversation = system.client.conversation("user-1").await;
    conversation["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_comes_in_between_a_look_and_a_read_stays_unread_however_old_it_is() {
    let system = System::start().await;
    let id = received(&system, 3).await;
    let seen = counts(&system.client.conversation("user-1").await);
    assert_eq!(seen, (3, 3));
    receive(&system, "user-1", 100).await;
    receive(&system, "user-1", 0).await;
    let first = read(&system.client, &id, 3).await;
    assert_eq!(counts(&first), (5, 2));
    assert_eq!(system.client.conversation("user-1").await, first);
    let second = read(&system.client, &id, 3).await;
    assert_eq!(counts(&second), (5, 2));
    assert!(second["lastReadAt"].as_str() >= first["lastReadAt"].as_str());
    assert_eq!(counts(&read(&system.client, &id, 5).await), (5, 0));
    // A duplicate is none, and what goes out does not count.
    system.send("user-1", "Hi").await;
    system.client.webhook(&hello("evt_1")).await.expect(200);
    system.client.webhook(&hello("evt_1")).await.expect(200);
    assert_eq!(counts(&read(&system.client, &id, 5).await), (6, 1));
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn nothing_becomes_unread_again_and_two_agents_do_not_undo_each_other() {
    let system = System::start().await;
    let id = received(&system, 4).await;
    let mut expected = 4;
    for (seen, unread) in [(0, 4), (2, 2), (1, 2), (3, 1), (0, 1), (4, 0), (2, 0)] {
        assert_eq!(counts(&read(&system.client, &id, seen).await), (4, unread));
    }
    // More than ever came in counts as all, and as no more than that.
    for seen in [5, 1_000_000, i64::MAX] {
        assert_eq!(
            counts(&read(&system.client, &id, seen).await),
            (expected, 0)
        );
        receive(&system, "user-1", 0).await;
        expected += 1;
        let unread = counts(&system.client.conversation("user-1").await);
        assert_eq!(unread, (expected, 1));
    }
}

#[tokio::test]
async fn whatever_comes_in_and_is_read_at_once_what_was_seen_is_read_and_no_more() {
    let system = System::start().await;
    let (_other, other) = system.another(&[]).await;
    let id = received(&system, 1).await;
    let clients = [&system.client, &other];
    let writers = (0..4).map(async |writer| {
        for n in 0..15 {
            let event = hello(&format!("evt_{writer}_{n}"));
            clients[writer % 2].webhook(&event).await.expect(200);
        }
        0
    });
    let readers = (0..4).map(async |reader| {
        let (client, mut most) = (clients[reader % 2], 0);
        for _ in 0..15 {
            let path = format!("/conversations/{id}");
            let (seen, _) = counts(&client.get(&path).await.expect(200));
            most = most.max(seen);
            let (received, unread) = counts(&read(client, &id, seen).await);
            assert!(received - unread >= seen, "{seen} of {received}: {unread}");
        }
        most
    });
    let (_, most) = tokio::join!(join_all(writers), join_all(readers));
    let most = most.into_iter().max().unwrap();
    let conversation = system.client.conversation("user-1").await;
    assert_eq!(counts(&conversation), (61, 61 - most));
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn without_a_body_all_is_read() {
    let system = System::start().await;
    let id = received(&system, 2).await;
    let path = format!("/conversations/{id}/read");
    for content_type in [None, Some("application/json"), Some("text/plain")] {
        let answer = post_as(&system.client, &path, content_type, "").await;
        assert_eq!(answer.expect(200)["unreadCount"], 0);
        receive(&system, "user-1", 0).await;
    }
    let unread = counts(&system.client.conversation("user-1").await);
    assert_eq!(unread, (5, 1));
}

#[tokio::test]
async fn a_count_is_a_whole_number_from_0_on_in_any_spelling_of_json() {
    let system = System::start().await;
    let id = received(&system, 3).await;
    let path = format!("/conversations/{id}/read");
    let post =
        async |body: &str| -> Answer { post_raw(&system.client, &path, body.to_owned()).await };
    let with = |value: &str| format!("{{\"inboundCount\":{value}}}");
    let before = system.client.conversation("user-1").await;
    for bad in [
        "null",
        "-1",
        "-1.0",
        "-1e300",
        "0.5",
        "2.5",
        "1e-3",
        "\"3\"",
        "\"\"",
        "true",
        "[3]",
        "{\"a\":3}",
        "-9223372036854775809",
    ] {
        assert_eq!(post(&with(bad)).await.fields(), ["inboundCount"], "{bad}");
    }
    for bad in [
        "{}",
        "{\"inboundcount\":3}",
        "{\"inboundCount\":1,\"inboundCount\":1}",
    ] {
        assert_eq!(post(bad).await.fields(), ["inboundCount"], "{bad}");
    }
    // A number that no program reads, and what is no object.
    for bad in [&with("1e999"), "null", "3", "[]", " ", "{", "\u{feff}"] {
        assert_eq!(post(bad).await.fields(), [""; 0], "{bad}");
    }
    let answer = post_as(&system.client, &path, Some("text/plain"), with("3")).await;
    answer.expect_problem(415, "unsupported_media_type");
    let answer = post(&(with("3") + &" ".repeat(64 * 1024))).await;
    answer.expect_problem(413, "too_large");
    assert_eq!(system.client.conversation("user-1").await, before);

    for (good, unread) in [
        ("0", 3),
        ("-0", 3),
        ("-0.0", 3),
        ("1", 2),
        ("1.0", 2),
        ("0.2e1", 1),
        ("1e3", 0),
        ("9223372036854775807", 0),
        ("9223372036854775808", 0),
        ("18446744073709551615", 0),
        ("18446744073709551616", 0),
        ("1e300", 0),
    ] {
        let answer = post(&with(good)).await.expect(200);
        assert_eq!(counts(&answer), (3, unread), "{good}");
    }
    let odd = "{\"reader\":\"me\",\"inboundCount\":3}";
    post(odd).await.expect(200);
}

#[tokio::test]
async fn a_conversation_that_does_not_exist_cannot_be_read() {
    let system = System::start().await;
    let path = format!("/conversations/conv_{UNKNOWN}/read");
    let answer = system
        .client
        .post(&path, &json!({ "inboundCount": 1 }))
        .await;
    answer.expect_problem(404, "not_found");
    let bad = system.client.post(&path, &json!({})).await;
    assert_eq!(bad.fields(), ["inboundCount"]);
}

#[tokio::test]
async fn the_document_says_that_a_read_may_have_a_body_and_what_it_must_have() {
    let system = System::start().await;
    let document = system.client.get("/api/openapi.json").await.expect(200);
    let operation = &document["paths"]["/conversations/{id}/read"]["post"];
    let body = &operation["requestBody"];
    assert_ne!(body["required"], true, "{body}");
    let schema = &body["content"]["application/json"]["schema"];
    assert_eq!(
        schema,
        &json!({ "$ref": "#/components/schemas/ReadRequest" })
    );
    let schema = &document["components"]["schemas"]["ReadRequest"];
    assert_eq!(schema["required"], json!(["inboundCount"]));
    let count = &schema["properties"]["inboundCount"];
    assert_eq!(
        (&count["type"], &count["minimum"]),
        (&json!("integer"), &json!(0))
    );
}
