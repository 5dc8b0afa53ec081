//! The inbox: what is listed, in which order, and in which parts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Client, Database, System, event, plan, rows_of};

/// A message that came in, on a day of January 2025 at this second.
pub async fn receive(system: &System, from: &str, second: u32) -> Value {
    let id = format!("evt_{}", uuid::Uuid::now_v7().simple());
    let time = format!("2025-01-01T10:{:02}:{:02}Z", second / 60, second % 60);
    let event = event(&id, from, &format!("{from} {second}"), &time);
    system.client.webhook(&event).await.expect(200)
}

/// The same on instagram.
pub async fn receive_on_instagram(system: &System, from: &str, second: u32) -> Value {
    let id = format!("evt_{}", uuid::Uuid::now_v7().simple());
    let mut event = event(
        &id,
        from,
        "Hello",
        &format!("2025-01-01T10:00:{second:02}Z"),
    );
    event["channel"] = json!("instagram");
    system.client.webhook(&event).await.expect(200)
}

pub async fn act(client: &Client, conversation_id: &Value, verb: &str) -> Value {
    let id = conversation_id.as_str().unwrap();
    client
        .post_empty(&format!("/conversations/{id}/{verb}"))
        .await
        .expect(200)
}

/// Who is listed, in order.
pub fn participants(list: &Value) -> Vec<String> {
    let rows = list["data"].as_array().unwrap().iter();
    rows.map(|row| row["participantId"].as_str().unwrap().to_owned())
        .collect()
}

pub async fn list(system: &System, query: &str) -> Value {
    system
        .client
        .get(&format!("/conversations?{query}"))
        .await
        .expect(200)
}

/// Walks a list by its cursor to the end; `between` happens after each part.
async fn walk(
    client: &Client,
    path: &str,
    rows: &str,
    mut between: impl AsyncFnMut(usize),
) -> Vec<Value> {
    let mut walked = Vec::new();
    let mut next = path.to_owned();
    for part in 0.. {
        let list = client.get(&next).await.expect(200);
        walked.extend(list[rows].as_array().unwrap().iter().cloned());
        assert_eq!(
            list["meta"]["page"].is_null(),
            part > 0,
            "a page has a number, a cursor has none"
        );
        assert_eq!(
            list["meta"]["hasMore"],
            !list["meta"]["nextCursor"].is_null()
        );
        let Some(cursor) = list["meta"]["nextCursor"].as_str() else {
            break;
        };
        assert!(part < 200, "the list does not end");
        next = format!("{path}&cursor={cursor}");
        between(part).await;
    }
    walked
}

/// Walks a list while nothing else happens.
pub async fn walk_undisturbed(system: &System, path: &str, rows: &str) -> Vec<Value> {
    walk(&system.client, path, rows, async |_| {}).await
}

#[tokio::test]
async fn the_newest_activity_comes_first() {
    let system = System::start().await;
    for (from, second) in [
        ("a", 10),
        ("b", 30),
        ("c", 20),
        ("d", 30),
        ("a", 40),
        ("c", 1),
    ] {
        receive(&system, from, second).await;
    }
    // b and d tie: the later conversation comes first.
    assert_eq!(participants(&list(&system, "").await), ["a", "d", "b", "c"]);
    system.send("c", "Hi").await;
    assert_eq!(participants(&list(&system, "").await), ["c", "a", "d", "b"]);
}

#[tokio::test]
async fn pages_say_whether_there_is_more() {
    let system = System::start().await;
    for n in 0..5 {
        receive(&system, &format!("user-{n}"), n).await;
    }
    for (page, expected, more) in [
        (1, &["user-4", "user-3"][..], true),
        (2, &["user-2", "user-1"], true),
        (3, &["user-0"], false),
        (4, &[], false),
        (10_000, &[], false),
    ] {
        let list = list(&system, &format!("page={page}&limit=2")).await;
        assert_eq!(participants(&list), expected);
        let meta = &list["meta"];
        assert_eq!((&meta["page"], &meta["limit"]), (&json!(page), &json!(2)));
        assert_eq!(meta["hasMore"], more, "page {page}");
        assert_eq!(meta["nextCursor"].is_string(), more, "page {page}");
    }
    assert_eq!(list(&system, "limit=5").await["meta"]["hasMore"], false);
    let defaults = list(&system, "").await["meta"].clone();
    assert_eq!(
        (&defaults["page"], &defaults["limit"]),
        (&json!(1), &json!(20))
    );
}

#[tokio::test]
async fn a_cursor_lists_each_row_that_stays_in_its_place_exactly_once() {
    let system = System::start().await;
    let names: BTreeSet<_> = (0..25).map(|n| format!("user-{n:02}")).collect();
    for (second, name) in (0..).zip(&names) {
        receive(&system, name, second).await;
    }
    // One that was listed already and one that was not yet move up after each part.
    let listed = ["user-24", "user-23", "user-20"];
    let not_yet = ["user-02", "user-07", "user-05"];
    let path = "/conversations?limit=4";
    let walked = walk(&system.client, path, "data", async |part| {
        if part < listed.len() {
            receive(&system, listed[part], 100).await;
            system.send(not_yet[part], "Hi").await;
        }
    })
    .await;
    let walked = participants(&json!({ "data": walked }));
    let once: BTreeSet<_> = walked.iter().cloned().collect();
    assert_eq!(walked.len(), once.len(), "{walked:?}");
    let missing: Vec<_> = names.difference(&once).collect();
    assert_eq!(missing, ["user-02", "user-05", "user-07"]);
    let first_page = participants(&list(&system, "limit=6").await);
    for name in missing {
        assert!(first_page.contains(name), "{first_page:?}");
    }
}

#[tokio::test]
async fn a_cursor_loses_nothing_among_rows_of_one_moment() {
    let system = System::start().await;
    for n in 0..13 {
        let name = format!("user-{n}");
        let receipt = match n % 2 {
            0 => receive(&system, &name, 0).await,
            _ => receive_on_instagram(&system, &name, 0).await,
        };
        if n % 3 == 0 {
            act(&system.client, &receipt["conversationId"], "close").await;
        }
    }
    let walked = walk_undisturbed(&system, "/conversations?limit=5", "data").await;
    let ids: Vec<_> = walked
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 13);
    assert!(ids.is_sorted_by(|a, b| a > b), "{ids:#?}");
}

/// Eight conversations: of each channel, open and closed, in the inbox and archived.
async fn one_of_each_kind(system: &System) {
    for (second, channel) in [(1, "whatsapp"), (2, "instagram")] {
        for verbs in [&[][..], &["close"], &["archive"], &["close", "archive"]] {
            let name = format!("{channel} {}", verbs.join(" "));
            let receipt = match channel {
                "whatsapp" => receive(system, name.trim(), second).await,
                _ => receive_on_instagram(system, name.trim(), second).await,
            };
            for verb in verbs {
                act(&system.client, &receipt["conversationId"], verb).await;
            }
        }
    }
}

/// Asserts that a query lists these, at once as well as one by one, by page and by cursor.
pub async fn assert_lists(system: &System, query: &str, expected: &[&str]) {
    assert_eq!(
        participants(&list(system, query).await),
        expected,
        "{query}"
    );
    let walked = walk_undisturbed(system, &format!("/conversations?limit=1&{query}"), "data").await;
    let by_cursor = participants(&json!({ "data": walked }));
    assert_eq!(by_cursor, expected, "{query} by cursor");
    let mut by_page = Vec::new();
    for page in 1..=expected.len() {
        let part = list(system, &format!("limit=1&page={page}&{query}")).await;
        by_page.extend(participants(&part));
    }
    assert_eq!(by_page, expected, "{query} by page");
}

#[tokio::test]
async fn filters_show_what_they_say_and_archived_ones_are_apart() {
    let system = System::start().await;
    one_of_each_kind(&system).await;
    let inbox = ["instagram close", "instagram", "whatsapp close", "whatsapp"];
    let archived = inbox.map(|name| format!("{name} archive"));
    let archived = archived.each_ref().map(|name| &**name);
    for (query, expected) in [
        ("", &inbox[..]),
        ("archived=false", &inbox),
        ("channel=whatsapp", &inbox[2..]),
        ("channel=instagram", &inbox[..2]),
        ("status=open", &["instagram", "whatsapp"]),
        ("status=closed&channel=whatsapp", &["whatsapp close"]),
        ("archived=true", &archived),
        (
            "archived=true&status=open",
            &["instagram archive", "whatsapp archive"],
        ),
        (
            "archived=true&channel=instagram&status=closed",
            &archived[..1],
        ),
    ] {
        assert_lists(&system, query, expected).await;
    }
}

#[tokio::test]
async fn a_conversation_is_that_of_the_list_and_its_messages_newest_first() {
    let system = System::start().await;
    for second in [3, 1, 5, 2, 5, 4] {
        receive(&system, "user-1", second).await;
    }
    system.send("user-1", "Hi").await;
    let listed = system.client.conversation("user-1").await;
    let path = format!("/conversations/{}", listed["id"].as_str().unwrap());
    let detail = system.client.get(&path).await.expect(200);
    let meta = json!({ "page": 1, "limit": 50, "hasMore": false, "nextCursor": null });
    assert_eq!(detail["meta"], meta);
    for (key, value) in listed.as_object().unwrap() {
        assert_eq!(&detail[key], value);
    }
    let messages = detail["messages"].as_array().unwrap();
    let texts = messages
        .iter()
        .map(|message| message["text"].as_str().unwrap());
    let texts: Vec<_> = texts.collect();
    let inbound = [5, 5, 4, 3, 2, 1].map(|second| format!("user-1 {second}"));
    assert_eq!(texts[0], "Hi");
    assert_eq!(texts[1..], inbound);
    for message in messages {
        let id = message["id"].as_str().unwrap();
        assert_eq!(&system.message(id).await, message);
    }
}

#[tokio::test]
async fn a_thread_is_the_same_at_once_by_page_and_by_cursor() {
    let system = System::start().await;
    for second in [3, 1, 5, 2, 5, 4, 5] {
        receive(&system, "user-1", second).await;
    }
    let id = system.client.conversation("user-1").await["id"].clone();
    let path = format!("/conversations/{}", id.as_str().unwrap());
    let whole = system.client.get(&path).await.expect(200)["messages"].clone();
    assert_eq!(whole.as_array().unwrap().len(), 7);

    let by_cursor = walk_undisturbed(&system, &format!("{path}?limit=2"), "messages").await;
    assert_eq!(json!(by_cursor), whole);
    let mut by_page = Vec::new();
    for (page, more) in [(1, true), (2, true), (3, false), (4, false)] {
        let part = system
            .client
            .get(&format!("{path}?limit=3&page={page}"))
            .await;
        let part = part.expect(200);
        assert_eq!(part["meta"]["hasMore"], more);
        by_page.extend(part["messages"].as_array().unwrap().iter().cloned());
    }
    assert_eq!(json!(by_page), whole);
}

#[tokio::test]
async fn a_thread_walked_by_cursor_shows_no_message_twice_while_others_come_in() {
    let system = System::start().await;
    for second in 0..9 {
        receive(&system, "user-1", second).await;
    }
    let id = system.client.conversation("user-1").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/conversations/{id}?limit=2");
    let walked = walk(&system.client, &path, "messages", async |_| {
        receive(&system, "user-1", 100).await;
    })
    .await;
    let texts: Vec<_> = walked
        .iter()
        .map(|message| message["text"].as_str().unwrap())
        .collect();
    let expected: Vec<_> = (0..9)
        .rev()
        .map(|second| format!("user-1 {second}"))
        .collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn times_and_ids_have_one_form_everywhere() {
    let system = System::start().await;
    let finer = event(
        "evt_1",
        "user-1",
        "Hello",
        "2025-01-01T12:00:00.123999+02:00",
    );
    let receipt = system.client.webhook(&finer).await.expect(200);
    act(&system.client, &receipt["conversationId"], "read").await;
    act(&system.client, &receipt["conversationId"], "archive").await;
    system.mock.script(
        "user-1",
        [
            mock_meta_provider::Fault::Ok,
            mock_meta_provider::Fault::server_error(503),
        ],
    );
    system.send("user-1", "Hi").await;
    let failed = system.send("user-1", "Hi").await;
    assert!(failed["nextAttemptAt"].is_string(), "{failed}");
    let detail = format!(
        "/conversations/{}",
        receipt["conversationId"].as_str().unwrap()
    );
    let mut times = 0;
    for path in [
        "/conversations?archived=true",
        &detail,
        "/messages?status=FAILED",
    ] {
        times += assert_form(&system.client.get(path).await.expect(200));
    }
    assert!(times > 15, "{times}");
    assert_eq!(
        system.message(receipt["messageId"].as_str().unwrap()).await["timestamp"],
        "2025-01-01T10:00:00.123Z"
    );
}

/// Checks every time and every id in there; how many times there are.
fn assert_form(value: &Value) -> usize {
    let Value::Object(fields) = value else {
        return value
            .as_array()
            .map_or(0, |items| items.iter().map(assert_form).sum());
    };
    let mut times = 0;
    for (name, value) in fields {
        times += assert_form(value);
        let Some(text) = value.as_str() else {
            continue;
        };
        if name.ends_with("At") || name == "timestamp" {
            times += 1;
            let time = chrono::DateTime::parse_from_rfc3339(text).unwrap().to_utc();
            assert_eq!(
                time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                text,
                "{name}"
            );
        }
        if matches!(&**name, "id" | "conversationId") {
            let (prefix, digits) = text.split_once('_').unwrap();
            assert!(
                matches!(prefix, "conv" | "msg") && digits.len() == 32,
                "{text}"
            );
            let id = uuid::Uuid::parse_str(digits).unwrap();
            assert_eq!(
                (id.get_version_num(), id.simple().to_string()),
                (7, digits.to_owned())
            );
        }
    }
    times
}

/// 20,000 conversations of every kind, a tenth of them archived.
async fn fill(database: &Database) {
    let rows = "insert into conversations (id, channel, participant_id, status, last_message_id, last_message_at, last_message_preview, archived_at)
      select gen_random_uuid(), (array['whatsapp', 'instagram'])[1 + n % 2], 'user-' || n, (array['open', 'closed'])[1 + (n / 2) % 2],
        gen_random_uuid(), timestamptz '2025-01-01T00:00:00Z' - n * interval '1 second', 'Hello', case when n % 10 = 0 then now() end
      from generate_series(1, 20000) n";
    database.execute(rows).await;
    database.execute("vacuum analyze conversations").await;
}

#[tokio::test]
async fn a_page_of_a_large_inbox_reads_a_few_rows_from_the_end_of_its_index() {
    let system = System::start().await;
    fill(&system.database).await;
    // Behind 10,000 others.
    let middle = "'2024-12-31T21:13:20Z', 'ffffffff-ffff-ffff-ffff-ffffffffffff'";
    let inbox = ("page", "after", "conversations_inbox");
    let archived = ("archived_page", "archived_after", "conversations_archived");
    for (is_page, (page, after, index), arguments, branches) in [
        (true, inbox, "null, null, 21, 0".to_owned(), 4),
        (true, inbox, "null, null, 101, 0".to_owned(), 4),
        (true, inbox, "'instagram', null, 21, 20".to_owned(), 2),
        (true, inbox, "'whatsapp', 'closed', 21, 0".to_owned(), 1),
        (false, inbox, format!("null, null, 21, {middle}"), 4),
        (false, inbox, format!("null, 'open', 101, {middle}"), 2),
        (true, archived, "null, null, 21, 0".to_owned(), 2),
        (true, archived, "null, 'closed', 101, 20".to_owned(), 1),
        (true, archived, "'whatsapp', null, 21, 0".to_owned(), 2),
        // None of instagram is archived.
        (true, archived, "'instagram', null, 21, 0".to_owned(), 0),
        (true, archived, "'instagram', 'open', 21, 0".to_owned(), 0),
        (false, archived, format!("null, null, 21, {middle}"), 2),
        (
            false,
            archived,
            format!("'whatsapp', 'open', 101, {middle}"),
            1,
        ),
        (
            false,
            archived,
            format!("'instagram', null, 101, {middle}"),
            0,
        ),
    ] {
        let (name, types) = if is_page {
            (page, "text, text, bigint, bigint, bool")
        } else {
            (after, "text, text, bigint, timestamptz, uuid, bool")
        };
        let arguments = format!("{arguments}, false");
        let header = &*format!("conversation::list_{name}");
        let nodes = plan(&system.database, header, types, &arguments).await;
        let through_index = |node: &&Value| node["Index Name"] == index && rows_of(node) > 0.0;
        assert_eq!(
            nodes.iter().filter(through_index).count(),
            branches,
            "{header} {arguments}: {nodes:#?}"
        );
        for node in &nodes {
            assert!(rows_of(node) <= 410.0, "{header} {arguments}: {node:#}");
            let scan = node["Node Type"] == "Seq Scan" && node["Relation Name"] == "conversations";
            assert!(
                !scan || rows_of(node) == 0.0,
                "{header} {arguments}: {node:#}"
            );
        }
    }
}

#[tokio::test]
async fn a_page_far_into_a_large_inbox_is_found_from_the_index_alone() {
    let system = System::start().await;
    fill(&system.database).await;
    let types = "text, text, bigint, bigint, bool";
    let nodes = plan(
        &system.database,
        "conversation::list_page",
        types,
        "null, null, 21, 4000, false",
    )
    .await;
    let reads_table = |node: &&Value| {
        node["Relation Name"] == "conversations"
            && node["Node Type"] != "Index Only Scan"
            && rows_of(node) > 0.0
    };
    let whole_rows: f64 = nodes.iter().filter(reads_table).map(rows_of).sum();
    assert!((1.0..=50.0).contains(&whole_rows), "{nodes:#?}");
}
