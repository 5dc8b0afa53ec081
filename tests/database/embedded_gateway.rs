//! `gateway serve` without a configuration: a database and a provider of its own, which live and
//! die with it and keep the data.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, Program, Run, event, eventually, signal};

const HELLO: [&str; 4] = ["evt_1", "user-1", "Hello", "2025-01-01T10:00:00Z"];

#[tokio::test]
async fn without_a_configuration_there_is_a_database_and_a_provider() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    receive(&client, false).await;
    send(&client, "SENT").await;
    // The provider's webhook is this gateway.
    let inbound =
        json!({ "eventId": "evt_2", "channel": "whatsapp", "from": "user-2", "text": "Hi there" });
    let simulate = format!("{}/simulate/inbound", provider(&gateway).await);
    let answer = client
        .call(client.http.post(simulate).json(&inbound))
        .await
        .unwrap();
    answer.expect(200);
    eventually("the event arrives", async || {
        let inbox = client.get("/conversations").await.expect(200);
        (inbox["data"][0]["lastMessagePreview"] == "Hi there").then_some(())
    })
    .await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    assert!(place.processes().is_empty());
}

#[tokio::test]
async fn the_built_in_provider_signs_its_webhooks() {
    let place = Place::new();
    let serve = place
        .run("serve")
        .env("WEBHOOK_SECRET", "first-secret, second-secret");
    let gateway = serve.start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    let [event_id, from, text, timestamp] = HELLO;
    let unsigned = client
        .webhook(&event(event_id, from, text, timestamp))
        .await;
    unsigned.expect_problem(401, "invalid_signature");
    let inbound = json!({ "channel": "whatsapp", "from": "user-2", "text": "Signed" });
    let simulate = format!("{}/simulate/inbound", provider(&gateway).await);
    let answer = client.call(client.http.post(simulate).json(&inbound)).await;
    answer.unwrap().expect(200);
    eventually("the event arrives", async || {
        let inbox = client.get("/conversations").await.expect(200);
        (inbox["data"][0]["lastMessagePreview"] == "Signed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    receive(&client, false).await;
    let sent = send(&client, "SENT").await;
    let inbox = client.get("/conversations").await.expect(200);
    assert_eq!(gateway.terminate().await.code(), Some(0));

    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    assert_eq!(client.get("/conversations").await.expect(200), inbox);
    let id = sent["id"].as_str().unwrap();
    assert_eq!(
        client.get(&format!("/messages/{id}")).await.expect(200)["status"],
        "SENT"
    );
    receive(&client, true).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_killed_gateway_leaves_no_server_and_all_its_data() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    receive(&Client::new(gateway.url()), false).await;
    assert!(!place.processes().is_empty());
    gateway.kill();
    eventually("no process of the directory is left", async || {
        place.processes().is_empty().then_some(())
    })
    .await;
    let mut gateway = place.serve().await;
    receive(&Client::new(gateway.url()), true).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_start_right_after_a_kill_finds_the_data() {
    let place = Place::new();
    for known in [false, true, true] {
        let mut gateway = place.serve().await;
        receive(&Client::new(gateway.url()), known).await;
        gateway.kill();
    }
}

#[tokio::test]
async fn service_goes_on_when_the_private_server_is_killed() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    receive(&client, false).await;
    for _ in 0..3 {
        let pid = place.postmaster().unwrap();
        signal(pid, "KILL");
        eventually("another server", async || {
            place.postmaster().filter(|other| *other != pid)
        })
        .await;
        eventually("it is ready", async || {
            (client.get("/ready").await.status == 200).then_some(())
        })
        .await;
        receive(&client, true).await;
        client.get("/health").await.expect(200);
    }
    send(&client, "SENT").await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_gateway_on_the_directory_ends_with_1_and_says_why() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let second = place.run("serve").finish().await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(
        second.stderr.contains("another gateway") && second.stderr.contains("GATEWAY_DATA_DIR"),
        "{second:?}"
    );
    receive(&Client::new(gateway.url()), false).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn commands_join_the_running_one_and_leave_it_running() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    let postmaster = place.postmaster();
    let migrations = place.data("migrate", &["--status", "--json"]).await;
    assert!(
        migrations
            .as_array()
            .unwrap()
            .iter()
            .all(|migration| migration["applied"] == true),
        "{migrations}"
    );
    assert_eq!(place.run("seed").finish().await.code, Some(0));
    let inbox = client.get("/conversations").await.expect(200);
    assert!(!inbox["data"].as_array().unwrap().is_empty());

    script(&gateway, "reject").await;
    let id = send(&client, "FAILED").await["id"].clone();
    let failed = place.data("retry", &["--list", "--json"]).await;
    assert!(
        failed.as_array().unwrap().iter().any(|row| row["id"] == id),
        "{failed}"
    );
    assert_eq!(place.postmaster(), postmaster);
    receive(&client, false).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_retry_joins_the_running_provider_too() {
    let place = Place::new();
    let mut gateway = place.serve().await;
    let client = Client::new(gateway.url());
    script(&gateway, "reject").await;
    let id = send(&client, "FAILED").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let provider = provider(&gateway).await;
    let port = provider.rsplit(':').next().unwrap();
    let ended = place
        .run("retry")
        .args(&[&id])
        .env("MOCK_PORT", port)
        .finish()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let sent = client.get(&format!("/messages/{id}")).await.expect(200);
    let delivered = format!(
        "{provider}/messages/{}",
        sent["providerMessageId"].as_str().unwrap()
    );
    client
        .call(client.http.get(delivered))
        .await
        .unwrap()
        .expect(200);
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn commands_start_the_server_for_their_own_time_when_nothing_runs() {
    let place = Place::new();
    let pending = place.data("migrate", &["--status", "--json"]).await;
    assert!(
        pending
            .as_array()
            .unwrap()
            .iter()
            .all(|migration| migration["applied"] == false),
        "{pending}"
    );
    assert!(place.processes().is_empty());
    assert_eq!(place.run("seed").finish().await.code, Some(0));
    assert!(place.processes().is_empty());
    place.data("retry", &["--list", "--json"]).await;
    assert!(place.processes().is_empty());

    let mut gateway = place.serve().await;
    let inbox = Client::new(gateway.url())
        .get("/conversations")
        .await
        .expect(200);
    assert!(!inbox["data"].as_array().unwrap().is_empty());
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_taken_port_of_the_provider_is_an_error_that_says_what_to_do() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = place.run("serve").env("MOCK_PORT", &port).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(&port) && ended.stderr.contains("MOCK_PORT"),
        "{ended:?}"
    );
    assert!(place.processes().is_empty());
}

#[tokio::test]
async fn somebody_elses_directory_is_refused() {
    let place = Place::new();
    std::fs::create_dir(place.data_directory()).unwrap();
    std::fs::write(place.data_directory().join("letter"), "private").unwrap();
    let ended = place.run("serve").finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("GATEWAY_DATA_DIR"), "{ended:?}");
}

/// A place for a data directory, which every user can reach.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        Self(
            tempfile::Builder::new()
                .permissions(permissions)
                .tempdir()
                .unwrap(),
        )
    }

    fn data_directory(&self) -> std::path::PathBuf {
        self.0.path().join("data")
    }

    /// A command without a configuration, and with a provider that behaves.
    fn run(&self, subcommand: &str) -> Run {
        let calm = [
            "FAILURE_RATE",
            "DUPLICATE_RATE",
            "OUT_OF_ORDER_RATE",
            "DELAY_MAX_MS",
        ]
        .map(|name| (name, "0"));
        let run = Program::new(subcommand)
            .envs(&calm)
            .directory(self.0.path().to_owned());
        run.env("GATEWAY_DATA_DIR", "data")
    }

    /// A `gateway serve` that is ready.
    async fn serve(&self) -> Program {
        let gateway = self.run("serve").start();
        gateway.logged("ready").await;
        gateway
    }

    /// What a command that must end well prints.
    async fn data(&self, subcommand: &str, arguments: &[&str]) -> Value {
        let ended = self.run(subcommand).args(arguments).finish().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    /// The process id that the private server wrote down.
    fn postmaster(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.data_directory().join("cluster/postmaster.pid"));
        file.ok()?.lines().next()?.trim().parse().ok()
    }

    /// The command lines of processes that name the data directory.
    fn processes(&self) -> Vec<String> {
        let all = Command::new("ps").args(["-eo", "args="]).output().unwrap();
        let names = |line: &&str| line.contains(&*self.data_directory().to_string_lossy());
        String::from_utf8_lossy(&all.stdout)
            .lines()
            .filter(names)
            .map(str::to_owned)
            .collect()
    }
}

/// An event comes in, for the first time or as one that is known.
#[track_caller]
fn receive(client: &Client, known: bool) -> impl Future<Output = ()> {
    let [event_id, from, text, timestamp] = HELLO;
    let hello = event(event_id, from, text, timestamp);
    async move { assert_eq!(client.webhook(&hello).await.expect(200)["duplicate"], known) }
}

/// A message goes out.
async fn send(client: &Client, status: &str) -> Value {
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Merhaba" });
    let message = client.post("/messages/send", &body).await.expect(201);
    assert_eq!(message["status"], status, "{message}");
    message
}

/// Sets the answer to the next call of the provider.
async fn script(gateway: &Program, fault: &str) {
    let script = format!("{}/script", provider(gateway).await);
    let client = Client::new(&script);
    client
        .post("", &json!({ "answers": [fault] }))
        .await
        .expect(200);
}

/// The URL of the built-in provider, which the log says.
async fn provider(gateway: &Program) -> String {
    eventually("the provider in the log", async || {
        gateway.log().iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["provider"].as_str().map(str::to_owned)
        })
    })
    .await
}

#[tokio::test]
async fn made_up_customers_write_by_the_built_in_provider() {
    let place = Place::new();
    let gateway = place.serve().await;
    let hint = |line: &String| line.contains("the inbox is empty: it has a button");
    eventually("a hint", async || {
        gateway.log().iter().any(hint).then_some(())
    })
    .await;
    let client = Client::new(gateway.url());
    assert_eq!(client.get("/session").await.expect(200)["demo"], true);
    for _ in 0..3 {
        let written = client.ask("POST", "/inbox/demo", &[], "").await.expect(202);
        let from = written["from"].as_str().unwrap();
        eventually("the customer is in the inbox", async || {
            let inbox = client.get("/conversations").await.expect(200);
            let rows = inbox["data"].as_array().unwrap().iter();
            let mut of = rows.filter(|row| row["participantId"] == from);
            of.next()
                .map(|row| assert!(row["lastMessagePreview"] != "", "{row}"))
        })
        .await;
    }
}
