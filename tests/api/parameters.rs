//! Query parameters: all that are wrong are named together, and a cursor is one that the list has
//! given.

use mock_meta_provider::Fault;

use crate::support::{NO_RETRY, System, id};

#[tokio::test]
async fn a_bad_query_parameter_is_named() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let thread = format!(
        "/conversations/{}",
        message["conversationId"].as_str().unwrap()
    );
    let inbox = "/conversations";
    let unsent = "/messages?status=FAILED";
    for (path, names, values) in [
        (
            inbox,
            &["page"][..],
            &["0", "-1", "abc", "1.5", "", "99999999999999999999"][..],
        ),
        (inbox, &["limit"], &["0", "101", "-1", "abc", ""]),
        (inbox, &["channel"], &["sms", "WhatsApp", "", "%ff"]),
        (inbox, &["status"], &["OPEN", "archived", ""]),
        (inbox, &["archived"], &["1", "yes", "TRUE", ""]),
        (inbox, &["unread"], &["1", "yes", "TRUE", ""]),
        (
            inbox,
            &["participant"],
            &["", "%00", "a%0a", "%7f", "%c2%85"],
        ),
        (&thread, &["page"], &["0", "abc"]),
        (&thread, &["limit"], &["0", "201", "abc"]),
        (unsent, &["limit"], &["0", "101", "abc"]),
        (unsent, &["channel"], &["sms"]),
        (
            "/messages",
            &["status"],
            &["SENT", "RECEIVED", "failed", ""],
        ),
    ] {
        let mark = if path.contains('?') { '&' } else { '?' };
        for value in values {
            let answer = system
                .client
                .get(&format!("{path}{mark}{}={value}", names[0]))
                .await;
            assert_eq!(answer.fields(), names, "{path} {value}");
        }
    }
    assert_eq!(system.client.get("/messages").await.fields(), ["status"]);
}

#[tokio::test]
async fn bad_query_parameters_are_named_together_and_unknown_ones_ignored() {
    let system = System::start().await;
    let long = "a".repeat(161);
    let bad = format!(
        "page=abc&limit=101&channel=sms&status=new&archived=maybe&unread=some&participant={long}"
    );
    let answer = system.client.get(&format!("/conversations?{bad}")).await;
    let names = [
        "archived",
        "channel",
        "limit",
        "page",
        "participant",
        "status",
        "unread",
    ];
    assert_eq!(answer.fields(), names);
    let answer = system.client.get("/messages?limit=0&channel=sms").await;
    assert_eq!(answer.fields(), ["channel", "limit", "status"]);

    for good in [
        "/conversations?colour=blue&page=1000&limit=100&channel=instagram&status=closed&archived=true",
        "/conversations?page=1&limit=1&%20&=",
        &format!(
            "/conversations?unread=true&archived=true&participant={}",
            &long[1..]
        ),
        "/messages?status=PENDING&limit=1&page=abc",
        "/messages?status=FAILED&limit=100&channel=whatsapp",
    ] {
        system.client.get(good).await.expect(200);
    }
    for (path, names) in [
        ("/conversations?limit=1&limit=2", &["limit"][..]),
        (
            "/conversations?limit=1&page=1&%6cimit=1&page=0",
            &["limit", "page"],
        ),
        (
            "/conversations?channel=sms&archived=true&archived=true",
            &["archived", "channel"],
        ),
        (
            "/conversations?colour=red&colour=blue&cursor=a&cursor=b",
            &["cursor"],
        ),
        (
            "/conversations?unread=true&participant=a&unread=true&participant=b",
            &["participant", "unread"],
        ),
        ("/messages?status=FAILED&status=FAILED", &["status"]),
        (
            "/messages?channel=whatsapp&channel=whatsapp",
            &["channel", "status"],
        ),
    ] {
        assert_eq!(system.client.get(path).await.fields(), names, "{path}");
    }
    system
        .client
        .get("/conversations?colour=red&colour=blue")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_cursor_is_one_that_the_list_has_given() {
    let system = System::start().await;
    let message = system.send("user-1", "Hi").await;
    let thread = format!(
        "/conversations/{}",
        message["conversationId"].as_str().unwrap()
    );
    let hex = "8006".to_owned() + &"a".repeat(44);
    let latest = "8".to_owned() + &"f".repeat(47);
    for path in ["/conversations", &thread] {
        system
            .client
            .get(&format!("{path}?cursor={hex}"))
            .await
            .expect(200);
        for cursor in [
            "",
            "x",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('a', "g"),
            &latest,
            "%00",
        ] {
            let answer = system.client.get(&format!("{path}?cursor={cursor}")).await;
            assert_eq!(answer.fields(), ["cursor"], "{cursor}");
        }
        let answer = system
            .client
            .get(&format!("{path}?page=1&cursor={hex}"))
            .await;
        assert_eq!(answer.fields(), ["cursor"]);
    }
    let conversation_id = message["conversationId"].as_str().unwrap();
    for cursor in ["", "x", &hex, conversation_id] {
        let answer = system
            .client
            .get(&format!("/messages?status=FAILED&cursor={cursor}"))
            .await;
        assert_eq!(answer.fields(), ["cursor"], "{cursor}");
    }
}

#[tokio::test]
async fn a_retry_may_say_that_it_is_meant_although_the_provider_may_have_the_message() {
    let system = System::without_worker(&[NO_RETRY]).await;
    for (query, status) in [
        ("", 202),
        ("?ambiguous=true", 202),
        ("?ambiguous=false", 202),
        ("?ambiguous=", 400),
        ("?ambiguous=yes", 400),
        ("?ambiguous=true&ambiguous=true", 400),
    ] {
        system.mock.script("user-1", [Fault::LostAnswer]);
        let message = system.send("user-1", "Hi").await;
        assert_eq!(message["lastError"]["ambiguous"], true, "{message}");
        let path = format!("/messages/{}/retry{query}", id(&message));
        let answer = system.client.post_empty(&path).await;
        if status == 400 {
            assert_eq!(answer.fields(), ["ambiguous"], "{query}");
            assert_eq!(system.message(id(&message)).await, message);
            continue;
        }
        answer.expect(status);
        system.drain(&[]).await;
        // The provider has the key of its first attempt, and so delivers once.
        let delivered = system.mock.message(id(&message)).unwrap();
        assert_eq!((delivered.calls, delivered.deliveries), (2, 1));
    }
}
