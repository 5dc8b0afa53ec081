//! Where it cannot be told what was missed, a listener is told that: never silence, never an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::cli::listener::Listener as FrontEnd;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::{texts, write};
use crate::support::{Listener, System, event, eventually, id, run};

/// What somebody who comes back with this position is told first; and goes on from there.
async fn reason(system: &System, id: &str) -> String {
    let mut listener = Listener::resume(&system.client, id).await;
    let reset = listener.next().await;
    assert!(reset.id.is_some(), "{reset:?}");
    let text = uuid::Uuid::now_v7().to_string();
    write(&system.client, [&text]).await;
    let mut again = Listener::resume(&system.client, &listener.id).await;
    for listener in [&mut listener, &mut again] {
        let events = listener.until(|event| event.id.is_some()).await;
        assert_eq!(texts(&events), [&*text]);
    }
    reset.reason().to_owned()
}

#[tokio::test]
async fn a_position_of_a_copy_on_the_same_server_is_answered_with_a_reset() {
    let (system, copy) = (System::start().await, System::start().await);
    let epoch = "update feed set epoch = '01a2180e-e192-7454-b272-bacb6b29042f'";
    for system in [&system, &copy] {
        system.database.execute(epoch).await;
    }
    let id = Listener::open(&copy.client, "").await.id;
    assert_eq!(reason(&system, &id).await, "epoch");
}

#[tokio::test]
async fn a_position_that_is_none_is_answered_with_a_reset() {
    let system = System::start().await;
    let (elsewhere, ours) = (
        System::start().await,
        Listener::open(&system.client, "").await.id,
    );
    let foreign = Listener::open(&elsewhere.client, "").await.id;
    let mut forged = ours.clone().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    let forged = String::from_utf8(forged).unwrap();
    let long = "0".repeat(10_000);
    for id in [
        "",
        "0",
        "1",
        "-1",
        "null",
        "é",
        &forged,
        &foreign,
        &long,
        &format!("{ours}00"),
    ] {
        assert_eq!(reason(&system, id).await, "epoch", "{id}");
    }
    for query in [
        "?lastEventId=",
        "?lastEventId=%00%FF",
        &format!("?lastEventId={long}"),
    ] {
        let mut listener = Listener::open(&system.client, query).await;
        assert_eq!(listener.next().await.reason(), "epoch", "{query}");
    }
    let twice = [("last-event-id", &*ours), ("last-event-id", &*ours)];
    let mut listener = Listener::open_with(&system.client, "", &twice).await;
    assert_eq!(listener.next().await.reason(), "epoch");
    // Whoever was cut off between the two events is told again.
    let mut listener = Listener::resume(&system.client, "").await;
    let hello = listener.id.clone();
    assert_eq!(listener.next().await.reason(), "epoch");
    assert_eq!(reason(&system, &hello).await, "epoch");
}

#[tokio::test]
async fn a_position_whose_rows_are_deleted_is_answered_with_a_reset() {
    let system = System::with(&[("FEED_RETENTION_MINUTES", "1")]).await;
    let mut living = Listener::open(&system.client, "").await;
    let old = living.id.clone();
    write(&system.client, ["old"]).await;
    living.until_text("old").await;
    system
        .database
        .execute("update changes set at = now() - interval '2 minutes'")
        .await;
    eventually("old rows are deleted", async || {
        (system.database.count("select count(*) from changes").await == 0).then_some(())
    })
    .await;
    assert_eq!(reason(&system, &old).await, "expired");
    // Whoever has read them does not notice.
    let events = living.until(|event| event.id.is_some()).await;
    assert!(
        events.iter().all(|event| event.kind != "reset"),
        "{events:?}"
    );
}

#[tokio::test]
async fn another_history_resets_whoever_listens_and_whoever_comes_back() {
    for (what, is_emptied) in [
        ("epoch = gen_random_uuid()", false),
        // As after a restored dump: the server that gave the positions is another one.
        (
            "system_identifier = system_identifier - 1, deleted_below = 9000000000000000000",
            true,
        ),
    ] {
        let system = System::start().await;
        write(&system.client, ["before"]).await;
        let mut living = Listener::open(&system.client, "").await;
        let old = living.id.clone();
        system
            .database
            .execute(&format!("update feed set {what}"))
            .await;
        let reset = living.until(|event| event.kind == "reset").await;
        assert_eq!(reset.last().unwrap().reason(), "epoch", "{what}");
        let left = system.database.count("select count(*) from changes").await;
        assert_eq!(left == 0, is_emptied, "{what}");
        write(&system.client, ["after"]).await;
        assert_eq!(texts(&living.until_text("after").await), ["after"]);
        assert_eq!(reason(&system, &old).await, "epoch");
        let copies = "select count(*) from feed where system_identifier <> (select system_identifier from pg_control_system())";
        assert_eq!(system.database.count(copies).await, 0);
    }
}

#[tokio::test]
async fn a_position_that_no_transaction_has_reached_ends_the_history() {
    let system = System::start().await;
    system
        .database
        .execute("insert into changes (position) values (9000000000000000000)")
        .await;
    let ahead = Listener::open(&system.client, "").await.id;
    // As if a copy of the server's files had been put back.
    system.database.execute("delete from changes").await;
    assert_eq!(reason(&system, &ahead).await, "epoch");
}

#[tokio::test]
async fn whoever_has_missed_very_much_fetches_again() {
    let system = System::start().await;
    let position = Listener::open(&system.client, "").await.id;
    system
        .database
        .execute(
            "insert into changes (updated_ids) select array_agg(gen_random_uuid()) from generate_series(1, 10001)",
        )
        .await;
    assert_eq!(reason(&system, &position).await, "too_far");
}

#[tokio::test]
async fn seeds_are_told_by_a_reset() {
    let system = System::start().await;
    let mut living = Listener::open(&system.client, "").await;
    let position = living.id.clone();
    let arguments = ["--conversations", "50", "--messages", "200"];
    let seeded = run(&system.database, "seed", &arguments).finish().await;
    assert_eq!(seeded.code, Some(0), "{seeded:?}");
    assert_eq!(living.next().await.reason(), "bulk");
    assert_eq!(reason(&system, &position).await, "bulk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_moves_up_while_pages_are_read_is_not_missed() {
    let system = System::start().await;
    write(&system.client, (0..=100).map(|number| number.to_string())).await;
    let first = system
        .client
        .get("/conversations?limit=100")
        .await
        .expect(200);
    let next = first["meta"]["nextCursor"].as_str().unwrap();
    let second = format!("/conversations?limit=100&cursor={next}");
    let last = system.client.get(&second).await.expect(200)["data"][0].clone();
    let again = event(
        "evt-again",
        last["participantId"].as_str().unwrap(),
        "again",
        "2025-01-01T10:00:01Z",
    );

    let (client, has_moved) = (system.client.clone(), Arc::new(AtomicBool::new(false)));
    let ask = {
        let has_moved = Arc::clone(&has_moved);
        move |path: &str| {
            if path.contains("cursor=") && !has_moved.swap(true, Ordering::Relaxed) {
                block_in_place(|| Handle::current().block_on(client.webhook(&again))).expect(200);
            }
            Some(client.http.get(client.url(path)))
        }
    };
    let front_end = FrontEnd::start(Arc::new(ask), None).await.unwrap();
    let other = "update feed set epoch = gen_random_uuid()";
    system.database.execute(other).await;
    let heard = front_end.compare(&[id(&last).to_owned()]).await.unwrap();
    assert!(has_moved.load(Ordering::Relaxed));
    assert!(heard.held, "{heard:?}");
}
