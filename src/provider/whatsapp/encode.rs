//! The call that sends a message.

use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Account, opaque};
use crate::json;
use crate::provider::call::Call;
use crate::provider::fields::{Object, string};
use crate::provider::{Outbound, Outgoing};

/// The kind of a message that is its text.
const TEXT: &str = "text";
const TEMPLATE: &str = "template";
/// What is passed on of a medium.
const OF_MEDIUM: [&str; 4] = ["id", "link", "caption", "filename"];
const OF_TEMPLATE: [&str; 3] = ["name", "language", "components"];

/// An object whose fields stay in their order.
#[derive(Default)]
struct Json(Vec<u8>);

impl Json {
    fn with(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Self {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.append(name);
        self.0.push(b':');
        self.append(value);
        self
    }

    fn append(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.0, value).expect("texts, and JSON as it came, are JSON");
    }

    fn end(mut self) -> Vec<u8> {
        if self.0.is_empty() {
            self.0.push(b'{');
        }
        self.0.push(b'}');
        self.0
    }

    fn raw(self) -> Box<RawValue> {
        let text = String::from_utf8(self.end()).expect("texts are UTF-8");
        RawValue::from_string(text).expect("it was written as JSON")
    }
}

/// The call of the `attempt`th attempt at this message.
pub(in crate::provider) fn send(account: &Account, outgoing: &Outgoing, attempt: i32) -> Call {
    let outbound = &outgoing.outbound;
    let address = outbound.address.as_deref();
    let address = address.unwrap_or(&outbound.participant_id);
    let mut body = Json::default()
        .with("messaging_product", "whatsapp")
        .with("recipient_type", "individual");
    // One that was stored before the channel was this number still has its plus.
    let number = address.strip_prefix('+').unwrap_or(address);
    body = if is_digits(number) {
        // Without the plus it could be taken for a number of the sender's own country.
        body.with("to", &format!("+{number}"))
    } else {
        body.with("recipient", address)
    };
    if let Some(reply_to) = &outbound.reply_to {
        body = body.with(
            "context",
            &Json::default().with("message_id", reply_to).raw(),
        );
    }
    body = body
        .with("type", &outbound.kind)
        .with(&outbound.kind, &content(outbound));
    if let Some(secret) = account.app_secrets.first() {
        let opaque = opaque::make(secret, outgoing.message_id, attempt);
        body = body.with("biz_opaque_callback_data", &opaque);
    }
    let bearer = format!("Bearer {}", account.access_token.expose_secret());
    Call::post(account.url("messages"), body.end()).with("authorization", &bearer)
}

/// However many: one that was stored before the channel was this number may have more.
fn is_digits(address: &str) -> bool {
    !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit())
}

/// The object of the message's kind.
fn content(outbound: &Outbound) -> Box<RawValue> {
    if outbound.kind == TEXT {
        return Json::default().with("body", &outbound.text).raw();
    }
    let given = outbound.content.as_deref().unwrap_or("{}");
    let given = json::text(given.as_bytes());
    // It was checked before it was stored: of anything else Meta says what is wrong.
    let given = Object::first(&given).unwrap_or_default();
    let is_template = outbound.kind == TEMPLATE;
    let names = if is_template {
        &OF_TEMPLATE[..]
    } else {
        &OF_MEDIUM[..]
    };
    let fields = names
        .iter()
        .filter_map(|&name| Some((name, given.get(name)?)));
    fields
        .fold(Json::default(), |content, (name, value)| {
            match string(value) {
                Some(code) if is_template && name == "language" => {
                    content.with(name, &Json::default().with("code", &code).raw())
                }
                _ => content.with(name, value),
            }
        })
        .raw()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::tests::account;
    use super::*;
    use crate::channel::Channel;
    use crate::id::MessageId;

    fn call(outbound: Outbound) -> (Call, Value, MessageId) {
        let outgoing = Outgoing {
            message_id: MessageId::new(),
            outbound: Arc::new(outbound),
        };
        let call = send(&account(), &outgoing, 2);
        let body = serde_json::from_slice(&call.body).unwrap();
        (call, body, outgoing.message_id)
    }

    fn outbound(kind: &str, content: Option<&Value>) -> Outbound {
        Outbound {
            channel: Channel::Whatsapp,
            participant_id: "16505551234".into(),
            address: None,
            kind: kind.into(),
            text: "Merhaba \"you\" 👋".into(),
            content: content.map(Value::to_string),
            reply_to: None,
            reply_to_id: None,
            client_message_id: None,
        }
    }

    #[test]
    fn a_text_is_a_call_of_the_number_with_the_token_and_the_proof() {
        let (call, body, id) = call(outbound("text", None));
        // echo -n token-1234567890 | openssl dgst -sha256 -hmac secret-one
        let proof = crate::edge::signature::tag("secret-one", b"token-1234567890");
        assert_eq!(
            call.url.as_str(),
            format!(
                "https://graph.example/base/v26.0/106540352242922/messages?appsecret_proof={proof}"
            )
        );
        let header = |name: &str| call.headers[name].to_str().unwrap();
        assert_eq!(header("authorization"), "Bearer token-1234567890");
        assert_eq!(header("content-type"), "application/json");
        assert!(!format!("{call:?}").contains("token-1234567890"));
        let opaque = body["biz_opaque_callback_data"].as_str().unwrap();
        assert_eq!(opaque::read(opaque, &account().app_secrets), Some(id));
        assert!(opaque.contains(".2."), "{opaque}");
        assert_eq!(
            body,
            json!({
                "messaging_product": "whatsapp", "recipient_type": "individual", "to": "+16505551234",
                "type": "text", "text": { "body": "Merhaba \"you\" 👋" }, "biz_opaque_callback_data": opaque
            })
        );
    }

    #[test]
    fn a_number_is_written_to_and_a_user_id_is_the_recipient() {
        for (participant, address, field, expected) in [
            ("16505551234", None, "to", "+16505551234"),
            ("16505551234", Some("525512345678"), "to", "+525512345678"),
            ("+16505551234", None, "to", "+16505551234"),
            ("US.13491208655302741918", Some("4915"), "to", "+4915"),
            ("US.1349", None, "recipient", "US.1349"),
            ("16505551234", Some("DE.ab1"), "recipient", "DE.ab1"),
        ] {
            let (_, body, _) = call(Outbound {
                participant_id: participant.into(),
                address: address.map(str::to_owned),
                ..outbound("text", None)
            });
            assert_eq!(body[field], expected, "{body}");
            let other = if field == "to" { "recipient" } else { "to" };
            assert!(body.get(other).is_none(), "{body}");
        }
    }

    #[test]
    fn each_kind_has_its_object() {
        let components =
            json!([{ "type": "body", "parameters": [{ "type": "text", "text": "7" }] }]);
        for (kind, given, sent) in [
            (
                "template",
                json!({ "name": "hello", "language": "en_US", "components": components, "text": "x" }),
                json!({ "name": "hello", "language": { "code": "en_US" }, "components": components }),
            ),
            (
                "template",
                json!({ "name": "hello", "language": { "code": "tr", "policy": "deterministic" } }),
                json!({ "name": "hello", "language": { "code": "tr", "policy": "deterministic" } }),
            ),
            (
                "image",
                json!({ "link": "https://a.example/b.png", "caption": "c", "other": 1 }),
                json!({ "link": "https://a.example/b.png", "caption": "c" }),
            ),
            ("video", json!({ "id": "12" }), json!({ "id": "12" })),
            ("audio", json!({ "id": "12" }), json!({ "id": "12" })),
            (
                "sticker",
                json!({ "id": "12", "caption": null }),
                json!({ "id": "12" }),
            ),
            (
                "document",
                json!({ "id": "12", "filename": "a.pdf" }),
                json!({ "id": "12", "filename": "a.pdf" }),
            ),
        ] {
            let (_, body, _) = call(outbound(kind, Some(&given)));
            assert_eq!(
                (&body["type"], &body[kind]),
                (&json!(kind), &sent),
                "{body}"
            );
            assert!(body.get("text").is_none(), "{body}");
        }
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        let (_, body, _) = call(Outbound {
            reply_to: Some("wamid.A==".into()),
            ..outbound("text", None)
        });
        assert_eq!(body["context"], json!({ "message_id": "wamid.A==" }));
    }
}
