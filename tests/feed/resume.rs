//! A listener that comes back is told what it has missed: that, and nothing else.

use super::{conversations, texts, write};
use crate::support::{Listener, System};

#[tokio::test]
async fn a_listener_that_comes_back_is_told_exactly_what_it_has_missed() {
    let system = System::start().await;
    let mut listener = Listener::open(&system.client, "").await;
    write(&system.client, ["a", "b"]).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(texts(&listener.until(|event| event.id.is_some()).await));
    }
    let position = listener.id.clone();
    drop(listener);
    write(&system.client, ["c", "d", "e"]).await;

    let (_other, other) = system.another(&[]).await;
    for (client, missed) in [(&system.client, 3), (&other, 5)] {
        let mut listener = Listener::resume(client, &position).await;
        assert_eq!(
            listener.id, position,
            "until all is told it is where it was"
        );
        let events = listener.until(|event| event.id.is_some()).await;
        let told = texts(&events);
        assert_eq!(told.len(), missed, "{told:?}");
        assert!(!told.contains(&"b".to_owned()), "{told:?}");
        assert_eq!(conversations(&events).len(), missed);
        // And behind that nothing is repeated.
        write(client, [format!("live-{}", client.address().port())]).await;
        let events = listener.until(|event| event.id.is_some()).await;
        assert_eq!(texts(&events).len(), 1, "{events:?}");
        let mut again = Listener::resume(client, &listener.id).await;
        write(client, [format!("again-{}", client.address().port())]).await;
        let events = again.until(|event| event.id.is_some()).await;
        assert_eq!(texts(&events).len(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn a_filter_holds_for_what_was_missed_too() {
    let system = System::start().await;
    let listener = Listener::open(&system.client, "").await;
    let position = listener.id.clone();
    write(&system.client, ["a", "b"]).await;
    let conversation = system.client.conversation("user-a").await;
    let query = format!("?conversation={}", conversation["id"].as_str().unwrap());
    let behind = [("last-event-id", &*position)];
    let mut listener = Listener::open_with(&system.client, &query, &behind).await;
    let events = listener.until(|event| event.id.is_some()).await;
    assert_eq!(texts(&events), ["a"]);
    assert_eq!(conversations(&events).len(), 2);
}

#[tokio::test]
async fn the_header_wins_over_the_query() {
    let system = System::start().await;
    let before = Listener::open(&system.client, "").await.id;
    write(&system.client, ["missed"]).await;
    let after = Listener::open(&system.client, "").await.id;
    let by_query = format!("?lastEventId={before}");
    let mut listener = Listener::open(&system.client, &by_query).await;
    let events = listener.until(|event| event.id.is_some()).await;
    assert_eq!(texts(&events), ["missed"]);

    let behind = [("last-event-id", &*after)];
    let mut listener = Listener::open_with(&system.client, &by_query, &behind).await;
    write(&system.client, ["new"]).await;
    let events = listener.until(|event| event.id.is_some()).await;
    assert_eq!(texts(&events), ["new"]);
}

#[tokio::test]
async fn what_was_made_and_changed_meanwhile_is_told_once_as_new() {
    let system = System::start().await;
    let position = Listener::open(&system.client, "").await.id;
    system.send("user-1", "Merhaba").await;
    let mut listener = Listener::resume(&system.client, &position).await;
    let events = listener.until(|event| event.id.is_some()).await;
    let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["conversation.updated", "message.created"]);
    assert_eq!(events[1].data["message"]["status"], "SENT");
}

#[tokio::test]
async fn more_than_one_reading_of_missed_rows_is_told_whole() {
    let system = System::start().await;
    let position = Listener::open(&system.client, "").await.id;
    write(&system.client, ["real"]).await;
    // A page of rows that name it again.
    system
        .database
        .execute(
            "do $$ begin for n in 1..700 loop
               insert into changes (updated_ids) select array[id] from messages; commit;
             end loop; end $$",
        )
        .await;
    write(&system.client, ["last"]).await;
    let mut listener = Listener::resume(&system.client, &position).await;
    let events = listener.until(|event| event.id.is_some()).await;
    assert_eq!(texts(&events), ["last", "real"]);
    assert_eq!(events.len(), 4, "{events:?}");
}
