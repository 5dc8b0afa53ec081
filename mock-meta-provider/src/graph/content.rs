//! The object of each type, as Meta has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::asked::{ItemRequest, insert};
use super::names;
use super::store::Media;

/// The type on the wire, and its object; a media object that it names is told apart.
pub(crate) fn of(
    request: &ItemRequest,
    media: &mut Option<(String, String)>,
) -> (String, Option<Value>) {
    let kind = request.kind();
    let text = request.text.as_deref();
    let target = || json!(request.target.clone().unwrap_or_else(names::wamid));
    let (wire_type, content) = match kind {
        "text" => ("text", json!({ "body": text.unwrap_or("Hello") })),
        "image" | "video" | "audio" | "voice" | "document" | "sticker" => {
            let (id, content) = object(request);
            *media = Some(id);
            let wire_type = if kind == "voice" { "audio" } else { kind };
            return (wire_type.to_owned(), Some(content));
        }
        "location" => ("location", location(request)),
        "contacts" => ("contacts", contacts(request)),
        "button_reply" | "list_reply" | "nfm_reply" => ("interactive", interactive(request)),
        "button" => {
            let text = text.unwrap_or("Yes");
            let payload = request.payload.as_deref().unwrap_or("yes-payload");
            ("button", json!({ "payload": payload, "text": text }))
        }
        "reaction" => {
            let mut reaction = Map::new();
            reaction.insert("message_id".into(), target());
            insert(&mut reaction, "emoji", request.emoji.as_deref());
            ("reaction", reaction.into())
        }
        "order" => ("order", order(text)),
        "user_changed_number" | "user_changed_user_id" => ("system", system(request)),
        "edit" => {
            let text = json!({ "body": text.unwrap_or("Hello again") });
            let message = json!({ "type": "text", "text": text });
            (
                "edit",
                json!({ "original_message_id": target(), "message": message }),
            )
        }
        "revoke" => ("revoke", json!({ "original_message_id": target() })),
        "unsupported" => (
            "unsupported",
            json!({ "type": text.unwrap_or("poll_creation") }),
        ),
        "request_welcome" => return (kind.to_owned(), None),
        _ => return (kind.to_owned(), text.map(|text| json!({ "body": text }))),
    };
    (wire_type.to_owned(), Some(content))
}

fn object(request: &ItemRequest) -> ((String, String), Value) {
    let kind = request.kind();
    let usual = match kind {
        "image" => "image/jpeg",
        "video" => "video/mp4",
        "audio" | "voice" => "audio/ogg; codecs=opus",
        "sticker" => "image/webp",
        _ => "application/pdf",
    };
    let mime_type = request.mime_type.as_deref().unwrap_or(usual);
    let id = request.media_id.clone().unwrap_or_else(names::media);
    let example = Media::example(mime_type, &id);
    let mut object = Map::new();
    match kind {
        "document" => {
            let name = request.file_name.as_deref().unwrap_or("invoice.pdf");
            object.insert("filename".into(), json!(name));
            insert(&mut object, "caption", request.text.as_deref());
        }
        "image" | "video" => insert(&mut object, "caption", request.text.as_deref()),
        _ => {}
    }
    object.insert("mime_type".into(), json!(mime_type));
    object.insert(
        "sha256".into(),
        json!(STANDARD.encode(Sha256::digest(&example.bytes))),
    );
    object.insert("id".into(), json!(id));
    match kind {
        "audio" | "voice" => {
            object.insert("voice".into(), json!(kind == "voice"));
        }
        "sticker" => {
            object.insert("animated".into(), json!(false));
        }
        _ => {}
    }
    ((id, mime_type.to_owned()), object.into())
}

fn location(request: &ItemRequest) -> Value {
    let mut location = Map::new();
    let at = |given: &Option<Value>, usual: f64| given.clone().unwrap_or_else(|| json!(usual));
    location.insert("latitude".into(), at(&request.latitude, 51.4816));
    location.insert("longitude".into(), at(&request.longitude, -3.1791));
    insert(&mut location, "name", request.text.as_deref());
    insert(&mut location, "address", request.address.as_deref());
    location.into()
}

fn contacts(request: &ItemRequest) -> Value {
    let name = request.text.as_deref().unwrap_or("Barbara Johnson");
    let first = name.split(' ').next().unwrap_or(name);
    json!([{
        "name": { "first_name": first, "formatted_name": name },
        "phones": [{ "phone": "+1 650 555 9999", "wa_id": "16505559999", "type": "CELL" }],
    }])
}

fn interactive(request: &ItemRequest) -> Value {
    let kind = request.kind();
    let id = request.payload.as_deref();
    let text = request.text.as_deref();
    let reply = match kind {
        "button_reply" => json!({ "id": id.unwrap_or("yes"), "title": text.unwrap_or("Yes") }),
        "list_reply" => json!({
            "id": id.unwrap_or("express"),
            "title": text.unwrap_or("Express"),
            "description": "Next day to 2 days",
        }),
        _ => json!({
            "name": "flow",
            "body": text.unwrap_or("Sent"),
            "response_json": id.unwrap_or(r#"{"flow_token":"token-1","rating":5}"#),
        }),
    };
    json!({ "type": kind, kind: reply })
}

fn order(text: Option<&str>) -> Value {
    let mut order = Map::new();
    order.insert("catalog_id".into(), json!("194836987003835"));
    insert(&mut order, "text", text);
    order.insert(
        "product_items".into(),
        json!([
            { "product_retailer_id": "di9ozbzfi4", "quantity": 2, "item_price": 30, "currency": "USD" },
            { "product_retailer_id": "nqryix03ez", "quantity": 1, "item_price": 25, "currency": "USD" },
        ]),
    );
    order.into()
}

fn system(request: &ItemRequest) -> Value {
    let from = request.from.as_deref().unwrap_or_default();
    if request.kind() == "user_changed_number" {
        let number = request.new_number.as_deref().unwrap_or("16505554321");
        let mut system = Map::new();
        system.insert(
            "body".into(),
            json!(format!("User A changed from {from} to {number}")),
        );
        system.insert("wa_id".into(), json!(number));
        insert(&mut system, "user_id", request.new_user_id.as_deref());
        system.insert("type".into(), json!("user_changed_number"));
        return system.into();
    }
    let user_id = request
        .new_user_id
        .as_deref()
        .unwrap_or("US.9000000000000001");
    json!({ "body": "User A changed their user id", "user_id": user_id, "type": "user_changed_user_id" })
}
