//! `gateway retry`: an operator chooses among what has failed, and is told how each ended.

use mock_meta_provider::{Behaviour, Fault};
use serde_json::{Value, json};

use crate::support::{Held, NO_RETRY, Program, Run, System, id, run};

#[tokio::test]
async fn retry_list_shows_what_has_failed_and_sends_nothing() {
    let (system, ids) = with_failed(2).await;
    let table = run(&system.database, "retry", &["--list"]).finish().await;
    assert_eq!((table.code, &*table.stderr), (Some(0), ""));
    let rows: Vec<&str> = table.stdout.lines().collect();
    assert!(
        rows.len() == 3 && rows[0].contains("ID") && rows[0].contains("NEXT ATTEMPT"),
        "{table:?}"
    );
    assert!(
        ids.iter().all(|id| rows[1..]
            .iter()
            .any(|row| row.contains(id) && row.contains("rejected"))),
        "{table:?}"
    );

    let ended = run(&system.database, "retry", &["--list", "--json"])
        .finish()
        .await;
    let listed = ended.data();
    let listed: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect();
    assert!(
        listed.len() == 2 && ids.iter().all(|id| listed.contains(&&**id)),
        "{listed:?}"
    );
    assert_eq!(system.mock.stats().calls, 2);
}

#[tokio::test]
async fn a_participant_turns_hides_and_moves_nothing_in_a_terminal() {
    let system = System::without_worker(&[]).await;
    let names = [
        "a\u{202e}bc",
        "a\u{2066}b\u{2069}",
        "\u{61c}a\u{200f}",
        "a\u{2028}b",
        "Ayşe 👩\u{200d}🔧 أحمد",
    ];
    for name in names {
        system.mock.script(name, [Fault::Reject]);
        system.send(name, "Merhaba").await;
    }
    let table = run(&system.database, "retry", &["--list"]).finish().await;
    assert_eq!(table.stdout.lines().count(), 1 + names.len(), "{table:?}");
    assert!(table.stdout.contains(r"a\u{202e}bc"), "{table:?}");
    assert!(table.stdout.contains(names[4]), "{table:?}");
    let json = run(&system.database, "retry", &["--list", "--json"]);
    let json = json.finish().await;
    let listed = json.data();
    let listed: Vec<_> = listed.as_array().unwrap().iter().collect();
    assert!(
        names
            .iter()
            .all(|name| listed.iter().any(|row| row["to"] == *name))
    );
    for active in names[..4].concat().chars().filter(|c| !c.is_ascii()) {
        assert!(!table.stdout.contains(active), "{table:?}");
        assert!(!json.stdout.contains(active), "{json:?}");
    }
}

#[tokio::test]
async fn retry_by_id_sends_that_one_and_reports_it() {
    let (system, ids) = with_failed(2).await;
    let ended = sending(&system, &[&ids[0], "--json"]).finish().await;
    assert_eq!(ended.data()[0]["id"], *ids[0]);
    assert_eq!(ended.data()[0]["status"], "SENT");
    assert!(
        ended.stderr.contains("made 1 of 1 messages due"),
        "{ended:?}"
    );
    assert_eq!(system.message(&ids[0]).await["status"], "SENT");
    assert_eq!(system.message(&ids[1]).await["status"], "FAILED");
    assert_eq!(system.mock.ledger().deliveries(), 1);
}

#[tokio::test]
async fn retry_all_sends_all_and_the_table_is_data() {
    let (system, ids) = with_failed(5).await;
    let ended = sending(&system, &["--all"]).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let rows: Vec<&str> = ended.stdout.lines().collect();
    assert!(rows.len() == 6 && rows[0].contains("STATUS"), "{ended:?}");
    for id in &ids {
        assert!(
            rows[1..]
                .iter()
                .any(|row| row.contains(id) && row.contains("SENT")),
            "{id}: {ended:?}"
        );
        assert_eq!(system.mock.message(id).unwrap().deliveries, 1);
    }
    let none = sending(&system, &["--all", "--json"]).finish().await;
    assert_eq!(none.data(), json!([]));
}

#[tokio::test]
async fn a_retry_that_fails_again_ends_with_1_and_says_how() {
    let (system, ids) = with_failed(1).await;
    system.mock.script("user-0", [Fault::Reject]);
    let ended = sending(&system, &[&ids[0], "--json"]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let rows: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&rows[0]["status"], &rows[0]["error"]),
        (&json!("FAILED"), &json!("rejected"))
    );
    assert!(
        ended.stderr.contains("1 of 1 messages were not sent"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn requeue_only_leaves_the_sending_to_a_running_worker() {
    let (system, ids) = with_failed(2).await;
    let ended = run(&system.database, "retry", &["--all", "--requeue-only"])
        .finish()
        .await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
    for id in &ids {
        system.message_becomes(id, "SENT").await;
        assert_eq!(system.mock.message(id).unwrap().deliveries, 1);
    }
}

#[tokio::test]
async fn retry_of_what_is_unknown_or_has_not_failed_ends_with_1_and_names_it() {
    let (system, failed) = with_failed(1).await;
    let unknown = format!("msg_{}", uuid::Uuid::now_v7().simple());
    let sent = system.send("user-1", "Merhaba").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for id in [&unknown, &sent] {
        for arguments in [vec![&**id, &failed[0]], vec![&**id, "--requeue-only"]] {
            let ended = sending(&system, &arguments).finish().await;
            assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
            assert!(ended.stderr.contains(id.as_str()), "{ended:?}");
        }
    }
    assert_eq!(system.message(&failed[0]).await["status"], "FAILED");
}

#[tokio::test]
async fn retry_of_nothing_in_particular_ends_with_2() {
    for arguments in [vec![], vec!["--json"], vec!["--list", "--all"]] {
        let ended = Program::new("retry").args(&arguments).finish().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains("Usage"), "{ended:?}");
    }
}

#[tokio::test]
async fn filters_choose_by_channel_kind_and_time_and_a_limit_takes_the_oldest() {
    let system = System::with(&[NO_RETRY]).await;
    let mut ids = Vec::new();
    for (channel, fault) in [
        ("whatsapp", Fault::Reject),
        ("whatsapp", Fault::server_error(503)),
        ("instagram", Fault::Reject),
        ("instagram", Fault::Reset),
    ] {
        system.mock.script("user-1", [fault]);
        let body = json!({ "channel": channel, "to": "user-1", "text": "Merhaba" });
        let message = system.client.post("/messages/send", &body).await;
        ids.push(message.expect(201)["id"].as_str().unwrap().to_owned());
    }
    // The first one was accepted long ago, and failed just now; the third failed long ago.
    let first = &ids[0];
    let aged = format!(
        "update messages set created_at = created_at - interval '1 day', timestamp = timestamp - interval '1 day' where id = '{}'",
        uuid(first)
    );
    system.database.execute(&aged).await;
    fail_earlier(&system, &ids[2], "3 hours").await;

    for (arguments, chosen) in [
        (&[][..], &[0, 1, 2, 3][..]),
        (&["--channel", "whatsapp"], &[0, 1]),
        (&["--kind", "rejected"], &[0, 2]),
        (&["--kind", "server_error,connection"], &[1, 3]),
        (&["--kind", "timeout"], &[]),
        (&["--since", "2h"], &[0, 1, 3]),
        (&["--since", "2h 59m"], &[0, 1, 3]),
        (&["--since", "1d"], &[0, 1, 2, 3]),
        (&["--limit", "2"], &[0, 1]),
        (&["--limit", "1", "--channel", "instagram"], &[2]),
        (
            &[
                "--since",
                "2h",
                "--channel",
                "instagram",
                "--kind",
                "connection,rejected",
            ],
            &[3],
        ),
    ] {
        let expected: Vec<&str> = chosen.iter().map(|place: &usize| &*ids[*place]).collect();
        for form in [&["--list"][..], &["--dry-run", "--all"], &["--dry-run"]] {
            // Something has to be chosen.
            if form == ["--dry-run"] && (arguments.is_empty() || arguments == ["--limit", "2"]) {
                continue;
            }
            let all = [form, arguments, &["--json"]].concat();
            let ended = run(&system.database, "retry", &all).finish().await;
            assert_eq!(listed(&ended.data()), expected, "{all:?}");
        }
    }

    let ended = sending(
        &system,
        &["--channel", "instagram", "--since", "2h", "--json"],
    )
    .finish()
    .await;
    assert_eq!(listed(&ended.data()), [&*ids[3]]);
    let requeue = [
        "--kind",
        "rejected",
        "--requeue-only",
        "--limit",
        "1",
        "--json",
    ];
    let ended = run(&system.database, "retry", &requeue).finish().await;
    assert_eq!(ended.data(), json!([ids[0]]));
    system.message_becomes(&ids[0], "SENT").await;
    for (id, deliveries) in ids.iter().zip([1, 0, 0, 1]) {
        assert_eq!(
            system.mock.message(id).unwrap().deliveries,
            deliveries,
            "{id}"
        );
    }
}

#[tokio::test]
async fn since_is_when_the_last_attempt_failed() {
    let (system, ids) = with_failed(2).await;
    fail_earlier(&system, &ids[0], "90 minutes").await;
    let ended = run(&system.database, "retry", &["--list", "--json"])
        .finish()
        .await;
    let rows = ended.data();
    for (row, id) in rows.as_array().unwrap().iter().zip(&ids) {
        let updated_at = system.message(id).await["updatedAt"].clone();
        let seconds = |time: &Value| time.as_str().unwrap()[..19].to_owned();
        assert_eq!(seconds(&row["since"]), seconds(&updated_at));
    }
    let recent = ["--list", "--since", "1h", "--json"];
    let ended = run(&system.database, "retry", &recent).finish().await;
    assert_eq!(listed(&ended.data()), ids[1..]);
    // Another failure makes it one of the last hour, whenever it was accepted.
    let aged = "update messages set created_at = created_at - interval '1 day'";
    system.database.execute(aged).await;
    system.mock.script("user-0", [Fault::Reject]);
    let ended = sending(&system, &[&ids[0]]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let ended = run(&system.database, "retry", &recent).finish().await;
    assert_eq!(listed(&ended.data()), ids);
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_due_and_changes_nothing() {
    let (system, ids) = with_failed(3).await;
    let in_flight = format!(
        "update deliveries set lease_token = gen_random_uuid(), due_at = now() + interval '1 hour' where message_id = '{}'",
        uuid(&ids[1])
    );
    system.database.execute(&in_flight).await;
    let before = system.database.contents().await;
    for arguments in [
        &["--all", "--dry-run"][..],
        &[&ids[0], &ids[1], &ids[2], "--dry-run"],
        &["--kind", "rejected", "--dry-run", "--requeue-only"],
    ] {
        let ended = run(&system.database, "retry", arguments).finish().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stderr.contains("would make 2 of 3 messages due"),
            "{ended:?}"
        );
        let rows: Vec<&str> = ended.stdout.lines().collect();
        assert!(rows.len() == 3 && rows[0].contains("SINCE"), "{ended:?}");
        assert!(
            rows[1].contains(&ids[0]) && rows[2].contains(&ids[2]),
            "{ended:?}"
        );
    }
    assert_eq!(system.database.contents().await, before);
    assert_eq!(system.mock.stats().calls, 3);
    let unknown = format!("msg_{}", uuid::Uuid::now_v7().simple());
    let ended = run(&system.database, "retry", &[&unknown, "--dry-run"])
        .finish()
        .await;
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
}

#[tokio::test]
async fn options_that_contradict_each_other_or_say_nothing_end_with_2() {
    let id = format!("msg_{}", uuid::Uuid::now_v7().simple());
    for (arguments, said) in [
        (&[&*id, "--all"][..], "--all"),
        (&[&id, "--list"], "--list"),
        (&[&id, "--channel", "whatsapp"], "--channel"),
        (&[&id, "--kind", "timeout"], "--kind"),
        (&[&id, "--since", "2h"], "--since"),
        (&[&id, "--limit", "1"], "--limit"),
        (&["--list", "--dry-run"], "--dry-run"),
        (&["--list", "--requeue-only"], "--requeue-only"),
        (&["--dry-run"], "--channel"),
        (&["--limit", "1"], "--all"),
        (&["--all", "--limit", "0"], "--limit"),
        (&["--all", "--since", "2"], "time unit needed"),
        (&["--all", "--since", "1000y"], "ten years"),
        (&["--all", "--kind", "slow"], "rate_limited"),
        (&["--all", "--channel", "sms"], "instagram"),
    ] {
        let ended = Program::new("retry").args(arguments).finish().await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
}

#[tokio::test]
async fn a_retry_beside_running_workers_delivers_each_message_once() {
    let (system, _) = with_failed(1).await;
    // More than a page of the command.
    system.database.execute(&parked(1200)).await;
    let _workers = (system.worker(&[]).await, system.worker(&[]).await);
    // A provider that notices a second delivery.
    let behaviour = Behaviour {
        dedupe: false,
        ..Behaviour::CALM
    };
    system.mock.set_behaviour(behaviour).unwrap();
    let runs = (
        sending(&system, &["--all", "--json"]).finish(),
        sending(&system, &["--all", "--json"]).finish(),
    );
    let (one, other) = tokio::join!(runs.0, runs.1);
    for ended in [one, other] {
        let rows = ended.data();
        let rows = rows.as_array().unwrap();
        assert!(rows.iter().all(|row| row["status"] == "SENT"), "{ended:?}");
        assert!(
            ended.stderr.contains(&format!("{} sent", rows.len())) || rows.is_empty(),
            "{ended:?}"
        );
    }
    let ledger = system.mock.ledger();
    assert_eq!(ledger.messages.len(), 1201);
    assert!(
        ledger
            .messages
            .iter()
            .all(|message| message.deliveries == 1)
    );
    assert_eq!(
        system
            .database
            .count("select count(*) from deliveries")
            .await,
        0
    );
    system.database.assert_consistent().await;
}

#[tokio::test]
async fn a_retry_sums_up_what_was_sent_what_failed_again_and_what_failed_for_good() {
    let (system, _) = with_failed(4).await;
    system.mock.script("user-0", [Fault::server_error(503)]);
    system.mock.script("user-1", [Fault::Reject]);
    let ended = sending(&system, &["--all"])
        .envs(&[NO_RETRY])
        .finish()
        .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let summary = "2 sent, 1 failed again, 1 failed for good";
    assert!(ended.stderr.contains(summary), "{ended:?}");
    assert!(
        ended.stderr.contains("2 of 4 messages were not sent"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn what_is_canceled_before_its_turn_has_ended() {
    let provider = Held::start().await;
    let system =
        System::without_worker(&[("PROVIDER_URL", provider.url()), ("SEND_WAIT_MS", "60000")])
            .await;
    let ids = [
        fail(&system, &provider, "user-1").await,
        fail(&system, &provider, "user-2").await,
    ];
    let mut retry = Box::pin(
        run(&system.database, "retry", &["--all"])
            .envs(&[
                ("PROVIDER_URL", provider.url()),
                ("WORKER_CONCURRENCY", "1"),
            ])
            .finish(),
    );
    let call = tokio::select! {
        call = provider.call() => call,
        ended = &mut retry => panic!("{ended:?}"),
    };
    let waiting = ids.iter().find(|id| {
        id.trim_start_matches("msg_") != call.key.replace('-', "").trim_start_matches("msg_")
    });
    let path = format!("/messages/{}/cancel", waiting.unwrap());
    system.client.post(&path, &json!({})).await.expect(200);
    call.accept("msg_1").await;
    let ended = retry.await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("1 sent, 1 failed for good"),
        "{ended:?}"
    );
    assert!(provider.is_idle().await);
}

/// Sends a message that the provider rejects; its id.
async fn fail(system: &System, provider: &Held, to: &str) -> String {
    let (message, ()) = tokio::join!(system.send(to, "Merhaba"), async {
        provider.call().await.answer(422, &json!({})).await;
    });
    assert_eq!(message["nextAttemptAt"], json!(null));
    id(&message).to_owned()
}

/// As if its last attempt had failed that much earlier.
async fn fail_earlier(system: &System, id: &str, ago: &str) {
    let sql = format!(
        "update messages set updated_at = now() - interval '{ago}' where id = '{}'",
        uuid(id)
    );
    assert_eq!(system.database.execute(&sql).await, 1);
}

/// As many messages that have failed for good, of ten participants.
fn parked(count: u32) -> String {
    format!(
        "insert into conversations (id, channel, participant_id, last_message_id, last_message_at, last_message_preview, outbound_seq)
         select gen_random_uuid(), 'instagram', 'parked-' || n, gen_random_uuid(), '-infinity', '', 0 from generate_series(0, 9) n;
         insert into messages (id, conversation_id, channel, participant_id, direction, text, status, retry_count, timestamp, sort_at)
         select gen_random_uuid(), c.id, c.channel, c.participant_id, 'OUTBOUND', 'text ' || n, 'FAILED', 1, now(), now()
         from generate_series(1, {count}) n join conversations c on c.participant_id = 'parked-' || n % 10;
         update conversations c set last_message_id = m.id, last_message_at = m.sort_at, last_message_preview = m.text,
           outbound_seq = {count} from (select distinct on (conversation_id) * from messages order by conversation_id, sort_at desc, id desc) m
         where m.conversation_id = c.id and c.channel = 'instagram';
         insert into deliveries (message_id, conversation_id, seq, due_at, attempt, failures)
         select id, conversation_id, row_number() over (partition by conversation_id order by id), null, 1, 1
         from messages where channel = 'instagram'"
    )
}

/// The ids in rows, in their order.
fn listed(rows: &Value) -> Vec<String> {
    let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

/// An id as the database has it.
fn uuid(id: &str) -> &str {
    id.trim_start_matches("msg_")
}

/// `gateway retry` with the provider of this system.
fn sending(system: &System, arguments: &[&str]) -> Run {
    run(&system.database, "retry", arguments).env("PROVIDER_URL", &system.mock.url())
}

/// A system with as many messages that have failed for good; their ids.
async fn with_failed(count: usize) -> (System, Vec<String>) {
    let system = System::start().await;
    let mut ids = Vec::new();
    for number in 0..count {
        let to = format!("user-{number}");
        system.mock.script(&*to, [Fault::Reject]);
        let message = system.send(&to, "Merhaba").await;
        assert_eq!(
            (&message["status"], &message["nextAttemptAt"]),
            (&json!("FAILED"), &Value::Null)
        );
        ids.push(id(&message).to_owned());
    }
    (system, ids)
}
