//! `gateway simulate`: it finds nothing where the gateway keeps its promises, and each broken
//! promise where something breaks it.

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{Client, Database, Finished, Program, Run, System, event, eventually, hello};

/// A `gateway simulate` with these arguments, and few events.
fn simulate(arguments: &[&str]) -> Run {
    Program::new("simulate")
        .args(&["--events", "40", "--json"])
        .args(arguments)
}

/// One that drives this system.
fn against(system: &System, arguments: &[&str]) -> Run {
    simulate(arguments)
        .env("SIMULATE_AGAINST", system.gateway.url())
        .env("SIMULATE_MOCK", &system.mock.url())
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

/// The promises that did not hold.
fn broken(report: &Value) -> Vec<String> {
    let guarantees = report["guarantees"].as_array().unwrap().iter();
    let broken = guarantees.filter(|guarantee| guarantee["held"] != true);
    broken
        .map(|guarantee| guarantee["promise"].as_str().unwrap().to_owned())
        .collect()
}

fn fault(report: &Value, name: &str) -> u64 {
    let faults = report["faults"].as_array().unwrap();
    let fault = faults.iter().find(|fault| fault["fault"] == name);
    fault.map_or(0, |fault| fault["times"].as_u64().unwrap())
}

#[tokio::test]
async fn a_run_of_all_scenarios_holds_although_everything_went_wrong() {
    let finished = simulate(&["--random-seed", "7"]).finish().await;
    let report = report(&finished);
    assert_eq!(broken(&report), [""; 0], "{finished:#?}");
    assert_eq!(finished.code, Some(0));
    assert_eq!(report["held"], true);
    assert_eq!(report["randomSeed"], 7);
    assert_eq!(report["guarantees"].as_array().unwrap().len(), 11);
    for name in [
        "event delivered again",
        "event overtaken by a later one",
        "answered 429",
        "answered 5xx",
        "taken, answer lost",
        "taken, answer unreadable",
        "connection reset",
        "never answered",
        "answered late",
        "server killed",
        "worker killed",
    ] {
        assert!(fault(&report, name) > 0, "{name}: {report:#}");
    }
    let bursts = report["bursts"].as_array().unwrap();
    for (burst, requests) in bursts.iter().zip([200, 40]) {
        assert_eq!(burst["requests"], requests, "{burst}");
        assert!(
            burst["p50Ms"].as_f64() <= burst["p99Ms"].as_f64(),
            "{burst}"
        );
    }
}

#[tokio::test]
async fn a_run_on_whatsapps_wire_holds_whatever_becomes_of_its_statuses() {
    let scenarios = [
        "--whatsapp",
        "--lost-answer",
        "--batches",
        "--statuses",
        "--undelivered",
        "--silence",
    ];
    let finished = simulate(&scenarios).args(&["--random-seed", "7"]);
    let finished = finished.finish().await;
    let report = report(&finished);
    assert_eq!(broken(&report), [""; 0], "{finished:#?}");
    assert_eq!(finished.code, Some(0));
    let promises = report["guarantees"].as_array().unwrap().iter();
    let promises: Vec<_> = promises.map(|of| of["promise"].as_str().unwrap()).collect();
    for promise in [
        "an event is one message",
        "a record is one delivery",
        "statuses in any order tell how far a message came",
        "a status settles a message whose answer was lost",
        "what nobody told of is held, and not sent again",
        "how far a message came never goes back",
    ] {
        assert!(promises.contains(&promise), "{promise}: {promises:#?}");
    }
    for name in ["taken, answer lost", "taken, answer unreadable"] {
        assert!(fault(&report, name) > 0, "{name}: {report:#}");
    }
}

#[tokio::test]
async fn what_is_sent_again_although_nobody_told_of_it_is_found() {
    let broken_run = ["--whatsapp", "--silence", "--break-deduplication"];
    let finished = simulate(&broken_run).finish().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let broken = broken(&report(&finished));
    for promise in [
        "a record is one delivery",
        "what nobody told of is held, and not sent again",
    ] {
        assert!(broken.iter().any(|it| it == promise), "{broken:#?}");
    }
}

#[tokio::test]
async fn whatsapps_scenarios_are_of_its_wire_and_of_a_system_of_its_own() {
    for arguments in [
        &["--statuses"][..],
        &["--silence", "--lost-answer"],
        &[
            "--whatsapp",
            "--against",
            "http://localhost:1",
            "--mock",
            "http://localhost:2",
        ],
    ] {
        let finished = simulate(arguments).finish().await;
        assert_eq!(finished.code, Some(2), "{finished:#?}");
    }
}

#[tokio::test]
async fn a_burst_is_compared_with_a_transaction_that_is_written_by_hand() {
    let finished = simulate(&["--burst", "--concurrency", "7"]).finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let report = report(&finished);
    let comparison = &report["comparison"];
    let ratio = comparison["ratio"].as_f64().unwrap();
    assert!(ratio.is_finite() && ratio > 0.0, "{comparison}");
    assert_eq!(comparison["rounds"], 5);
    assert_eq!(comparison["callers"], 7);
    assert_eq!(comparison["connections"], 7);
    for side in ["gateway", "handWritten"] {
        let side = &comparison[side];
        for count in ["requests", "events", "messages"] {
            assert_eq!(side[count], 5 * 40, "{comparison:#}");
        }
        for figure in ["perSecond", "p50Ms", "p99Ms"] {
            let figure = side[figure].as_f64().unwrap();
            assert!(figure.is_finite() && figure > 0.0, "{comparison:#}");
        }
    }
    // The inbox has nothing of the other side's: what it has is what the gateway was sent.
    let guarantees = report["guarantees"].as_array().unwrap().iter();
    let mut events = guarantees.filter(|of| of["promise"] == "an event is one message");
    let events = events.next().unwrap();
    assert_eq!(events["tried"], "200 events, delivered 200 times");
    assert_eq!(events["observed"], "200 messages");

    let table = Program::new("simulate").args(&["--burst", "--events", "40"]);
    let finished = table.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for said in [
        "the same events, by hand  200 ",
        " times as many events a second as a hand-written transaction each takes in",
        "5 rounds in turns, 32 callers; by hand: 32 connections",
    ] {
        assert!(finished.stdout.contains(said), "{said}: {finished:#?}");
    }
}

#[tokio::test]
async fn a_burst_against_a_running_system_has_no_comparison_and_says_so() {
    let system = System::with(&[]).await;
    let finished = against(&system, &["--burst"]).finish().await;
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    let report = report(&finished);
    assert_eq!(report["comparison"], Value::Null);
    assert_eq!(report["bursts"][0]["requests"], 200);
    let why = "not compared with a hand-written transaction";
    assert!(finished.stderr.contains(why), "{finished:#?}");
    let strangers = "select count(*) from pg_namespace where nspname = 'hand_written'";
    assert_eq!(system.database.count(strangers).await, 0);
}

#[tokio::test]
async fn the_transaction_that_is_written_by_hand_keeps_an_event_once() {
    let database = Database::new().await;
    let run = Program::new("baseline").envs(&[
        ("DATABASE_URL", database.url()),
        ("DATABASE_MAX_CONNECTIONS", "4"),
        ("RUST_LOG", "info"),
    ]);
    let mut baseline = run.start();
    baseline.logged("listening").await;
    let client = Client::new(baseline.url());
    let one = hello("evt-1");
    let together = join_all((0..8).map(|_| client.webhook(&one))).await;
    let answers: Vec<Value> = together.iter().map(|answer| answer.expect(200)).collect();
    let new = answers.iter().filter(|answer| answer["duplicate"] == false);
    assert_eq!(new.count(), 1, "{answers:?}");
    let id = |answer: &Value| answer["messageId"].as_str().unwrap().to_owned();
    assert!(answers.iter().all(|other| id(other) == id(&answers[0])));
    // An earlier one, of the same conversation, is not the newest.
    let earlier = event("evt-2", "user-1", "Before", "2025-01-01T09:00:00Z");
    client.webhook(&earlier).await.expect(200);
    let right = "select count(*) from hand_written.conversations
                 where unread_count = 2 and last_message_preview = 'Hello'";
    assert_eq!(database.count(right).await, 1);
    let stored = client.get("/stored").await.expect(200);
    assert_eq!(
        stored,
        serde_json::json!({ "events": 2, "messages": 2, "unread": 2 })
    );
    baseline.terminate().await;
}

#[tokio::test]
async fn a_provider_that_delivers_twice_is_noticed() {
    // Chosen, since in few conversations all connections may break before anything is taken.
    let run = [
        "--lost-answer",
        "--break-deduplication",
        "--random-seed",
        "7",
    ];
    let finished = simulate(&run).finish().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let report = report(&finished);
    assert_eq!(broken(&report), ["a record is one delivery"]);
    assert_eq!(report["scenarios"], serde_json::json!(["lost-answer"]));

    let table = Program::new("simulate")
        .args(&run)
        .args(&["--events", "20"]);
    let finished = table.finish().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    let row = finished.stdout.lines().find(|line| line.contains("BROKEN"));
    assert!(
        row.unwrap().contains("a record is one delivery"),
        "{finished:#?}"
    );
    assert!(
        finished.stderr.contains(": SENT, delivered "),
        "{finished:#?}"
    );
}

#[tokio::test]
async fn a_seed_repeats_a_run() {
    let run = || simulate(&["--duplicate", "--out-of-order", "--random-seed", "3"]).finish();
    let (one, other) = tokio::join!(run(), run());
    let (one, other) = (report(&one), report(&other));
    assert_eq!(one["participants"], "sim-3-*");
    assert_eq!(one["guarantees"], other["guarantees"]);
    assert_eq!(one["faults"], other["faults"]);
}

#[tokio::test]
async fn a_running_system_is_driven_with_its_keys_and_the_same_seed_again() {
    let secrets = [
        (
            "API_KEYS",
            "ops:ops-key:admin,app:first-key:inbox+send,second-key",
        ),
        ("WEBHOOK_SECRET", "first-secret,second-secret"),
    ];
    let mut environment = secrets.to_vec();
    environment.extend([("RETRY_BASE_MS", "10"), ("PROVIDER_TIMEOUT_MS", "500")]);
    let system = System::with(&environment).await;
    for _ in 0..2 {
        let run = against(&system, &["--all", "--random-seed", "9"]);
        let finished = run.envs(&secrets).finish().await;
        let report = report(&finished);
        assert_eq!(broken(&report), [""; 0], "{finished:#?}");
        assert_eq!(finished.code, Some(0));
        assert_eq!(fault(&report, "server killed"), 0);
        assert!(fault(&report, "answered 429") > 0);
    }
    let strangers = "select count(*) from conversations where participant_id not like 'sim-9-%'";
    assert_eq!(system.database.count(strangers).await, 0);
    system.database.assert_consistent().await;
    // The participants' scripts are gone.
    let participants = "select count(*) from conversations";
    assert!(system.database.count(participants).await > 20);
    let whoever = system.mock.ledger().messages[0].participant_id.clone();
    system
        .mock
        .script(None, [mock_meta_provider::Fault::Reject]);
    let calls = system.mock.stats().faults.reject;
    let body = serde_json::json!({ "channel": "whatsapp", "to": whoever, "text": "hi" });
    let request = system.client.http.post(system.client.url("/messages/send"));
    let answer = request.bearer_auth("first-key").json(&body).send().await;
    assert_eq!(answer.unwrap().status(), 201);
    assert_eq!(system.mock.stats().faults.reject, calls + 1);
}

/// What a database is made to do to rows before they are written.
fn trigger(table: &str, change: &str) -> String {
    format!(
        "create function meddle() returns trigger language plpgsql as $$ begin {change} return new; end $$;
         create trigger meddle before insert or update on {table} for each row execute function meddle()"
    )
}

#[tokio::test]
async fn each_promise_that_is_broken_is_noticed() {
    let inbound = |change| format!("if new.direction = 'INBOUND' then {change}; end if;");
    let outbound = |change| format!("if new.direction = 'OUTBOUND' then {change}; end if;");
    for (table, change, scenario, promise) in [
        (
            "messages",
            inbound("new.text := 'another'"),
            "--duplicate",
            "an event is one message",
        ),
        (
            "messages",
            inbound(
                "new.sort_at := timestamptz '2030-01-01' - (new.timestamp - timestamptz '2020-01-01')",
            ),
            "--out-of-order",
            "messages are listed by (time, id)",
        ),
        (
            "conversations",
            "new.unread_count := new.unread_count + 1;".to_owned(),
            "--duplicate",
            "unreadCount is a recount's",
        ),
        (
            "conversations",
            "new.last_message_preview := 'another';".to_owned(),
            "--out-of-order",
            "the preview is the newest message's",
        ),
        (
            "messages",
            outbound("new.text := 'another'"),
            "--server-error",
            "a send is one record",
        ),
        (
            "messages",
            outbound("new.next_attempt_at := new.updated_at"),
            "--rate-limit",
            "Retry-After is waited for",
        ),
    ] {
        let system = System::with(&[("RETRY_BASE_MS", "10")]).await;
        system.database.execute(&trigger(table, &change)).await;
        let finished = against(&system, &[scenario]).finish().await;
        let broken = broken(&report(&finished));
        assert!(
            broken.iter().any(|broken| broken == promise),
            "{promise}: {finished:#?}"
        );
        assert_eq!(finished.code, Some(1));
    }
}

#[tokio::test]
async fn messages_in_another_order_and_ones_that_are_never_sent_are_noticed() {
    let system = System::with(&[("RETRY_BASE_MS", "10")]).await;
    let run = against(
        &system,
        &["--server-error", "--delivery-order", "conversation"],
    );
    let broken_in = |finished: &Finished| broken(&report(finished));
    assert_eq!(
        broken_in(&run.finish().await),
        ["messages are delivered in the order they were enqueued"]
    );

    let system = System::with(&[("RETRY_MAX_ATTEMPTS", "1")]).await;
    let run = against(&system, &["--server-error"]);
    assert_eq!(broken_in(&run.finish().await), ["nothing is stuck"]);
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    for (arguments, code, reason) in [
        (&["--against", "http://localhost:3000"][..], 2, "--mock"),
        (&["--mock", "http://localhost:4000"], 2, "--against"),
        (
            &[
                "--crash",
                "--against",
                "http://localhost:1",
                "--mock",
                "http://localhost:1",
            ],
            2,
            "--crash",
        ),
        (
            &["--against", "localhost", "--mock", "localhost"],
            2,
            "SIMULATE_AGAINST is not an http or https URL",
        ),
        (&["--events", "0"], 2, "--events"),
        (
            &[
                "--against",
                "http://127.0.0.1:1",
                "--mock",
                "http://127.0.0.1:1",
            ],
            1,
            "no gateway is ready at http://127.0.0.1:1",
        ),
    ] {
        let finished = Program::new("simulate").args(arguments).finish().await;
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        assert!(finished.stderr.contains(reason), "{finished:#?}");
    }

    let system = System::with(&[("API_KEYS", "a-key")]).await;
    let finished = against(&system, &["--server-error"]).finish().await;
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    assert!(finished.stderr.contains("API_KEYS"), "{finished:#?}");
}

#[tokio::test]
async fn an_interrupted_or_killed_run_leaves_no_process_behind() {
    for signal in ["INT", "KILL"] {
        let directory = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        let mut run = Program::new("simulate")
            .env("TMPDIR", directory.path().to_str().unwrap())
            .args(&["--crash", "--events", "10000"])
            .start();
        eventually("both parts run", async || {
            let running = processes(name);
            let of = |part| running.iter().any(|command| command.ends_with(part));
            (of("\0serve\0") && of("\0worker\0")).then_some(())
        })
        .await;
        run.signal(signal);
        let status = run.ended().await;
        assert_eq!(
            status.code(),
            (signal == "INT").then_some(1),
            "{:#?}",
            run.log()
        );
        eventually("nothing of it runs", async || {
            processes(name).is_empty().then_some(())
        })
        .await;
        if signal == "INT" {
            let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// The command lines of all processes in whose command line or environment this is, with a NUL
/// after each argument.
fn processes(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A URL escapes the dot.
    let mark = mark.trim_start_matches('.');
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file| std::fs::read(process.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let is_it = process.file_name().to_string_lossy() != std::process::id().to_string();
        if is_it && (command.contains(mark) || environment.contains(mark)) {
            found.push(command);
        }
    }
    found
}
