//! Webhooks: each event is stored exactly once, in whatever order and however often it comes.

use futures_util::future::join_all;

use crate::support::{System, event, hello, seconds_from_now};

#[tokio::test]
async fn a_duplicate_is_answered_with_the_same_ids_and_changes_nothing() {
    let system = System::start().await;
    let hello = hello("evt_1");
    let first = system.client.webhook(&hello).await.expect(200);
    assert_eq!(first["eventId"], "evt_1");
    assert_eq!(first["duplicate"], false);
    let before = system.client.conversation("user-1").await;

    let changed = event("evt_1", "user-2", "Another text", "2025-01-01T11:00:00Z");
    for repeated in [&hello, &changed] {
        let again = system.client.webhook(repeated).await.expect(200);
        assert_eq!(again["duplicate"], true);
        assert_eq!(again["messageId"], first["messageId"]);
        assert_eq!(again["conversationId"], first["conversationId"]);
    }
    assert_eq!(system.client.conversation("user-1").await, before);
    assert_eq!(before["unreadCount"], 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn ten_deliveries_of_one_event_at_once_leave_one_message() {
    let system = System::start().await;
    let hello = hello("evt_1");
    let answers = join_all((0..10).map(|_| system.client.webhook(&hello))).await;
    let answers: Vec<_> = answers.iter().map(|answer| answer.expect(200)).collect();
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer["duplicate"] == false)
            .count(),
        1
    );
    assert!(
        answers
            .iter()
            .all(|answer| answer["messageId"] == answers[0]["messageId"])
    );
    assert_eq!(system.client.conversation("user-1").await["unreadCount"], 1);
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        1
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn first_events_of_one_participant_at_once_make_one_conversation() {
    let system = System::start().await;
    let events: Vec<_> = (0..40)
        .map(|n| {
            event(
                &format!("evt_{n}"),
                "user-1",
                &format!("text {n}"),
                "2025-01-01T10:00:00Z",
            )
        })
        .collect();
    let answers = join_all(events.iter().map(|event| system.client.webhook(event))).await;
    let answers: Vec<_> = answers.iter().map(|answer| answer.expect(200)).collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer["conversationId"] == answers[0]["conversationId"])
    );
    assert_eq!(
        system.client.conversation("user-1").await["unreadCount"],
        40
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_older_event_never_moves_the_preview_back() {
    let system = System::start().await;
    for (id, text, timestamp) in [
        ("evt_2", "second", "2025-01-01T10:00:02Z"),
        ("evt_1", "first", "2025-01-01T10:00:01Z"),
        ("evt_3", "third", "2025-01-01T10:00:03.999999Z"),
    ] {
        system
            .client
            .webhook(&event(id, "user-1", text, timestamp))
            .await
            .expect(200);
    }
    let conversation = system.client.conversation("user-1").await;
    assert_eq!(conversation["lastMessagePreview"], "third");
    assert_eq!(conversation["lastMessageAt"], "2025-01-01T10:00:03.999Z");
    let id = conversation["id"].as_str().unwrap();
    let detail = system
        .client
        .get(&format!("/conversations/{id}"))
        .await
        .expect(200);
    let texts: Vec<_> = detail["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["text"])
        .collect();
    assert_eq!(texts, ["third", "second", "first"]);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_time_far_ahead_is_kept_but_listed_at_most_ten_minutes_ahead() {
    let system = System::start().await;
    let far = "2099-01-01T00:00:00.000Z";
    let receipt = system
        .client
        .webhook(&event("evt_1", "user-1", "from the future", far))
        .await
        .expect(200);
    let message = system.message(receipt["messageId"].as_str().unwrap()).await;
    assert_eq!(message["timestamp"], far);
    let listed_at = system.client.conversation("user-1").await["lastMessageAt"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(listed_at < seconds_from_now(601), "{listed_at}");
    assert!(listed_at > seconds_from_now(500), "{listed_at}");
}

#[tokio::test]
async fn an_inbound_message_reopens_and_unarchives_its_conversation() {
    let system = System::start().await;
    let receipt = system.client.webhook(&hello("evt_1")).await.expect(200);
    let id = receipt["conversationId"].as_str().unwrap();
    for verb in ["read", "close", "archive"] {
        system
            .client
            .post_empty(&format!("/conversations/{id}/{verb}"))
            .await
            .expect(200);
    }
    system
        .client
        .webhook(&event("evt_2", "user-1", "Again", "2025-01-01T10:00:01Z"))
        .await
        .expect(200);
    let conversation = system.client.conversation("user-1").await;
    assert_eq!(conversation["status"], "open");
    assert!(conversation["archivedAt"].is_null());
    assert_eq!(conversation["unreadCount"], 1);
}

#[tokio::test]
async fn a_row_that_the_database_refuses_does_not_harm_the_others_of_its_batch() {
    let system = System::start().await;
    // Something that no validation of ours can know.
    system
        .database
        .execute("alter table messages add constraint no_poison check (text <> 'poison')")
        .await;
    let known = event("evt_known", "user-0", "known", "2025-01-01T10:00:00Z");
    system.client.webhook(&known).await.expect(200);

    // A locked table makes them queue up, so that they end in the same batches.
    let mut blocker = system.database.pool().acquire().await.unwrap();
    sqlx::raw_sql("begin; lock table webhook_events")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut events: Vec<_> = (0..20)
        .map(|n| {
            event(
                &format!("evt_{n}"),
                &format!("user-{n}"),
                "good",
                "2025-01-01T10:00:00Z",
            )
        })
        .collect();
    events.insert(
        7,
        event("evt_bad", "user-7", "poison", "2025-01-01T10:00:00Z"),
    );
    events.insert(13, known);
    let answers = join_all(events.iter().map(|event| system.client.webhook(event)));
    let unlock = async {
        crate::support::eventually("a batch waits for the lock", async || {
            let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            (system.database.count(waiting).await > 0).then_some(())
        })
        .await;
        sqlx::raw_sql("rollback")
            .execute(&mut *blocker)
            .await
            .unwrap();
    };
    let (answers, ()) = tokio::join!(answers, unlock);
    for (event, answer) in events.iter().zip(&answers) {
        match event["eventId"].as_str().unwrap() {
            "evt_bad" => drop(answer.expect_problem(500, "internal")),
            "evt_known" => assert_eq!(answer.expect(200)["duplicate"], true),
            _ => assert_eq!(answer.expect(200)["duplicate"], false),
        }
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        21
    );
    system.database.assert_consistent().await;
}
