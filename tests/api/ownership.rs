//! Whose messages a key may see, retry and cancel; and that a record is nobody's by accident.

use reqwest::Method;
use serde_json::{Value, json};

use mock_meta_provider::Fault;

use crate::support::{Answer, Client, NO_RETRY, System, event, eventually, id};

/// One key for each combination that matters; the first two are alike.
const KEYS: &str = "shop:shop-key:send,crm:crm-key:send,desk:desk-key:inbox+send,ops:ops-key:admin,read:read-key:inbox,\
                    all:all-key,plain-key";
/// Those that see all messages.
const SEERS: [&str; 5] = ["desk-key", "ops-key", "read-key", "all-key", "plain-key"];

async fn call(client: &Client, key: &str, method: Method, path: &str) -> Answer {
    let request = client.http.request(method, client.url(path));
    client.call(request.bearer_auth(key)).await.unwrap()
}

async fn get(client: &Client, key: &str, path: &str) -> Answer {
    call(client, key, Method::GET, path).await
}

async fn send_as(client: &Client, key: &str, body: &Value) -> Answer {
    let request = client.http.post(client.url("/messages/send")).json(body);
    client.call(request.bearer_auth(key)).await.unwrap()
}

fn to(participant: &str, client_message_id: Option<&str>) -> Value {
    let text = format!("a secret for {participant}");
    json!({ "channel": "whatsapp", "to": participant, "text": text, "clientMessageId": client_message_id })
}

fn ids(list: &Value) -> Vec<String> {
    list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| id(message).to_owned())
        .collect()
}

async fn inbound(system: &System) -> String {
    let answer = system
        .client
        .webhook(&event(
            "evt_1",
            "user-1",
            "from outside",
            "2025-01-01T10:00:00Z",
        ))
        .await
        .expect(200);
    answer["messageId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_message_keeps_the_name_of_the_key_that_sent_it() {
    let system = System::with(&[("API_KEYS", KEYS)]).await;
    for (key, name) in [
        ("shop-key", json!("shop")),
        ("desk-key", json!("desk")),
        ("all-key", json!("all")),
        ("plain-key", Value::Null),
    ] {
        let body = to("user-1", Some(&format!("order-{key}")));
        let sent = send_as(&system.client, key, &body).await.expect(201);
        assert_eq!(sent["sentBy"], name, "{sent}");
        for reader in ["desk-key", key] {
            let path = format!("/messages/{}", id(&sent));
            let read = get(&system.client, reader, &path).await.expect(200);
            assert_eq!(read, sent);
        }
        // Whoever repeats it is told who sent it.
        let again = send_as(&system.client, "desk-key", &body).await.expect(200);
        assert_eq!(again["sentBy"], name, "{again}");
    }
    let path = format!("/messages/{}", inbound(&system).await);
    let received = get(&system.client, "read-key", &path).await.expect(200);
    assert_eq!(received.get("sentBy"), Some(&Value::Null), "{received}");
    let thread = format!(
        "/conversations/{}",
        received["conversationId"].as_str().unwrap()
    );
    let thread = get(&system.client, "read-key", &thread).await.expect(200);
    let mut senders: Vec<_> = thread["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["sentBy"].to_string())
        .collect();
    senders.sort();
    assert_eq!(
        senders,
        [r#""all""#, r#""desk""#, r#""shop""#, "null", "null"]
    );
}

#[tokio::test]
async fn without_keys_nobody_has_sent_it_and_everybody_sees_it() {
    let system = System::start().await;
    let sent = system.send("user-1", "Hi").await;
    assert_eq!(sent.get("sentBy"), Some(&Value::Null), "{sent}");
    assert_eq!(system.message(id(&sent)).await, sent);
}

#[tokio::test]
async fn a_key_with_send_alone_finds_its_own_messages_only() {
    let system = System::with(&[("API_KEYS", KEYS), NO_RETRY]).await;
    system.mock.script_always(None, Fault::server_error(500));
    let mut sent = Vec::new();
    for key in ["shop-key", "desk-key", "shop-key", "plain-key", "shop-key"] {
        let answer = send_as(&system.client, key, &to("user-1", None)).await;
        sent.push((key, id(&answer.expect(201)).to_owned()));
    }
    let received = inbound(&system).await;
    for (sender, id) in &sent {
        let path = format!("/messages/{id}");
        for seer in SEERS {
            get(&system.client, seer, &path).await.expect(200);
        }
        let by_shop = get(&system.client, "shop-key", &path).await;
        if *sender == "shop-key" {
            by_shop.expect(200);
        } else {
            let problem = by_shop.expect_problem(404, "not_found");
            assert_eq!(problem["detail"], "no such message");
        }
        let by_crm = get(&system.client, "crm-key", &path).await;
        by_crm.expect_problem(404, "not_found");
    }
    let path = format!("/messages/{received}");
    for key in ["shop-key", "crm-key"] {
        get(&system.client, key, &path)
            .await
            .expect_problem(404, "not_found");
    }
    get(&system.client, "read-key", &path).await.expect(200);

    let list = "/messages?status=FAILED";
    let all: Vec<_> = sent.iter().rev().map(|(_, id)| id.clone()).collect();
    for seer in SEERS {
        let listed = get(&system.client, seer, list).await.expect(200);
        assert_eq!(ids(&listed), all, "{seer}");
    }
    let nothing = get(&system.client, "crm-key", list).await.expect(200);
    assert_eq!(
        nothing,
        json!({ "data": [], "meta": { "limit": 20, "nextCursor": null } })
    );
    // Page by page: what others have sent takes no place in it.
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = format!("{list}&limit=2&channel=whatsapp{cursor}");
        let page = get(&system.client, "shop-key", &page).await.expect(200);
        found.extend(ids(&page));
        let Some(next) = page["meta"]["nextCursor"].as_str() else {
            break;
        };
        assert_eq!(ids(&page).len(), 2, "{page}");
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, [&*all[0], &*all[2], &*all[4]]);
    let pending = "/messages?status=PENDING";
    let pending = get(&system.client, "shop-key", pending).await.expect(200);
    assert_eq!(ids(&pending), [""; 0]);
}

#[tokio::test]
async fn a_key_with_send_alone_retries_and_cancels_its_own_messages_only() {
    let system = System::with(&[("API_KEYS", KEYS), NO_RETRY]).await;
    system.mock.script_always(None, Fault::server_error(500));
    for (sender, doer, verb, status) in [
        ("shop-key", "shop-key", "retry", 202),
        ("shop-key", "shop-key", "cancel", 200),
        ("shop-key", "crm-key", "retry", 404),
        ("shop-key", "crm-key", "cancel", 404),
        ("desk-key", "shop-key", "retry", 404),
        ("plain-key", "shop-key", "cancel", 404),
        ("shop-key", "desk-key", "retry", 202),
        ("shop-key", "desk-key", "cancel", 200),
        ("shop-key", "ops-key", "retry", 202),
        ("plain-key", "ops-key", "cancel", 200),
        ("shop-key", "read-key", "retry", 403),
        ("shop-key", "read-key", "cancel", 403),
    ] {
        let sent = send_as(&system.client, sender, &to("user-1", None)).await;
        let before = sent.expect(201);
        let path = format!("/messages/{}", id(&before));
        let verb = format!("{path}/{verb}");
        let done = call(&system.client, doer, Method::POST, &verb).await;
        assert_eq!(done.status, status, "{doer} {verb}: {}", done.text);
        if status >= 400 {
            done.expect_problem(
                status,
                ["not_found", "forbidden"][usize::from(status == 403)],
            );
            let after = get(&system.client, "desk-key", &path).await.expect(200);
            assert_eq!(after, before, "{doer} {verb}");
        }
    }
}

#[tokio::test]
async fn a_key_that_another_has_used_is_taken_and_nothing_of_the_record_is_told() {
    let system = System::with(&[("API_KEYS", KEYS)]).await;
    for (n, owner) in ["crm-key", "desk-key", "plain-key", "all-key"]
        .into_iter()
        .enumerate()
    {
        let key = format!("order-{n}");
        let first = send_as(&system.client, owner, &to("cust-7", Some(&key))).await;
        let first = first.expect(201);
        let messages = system.database.count("select count(*) from messages").await;
        // The same, another recipient, and the header.
        let same = send_as(&system.client, "shop-key", &to("cust-7", Some(&key))).await;
        let other = send_as(&system.client, "shop-key", &to("x", Some(&key))).await;
        let request = system.client.http.post(system.client.url("/messages/send"));
        let request = request.json(&json!({ "channel": "whatsapp", "to": "x", "text": "x" }));
        let request = request.bearer_auth("shop-key");
        let header = request.header("idempotency-key", &key);
        let header = system.client.call(header).await.unwrap();
        for answer in [same, other, header] {
            answer.expect_problem(409, "client_message_id_taken");
            for name in ["idempotent-replayed", "idempotent-mismatch"] {
                assert_eq!(answer.header(name), None);
            }
            for secret in [
                "cust-7",
                "secret",
                id(&first),
                &owner[..owner.len() - 4],
                "conv_",
            ] {
                assert!(!answer.text.contains(secret), "{secret}: {}", answer.text);
            }
        }
        let after = system.database.count("select count(*) from messages").await;
        assert_eq!(after, messages);
        assert_eq!(
            system
                .database
                .count("select count(*) from conversations where participant_id = 'x'")
                .await,
            0
        );
        // Whoever may see it is answered with it.
        for seer in ["desk-key", "all-key", owner] {
            let again = send_as(&system.client, seer, &to("cust-7", Some(&key))).await;
            assert_eq!(again.expect(200)["id"], first["id"]);
        }
    }
    // A key is one on its channel.
    let mut elsewhere = to("cust-7", Some("order-0"));
    elsewhere["channel"] = json!("instagram");
    send_as(&system.client, "shop-key", &elsewhere)
        .await
        .expect(201);
}

#[tokio::test]
async fn of_keys_that_race_for_one_client_message_id_one_has_it() {
    let system = System::with(&[("API_KEYS", KEYS)]).await;
    for round in 0..10 {
        let key = format!("order-{round}");
        let bodies = (0..8).map(|n| to(&format!("user-{n}"), Some(&key)));
        let keys = ["shop-key", "crm-key"].into_iter().cycle();
        let calls = bodies
            .zip(keys)
            .map(async |(body, key)| (key, send_as(&system.client, key, &body).await.status));
        let answers = futures_util::future::join_all(calls).await;
        let winner = answers.iter().find(|(_, status)| *status == 201).unwrap().0;
        let mut made = 0;
        for (key, status) in answers {
            made += i32::from(status == 201);
            let expected: &[u16] = if key == winner { &[200, 201] } else { &[409] };
            assert!(expected.contains(&status), "{key}: {status}, {winner} won");
        }
        assert_eq!(made, 1);
    }
}

#[tokio::test]
async fn every_change_that_a_key_makes_is_in_the_log_with_its_name() {
    let system = System::with(&[("API_KEYS", KEYS), NO_RETRY]).await;
    system.mock.script("user-1", [Fault::server_error(500)]);
    let sent = send_as(&system.client, "shop-key", &to("user-1", None)).await;
    let sent = sent.expect(201);
    let message = id(&sent);
    let conversation = sent["conversationId"].as_str().unwrap();
    let post = async |key: &str, path: String| {
        let answer = call(&system.client, key, Method::POST, &path).await;
        assert!(answer.status < 300, "{path}: {}", answer.text);
    };
    post("ops-key", format!("/messages/{message}/cancel")).await;
    post("desk-key", format!("/messages/{message}/retry")).await;
    let changes = ["read", "close", "reopen", "archive", "unarchive"];
    for change in changes {
        post(
            "read-key",
            format!("/conversations/{conversation}/{change}"),
        )
        .await;
    }
    let by = async |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        eventually(what, async || {
            system.gateway.log().iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                let key = line["spans"].as_array()?.first()?["key"].clone();
                (line["level"] == "INFO" && is_it(&line)).then_some(key)
            })
        })
        .await
    };
    let of_message = |said: &'static str| {
        let message = message.to_owned();
        move |line: &Value| line["message"] == said && line["message_id"] == message
    };
    assert_eq!(by("accepted", &of_message("accepted")).await, "shop");
    assert_eq!(by("canceled", &of_message("canceled")).await, "ops");
    assert_eq!(by("retried", &of_message("made due again")).await, "desk");
    for change in changes {
        let is_it =
            |line: &Value| line["change"] == change && line["conversation_id"] == conversation;
        assert_eq!(by(change, &is_it).await, "read");
    }
}
