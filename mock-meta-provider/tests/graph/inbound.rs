//! What customers do.

use serde_json::{Value, json};

use super::{Graph, PHONE};
use crate::support::until;

#[tokio::test]
async fn a_text_has_metas_envelope() {
    let graph = Graph::calm().await;
    let request = json!({
        "from": "16505551234", "userId": "US.1", "name": "Zoë", "text": "Hi 👋",
        "wamid": "wamid.A", "timestamp": "1700000000", "replyTo": "wamid.B",
    });
    let change = graph.arrives(request).await;
    let expected = json!({ "field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550783881", "phone_number_id": PHONE },
        "contacts": [{ "profile": { "name": "Zoë" }, "wa_id": "16505551234", "user_id": "US.1" }],
        "messages": [{
            "context": { "from": "15550783881", "id": "wamid.B" },
            "from": "16505551234", "from_user_id": "US.1", "id": "wamid.A", "timestamp": "1700000000",
            "type": "text", "text": { "body": "Hi 👋" },
        }],
    }});
    assert_eq!(change, expected);
    let posted = &graph.receiver.received()[0];
    assert!(posted.headers.contains_key("X-Hub-Signature-256"));
    let bytes = String::from_utf8(posted.body.to_vec()).unwrap();
    assert!(bytes.contains(r"Hi \ud83d\udc4b"), "{bytes}");
}

#[tokio::test]
async fn every_type_has_its_object() {
    let graph = Graph::calm().await;
    let cases = [
        ("image", "image", "/image/mime_type", json!("image/jpeg")),
        ("video", "video", "/video/mime_type", json!("video/mp4")),
        ("audio", "audio", "/audio/voice", json!(false)),
        ("voice", "audio", "/audio/voice", json!(true)),
        (
            "document",
            "document",
            "/document/filename",
            json!("invoice.pdf"),
        ),
        ("sticker", "sticker", "/sticker/animated", json!(false)),
        ("location", "location", "/location/latitude", json!(51.4816)),
        (
            "contacts",
            "contacts",
            "/contacts/0/name/formatted_name",
            json!("Barbara Johnson"),
        ),
        (
            "button_reply",
            "interactive",
            "/interactive/button_reply/title",
            json!("Yes"),
        ),
        (
            "list_reply",
            "interactive",
            "/interactive/list_reply/id",
            json!("express"),
        ),
        (
            "nfm_reply",
            "interactive",
            "/interactive/nfm_reply/name",
            json!("flow"),
        ),
        ("button", "button", "/button/payload", json!("yes-payload")),
        (
            "order",
            "order",
            "/order/product_items/0/quantity",
            json!(2),
        ),
        (
            "user_changed_number",
            "system",
            "/system/type",
            json!("user_changed_number"),
        ),
        (
            "user_changed_user_id",
            "system",
            "/system/type",
            json!("user_changed_user_id"),
        ),
        (
            "unsupported",
            "unsupported",
            "/errors/0/code",
            json!(131_051),
        ),
        (
            "request_welcome",
            "request_welcome",
            "/type",
            json!("request_welcome"),
        ),
        ("hologram", "hologram", "/type", json!("hologram")),
    ];
    for (asked, kind, pointer, expected) in cases {
        let change = graph.arrives(json!({ "type": asked })).await;
        let item = &change["value"]["messages"][0];
        assert_eq!(item["type"], kind);
        assert_eq!(item.pointer(pointer), Some(&expected), "{item}");
        let is_anonymous = kind == "system";
        assert_eq!(
            change["value"]["contacts"].is_null(),
            is_anonymous,
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_choice_is_an_answer_and_contacts_may_be_missing() {
    let graph = Graph::calm().await;
    let change = graph.arrives(json!({ "type": "button_reply" })).await;
    let context = &change["value"]["messages"][0]["context"];
    assert!(context["id"].as_str().unwrap().starts_with("wamid."));
    let bare = graph.arrives(json!({ "bare": true })).await;
    assert!(bare["value"]["contacts"].is_null());
}

#[tokio::test]
async fn reactions_edits_and_deletions_name_their_target() {
    let graph = Graph::calm().await;
    let ask = async |kind: &str, more: Value| {
        let mut request = more;
        request["type"] = json!(kind);
        request["target"] = json!("wamid.T");
        let change = graph.arrives(request).await;
        change["value"]["messages"][0].clone()
    };
    let reaction = ask("reaction", json!({ "emoji": "👍" })).await;
    assert_eq!(
        reaction["reaction"],
        json!({ "message_id": "wamid.T", "emoji": "👍" })
    );
    let removal = ask("reaction", json!({})).await;
    assert_eq!(removal["reaction"], json!({ "message_id": "wamid.T" }));
    let edit = ask("edit", json!({ "text": "Better" })).await;
    let message = json!({ "type": "text", "text": { "body": "Better" } });
    assert_eq!(
        edit["edit"],
        json!({ "original_message_id": "wamid.T", "message": message })
    );
    let revoke = ask("revoke", json!({})).await;
    assert_eq!(
        revoke["revoke"],
        json!({ "original_message_id": "wamid.T" })
    );
}

#[tokio::test]
async fn a_customer_may_be_told_by_either_id_only() {
    let graph = Graph::calm().await;
    let ids = async |request: Value| {
        let value = graph.arrives(request).await["value"].clone();
        let (item, contact) = (&value["messages"][0], &value["contacts"][0]);
        assert_eq!(
            (&item["from"], &item["from_user_id"]),
            (&contact["wa_id"], &contact["user_id"])
        );
        json!([item["from"], item["from_user_id"]])
    };
    assert_eq!(
        ids(json!({ "from": "1650", "userId": "US.7" })).await,
        json!(["1650", "US.7"])
    );
    assert_eq!(
        ids(json!({ "from": "1650", "userId": "" })).await,
        json!(["1650", null])
    );
    assert_eq!(
        ids(json!({ "from": "", "userId": "US.7" })).await,
        json!([null, "US.7"])
    );
    assert_eq!(ids(json!({ "from": "US.7" })).await, json!([null, "US.7"]));
    let made_up = ids(json!({ "from": "1650" })).await;
    assert_eq!(made_up, ids(json!({ "from": "1650" })).await);
}

#[tokio::test]
async fn echoes_standby_and_user_ids_come_in_fields_of_their_own() {
    let graph = Graph::calm().await;
    let echo = graph
        .arrives(json!({ "echo": true, "from": "1650", "text": "From the app" }))
        .await;
    assert_eq!(echo["field"], "smb_message_echoes");
    let item = &echo["value"]["message_echoes"][0];
    assert_eq!(
        (&item["to"], &item["text"]["body"]),
        (&json!("1650"), &json!("From the app"))
    );
    assert_eq!(item["from"], "15550783881");

    let standby = graph
        .arrives(json!({ "standby": true, "text": "To the agent" }))
        .await;
    assert_eq!(standby["field"], "standby");
    assert_eq!(
        standby["value"]["standby"]["messages"][0]["text"]["body"],
        "To the agent"
    );
    assert!(standby["value"]["standby"]["contacts"][0]["wa_id"].is_string());

    let agent = graph
        .arrives(json!({ "standby": true, "echo": true, "from": "1650", "text": "I am one" }))
        .await;
    let item = &agent["value"]["standby"]["message_echoes"][0];
    assert_eq!(
        (&item["message"]["to"], &item["message"]["text"]["body"]),
        (&json!("1650"), &json!("I am one"))
    );

    let update =
        json!({ "type": "user_id_update", "from": "1650", "userId": "US.1", "newUserId": "US.2" });
    let update = graph.arrives(update).await;
    assert_eq!(update["field"], "user_id_update");
    let item = &update["value"]["user_id_update"][0];
    assert_eq!(
        item["user_id"],
        json!({ "previous": "US.1", "current": "US.2" })
    );
}

#[tokio::test]
async fn many_items_keep_their_order_in_one_body() {
    let graph = Graph::calm().await;
    let items = json!([
        { "text": "1", "from": "1650" },
        { "text": "2", "from": "1651" },
        { "type": "image", "from": "1650" },
        { "text": "4", "phoneNumberId": "999" },
        { "raw": { "id": "wamid.R", "type": 7 } },
        { "field": "account_update", "raw": { "event": "X" } },
        { "text": "7", "fields": { "group_id": "G", "timestamp": null } },
    ]);
    let request = json!({ "items": items, "wait": true });
    let answer = graph
        .provider
        .post("/simulate/whatsapp", request)
        .await
        .body;
    assert_eq!(answer["wamids"].as_array().unwrap().len(), 7);
    assert_eq!(
        (graph.receiver.taken().len(), graph.changes().len()),
        (1, 5)
    );
    let places: Vec<Value> = graph
        .changes()
        .iter()
        .map(|change| {
            json!([
                change["field"],
                change["value"]["metadata"]["phone_number_id"],
                change["value"]["messages"].as_array().map(Vec::len),
            ])
        })
        .collect();
    let expected = [
        json!(["messages", PHONE, 3]),
        json!(["messages", "999", 1]),
        json!(["messages", PHONE, 1]),
        json!(["account_update", null, null]),
        json!(["messages", PHONE, 1]),
    ];
    assert_eq!(places, expected);
    let messages = graph.items("messages");
    assert_eq!(
        (&messages[5]["group_id"], &messages[5]["timestamp"]),
        (&json!("G"), &Value::Null)
    );
    assert_eq!(messages[4], json!({ "id": "wamid.R", "type": 7 }));
}

#[tokio::test]
async fn a_raw_body_goes_as_it_is_and_is_signed() {
    let graph = Graph::calm().await;
    let raw = json!({ "object": "whatsapp_business_account", "entry": [] });
    let answer = graph
        .provider
        .post("/simulate/whatsapp", json!({ "raw": raw, "wait": true }))
        .await;
    assert_eq!(answer.body["status"], 200);
    let text = r#"{"object":"\ud800"}"#;
    graph
        .provider
        .post("/simulate/whatsapp", json!({ "raw": text, "wait": true }))
        .await;
    let received = graph.receiver.received();
    assert_eq!(
        (received[0].event(), &received[1].body[..]),
        (raw, text.as_bytes())
    );
    assert!(received[1].headers.contains_key("X-Hub-Signature-256"));
}

#[tokio::test]
async fn an_event_can_come_twice_or_after_one_from_the_future() {
    let graph = Graph::calm().await;
    let request = json!({ "wamid": "wamid.A", "text": "Hi", "duplicate": true });
    let answer = graph
        .provider
        .post("/simulate/whatsapp", request)
        .await
        .body;
    assert_eq!(
        answer["simulation"],
        json!({ "duplicate": true, "outOfOrder": false })
    );
    until("the repeat", || graph.items("messages").len() >= 2).await;
    assert_eq!(graph.items("messages")[0], graph.items("messages")[1]);

    let graph = Graph::calm().await;
    let request = json!({ "text": "Hi", "outOfOrder": true, "wait": true });
    graph.provider.post("/simulate/whatsapp", request).await;
    let messages = graph.items("messages");
    assert_eq!(messages[0]["text"]["body"], "[Future Message] Hi");
    let stamp = |item: &Value| item["timestamp"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(stamp(&messages[0]), stamp(&messages[1]) + 60);
}

#[tokio::test]
async fn the_handshake_reports_what_came_back() {
    let graph = Graph::calm().await;
    let answer = graph
        .provider
        .post("/simulate/verify", json!({}))
        .await
        .body;
    // This webhook takes posts only.
    assert_eq!(
        (&answer["verified"], &answer["status"]),
        (&json!(false), &json!(405))
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let echo = async |query: axum::extract::RawQuery| {
        let query = query.0.unwrap();
        let right =
            query.contains("hub.mode=subscribe") && query.contains("hub.verify_token=verify-1");
        let challenge = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("hub.challenge="));
        if right {
            challenge.unwrap().to_owned()
        } else {
            "wrong".to_owned()
        }
    };
    let router = axum::Router::new().route("/", axum::routing::get(echo));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    for (request, verified) in [
        (json!({ "webhookUrl": url }), true),
        (
            json!({ "webhookUrl": url, "challenge": "1158201444" }),
            true,
        ),
        (json!({ "webhookUrl": url, "verifyToken": "other" }), false),
        (json!({ "webhookUrl": url, "mode": "unsubscribe" }), false),
    ] {
        let answer = graph
            .provider
            .post("/simulate/verify", request.clone())
            .await
            .body;
        assert_eq!(answer["verified"], verified, "{request}: {answer}");
    }
    server.abort();
}
