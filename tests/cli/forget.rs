//! `gateway forget`: nothing that was said is left, nothing more is sent, and duplicates stay
//! duplicates.

use mock_meta_provider::Fault;
use serde_json::{Value, json};

use crate::support::whatsapp::{
    ANN, ANN_ID, BOB, CONNECTED, body, by_both, change, post, reaction, text,
};
use crate::support::{
    Database, Held, NO_RETRY, Program, System, event, eventually, plan, run, seconds_from_now,
};

/// In every text that is to be forgotten.
const SECRET: &str = "geheim";

/// Rows of the database in which that is left, wherever it may be.
async fn left(database: &Database) -> i64 {
    let mut left = 0;
    for table in ["conversations", "messages", "deliveries"] {
        let count = format!("select count(*) from {table} row where row::text like '%{SECRET}%'");
        left += database.count(&count).await;
    }
    for table in ["webhook_bodies", "webhook_events"] {
        let bodies = format!(
            "select count(*) from {table} where convert_from(body, 'UTF8') like '%{SECRET}%'"
        );
        left += database.count(&bodies).await;
    }
    left
}

async fn forget(database: &Database, arguments: &[&str]) -> Value {
    let forgotten = run(database, "forget", arguments).finish().await;
    forgotten.data()
}

#[tokio::test]
async fn what_was_said_is_emptied_and_keys_stay() {
    let system = System::with(&[NO_RETRY]).await;
    let client = &system.client;
    let hello = event("evt_1", "user-1", "geheim in", "2025-01-01T10:00:00Z");
    let received = client.webhook(&hello).await.expect(200);
    let other = event("evt_2", "user-2", "bleibt", "2025-01-01T10:00:00Z");
    client.webhook(&other).await.expect(200);
    system.send("user-2", "bleibt auch").await;
    let order = json!({ "channel": "whatsapp", "to": "user-1", "text": "geheim out", "clientMessageId": "order-1" });
    let sent = client.post("/messages/send", &order).await.expect(201);
    let details = Fault::Reject;
    system.mock.script(Some("user-1"), [details]);
    let rejected = system.send("user-1", "geheim rejected").await;
    system.mock.script(
        Some("user-1"),
        [Fault::ServerError {
            http_status: 500,
            retry_after: None,
        }],
    );
    let waiting = system.send("user-1", "geheim waiting").await;
    assert!(waiting["nextAttemptAt"].is_string(), "{waiting}");
    let calls = system.mock.stats().calls;

    let before = system.database.contents().await;
    let counts = json!({ "messages": 4, "webhookBodies": 1, "canceled": 1, "left": 0,
                         "conversationId": received["conversationId"], "dryRun": true });
    let asked = ["whatsapp", "user-1", "--json"];
    let would = [&asked[..], &["--dry-run"]].concat();
    assert_eq!(forget(&system.database, &would).await, counts);
    assert_eq!(system.database.contents().await, before);
    assert!(left(&system.database).await >= 6);

    let mut done = counts.clone();
    done["dryRun"] = json!(false);
    assert_eq!(forget(&system.database, &asked).await, done);
    assert_eq!(left(&system.database).await, 0);
    let path = format!(
        "/conversations/{}",
        received["conversationId"].as_str().unwrap()
    );
    let thread = client.get(&path).await.expect(200);
    assert_eq!(thread["lastMessagePreview"], "");
    assert_eq!(thread["participantId"], "user-1");
    assert_eq!(thread["unreadCount"], 1);
    let messages = thread["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    assert!(messages.iter().all(|message| message["text"] == ""));
    assert_eq!(
        system.message(sent["id"].as_str().unwrap()).await["status"],
        "SENT"
    );
    let waiting = system.message(waiting["id"].as_str().unwrap()).await;
    assert_eq!(waiting["lastError"]["kind"], "canceled", "{waiting}");

    // The other one is as before, and keys are known.
    let theirs = "select count(*) from messages where text like 'bleibt%'";
    assert_eq!(system.database.count(theirs).await, 2);
    let again = client.webhook(&hello).await.expect(200);
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["messageId"], received["messageId"]);
    let replay = client.post("/messages/send", &order).await;
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(replay.expect(200)["id"], sent["id"]);

    // Nobody sends any of it, not even an operator.
    let listed = run(&system.database, "retry", &["--list", "--json"]);
    assert_eq!(listed.finish().await.data(), json!([]));
    let retry = format!("/messages/{}/retry", rejected["id"].as_str().unwrap());
    client.post(&retry, &json!({})).await;
    system.skip_waits().await;
    system.drain(&[]).await;
    assert_eq!(system.mock.stats().calls, calls);
    let nothing = json!({ "messages": 0, "webhookBodies": 0, "canceled": 0, "left": 0,
                          "conversationId": received["conversationId"], "dryRun": false });
    assert_eq!(forget(&system.database, &asked).await, nothing);

    // What comes later is stored as usual.
    let later = event("evt_3", "user-1", "wieder da", &seconds_from_now(1));
    client.webhook(&later).await.expect(200);
    let thread = client.get(&path).await.expect(200);
    assert_eq!(thread["lastMessagePreview"], "wieder da");
}

#[tokio::test]
async fn who_is_not_known_is_an_error() {
    let system = System::start().await;
    system.send("user-1", "Hi").await;
    for (channel, participant, code) in [
        ("whatsapp", "user-2", 1),
        ("instagram", "user-1", 1),
        ("whatsapp", "user-1 ", 1),
        ("sms", "user-1", 2),
    ] {
        let asked = [channel, participant];
        let ended = run(&system.database, "forget", &asked).finish().await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
    }
    let kept = "select count(*) from messages where text = 'Hi'";
    assert_eq!(system.database.count(kept).await, 1);
}

#[tokio::test]
async fn an_attempt_in_flight_is_waited_for_and_its_text_goes_out_once_at_most() {
    let database = Database::new().await;
    let provider = Held::start().await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", provider.url())
        .env("SEND_WAIT_MS", "0")
        .env("RETRY_BASE_MS", "1")
        .env("RETRY_CAP_MS", "1")
        .start();
    gateway.logged("ready").await;
    let client = crate::support::Client::new(gateway.url());
    let send = json!({ "channel": "whatsapp", "to": "user-1", "text": "geheim" });
    client.post("/messages/send", &send).await.expect(201);
    let call = provider.call().await;
    let mut forgetting = run(&database, "forget", &["whatsapp", "user-1"]).start();
    let looked = "select count(*) from pg_stat_activity where query like '%forget::list_unsent%' and datname = current_database() and pid <> pg_backend_pid()";
    eventually("it waits for the attempt", async || {
        (database.count(looked).await > 0).then_some(())
    })
    .await;
    assert!(forgetting.try_ended().is_none());
    assert!(left(&database).await > 0);
    call.answer(500, &json!({})).await;
    // Due again at once: whoever comes first, nobody sends an empty text.
    loop {
        tokio::select! {
            ended = forgetting.ended() => {
                assert_eq!(ended.code(), Some(0), "{:?}", forgetting.log());
                break;
            }
            call = provider.call() => {
                assert_eq!(call.body["text"], "geheim");
                call.accept("msg_1").await;
            }
        }
    }
    assert_eq!(left(&database).await, 0);
    assert!(provider.is_idle().await);
}

#[tokio::test]
async fn a_long_conversation_is_forgotten_as_a_whole() {
    let database = Database::new().await;
    let size = [
        "--conversations",
        "2",
        "--messages",
        "6000",
        "--random-seed",
        "7",
    ];
    let seeded = run(&database, "seed", &size).finish().await;
    assert_eq!(seeded.code, Some(0), "{seeded:?}");
    let of = |condition: &str| {
        format!("select count(*) from messages where participant_id = 'seed-7-0' and {condition}")
    };
    let (all, others) = (
        database.count(&of("true")).await,
        database
            .count("select count(*) from webhook_events e join messages m on m.id = e.message_id where m.participant_id = 'seed-7-1'")
            .await,
    );
    assert!(all > 1000, "{all}");
    let done = forget(&database, &["whatsapp", "seed-7-0", "--json"]).await;
    assert_eq!(done["messages"], all);
    assert_eq!(
        done["webhookBodies"],
        database.count(&of("direction = 'INBOUND'")).await
    );
    assert_eq!(database.count(&of("text <> ''")).await, 0);
    let bodies = "select count(*) from webhook_bodies";
    assert_eq!(database.count(bodies).await, others);
}

#[tokio::test]
async fn bodies_are_looked_for_in_their_month_only() {
    let system = System::start().await;
    let hello = event("evt_1", "user-1", "Merhaba", "2025-01-01T10:00:00Z");
    let received = system.client.webhook(&hello).await.expect(200);
    let conversation_id = received["conversationId"].as_str().unwrap();
    let months = "select count(*) from pg_inherits where inhparent = 'webhook_bodies'::regclass";
    assert!(system.database.count(months).await > 12);
    let bodies = "insert into webhook_bodies (received_at, message_id, body)
        select now() + n * interval '1 hour', gen_random_uuid(), 'x' from generate_series(1, 5000) n";
    system.database.execute(bodies).await;
    system.database.execute("analyze").await;
    let types = "uuid, timestamptz, timestamptz, uuid, bigint";
    let id = conversation_id.strip_prefix("conv_").unwrap();
    let arguments = format!("'{id}', now(), 'infinity', '{id}', 500");
    let nodes = plan(&system.database, "forget::empty", types, &arguments).await;
    let read: Vec<&str> = nodes
        .iter()
        .filter(|node| node["Actual Loops"].as_f64() > Some(0.0))
        .filter_map(|node| node["Relation Name"].as_str())
        .filter(|table| table.starts_with("webhook_bodies_"))
        .collect();
    assert_eq!(read.len(), 1, "{read:?}");
}

#[tokio::test]
async fn what_whatsapp_knew_of_a_customer_is_forgotten_and_revisions_grow() {
    let provider = Held::start().await;
    let settings = [&CONNECTED[..], &[("GRAPH_URL", provider.url())]].concat();
    let system = System::with(&settings).await;
    let by = |id: &str, number: &str, user_id: &str| {
        let profile = json!({ "wa_id": number, "profile": { "name": "geheim name" } });
        let item = by_both(text(id, number, 0, "geheim in"), number, user_id);
        body(&[change(
            "messages",
            json!({ "contacts": [profile], "messages": [item] }),
        )])
    };
    for body in [by("w1", ANN, ANN_ID), by("w2", BOB, "DE.1002")] {
        post(&system.client, &body).await.expect(200);
    }
    system
        .receives(&[reaction("w3", ANN, 1, "unknown", "geheim")])
        .await;
    let send = json!({ "channel": "whatsapp", "to": ANN, "text": "geheim out" });
    let sending = system.client.post("/messages/send", &send);
    let answering = async {
        let accepted = json!({ "messages": [{ "id": "out" }] });
        provider.call().await.answer(200, &accepted).await;
    };
    let (sent, ()) = tokio::join!(sending, answering);
    let sent = sent.expect(201);
    let error = json!({ "code": 131_026, "title": "geheim title", "error_data": { "details": "geheim why" } });
    let failed =
        json!({ "id": "out", "status": "failed", "timestamp": "1735732801", "errors": [error] });
    let told = body(&[change("messages", json!({ "statuses": [failed] }))]);
    post(&system.client, &told).await.expect(200);
    let before = system.message(sent["id"].as_str().unwrap()).await;
    assert_eq!(before["deliveryStatus"], "failed", "{before}");

    let rows = async |table: &str| {
        let count = format!("select count(*) from {table} row where row::text like '%geheim%'");
        system.database.count(&count).await
    };
    assert_eq!(rows("receipts").await, 1);
    // By another id of the same customer.
    forget(&system.database, &["whatsapp", ANN_ID, "--json"]).await;
    for (table, left) in [
        ("conversations", 1),
        ("messages", 1),
        ("receipts", 0),
        ("amendments", 0),
    ] {
        assert_eq!(rows(table).await, left, "{table}");
    }
    let aliases = format!("select count(*) from aliases where '{ANN}' in (alias, participant_id)");
    assert_eq!(system.database.count(&aliases).await, 0);
    assert_eq!(
        system.database.count("select count(*) from aliases").await,
        2
    );
    let after = system.message(sent["id"].as_str().unwrap()).await;
    assert_eq!(after["deliveryStatus"], "failed", "{after}");
    assert_eq!(after["deliveryError"]["title"], Value::Null);
    assert!(after["revision"].as_i64() > before["revision"].as_i64());
    // The same event is still the same.
    let again = post(&system.client, &by("w1", ANN, ANN_ID))
        .await
        .expect(200);
    assert_eq!(again["duplicates"], 1, "{again}");
}
