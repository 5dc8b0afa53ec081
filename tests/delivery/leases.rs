//! Leases: whatever was accepted is sent, also when a process dies or dawdles, and only one holder
//! at a time can write a failure.

use futures_util::future::join_all;
use mock_meta_provider::{Behaviour, Fault};
use serde_json::json;

use crate::support::{
    Held, HeldCall, LONG_ATTEMPT, NO_FIRST_ATTEMPT, NO_RETRY, Program, SHORT_WAIT, System,
    eventually, id,
};

#[tokio::test]
async fn two_workers_make_one_attempt_at_each_of_a_hundred_messages() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    for message in join_all((0..100).map(|_| system.send("user-1", "Merhaba!"))).await {
        assert_eq!(message["status"], "PENDING");
    }
    // Slow enough, and few enough at once, that both take part.
    let behaviour = Behaviour {
        delay_max_ms: 20,
        ..Behaviour::CALM
    };
    system.mock.set_behaviour(behaviour).unwrap();
    let few = [("WORKER_CONCURRENCY", "4")];
    let _workers = (system.worker(&few).await, system.worker(&few).await);
    eventually("everything is sent", async || {
        (system
            .database
            .count("select count(*) from deliveries")
            .await
            == 0)
            .then_some(())
    })
    .await;
    let ledger = system.mock.ledger();
    assert_eq!(ledger.messages.len(), 100);
    assert!(
        ledger.messages.iter().all(|message| message.calls == 1),
        "{ledger:#?}"
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn what_a_killed_gateway_was_sending_is_sent_once_its_lease_is_over() {
    let mut system = System::with(&[LONG_ATTEMPT, SHORT_WAIT]).await;
    system.mock.script("user-1", [Fault::Hang]);
    let message = system.send("user-1", "Merhaba!").await;
    assert_eq!(message["status"], "PENDING");
    let calls = || {
        system
            .mock
            .message(id(&message))
            .map_or(0, |message| message.calls)
    };
    eventually("the attempt is in flight", async || {
        (calls() == 1).then_some(())
    })
    .await;
    system.gateway.kill();

    system.drain(&[LONG_ATTEMPT]).await;
    assert_eq!(calls(), 1, "the lease is not over");
    system.expire_leases().await;
    system.drain(&[LONG_ATTEMPT]).await;
    // The same key, or the ledger would have two messages.
    let ledger = system.mock.ledger();
    assert_eq!(ledger.messages.len(), 1);
    assert_eq!((ledger.messages[0].calls, ledger.deliveries()), (2, 1));
    let (_gateway, client) = system.another(&[]).await;
    let sent = client
        .get(&format!("/messages/{}", id(&message)))
        .await
        .expect(200);
    assert_eq!(
        (&sent["status"], &sent["retryCount"]),
        (&json!("SENT"), &json!(0))
    );
    system.database.assert_consistent().await;
}

/// A gateway whose attempt outlasts its lease, and a worker whose attempt is the valid one.
struct Overtaken {
    system: System,
    worker: Program,
    /// The message's id.
    id: String,
    late: HeldCall,
    valid: HeldCall,
}

async fn overtaken() -> Overtaken {
    let (slow, other) = (Held::start().await, Held::start().await);
    let gateway = [
        LONG_ATTEMPT,
        SHORT_WAIT,
        NO_RETRY,
        ("PROVIDER_URL", slow.url()),
    ];
    let system = System::without_worker(&gateway).await;
    let message = system.send("user-1", "Merhaba!").await;
    let late = slow.call().await;
    system.expire_leases().await;
    let worker = system
        .worker(&[LONG_ATTEMPT, NO_RETRY, ("PROVIDER_URL", other.url())])
        .await;
    let valid = other.call().await;
    assert_eq!((&*late.key, &*valid.key), (id(&message), id(&message)));
    assert_eq!(late.body, valid.body);
    Overtaken {
        system,
        worker,
        id: id(&message).to_owned(),
        late,
        valid,
    }
}

#[tokio::test]
async fn a_late_failure_is_refused_while_the_next_attempt_is_in_flight() {
    let Overtaken {
        system,
        id,
        late,
        valid,
        worker: _worker,
    } = overtaken().await;
    let before = system.message(&id).await;
    late.answer(422, &json!({})).await;
    assert_eq!(
        system.gateway.logged("an attempt failed").await["refused"],
        true
    );
    assert_eq!(system.message(&id).await, before);
    valid.accept("valid").await;
    let sent = system.message_becomes(&id, "SENT").await;
    assert_eq!(
        (&sent["providerMessageId"], &sent["lastError"]),
        (&json!("valid"), &json!(null))
    );
}

#[tokio::test]
async fn a_late_failure_does_not_change_what_the_next_holder_wrote() {
    let Overtaken {
        system,
        id,
        late,
        valid,
        worker: _worker,
    } = overtaken().await;
    valid.answer(503, &json!({})).await;
    let failed = system.message_becomes(&id, "FAILED").await;
    assert_eq!(failed["lastError"]["kind"], "server_error");
    late.answer(422, &json!({})).await;
    assert_eq!(
        system.gateway.logged("an attempt failed").await["refused"],
        true
    );
    assert_eq!(system.message(&id).await, failed);
}

#[tokio::test]
async fn a_late_acceptance_is_kept_although_the_next_holder_fails() {
    let Overtaken {
        system,
        id,
        late,
        valid,
        worker,
    } = overtaken().await;
    late.accept("late").await;
    let sent = system.message_becomes(&id, "SENT").await;
    assert_eq!(sent["providerMessageId"], "late");
    valid.answer(422, &json!({})).await;
    assert_eq!(worker.logged("an attempt failed").await["refused"], true);
    assert_eq!(system.message(&id).await, sent);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_late_acceptance_is_kept_although_the_next_holder_has_failed_for_good() {
    let Overtaken {
        system,
        id,
        late,
        valid,
        worker: _worker,
    } = overtaken().await;
    valid.answer(422, &json!({})).await;
    system.message_becomes(&id, "FAILED").await;
    late.accept("late").await;
    let sent = system.message_becomes(&id, "SENT").await;
    assert_eq!(
        (&sent["providerMessageId"], &sent["retryCount"]),
        (&json!("late"), &json!(1))
    );
    assert_eq!(sent["lastError"]["kind"], "rejected");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn an_outcome_is_kept_while_somebody_else_has_its_row_locked() {
    let provider = Held::start().await;
    let system = System::with(&[LONG_ATTEMPT, SHORT_WAIT, ("PROVIDER_URL", provider.url())]).await;
    let message = system.send("user-1", "Merhaba!").await;
    let call = provider.call().await;
    let mut blocker = system.database.pool().acquire().await.unwrap();
    sqlx::raw_sql("begin; select from deliveries for update")
        .execute(&mut *blocker)
        .await
        .unwrap();
    call.accept("msg_1").await;
    system.gateway.logged("a row could not be written").await;
    sqlx::raw_sql("rollback")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["providerMessageId"], "msg_1");
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn an_error_that_nobody_has_thought_of_holds_up_the_outcome_of_one_message_only() {
    let system = System::with(&[LONG_ATTEMPT, SHORT_WAIT]).await;
    let refuse = "
        create function refuse() returns trigger language plpgsql as
          $$ begin raise exception 'nobody has thought of it'; end $$;
        create trigger refuse before update on messages for each row
          when (new.status = 'SENT' and new.text = 'poison') execute function refuse()";
    system.database.execute(refuse).await;
    let poison = system.send("user-1", "poison").await;
    system.gateway.logged("batch write failed, retrying").await;
    for other in join_all((0..8).map(|_| system.send("user-2", "Merhaba!"))).await {
        system.message_becomes(id(&other), "SENT").await;
    }
    system
        .database
        .execute("drop trigger refuse on messages")
        .await;
    system.message_becomes(id(&poison), "SENT").await;
    assert_eq!(system.mock.message(id(&poison)).unwrap().calls, 1);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_message_that_kills_its_sender_again_and_again_is_parked_without_a_call() {
    let system = System::without_worker(&[NO_FIRST_ATTEMPT]).await;
    let harmless = system.send("user-1", "Merhaba!").await;
    system
        .database
        .execute("update deliveries set attempt = 19")
        .await;
    system.drain(&[]).await;
    assert_eq!(system.message(id(&harmless)).await["status"], "SENT");

    let message = system.send("user-1", "Merhaba!").await;
    system
        .database
        .execute("update deliveries set attempt = 20")
        .await;
    system.drain(&[]).await;
    let parked = system.message(id(&message)).await;
    assert_eq!(
        (&parked["status"], &parked["nextAttemptAt"]),
        (&json!("FAILED"), &json!(null))
    );
    let error = &parked["lastError"];
    assert_eq!(
        (&error["kind"], &error["retryable"]),
        (&json!("interrupted"), &json!(false))
    );
    assert!(system.mock.message(id(&message)).is_none());

    let path = format!("/messages/{}/retry", id(&message));
    system.client.post(&path, &json!({})).await.expect(202);
    system.drain(&[]).await;
    assert_eq!(system.message(id(&message)).await["status"], "SENT");
}

#[tokio::test]
async fn a_drain_sends_what_is_due_and_leaves_what_is_not() {
    let system = System::without_worker(&[NO_RETRY]).await;
    system.drain(&[]).await;
    system.mock.script(
        "user-1",
        [Fault::server_error(500), Fault::server_error(500)],
    );
    let due = system.send("user-1", "due").await;
    let later = system.send("user-1", "later").await;
    let path = format!("/messages/{}/retry", id(&due));
    system.client.post(&path, &json!({})).await.expect(202);
    system.drain(&[]).await;
    assert_eq!(system.message(id(&due)).await["status"], "SENT");
    assert_eq!(system.message(id(&later)).await, later);
    assert_eq!(system.mock.message(id(&later)).unwrap().calls, 1);
}

#[tokio::test]
async fn a_worker_needs_both_a_database_and_a_provider() {
    let database = ("DATABASE_URL", "postgres://gateway@localhost/gateway");
    let provider = ("PROVIDER_URL", "http://127.0.0.1:4000");
    for (given, missing) in [
        (&[][..], "DATABASE_URL"),
        (&[provider], "DATABASE_URL"),
        (&[database], "PROVIDER_URL"),
        (&[database, ("PROVIDER_URL", "")], "PROVIDER_URL"),
    ] {
        let worker = Program::new("worker").envs(given).finish().await;
        assert_eq!(worker.code, Some(2), "{}", worker.stderr);
        assert!(worker.stderr.contains(missing), "{}", worker.stderr);
        assert_eq!(worker.stdout, "");
    }
}
