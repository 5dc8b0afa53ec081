//! A synchronous standby: what is acknowledged is there, also where it was only found.

use std::time::Duration;

use futures_util::future;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Answer, Client, Cluster, Held, Program, Run, event, eventually};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// A gateway on the primary of a cluster, with a provider whose answers are given by hand.
struct Stage {
    cluster: Cluster,
    provider: Held,
    gateway: Program,
    client: Client,
}

impl Stage {
    async fn set() -> Self {
        let (cluster, provider) = tokio::join!(Cluster::start(), Held::start());
        let primary = &cluster.primary;
        cluster.migrate().await;
        // All that the gateway needs.
        let role = "create role clerk login; grant select, insert, update, delete on all tables in schema public to clerk";
        primary.run(role).await;
        let gateway = serve(&cluster, &provider).await;
        let client = Client::new(gateway.url());
        Self {
            cluster,
            provider,
            gateway,
            client,
        }
    }

    fn post(&self, path: &str, body: &Value) -> JoinHandle<Answer> {
        let client = self.client.clone();
        let request = client.http.post(client.url(path)).timeout(PATIENCE);
        let request = request.json(body);
        tokio::spawn(async move { client.call(request).await.unwrap() })
    }

    fn webhook(&self, event_id: &str) -> JoinHandle<Answer> {
        // Of its own: no lock is in the way of another one.
        let from = format!("from-{event_id}");
        let body = event(event_id, &from, event_id, "2025-01-01T10:00:00Z");
        self.post("/webhooks/mock-meta", &body)
    }

    fn send(&self, key: &str) -> JoinHandle<Answer> {
        let body =
            json!({ "channel": "whatsapp", "to": "user-1", "text": key, "clientMessageId": key });
        self.post("/messages/send", &body)
    }

    /// Waits until this statement waits for the standby; an answer before that is one too early.
    async fn waits<T>(&self, statement: &str, asked: &JoinHandle<T>) {
        eventually(&format!("{statement} waits"), async || {
            assert!(!asked.is_finished(), "answered before {statement} waited");
            (self.cluster.primary.waiting(statement).await > 0).then_some(())
        })
        .await;
    }

    /// Ends this statement's wait, so that what it wrote is there to be seen, and on no standby.
    async fn show<T>(&self, statement: &str, asked: &JoinHandle<T>) {
        self.waits(statement, asked).await;
        assert!(self.cluster.primary.terminate_waiting(statement).await > 0);
    }
}

fn program(cluster: &Cluster, arguments: &[&str]) -> Run {
    let url = cluster.primary.url().replace("//gateway@", "//clerk@");
    Program::on(&url, arguments)
}

async fn serve(cluster: &Cluster, provider: &Held) -> Program {
    let run = program(cluster, &["serve", "--no-worker"])
        .env("PROVIDER_URL", provider.url())
        .env("SEND_WAIT_MS", "60000");
    let program = run.start();
    program.logged("ready").await;
    program
}

#[tokio::test]
async fn a_repetition_is_acknowledged_when_the_first_could_have_been() {
    let mut stage = Stage::set().await;
    let first = stage.webhook("before").await.unwrap().expect(200);
    assert_eq!(first["duplicate"], false);
    stage.cluster.standby.sleep();
    let (event, send) = (stage.webhook("crash"), stage.send("crash"));
    stage.waits("webhook::ingest", &event).await;
    stage.waits("message::enqueue", &send).await;
    // A crash in the middle: when the primary is back, it shows what it never acknowledged.
    stage.cluster.primary.kill().await;
    stage.cluster.restart_primary().await;
    let shown = "select count(*) from messages where text = 'crash'";
    assert_eq!(stage.cluster.primary.count(shown).await, 2);
    // The gateway asks again by itself, and finds its own.
    event
        .await
        .unwrap()
        .expect_problem(503, "database_unavailable");
    send.await
        .unwrap()
        .expect_problem(503, "database_unavailable");
    // Whoever asks again finds what another request has left; and what was safe all the time, comes
    // with it.
    let known = [stage.webhook("crash"), stage.webhook("before")];
    let replay = stage.send("crash");
    stage.waits("webhook::find_known", &known[0]).await;
    stage.waits("webhook::find_known", &known[1]).await;
    stage.waits("message::find_replayed", &replay).await;
    stage.cluster.standby.wake();
    let [known, before] = future::join_all(known).await.try_into().unwrap();
    let known = known.unwrap().expect(200);
    assert_eq!(known["duplicate"], true);
    assert_eq!(before.unwrap().expect(200)["messageId"], first["messageId"]);
    let replay = replay.await.unwrap().expect(200);

    stage.cluster.primary.kill().await;
    stage.cluster.promote().await;
    drop(stage.gateway);
    let gateway = serve(&stage.cluster, &stage.provider).await;
    let client = Client::new(gateway.url());
    for id in [&first["messageId"], &known["messageId"], &replay["id"]] {
        let path = format!("/messages/{}", id.as_str().unwrap());
        client.get(&path).await.expect(200);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_only_when_it_is_safe() {
    let mut stage = Stage::set().await;
    stage.cluster.standby.sleep();
    let (event, send) = (stage.webhook("lost"), stage.send("lost"));
    stage.show("webhook::ingest", &event).await;
    stage.waits("webhook::find_known", &event).await;
    stage.show("message::enqueue", &send).await;
    stage.waits("message::find_replayed", &send).await;
    stage.cluster.standby.wake();
    stage.provider.call().await.accept("provider-1").await;
    assert_eq!(event.await.unwrap().expect(200)["duplicate"], false);
    send.await.unwrap().expect(201);
}

#[tokio::test]
async fn an_outcome_that_was_settled_before_is_forgotten_only_when_it_is_safe() {
    let mut stage = Stage::set().await;
    for (key, status) in [("sent", 200), ("failed", 400)] {
        let body = json!({ "channel": "whatsapp", "to": "user-1", "text": key });
        let send = stage.post("/messages/send", &body);
        let call = stage.provider.call().await;
        stage.cluster.standby.sleep();
        let statement = if status == 200 {
            call.accept("provider-1").await;
            "delivery::mark_sent"
        } else {
            let body = json!({ "success": false, "error": "no", "retryable": false });
            call.answer(status, &body).await;
            "delivery::mark_failed"
        };
        stage.show(statement, &send).await;
        stage.waits("database::confirm", &send).await;
        stage.cluster.standby.wake();
        let message = send.await.unwrap().expect(201);
        assert_eq!(message["status"], key.to_uppercase());
    }
}

#[tokio::test]
async fn an_operators_repetition_is_acknowledged_only_when_it_is_safe() {
    let mut stage = Stage::set().await;
    let body = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hello" });
    let send = stage.post("/messages/send", &body);
    let call = stage.provider.call().await;
    let unavailable = json!({ "success": false, "error": "busy", "retryable": true });
    call.answer(503, &unavailable).await;
    let message = send.await.unwrap().expect(201);
    let path = |verb: &str| format!("/messages/{}/{verb}", message["id"].as_str().unwrap());
    // Far from due.
    let later = "update deliveries set due_at = now() + interval '1 hour'";
    stage.cluster.primary.run(later).await;

    stage.cluster.standby.sleep();
    let cancel = stage.post(&path("cancel"), &json!({}));
    stage.show("delivery::cancel", &cancel).await;
    cancel
        .await
        .unwrap()
        .expect_problem(503, "database_unavailable");
    let again = stage.post(&path("cancel"), &json!({}));
    stage.waits("database::confirm", &again).await;
    stage.cluster.standby.wake();
    assert_eq!(
        again.await.unwrap().expect(200)["lastError"]["kind"],
        "canceled"
    );

    stage.cluster.standby.sleep();
    let retry = stage.post(&path("retry"), &json!({}));
    stage.show("delivery::requeue", &retry).await;
    retry
        .await
        .unwrap()
        .expect_problem(503, "database_unavailable");
    let again = stage.post(&path("retry"), &json!({}));
    stage.waits("database::confirm", &again).await;
    stage.cluster.standby.wake();
    again.await.unwrap().expect(202);
}

#[tokio::test]
async fn who_was_forgotten_is_said_to_be_only_when_it_is_safe() {
    let mut stage = Stage::set().await;
    stage.webhook("secret").await.unwrap().expect(200);
    stage.cluster.standby.sleep();
    let forget = || {
        let run = program(
            &stage.cluster,
            &["forget", "whatsapp", "from-secret", "--json"],
        );
        tokio::spawn(run.finish())
    };
    let interrupted = forget();
    stage.show("forget::empty", &interrupted).await;
    assert_eq!(interrupted.await.unwrap().code, Some(1));
    // What it has emptied is empty, here; the preview is still to be.
    let again = forget();
    stage.show("forget::empty_preview", &again).await;
    assert_eq!(again.await.unwrap().code, Some(1));
    let last = forget();
    stage.waits("database::confirm", &last).await;
    stage.cluster.standby.wake();
    assert_eq!(last.await.unwrap().data()["messages"], 0);
}
