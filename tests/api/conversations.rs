//! A conversation: what its verbs do, what counts as unread, and what its preview is.

use serde_json::json;

use super::inbox::{act, list, receive};
use crate::support::{System, event, hello};

#[tokio::test]
async fn each_verb_does_what_it_says_and_nothing_the_second_time() {
    let system = System::start().await;
    let id = receive(&system, "user-1", 1).await["conversationId"].clone();
    let before = system.client.conversation("user-1").await;
    assert_eq!(
        (&before["status"], &before["unreadCount"]),
        (&json!("open"), &json!(1))
    );
    assert!(before["lastReadAt"].is_null() && before["archivedAt"].is_null());
    for (verb, field, value) in [
        ("read", "unreadCount", json!(0)),
        ("close", "status", json!("closed")),
        ("reopen", "status", json!("open")),
    ] {
        for _ in 0..2 {
            let mut expected = list(&system, "").await["data"][0].clone();
            let answer = act(&system.client, &id, verb).await;
            expected[field] = value.clone();
            for moved in ["lastReadAt", "revision"] {
                expected[moved] = answer[moved].clone();
            }
            assert_eq!(answer, expected, "{verb}");
            assert_eq!(
                system.client.conversation("user-1").await,
                expected,
                "{verb}"
            );
        }
    }
    let read = system.client.conversation("user-1").await;
    assert!(read["lastReadAt"].is_string());
    let archived = act(&system.client, &id, "archive").await;
    assert!(archived["archivedAt"].is_string());
    let again = act(&system.client, &id, "archive").await;
    assert_eq!(
        again["archivedAt"], archived["archivedAt"],
        "the first time is kept"
    );
    for _ in 0..2 {
        let mut unarchived = act(&system.client, &id, "unarchive").await;
        unarchived["revision"] = read["revision"].clone();
        assert_eq!(unarchived, read);
    }
}

#[tokio::test]
async fn unread_counts_what_came_in_since_it_was_last_read() {
    let system = System::start().await;
    let unread = async || system.client.conversation("user-1").await["unreadCount"].clone();
    let known = hello("evt_1");
    for _ in 0..3 {
        system.client.webhook(&known).await.expect(200);
    }
    assert_eq!(unread().await, 1);
    let id = receive(&system, "user-1", 5).await["conversationId"].clone();
    receive(&system, "user-2", 5).await;
    system.send("user-1", "Hi").await;
    assert_eq!(unread().await, 2);
    let first = act(&system.client, &id, "read").await;
    assert_eq!(unread().await, 0);
    system.client.webhook(&known).await.expect(200);
    // One that is older than the others is still new to the reader.
    receive(&system, "user-1", 1).await;
    assert_eq!(unread().await, 1);
    let second = act(&system.client, &id, "read").await;
    assert!(second["lastReadAt"].as_str() >= first["lastReadAt"].as_str());
}

#[tokio::test]
async fn a_preview_is_the_first_200_characters() {
    let system = System::start().await;
    let text = "ş🦀\n".repeat(100);
    let preview: String = text.chars().take(200).collect();
    let received = event("evt_1", "user-1", &text, "2025-01-01T10:00:00Z");
    system.client.webhook(&received).await.expect(200);
    system.send("user-2", &text).await;
    for participant in ["user-1", "user-2"] {
        assert_eq!(
            system.client.conversation(participant).await["lastMessagePreview"],
            preview
        );
    }
    system.database.assert_consistent().await;
}
