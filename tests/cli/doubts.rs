//! `gateway retry` on WhatsApp: what may arrive twice is named and left, unless that is asked for,
//! and a channel that is held is tried.

use mock_meta_provider::Fault;
use serde_json::json;

use crate::support::graph::{ACCOUNT, SILENT, connected};
use crate::support::{NO_RETRY, Run, System, id, run};

const ANN: &str = "491510000001";
const BOB: &str = "491510000002";

fn retry(system: &System, arguments: &[&str]) -> Run {
    let url = system.mock.url();
    run(&system.database, "retry", arguments)
        .envs(&ACCOUNT)
        .env("GRAPH_URL", &url)
        .env("PROVIDER_URL", &url)
}

/// One message that surely has not arrived, and one that may have: their ids.
async fn failed() -> (System, [String; 2]) {
    let environment = [NO_RETRY, ("AMBIGUOUS_POLICY", "hold")];
    let system = connected(SILENT, &environment).await;
    system.mock.script(ANN, [Fault::Reject]);
    system.mock.script(BOB, [Fault::LostAnswer]);
    let mut ids = Vec::new();
    for to in [ANN, BOB] {
        let message = system.send(to, "Merhaba").await;
        assert_eq!(message["status"], "FAILED", "{message}");
        ids.push(id(&message).to_owned());
    }
    (system, ids.try_into().unwrap())
}

#[tokio::test]
async fn the_list_shows_the_providers_own_code() {
    let (system, [sure, unsure]) = failed().await;
    let table = retry(&system, &["--list"]).finish().await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let row = |id: &str| table.stdout.lines().find(|row| row.contains(id)).unwrap();
    assert!(table.stdout.lines().next().unwrap().contains("CODE"));
    assert!(
        row(&sure).contains("rejected") && row(&sure).contains("131026"),
        "{table:?}"
    );
    assert!(row(&unsure).contains("yes"), "{table:?}");
    let listed = retry(&system, &["--list", "--json"]).finish().await.data();
    assert_eq!(listed[0]["code"], 131_026);
    assert_eq!(listed[1]["code"], json!(null));
}

#[tokio::test]
async fn what_may_have_arrived_is_named_and_left_and_the_exit_code_says_so() {
    let (system, [sure, unsure]) = failed().await;
    let ended = retry(&system, &["--all", "--dry-run", "--json"])
        .finish()
        .await;
    let due = ended.data();
    assert_eq!(due.as_array().unwrap().len(), 1, "{ended:?}");
    assert_eq!(due[0]["id"], *sure);
    let named = format!("{unsure} may have arrived already");
    assert!(ended.stderr.contains(&named), "{ended:?}");

    let ended = retry(&system, &["--all", "--json"]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&named), "{ended:?}");
    assert_eq!(system.message(&sure).await["status"], "SENT");
    assert_eq!(system.message(&unsure).await["status"], "FAILED");
    let ended = retry(&system, &[&unsure, "--requeue-only"]).finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&named), "{ended:?}");
    assert_eq!(system.mock.ledger().deliveries(), 2);

    let ended = retry(&system, &[&unsure, "--ambiguous", "--json"])
        .finish()
        .await;
    assert_eq!(ended.data()[0]["status"], "SENT");
    assert_eq!(system.mock.ledger().deliveries(), 3);
}

#[tokio::test]
async fn a_held_channel_is_tried_also_for_what_is_due_already() {
    let system = connected(SILENT, &[]).await;
    let refused = Some("another".to_owned().into());
    system.mock.set_access_token(refused);
    let message = system.send(ANN, "Merhaba").await;
    let other = system.send(BOB, "Merhaba").await;
    let path = format!("/messages/{}/retry", id(&message));
    system.client.post(&path, &json!({})).await.expect(202);
    // The other one has tried it.
    system.message_becomes(id(&other), "FAILED").await;
    system.mock.set_access_token(None);
    let ended = retry(&system, &[id(&message)]).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    system.message_becomes(id(&other), "SENT").await;
}
