//! Places and revisions: a row's cursor sorts and pages as its list does, and of two copies the one
//! with the higher revision is the newer.

use std::collections::BTreeMap;

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use super::inbox::{act, receive};
use crate::support::{NO_RETRY, System, event, id, run};

/// Copies of records: two with one revision are equal.
#[derive(Default)]
struct Copies(BTreeMap<(String, i64), Value>);

impl Copies {
    /// Takes a copy; its revision.
    #[track_caller]
    fn take(&mut self, copy: &Value) -> i64 {
        let revision = copy["revision"].as_i64().unwrap();
        let key = (id(copy).to_owned(), revision);
        let known = self.0.entry(key).or_insert_with(|| copy.clone());
        assert_eq!(known, copy, "two copies with revision {revision}");
        revision
    }

    /// Takes copies of all that can be read now; the newest revision of each record.
    async fn take_all(&mut self, system: &System) -> BTreeMap<String, i64> {
        let mut newest = BTreeMap::new();
        for archived in [false, true] {
            let path = format!("/conversations?limit=100&archived={archived}");
            let list = system.client.get(&path).await.expect(200);
            for row in list["data"].as_array().unwrap() {
                newest.insert(id(row).to_owned(), self.take(row));
                let path = format!("/conversations/{}?limit=200", id(row));
                let mut detail = system.client.get(&path).await.expect(200);
                for message in detail["messages"].take().as_array().unwrap() {
                    newest.insert(id(message).to_owned(), self.take(message));
                    self.take(&system.message(id(message)).await);
                }
                for of_thread in ["aliases", "messages", "meta"] {
                    detail.as_object_mut().unwrap().remove(of_thread);
                }
                self.take(&detail);
            }
        }
        newest
    }
}

/// A system whose records are compared after each step.
struct Watched {
    system: System,
    copies: Copies,
    newest: BTreeMap<String, i64>,
}

impl Watched {
    /// Asserts that since the last time these records have changed, and no others; new ones apart.
    #[track_caller]
    fn assert_grown(&mut self, newest: BTreeMap<String, i64>, grown: &[&str], what: &str) {
        for (id, revision) in &newest {
            let before = self.newest.get(id).copied();
            let has_grown = before.is_some_and(|before| *revision > before);
            assert_eq!(
                has_grown,
                grown.contains(&&**id),
                "{what}: {id} {before:?} {revision}"
            );
            assert!(*revision >= before.unwrap_or(1), "{what}: {id}");
        }
        self.newest = newest;
    }

    async fn grown(&mut self, grown: &[&str], what: &str) {
        let newest = self.copies.take_all(&self.system).await;
        self.assert_grown(newest, grown, what);
    }
}

#[tokio::test]
async fn a_revision_grows_with_each_change_and_copies_of_one_are_equal() {
    let system = System::without_worker(&[NO_RETRY]).await;
    let first = receive(&system, "user-1", 1).await;
    receive(&system, "user-2", 2).await;
    let mut watched = Watched {
        system,
        copies: Copies::default(),
        newest: BTreeMap::new(),
    };
    watched.grown(&[], "all is new").await;
    let conversation = first["conversationId"].as_str().unwrap().to_owned();
    let of_conversation = [&*conversation];
    for verb in [
        "read",
        "close",
        "reopen",
        "archive",
        "unarchive",
        "close",
        "archive",
    ] {
        let answer = act(&watched.system.client, &json!(conversation), verb).await;
        watched.copies.take(&answer);
        watched.grown(&of_conversation, verb).await;
    }
    receive(&watched.system, "user-1", 0).await;
    watched
        .grown(&of_conversation, "an older message comes in")
        .await;
    let known = event("evt_known", "user-1", "Hello", "2025-01-01T10:00:00Z");
    watched.system.client.webhook(&known).await.expect(200);
    watched.grown(&of_conversation, "another").await;
    watched.system.client.webhook(&known).await.expect(200);
    watched.grown(&[], "a duplicate").await;

    watched.system.mock.script(
        "user-1",
        [
            Fault::server_error(500),
            Fault::server_error(500),
            Fault::Ok,
        ],
    );
    let failed = watched.system.send("user-1", "Hi").await;
    assert_eq!(
        (&failed["status"], &failed["revision"]),
        (&json!("FAILED"), &json!(2))
    );
    watched.copies.take(&failed);
    watched.grown(&of_conversation, "a message is sent").await;
    let message = id(&failed).to_owned();
    let of_message = [&*message];
    let requeued = watched.system.act(&failed, "retry", 202).await;
    watched.copies.take(&requeued);
    watched.grown(&of_message, "it is made due").await;
    watched.system.drain(&[NO_RETRY]).await;
    watched.grown(&of_message, "it fails again").await;
    let canceled = watched.system.act(&failed, "cancel", 200).await;
    watched.copies.take(&canceled);
    watched.grown(&of_message, "it is canceled").await;
    let again = watched.system.act(&failed, "cancel", 200).await;
    watched.copies.take(&again);
    watched.grown(&[], "and again").await;
    watched.system.act(&failed, "retry", 202).await;
    watched.grown(&of_message, "it is made due again").await;
    watched.system.drain(&[]).await;
    assert_eq!(watched.system.message(&message).await["status"], "SENT");
    watched.grown(&of_message, "it is sent").await;
    watched.system.act(&failed, "retry", 409).await;
    watched.grown(&[], "nothing is left to do").await;

    let (before, all) = (
        watched.newest.clone(),
        watched.copies.take_all(&watched.system).await,
    );
    assert_eq!(before, all);
    let forgotten = run(&watched.system.database, "forget", &["whatsapp", "user-1"])
        .finish()
        .await;
    assert_eq!(forgotten.code, Some(0), "{forgotten:?}");
    let path = format!("/conversations/{conversation}?limit=200");
    let thread = watched.system.client.get(&path).await.expect(200);
    let messages = thread["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    let mut forgotten: Vec<_> = messages.iter().map(id).collect();
    forgotten.push(&conversation);
    watched.grown(&forgotten, "the customer is forgotten").await;
}

/// Times around those at which their spelling in a number changes.
const TIMES: [&str; 10] = [
    "0001-01-01T00:00:00.000Z",
    "1900-06-01T00:00:00Z",
    "1969-12-31T23:59:59.998Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    "1970-01-01T00:00:00.001Z",
    "1970-01-01T00:00:00.001Z",
    "2001-09-09T01:46:40Z",
    "2025-01-01T10:00:00Z",
    "2025-01-01T10:00:00Z",
];

/// Asserts that a list sorts by the cursors of its rows, and that each is a place to go on from, as
/// `nextCursor` is.
async fn assert_pages_by_rows(system: &System, path: &str, rows: &str) {
    let whole = system
        .client
        .get(&format!("{path}?limit=100"))
        .await
        .expect(200);
    let whole = whole[rows].as_array().unwrap();
    assert!(whole.len() >= TIMES.len());
    let places: Vec<_> = whole
        .iter()
        .map(|row| row["cursor"].as_str().unwrap())
        .collect();
    assert!(places.is_sorted_by(|a, b| a > b), "{places:#?}");
    for (at, place) in places.iter().enumerate() {
        let next = format!("{path}?limit=100&cursor={place}");
        let rest = system.client.get(&next).await.expect(200);
        assert_eq!(rest[rows].as_array().unwrap(), &whole[at + 1..]);
        let part = system
            .client
            .get(&format!("{path}?limit={}", at + 1))
            .await
            .expect(200);
        let has_more = at + 1 < whole.len();
        let next = if has_more { json!(place) } else { Value::Null };
        assert_eq!(part["meta"]["nextCursor"], next);
    }
}

#[tokio::test]
async fn cursors_of_conversations_sort_as_the_inbox_does_also_before_1970() {
    let system = System::start().await;
    for (n, time) in TIMES.into_iter().enumerate() {
        let event = event(&format!("evt_{n}"), &format!("user-{n}"), "Hello", time);
        system.client.webhook(&event).await.expect(200);
    }
    assert_pages_by_rows(&system, "/conversations", "data").await;
    // A place of this moment.
    system.send("user-0", "Hi").await;
    assert_pages_by_rows(&system, "/conversations", "data").await;
    // Nobody has to be found at a place: one that has moved on leaves it free.
    let list = system
        .client
        .get("/conversations?limit=1")
        .await
        .expect(200);
    let place = list["data"][0]["cursor"].as_str().unwrap().to_owned();
    system.send("user-0", "Hi").await;
    let path = format!("/conversations?limit=100&cursor={place}");
    let rest = system.client.get(&path).await.expect(200);
    assert_eq!(rest["data"].as_array().unwrap().len(), TIMES.len() - 1);
}

#[tokio::test]
async fn cursors_of_messages_sort_as_their_thread_does_also_before_1970() {
    let system = System::with(&[NO_RETRY]).await;
    for (n, time) in TIMES.into_iter().enumerate() {
        let event = event(&format!("evt_{n}"), "user-1", &format!("text {n}"), time);
        system.client.webhook(&event).await.expect(200);
    }
    system.mock.script("user-1", [Fault::server_error(500)]);
    let failed = system.send("user-1", "Hi").await;
    let path = format!(
        "/conversations/{}",
        failed["conversationId"].as_str().unwrap()
    );
    assert_pages_by_rows(&system, &path, "messages").await;
    // Also where it is listed by another order.
    let list = system
        .client
        .get("/messages?status=FAILED")
        .await
        .expect(200);
    assert_eq!(list["data"][0]["cursor"], failed["cursor"]);
    let thread = system.client.get(&path).await.expect(200);
    assert_eq!(thread["messages"][0]["cursor"], failed["cursor"]);
}

#[tokio::test]
async fn a_place_that_an_older_version_has_given_is_found() {
    let system = System::start().await;
    for (n, time) in TIMES.into_iter().enumerate() {
        let event = event(&format!("evt_{n}"), &format!("user-{n}"), "Hello", time);
        system.client.webhook(&event).await.expect(200);
    }
    let whole = system.client.get("/conversations").await.expect(200);
    let whole = whole["data"].as_array().unwrap();
    for (at, row) in whole.iter().enumerate() {
        let place = row["cursor"].as_str().unwrap();
        let older = match place.split_at(2) {
            ("80", rest) => format!("00{rest}"),
            ("7f", rest) => format!("ff{rest}"),
            other => panic!("{other:?}"),
        };
        let path = format!("/conversations?cursor={older}");
        let rest = system.client.get(&path).await.expect(200);
        assert_eq!(rest["data"].as_array().unwrap(), &whole[at + 1..]);
    }
}
