//! The inbox narrowed to what is unread, and to participants that begin with something.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::inbox::walk_undisturbed;
use super::inbox::{act, assert_lists, list, participants, receive, receive_on_instagram};
use crate::support::{Database, System};

/// A query that is percent-encoded.
fn participant(prefix: &str) -> String {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("participant", prefix)
        .finish()
}

/// One conversation of each kind: of each channel, open and closed, in the inbox and archived, read
/// and unread.
async fn one_of_each_kind(system: &System) {
    for (second, channel) in [(1, "whatsapp"), (2, "instagram")] {
        for verbs in [
            &[][..],
            &["read"],
            &["close"],
            &["read", "close"],
            &["archive"],
            &["read", "archive"],
            &["close", "archive"],
            &["read", "close", "archive"],
        ] {
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

/// Those of a list for which this is true.
async fn those(system: &System, query: &str, is_one: impl Fn(&Value) -> bool) -> Vec<String> {
    let whole = list(system, &format!("limit=100&{query}")).await;
    let rows = whole["data"].as_array().unwrap().iter();
    participants(&json!({ "data": rows.filter(|row| is_one(row)).collect::<Vec<_>>() }))
}

#[tokio::test]
async fn what_is_unread_is_listed_alone_whatever_else_is_asked_for() {
    let system = System::start().await;
    one_of_each_kind(&system).await;
    let mut listed = BTreeSet::new();
    for archived in ["", "archived=false", "archived=true"] {
        for channel in ["", "channel=whatsapp", "channel=instagram"] {
            for status in ["", "status=open", "status=closed"] {
                let others = [archived, channel, status].join("&");
                let expected = those(&system, &others, |row| row["unreadCount"] != json!(0)).await;
                assert!(!expected.is_empty(), "{others}");
                let names: Vec<_> = expected.iter().map(|name| &**name).collect();
                assert_lists(&system, &format!("{others}&unread=true"), &names).await;
                let all = those(&system, &others, |_| true).await;
                let all: Vec<_> = all.iter().map(|name| &**name).collect();
                assert_lists(&system, &format!("{others}&unread=false"), &all).await;
                listed.extend(expected);
            }
        }
    }
    assert_eq!(listed.len(), 8, "{listed:?}");
}

#[tokio::test]
async fn what_is_read_leaves_the_list_of_what_is_unread_and_comes_back() {
    let system = System::start().await;
    let unread = async || participants(&list(&system, "unread=true").await);
    let first = receive(&system, "user-1", 1).await["conversationId"].clone();
    receive(&system, "user-2", 2).await;
    assert_eq!(unread().await, ["user-2", "user-1"]);
    act(&system.client, &first, "read").await;
    assert_eq!(unread().await, ["user-2"]);
    system.send("user-1", "Hi").await;
    assert_eq!(unread().await, ["user-2"]);
    receive(&system, "user-1", 0).await;
    assert_eq!(unread().await, ["user-1", "user-2"]);
}

#[tokio::test]
async fn what_is_read_while_a_message_comes_in_is_not_listed_as_unread() {
    let system = System::start().await;
    let first = receive(&system, "user-1", 1).await["conversationId"].clone();
    receive(&system, "user-2", 2).await;
    act(&system.client, &first, "read").await;
    // As an event leaves it that is committed while the statement of the reader waits for it.
    let left = "insert into unread select id from conversations where unread_count = 0";
    system.database.execute(left).await;
    let unread = async || participants(&list(&system, "unread=true").await);
    assert_eq!(unread().await, ["user-2"]);
    receive(&system, "user-1", 3).await;
    assert_eq!(unread().await, ["user-1", "user-2"]);
}

#[tokio::test]
async fn participants_are_found_by_how_they_begin_compared_by_bytes() {
    const NAMES: [&str; 22] = [
        "a",
        "A",
        "a%",
        "a%b",
        "a_b",
        "ab",
        "aab",
        "a'b",
        "a\\b",
        "ä",
        "a\u{308}",
        " a",
        "+90 1",
        "user-1",
        "user-10",
        "user-2",
        "x\u{d7ff}",
        "x\u{e000}",
        "x\u{ffff}",
        "x\u{10000}",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}z",
    ];
    let system = System::start().await;
    for (second, name) in (0..).zip(NAMES) {
        let receipt = match second % 3 {
            0 => receive_on_instagram(&system, name, second).await,
            _ => receive(&system, name, second).await,
        };
        if second % 4 == 0 {
            act(&system.client, &receipt["conversationId"], "read").await;
        }
        if second % 5 == 0 {
            act(&system.client, &receipt["conversationId"], "close").await;
        }
    }
    let prefixes = [
        "x",
        "x\u{d7ff}",
        "x\u{d7fe}",
        "user-",
        "user-1",
        "user-3",
        "a%",
        "a_",
        "a\\",
        "%",
        "_",
        "+",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
        "a",
        "A",
        "aa",
        "a'",
    ];
    for prefix in prefixes.into_iter().chain(NAMES) {
        let query = participant(prefix);
        let begins = |row: &Value| row["participantId"].as_str().unwrap().starts_with(prefix);
        for others in ["", "channel=whatsapp", "unread=true&status=open"] {
            let expected = those(&system, others, begins).await;
            let names: Vec<_> = expected.iter().map(|name| &**name).collect();
            assert_lists(&system, &format!("{others}&{query}"), &names).await;
        }
        assert_lists(&system, &format!("archived=true&{query}"), &[]).await;
    }
}

/// 20,000 conversations whose participants have a name, the newest first, of every kind; `name` is
/// an expression over their number.
async fn fill(database: &Database, name: &str) {
    let rows = format!(
        "insert into conversations (id, channel, participant_id, status, last_message_id, last_message_at, last_message_preview, archived_at)
        select gen_random_uuid(), (array['whatsapp', 'instagram'])[1 + n % 2], {name}, (array['open', 'closed'])[1 + (n / 2) % 2],
          gen_random_uuid(), timestamptz '2025-01-01T00:00:00Z' - n / 2 * interval '1 second', 'Hello', case when n % 10 = 0 then now() end
        from generate_series(1, 20000) n"
    );
    database.execute(&rows).await;
}

/// Which participants a list without a limit has, in its order.
async fn expected(database: &Database, condition: &str) -> Vec<String> {
    let names = format!(
        "select participant_id from conversations where {condition} order by last_message_at desc, id desc"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(names))
        .fetch_all(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn those_who_begin_like_thousands_are_listed_in_order_too() {
    let system = System::start().await;
    fill(
        &system.database,
        "(array['few-', 'many-', 'many-', 'many-', 'many-'])[1 + n % 5] || n",
    )
    .await;
    let some = "archived_at is null and channel = 'whatsapp'";
    for (query, condition) in [
        (
            "participant=many-",
            "archived_at is null and participant_id ^@ 'many-'".to_owned(),
        ),
        (
            "participant=few-&archived=true",
            "archived_at is not null and participant_id ^@ 'few-'".to_owned(),
        ),
        (
            "participant=many-&channel=whatsapp",
            format!("{some} and participant_id ^@ 'many-'"),
        ),
        ("participant=many-&unread=true", "false".to_owned()),
    ] {
        let expected = expected(&system.database, &condition).await;
        let walked = walk_undisturbed(
            &system,
            &format!("/conversations?limit=100&{query}"),
            "data",
        )
        .await;
        let walked = participants(&json!({ "data": walked }));
        assert!(
            walked == expected,
            "{query}: {} of {}",
            walked.len(),
            expected.len()
        );
        for page in [1, 2, 30] {
            let part = list(&system, &format!("{query}&limit=20&page={page}")).await;
            let rows = expected.iter().skip(20 * (page - 1)).take(20);
            assert_eq!(
                participants(&part),
                rows.cloned().collect::<Vec<_>>(),
                "{query}"
            );
        }
    }
}

#[tokio::test]
async fn a_walk_that_meets_too_few_ends_early_and_goes_on_by_cursor() {
    let system = System::start().await;
    // Thousands, of which all but one are older than the 10,000 newest.
    let name = "case when n = 7001 then 'old-1-' when n > 14500 then 'old-2-' else 'new-' end || n";
    fill(&system.database, name).await;
    for (prefix, first) in [("old-", &["old-1-7001"][..]), ("old-2", &[])] {
        let query = format!("participant={prefix}&limit=3");
        let mut part = list(&system, &query).await;
        let mut found = participants(&part);
        assert_eq!(found, first);
        let mut parts = 1;
        while let Some(cursor) = part["meta"]["nextCursor"].as_str() {
            assert_eq!(part["meta"]["hasMore"], true);
            let more = format!("participant={prefix}&limit=100&cursor={cursor}");
            part = list(&system, &more).await;
            found.extend(participants(&part));
            parts += 1;
            assert!(parts < 60, "the list does not end");
        }
        let condition = format!("archived_at is null and participant_id ^@ '{prefix}'");
        let expected = expected(&system.database, &condition).await;
        assert!(expected.len() > 4900);
        assert!(found == expected, "{} of {}", found.len(), expected.len());
        // By number nothing leads there.
        let path = format!("/conversations?{query}&page=2");
        assert_eq!(system.client.get(&path).await.fields(), ["cursor"]);
    }
}
