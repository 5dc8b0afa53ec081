//! Faults in the order in which they were scripted.

use mock_meta_provider::{Behaviour, Config, Fault, Script};
use serde_json::json;

use crate::support::{Provider, message};

#[tokio::test]
async fn a_script_is_played_in_order_and_then_chance_resumes() {
    let behaviour = Behaviour {
        reject_rate: 1.0,
        ..Behaviour::CALM
    };
    let provider = Provider::start(Config {
        behaviour,
        ..Config::calm()
    })
    .await;
    let answers =
        json!(["rateLimit", "ok", "serverError", { "fault": "serverError", "httpStatus": 500 }]);
    assert_eq!(
        provider
            .post("/script", json!({ "to": "user-1", "answers": answers }))
            .await
            .status,
        200
    );
    for status in [429, 200, 503, 500, 422, 422] {
        assert_eq!(provider.send("key-1").await.status, status);
    }
}

#[tokio::test]
async fn a_script_answers_its_participant_only_and_before_the_one_for_everyone() {
    let provider = Provider::calm().await;
    provider.mock.script("user-1", [Fault::server_error(500)]);
    provider
        .mock
        .script(None, [Fault::rate_limit(), Fault::Reject]);
    assert_eq!(
        provider
            .post("/messages", message("user-2", "text"))
            .await
            .status,
        429
    );
    assert_eq!(provider.send("key-1").await.status, 500);
    assert_eq!(provider.send("key-1").await.status, 422);
    assert_eq!(provider.send("key-1").await.status, 200);
}

#[tokio::test]
async fn a_scripted_answer_is_delayed_by_its_script_alone() {
    let behaviour = Behaviour {
        delay_max_ms: 600_000,
        ..Behaviour::CALM
    };
    let provider = Provider::start(Config {
        behaviour,
        ..Config::calm()
    })
    .await;
    provider
        .mock
        .script("user-1", [Fault::Ok, Fault::delay(1), Fault::Reject]);
    let calls = async {
        for status in [200, 200, 422] {
            assert_eq!(provider.send("key-1").await.status, status);
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), calls).await;
    assert!(ended.is_ok(), "a scripted call was delayed at random");
}

#[tokio::test]
async fn a_repeating_script_keeps_its_last_answer_until_it_is_replaced() {
    let provider = Provider::calm().await;
    let script = json!({ "answers": ["ok", "rateLimit"], "repeat": true });
    assert_eq!(provider.post("/script", script).await.status, 200);
    for status in [200, 429, 429, 429] {
        assert_eq!(provider.send("key-1").await.status, status);
    }
    provider.mock.play(Script {
        to: None,
        answers: [].into(),
        repeat: false,
    });
    assert_eq!(provider.send("key-1").await.status, 200);
}

#[tokio::test]
async fn a_wrong_script_is_400_and_not_played() {
    let provider = Provider::calm().await;
    let cases = [
        ("answers[1]", json!({ "answers": ["ok", "explode"] })),
        ("answers[0]", json!({ "answers": [5] })),
        ("httpStatus", json!({ "answers": [{ "fault": "status" }] })),
        (
            "httpStatus",
            json!({ "answers": [{ "fault": "status", "httpStatus": 101 }] }),
        ),
        (
            "httpStatus",
            json!({ "answers": [{ "fault": "serverError", "httpStatus": 404 }] }),
        ),
        ("delayMs", json!({ "answers": ["delay"] })),
        (
            "delayMs",
            json!({ "answers": [{ "fault": "delay", "delayMs": 600_001 }] }),
        ),
        (
            "retryAfter",
            json!({ "answers": [{ "fault": "rateLimit", "retryAfter": "a\r\nb" }] }),
        ),
        (
            "retryAfter",
            json!({ "answers": [{ "fault": "rateLimit", "retryAfter": "1", "retryAfterSeconds": 1 }] }),
        ),
        ("to", json!({ "to": "", "answers": ["reject"] })),
        ("answers", json!({ "to": "user-1" })),
    ];
    for (field, script) in cases {
        let answer = provider.post("/script", script).await;
        let (status, error) = answer.failure();
        assert!(
            status == 400 && error.contains(field),
            "{field}: {status} {error}"
        );
    }
    assert_eq!(provider.send("key-1").await.status, 200);
}

#[test]
fn a_fault_reads_back_as_it_was_written() {
    let faults = [
        Fault::Ok,
        Fault::rate_limit_after(2),
        Fault::server_error(500),
        Fault::Reject,
        Fault::LostAnswer,
        Fault::Reset,
        Fault::Hang,
        Fault::Unreadable,
        Fault::status(302),
        Fault::answer(200, json!({ "success": false })),
        Fault::delay(5),
    ];
    let script = Script {
        to: Some("user-1".to_owned()),
        answers: faults.into(),
        repeat: true,
    };
    let written = serde_json::to_value(&script).unwrap();
    assert_eq!(serde_json::from_value::<Script>(written).unwrap(), script);
}

#[tokio::test]
async fn all_scripts_together_hold_so_much_and_no_more() {
    let provider = Provider::calm().await;
    // Much in little: each number is a value of its own. How large one is depends on features of
    // serde_json, which the other tests of the workspace choose, too.
    let body = vec![0; 50_000];
    let answer = json!({ "fault": "status", "httpStatus": 500, "body": body });
    let script = |to: String| json!({ "to": to, "answers": [answer] });
    let mut taken = 0;
    let refused = loop {
        let answer = provider
            .post("/script", script(format!("user-{taken}")))
            .await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 1000, "there is no end");
    };
    assert_eq!(refused.failure().0, 400);
    assert!(taken >= 5, "{taken}");
    // What is played, replaced or ended makes room.
    let again = provider.post("/script", script("user-0".to_owned())).await;
    assert_eq!(again.status, 200);
    let end = json!({ "to": "user-1", "answers": [] });
    assert_eq!(provider.post("/script", end).await.status, 200);
    let further = provider
        .post("/script", script("user-new".to_owned()))
        .await;
    assert_eq!(further.status, 200);
}
