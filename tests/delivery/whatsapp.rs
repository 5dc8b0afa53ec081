//! WhatsApp's own wire: what Meta answers decides who waits and for how long, and a lost answer is
//! never a second message without evidence.

use chrono::{DateTime, Utc};
use mock_meta_provider::{Fault, WhatsappBehaviour};
use serde_json::{Value, json};

use crate::support::graph::{ACCOUNT, APP_SECRET, SILENT, TOKEN, connected, serve_connected};
use crate::support::{
    LONG_ATTEMPT, NO_RETRY, ORDERED, RETRY_AT_ONCE, SHORT_WAIT, System, eventually, id,
};

const CALM: WhatsappBehaviour = WhatsappBehaviour::CALM;
const ANN: &str = "491510000001";
const BEN: &str = "491510000002";

/// Seconds until the next attempt.
#[track_caller]
fn wait(message: &Value) -> i64 {
    let next = message["nextAttemptAt"].as_str();
    let next: DateTime<Utc> = next.unwrap_or_else(|| panic!("{message}")).parse().unwrap();
    (next - Utc::now()).num_seconds()
}

#[track_caller]
fn assert_failed(message: &Value, kind: &str, code: &Value, ambiguous: bool) {
    let error = &message["lastError"];
    assert_eq!(message["status"], "FAILED", "{message}");
    assert_eq!(error["kind"], kind, "{message}");
    assert_eq!(error["code"], *code, "{message}");
    assert_eq!(error["ambiguous"], ambiguous, "{message}");
}

async fn send(system: &System, to: &str, text: &str) -> Value {
    system.send_on("whatsapp", to, text).await
}

/// What was sent, and what became of it: Meta has accepted it, and has said no more.
async fn lost(system: &System, to: &str) -> Value {
    system.mock.script(to, [Fault::LostAnswer]);
    let message = send(system, to, "lost").await;
    assert_failed(&message, "connection", &Value::Null, true);
    message
}

async fn doubles(system: &System) -> u64 {
    let metrics = system.client.get("/metrics").await.text;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("gateway_double_sends_total "));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn a_message_goes_to_its_number_and_its_statuses_come_back() {
    let system = connected(CALM, &[]).await;
    let message = send(&system, ANN, "Merhaba!").await;
    assert_eq!(message["status"], "SENT", "{message}");
    let wamid = message["providerMessageId"].as_str().unwrap();
    assert!(wamid.starts_with("wamid."), "{message}");
    assert_eq!(system.calls(&message), (1, 1));
    assert_eq!(
        system
            .mock
            .texts(mock_meta_provider::Channel::Whatsapp, ANN),
        ["Merhaba!"]
    );
    eventually("it is read", async || {
        let message = system.message(id(&message)).await;
        (message["deliveryStatus"] == "read").then_some(())
    })
    .await;
    // The other channel is where it was.
    let other = system.send_on("instagram", "user-1", "Hi").await;
    assert_eq!(other["status"], "SENT", "{other}");
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn without_another_provider_the_other_channel_is_not_connected() {
    let system = connected(CALM, &[("PROVIDER_URL", "")]).await;
    let body = json!({ "channel": "instagram", "to": "user-1", "text": "Hi" });
    let answer = system.client.post("/messages/send", &body).await;
    answer.expect_problem(409, "channel_not_connected");
    assert_eq!(send(&system, ANN, "Hi").await["status"], "SENT");
}

#[tokio::test]
async fn a_throttled_channel_pauses_for_everybody_and_no_other_channel_does() {
    let system = connected(CALM, &[NO_RETRY]).await;
    system.mock.script(ANN, [Fault::code(130_429)]);
    let limited = send(&system, ANN, "1").await;
    assert_failed(&limited, "rate_limited", &json!(130_429), false);
    let waiting = send(&system, BEN, "2").await;
    assert_eq!(waiting["status"], "PENDING", "{waiting}");
    assert_eq!(system.calls(&waiting).0, 0);
    let other = system.send_on("instagram", "user-1", "Hi").await;
    assert_eq!(other["status"], "SENT", "{other}");
    system.skip_waits().await;
    for message in [&limited, &waiting] {
        system.message_becomes(id(message), "SENT").await;
    }
}

#[tokio::test]
async fn a_throttled_pair_delays_only_its_conversation_and_keeps_its_order() {
    let short = [("RETRY_CAP_MS", "1"), RETRY_AT_ONCE, ORDERED];
    let system = connected(CALM, &short).await;
    let throttled = Fault::code(131_056);
    system.mock.script(ANN, [throttled.clone(), throttled]);
    let first = send(&system, ANN, "1").await;
    assert_failed(&first, "rate_limited", &json!(131_056), false);
    assert!((4..=6).contains(&wait(&first)), "{first}");
    let mut behind = vec![first.clone()];
    for text in ["2", "3"] {
        let message = send(&system, ANN, text).await;
        assert_eq!(message["status"], "PENDING", "{message}");
        behind.push(message);
    }
    assert_eq!(send(&system, BEN, "1").await["status"], "SENT");
    // The wait is four times as long the second time.
    system.end_pair_pauses().await;
    let again = eventually("it is throttled again", async || {
        let message = system.message(id(&first)).await;
        (message["retryCount"] == 2).then_some(message)
    })
    .await;
    assert!((20..=24).contains(&wait(&again)), "{again}");
    system.end_pair_pauses().await;
    for message in &behind {
        system.message_becomes(id(message), "SENT").await;
    }
    let texts = system
        .mock
        .texts(mock_meta_provider::Channel::Whatsapp, ANN);
    assert_eq!(texts, ["1", "2", "3"]);
}

#[tokio::test]
async fn what_waits_for_a_throttled_pair_is_due_in_its_order_after_what_failed() {
    let system = connected(CALM, &[NO_RETRY]).await;
    let busy = Fault::code(131_000);
    system
        .mock
        .script(ANN, [busy.clone(), busy, Fault::code(131_056)]);
    let mut messages = Vec::new();
    for text in ["1", "2", "3", "4"] {
        messages.push(send(&system, ANN, text).await);
    }
    // The first two wait a minute by themselves; the last one was sent into the pause.
    assert_failed(&messages[0], "server_error", &json!(131_000), true);
    assert_failed(&messages[2], "rate_limited", &json!(131_056), false);
    assert_eq!(messages[3]["status"], "PENDING");
    system
        .database
        .execute(
            "update deliveries set due_at = now() + interval '1 second' * seq where failures > 0",
        )
        .await;
    // Throttled once more: now all of them wait for it.
    system
        .database
        .execute("update conversations set paused_until = null")
        .await;
    system.mock.script(ANN, [Fault::code(131_056)]);
    let last = send(&system, ANN, "5").await;
    assert_failed(&last, "rate_limited", &json!(131_056), false);
    let waits = "select count(*) from deliveries where due_at < now() + interval '3 seconds'";
    assert_eq!(system.database.count(waits).await, 0);
    let out_of_order = "select count(*) from deliveries a join deliveries b using (conversation_id)
        where a.seq < b.seq and b.seq < 5 and a.due_at >= b.due_at";
    assert_eq!(system.database.count(out_of_order).await, 0);
    let told = "select count(*) from deliveries d join messages m on m.id = d.message_id
        where m.status = 'FAILED' and m.next_attempt_at is distinct from d.due_at";
    assert_eq!(system.database.count(told).await, 0);
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_token_at_fault_holds_the_channel_and_one_message_tries_it() {
    let once = [RETRY_AT_ONCE, ("RETRY_MAX_ATTEMPTS", "1")];
    let system = connected(CALM, &once).await;
    system
        .mock
        .set_access_token(Some("another".to_owned().into()));
    let first = send(&system, ANN, "1").await;
    assert_failed(&first, "unauthorized", &json!(190), false);
    assert_eq!(first["lastError"]["retryable"], true);
    assert!((890..=900).contains(&wait(&first)), "{first}");
    assert!((890..=900).contains(&system.hold().await.unwrap()));
    let mut waiting = Vec::new();
    for to in [BEN, "491510000003"] {
        let message = send(&system, to, "2").await;
        assert_eq!(message["status"], "PENDING", "{message}");
        waiting.push(message);
    }
    // Its time comes: one of them tries it, and the others go on waiting.
    let tries = "select sum(failures) from deliveries";
    for failed in [2, 3] {
        system
            .database
            .execute("update channels set paused_until = now(), next_call_at = now() where channel = 'whatsapp'")
            .await;
        eventually("one tries it", async || {
            (system.database.count(tries).await == failed).then_some(())
        })
        .await;
        assert!((890..=900).contains(&system.hold().await.unwrap()));
    }
    // No budget is used up: what has failed more often than it may still waits by itself.
    let parked = "select count(*) from deliveries where due_at is null";
    assert_eq!(system.database.count(parked).await, 0);
    // An operator's retry tries it at once, and a success lets everybody go.
    system.mock.set_access_token(None);
    let path = format!("/messages/{}/retry", id(&first));
    system.client.post(&path, &json!({})).await.expect(202);
    for message in waiting.iter().chain([&first]) {
        system.message_becomes(id(message), "SENT").await;
    }
    assert_eq!(system.hold().await, None);
    assert_eq!(send(&system, ANN, "3").await["status"], "SENT");
}

#[tokio::test]
async fn an_operators_retry_tries_a_held_channel_also_for_what_is_due_already() {
    let system = connected(CALM, &[]).await;
    let refused = Some("another".to_owned().into());
    system.mock.set_access_token(refused);
    let message = send(&system, ANN, "1").await;
    assert_failed(&message, "unauthorized", &json!(190), false);
    let other = send(&system, BEN, "2").await;
    assert_eq!(other["status"], "PENDING", "{other}");
    let retry = async || {
        let path = format!("/messages/{}/retry", id(&message));
        system.client.post(&path, &json!({})).await.expect(202);
    };
    retry().await;
    // The other one, which has waited for longer, has tried it: this one is due, and waits.
    system.message_becomes(id(&other), "FAILED").await;
    assert!((890..=900).contains(&system.hold().await.unwrap()));
    assert_eq!(system.message(id(&message)).await["retryCount"], 1);
    system.mock.set_access_token(None);
    retry().await;
    for message in [&message, &other] {
        system.message_becomes(id(message), "SENT").await;
    }
    assert_eq!(system.hold().await, None);
}

#[tokio::test]
async fn a_start_with_another_token_tries_a_held_channel_at_once() {
    let mut system = connected(CALM, &[]).await;
    let good = "token-wombat-9876543210";
    system.mock.set_access_token(Some(good.to_owned().into()));
    let refused = send(&system, ANN, "1").await;
    assert_failed(&refused, "unauthorized", &json!(190), false);
    let waiting = send(&system, BEN, "2").await;
    system.gateway.kill();
    // The same token again is no reason to try it.
    let (mut same, client) = serve_connected(&system.database, &system.mock, &[]).await;
    let message = client.get(&format!("/messages/{}", id(&refused))).await;
    assert_eq!(message.expect(200)["retryCount"], 1);
    assert!(system.hold().await.unwrap() > 800);
    same.kill();
    let token = [("WHATSAPP_ACCESS_TOKEN", good)];
    let (_gateway, client) = serve_connected(&system.database, &system.mock, &token).await;
    for message in [&refused, &waiting] {
        let path = format!("/messages/{}", id(message));
        eventually("it is sent", async || {
            (client.get(&path).await.expect(200)["status"] == "SENT").then_some(())
        })
        .await;
    }
    assert_eq!(system.hold().await, None);
}

#[tokio::test]
async fn a_closed_window_and_a_refusal_are_final() {
    let system = connected(CALM, &[RETRY_AT_ONCE]).await;
    for (code, kind) in [(131_047, "window_closed"), (131_026, "rejected")] {
        system.mock.script(ANN, [Fault::code(code)]);
        let message = send(&system, ANN, "Hi").await;
        assert_failed(&message, kind, &json!(code), false);
        assert_eq!(message["lastError"]["retryable"], false, "{message}");
        assert!(message["nextAttemptAt"].is_null(), "{message}");
    }
    assert_eq!(send(&system, ANN, "Hi").await["status"], "SENT");
}

#[tokio::test]
async fn no_secret_of_ours_is_in_an_error_of_meta() {
    let system = connected(CALM, &[]).await;
    let text = format!("Malformed access token {TOKEN} ({APP_SECRET})");
    let body = json!({ "error": { "message": text, "code": 131_026 } });
    system.mock.script(ANN, [Fault::answer(400, body)]);
    let message = send(&system, ANN, "Hi").await;
    let detail = &message["lastError"]["detail"];
    assert_eq!(detail, "Malformed access token [hidden] ([hidden])");
}

#[tokio::test]
async fn a_lost_answer_is_found_by_its_status() {
    let system = connected(CALM, &[]).await;
    system.mock.script(ANN, [Fault::LostAnswer]);
    let message = send(&system, ANN, "Hi").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert!(sent["providerMessageId"].is_string(), "{sent}");
    assert_eq!(system.calls(&message), (1, 1));
    system.skip_waits().await;
    assert_eq!(system.calls(&message), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_without_a_status_waits_and_is_held_without_evidence() {
    let system = connected(SILENT, &[]).await;
    let message = lost(&system, ANN).await;
    assert!((55..=60).contains(&wait(&message)), "{message}");
    // What was accepted before it proves nothing, and neither does what nobody tells of.
    assert_eq!(send(&system, BEN, "Hi").await["status"], "SENT");
    system.skip_waits().await;
    let held = eventually("it is held", async || {
        let message = system.message(id(&message)).await;
        message["nextAttemptAt"].is_null().then_some(message)
    })
    .await;
    assert_failed(&held, "connection", &Value::Null, true);
    assert_eq!(held["retryCount"], 1, "{held}");
    assert_eq!(system.calls(&message), (1, 1));
    // Evidence that comes later does not move it; its own status does.
    let witness = send(&system, BEN, "Hi again").await;
    system.tell(&witness, "sent").await;
    system.skip_waits().await;
    assert_eq!(system.message(id(&message)).await["status"], "FAILED");
    system.tell(&message, "delivered").await;
    let sent = system.message_becomes(id(&message), "SENT").await;
    assert_eq!(sent["deliveryStatus"], "delivered", "{sent}");
    assert_eq!(system.calls(&message), (1, 1));
    assert_eq!(doubles(&system).await, 0);
}

#[tokio::test]
async fn a_lost_answer_is_sent_again_once_when_statuses_of_later_messages_have_come() {
    let system = connected(SILENT, &[]).await;
    let message = lost(&system, ANN).await;
    let witness = send(&system, BEN, "Hi").await;
    system.tell(&witness, "sent").await;
    system.skip_waits().await;
    system.message_becomes(id(&message), "SENT").await;
    assert_eq!(system.calls(&message), (2, 2));
    // Meta had only been slow: that it was a double is counted, once.
    let metrics = eventually("the double is counted", async || {
        let wamids = system.mock.ledger().messages.into_iter();
        let wamids = wamids.filter(|known| known.deliveries == 2);
        let first = wamids.flat_map(|known| known.provider_message_ids).next()?;
        let status = json!({ "wamid": first, "status": "sent" });
        let url = format!("{}/simulate/status", system.mock.url());
        let told = system.client.http.post(url).json(&status).send().await;
        assert!(told.unwrap().status().is_success());
        (doubles(&system).await == 1).then_some(())
    });
    metrics.await;
    assert_eq!(doubles(&system).await, 1);
}

#[tokio::test]
async fn each_doubt_in_a_row_waits_twice_as_long() {
    let system = connected(SILENT, &[("RECONCILE_WAIT_MS", "100000")]).await;
    system
        .mock
        .script(ANN, [Fault::LostAnswer, Fault::LostAnswer]);
    let message = send(&system, ANN, "Hi").await;
    assert!((95..=100).contains(&wait(&message)), "{message}");
    let witness = send(&system, BEN, "Hi").await;
    system.tell(&witness, "sent").await;
    system.skip_waits().await;
    let again = eventually("it is lost again", async || {
        let message = system.message(id(&message)).await;
        (message["retryCount"] == 2).then_some(message)
    })
    .await;
    assert!((195..=200).contains(&wait(&again)), "{again}");
}

#[tokio::test]
async fn another_policy_sends_without_evidence_or_holds_at_once() {
    let retries = connected(SILENT, &[("AMBIGUOUS_POLICY", "retry")]).await;
    let message = lost(&retries, ANN).await;
    assert!((55..=60).contains(&wait(&message)), "{message}");
    retries.skip_waits().await;
    retries.message_becomes(id(&message), "SENT").await;
    assert_eq!(retries.calls(&message), (2, 2));

    let holds = connected(SILENT, &[("AMBIGUOUS_POLICY", "hold")]).await;
    let message = lost(&holds, ANN).await;
    assert!(message["nextAttemptAt"].is_null(), "{message}");
}

#[tokio::test]
async fn an_attempt_that_its_process_did_not_survive_is_held_unless_a_status_settles_it() {
    let environment = [LONG_ATTEMPT, SHORT_WAIT];
    let mut system = connected(SILENT, &environment).await;
    system.mock.script(ANN, [Fault::delay(60_000)]);
    system.mock.script(BEN, [Fault::Hang]);
    let mut messages = Vec::new();
    for to in [ANN, BEN] {
        let message = send(&system, to, "Hi").await;
        eventually("the attempt is in flight", async || {
            (system.calls(&message).0 == 1).then_some(())
        })
        .await;
        messages.push(message);
    }
    system.gateway.kill();
    system.expire_leases().await;
    let (gateway, client) = serve_connected(&system.database, &system.mock, &environment).await;
    (system.gateway, system.client) = (gateway, client);
    for message in &messages {
        let interrupted = system.message_becomes(id(message), "FAILED").await;
        assert_failed(&interrupted, "interrupted", &Value::Null, true);
        assert!((55..=60).contains(&wait(&interrupted)), "{interrupted}");
        assert_eq!(interrupted["retryCount"], 1, "{interrupted}");
    }
    system.skip_waits().await;
    for message in &messages {
        let held = eventually("it is held", async || {
            let message = system.message(id(message)).await;
            message["nextAttemptAt"].is_null().then_some(message)
        })
        .await;
        assert_failed(&held, "interrupted", &Value::Null, true);
        assert_eq!(system.calls(message).0, 1);
    }
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn half_an_account_ends_with_2_and_so_does_one_that_others_could_use() {
    let database = ("DATABASE_URL", "postgres://gateway@127.0.0.1:1/gateway");
    let refuses = async |subcommand: &str, environment: &[(&str, &str)], named: &str| {
        let run = crate::support::Program::new(subcommand).envs(environment);
        let ended = run.finish().await;
        assert_eq!(ended.code, Some(2), "{environment:?}: {ended:?}");
        assert!(ended.stderr.contains(named), "{environment:?}: {ended:?}");
        for secret in [TOKEN, APP_SECRET] {
            assert!(!ended.stderr.contains(secret), "{ended:?}");
        }
    };
    for subcommand in ["serve", "worker"] {
        for missing in ACCOUNT {
            let mut environment: Vec<_> = ACCOUNT.into_iter().filter(|it| *it != missing).collect();
            environment.push(database);
            refuses(subcommand, &environment, missing.0).await;
            environment.push((missing.0, " "));
            refuses(subcommand, &environment, missing.0).await;
        }
        refuses(subcommand, &ACCOUNT, "DATABASE_URL").await;
        for (variable, value) in [
            ("WHATSAPP_PHONE_NUMBER_ID", "../me"),
            ("WHATSAPP_ACCESS_TOKEN", "two words"),
            ("WHATSAPP_ACCESS_TOKEN", "one,two"),
            ("META_VERIFY_TOKEN", "short"),
            ("GRAPH_URL", "http://graph.example"),
            ("GRAPH_URL", "graph.example"),
            ("GRAPH_VERSION", "26"),
            ("GRAPH_VERSION", "v26.0/../me"),
            ("RECONCILE_WAIT_MS", "0"),
        ] {
            let mut environment = ACCOUNT.to_vec();
            environment.extend([database, (variable, value)]);
            refuses(subcommand, &environment, variable).await;
        }
    }
    let mut public = ACCOUNT.to_vec();
    public.extend([database, ("HOST", "0.0.0.0")]);
    refuses("serve", &public, "API_KEYS").await;
    public.extend([
        ("API_KEYS", "a-key-of-16-characters"),
        ("PROVIDER_URL", "http://127.0.0.1:1"),
    ]);
    refuses("serve", &public, "WEBHOOK_SECRET").await;
    refuses("migrate", &ACCOUNT, "DATABASE_URL").await;
}
