//! What goes wrong with a call.

use mock_meta_provider::{Behaviour, Fault, WhatsappBehaviour};
use serde_json::{Value, json};

use super::{Graph, MESSAGE_ID, TO, error, text};
use crate::support::Answer;

#[tokio::test]
async fn each_fault_has_graphs_body_and_code() {
    let graph = Graph::calm().await;
    let cases = [
        (Fault::rate_limit_after(7), (429, 130_429), 0),
        (Fault::server_error(500), (500, 131_000), 0),
        (Fault::server_error(503), (503, 2), 0),
        (Fault::Reject, (400, 131_026), 0),
        (Fault::status(401), (401, 190), 0),
        (Fault::code(131_056), (400, 131_056), 0),
        (Fault::code(190), (401, 190), 0),
        (Fault::code(131_047), (400, 131_047), 0),
        (Fault::code(999_999), (400, 999_999), 0),
        (
            Fault::Code {
                code: 131_056,
                http_status: Some(403),
                accepted: false,
            },
            (403, 131_056),
            0,
        ),
        (
            Fault::Code {
                code: 131_000,
                http_status: None,
                accepted: true,
            },
            (500, 131_000),
            1,
        ),
    ];
    for (fault, expected, accepted) in cases {
        graph.provider.mock.reset();
        graph.provider.mock.script(TO, [fault.clone()]);
        let answer = graph.send().await;
        assert_eq!(error(&answer), expected, "{fault:?}");
        let retry_after = (expected.0 == 429).then_some("7");
        assert_eq!(answer.header("retry-after"), retry_after);
        let deliveries = graph.provider.deliveries(MESSAGE_ID);
        assert_eq!(deliveries, accepted, "{fault:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_and_half_an_answer_are_accepted_and_a_reset_is_not() {
    let graph = Graph::calm().await;
    for (fault, accepted) in [
        (Fault::LostAnswer, 1),
        (Fault::Unreadable, 1),
        (Fault::Reset, 0),
        (Fault::delay(1), 1),
    ] {
        graph.provider.mock.reset();
        graph.provider.mock.script(TO, [fault.clone()]);
        let answer = graph.request(&text()).send().await;
        match fault {
            Fault::Unreadable => {
                let text = answer.unwrap().text().await.unwrap();
                assert!(serde_json::from_str::<Value>(&text).is_err());
            }
            Fault::Delay { .. } => assert_eq!(answer.unwrap().status(), 200),
            _ => assert!(answer.is_err()),
        }
        assert_eq!(graph.provider.deliveries(MESSAGE_ID), accepted, "{fault:?}");
    }
}

#[tokio::test]
async fn a_call_can_hang() {
    let graph = Graph::calm().await;
    let behaviour = Behaviour {
        hang_rate: 1.0,
        hang_ms: 1,
        ..Behaviour::CALM
    };
    graph.provider.mock.set_behaviour(behaviour).unwrap();
    assert!(graph.request(&text()).send().await.is_err());
    assert_eq!(graph.provider.deliveries(MESSAGE_ID), 0);
}

#[tokio::test]
async fn a_script_is_written_in_json_by_code() {
    let graph = Graph::calm().await;
    let answers = json!([
        { "fault": "code", "code": 131_056, "httpStatus": 403 },
        { "fault": "code", "code": 131_000, "accepted": true },
        "ok",
    ]);
    let set = graph
        .provider
        .post("/script", json!({ "to": TO, "answers": answers }))
        .await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(error(&graph.send().await), (403, 131_056));
    assert_eq!(error(&graph.send().await), (500, 131_000));
    assert_eq!(graph.send().await.status, 200);
    assert_eq!(graph.provider.deliveries(MESSAGE_ID), 2);
    assert_eq!(graph.provider.get("/stats").await.body["faults"]["code"], 2);
    for wrong in [
        json!({ "fault": "code" }),
        json!({ "fault": "code", "code": 1, "httpStatus": 99 }),
    ] {
        let set = graph
            .provider
            .post("/script", json!({ "answers": [wrong] }))
            .await;
        assert_eq!(set.status, 400);
    }
}

#[tokio::test]
async fn random_failures_have_the_configured_codes_and_the_seed_repeats_them() {
    let run = async || {
        let graph = Graph::calm().await;
        let behaviour = Behaviour {
            failure_rate: 0.5,
            ..Behaviour::CALM
        };
        graph.provider.mock.set_behaviour(behaviour).unwrap();
        let codes = json!({ "codes": { "131056": 1, "2": 1 } });
        let set = graph.provider.post("/config/whatsapp", codes).await;
        assert_eq!(set.status, 200, "{}", set.body);
        let mut codes = Vec::new();
        for _ in 0..40 {
            let answer = graph.send().await;
            codes.push((
                answer.status,
                answer.body["error"]["code"].as_u64().unwrap_or(0),
            ));
        }
        codes
    };
    let (codes, again) = (run().await, run().await);
    assert_eq!(codes, again);
    for expected in [(200, 0), (400, 131_056), (403, 131_056), (503, 2)] {
        assert!(codes.contains(&expected), "{codes:?}");
    }
    assert!(
        codes.iter().all(|(_, code)| [0, 131_056, 2].contains(code)),
        "{codes:?}"
    );
}

#[tokio::test]
async fn the_limit_for_one_recipient_is_off_until_it_is_switched_on() {
    let graph = Graph::calm().await;
    let flood = async |to: &str| {
        let mut body = text();
        body["to"] = json!(to);
        let mut refused = Vec::new();
        for _ in 0..47 {
            let answer = graph.call(body.clone()).await;
            if answer.status != 200 {
                refused.push(error(&answer));
            }
        }
        refused
    };
    assert_eq!(flood(TO).await, []);
    let behaviour = WhatsappBehaviour {
        pair_limit: true,
        ..WhatsappBehaviour::CALM
    };
    graph
        .provider
        .mock
        .set_whatsapp_behaviour(behaviour)
        .unwrap();
    assert_eq!(flood(TO).await, [(400, 131_056), (403, 131_056)]);
    assert_eq!(
        graph
            .call({
                let mut other = text();
                other["to"] = json!("15550000000");
                other
            })
            .await
            .status,
        200
    );
    assert_eq!(graph.provider.mock.stats().whatsapp.pair_limited, 2);
}

#[tokio::test]
async fn the_configuration_is_shown_and_changed_field_by_field() {
    let graph = Graph::calm().await;
    let shown = graph.provider.get("/config/whatsapp").await.body;
    assert_eq!(shown["config"]["statusReadRate"], 1.0);
    assert_eq!(
        (&shown["hasAccessToken"], &shown["signs"]),
        (&json!(true), &json!(true))
    );
    assert!(!shown.to_string().contains("secret") && !shown.to_string().contains("token-1"));
    let same = graph
        .provider
        .post("/config/whatsapp", shown["config"].clone())
        .await
        .body;
    assert_eq!(same["config"], shown["config"]);
    for (field, value) in [
        ("statusLateRate", json!(2)),
        ("statusLateMs", json!(-1)),
        ("codes", json!({ "x": 1 })),
        ("webhookUrl", json!("http://example.com/")),
        ("webhookUrl", json!(7)),
        ("accessToken", json!(7)),
    ] {
        let change = json!({ "pairLimit": true, field: value });
        let answer: Answer = graph.provider.post("/config/whatsapp", change).await;
        assert!(
            answer.failure().1.starts_with(field),
            "{field}: {}",
            answer.body
        );
        assert_eq!(
            graph.provider.mock.whatsapp_behaviour(),
            WhatsappBehaviour::CALM
        );
    }
}
