//! Bodies as Meta posts them, signed.

use serde_json::{Value, json};

use super::{Answer, Client, NOWHERE, System, signature};

/// Where they are posted to.
pub const WEBHOOK: &str = "/webhooks/whatsapp";
/// Our number, by Meta's id.
pub const NUMBER_ID: &str = "106540352242922";
pub const APP_SECRET: &str = "an-app-secret-of-32-hex-digits-0";
pub const VERIFY_TOKEN: &str = "a-verify-token-of-20";
/// What connects the channel.
pub const CONNECTED: [(&str, &str); 5] = [
    ("WHATSAPP_PHONE_NUMBER_ID", NUMBER_ID),
    ("WHATSAPP_ACCESS_TOKEN", "an-access-token-of-20"),
    ("META_APP_SECRET", APP_SECRET),
    ("META_VERIFY_TOKEN", VERIFY_TOKEN),
    ("GRAPH_URL", NOWHERE),
];
/// A customer, by number and by user id.
pub const ANN: &str = "491510000001";
pub const ANN_ID: &str = "DE.1001";
pub const BOB: &str = "491510000002";
pub const BOB_ID: &str = "DE.1002";
/// A moment, in seconds.
pub const NOON: i64 = 1_735_732_800;

/// The item's common part: `from` is a number or a user id.
pub fn item(id: &str, from: &str, seconds: i64, kind: &str, content: Value) -> Value {
    let mut item = json!({ "id": id, "timestamp": (NOON + seconds).to_string(), "type": kind });
    let field = if from.contains('.') {
        "from_user_id"
    } else {
        "from"
    };
    item[field] = from.into();
    item[kind] = content;
    item
}

/// A text.
pub fn text(id: &str, from: &str, seconds: i64, body: &str) -> Value {
    item(id, from, seconds, "text", json!({ "body": body }))
}

/// With both ids of its sender.
pub fn by_both(mut item: Value, number: &str, user_id: &str) -> Value {
    item["from"] = number.into();
    item["from_user_id"] = user_id.into();
    item
}

/// It answers another message.
pub fn answering(mut item: Value, id: &str) -> Value {
    item["context"] = json!({ "from": "15550001111", "id": id });
    item
}

pub fn reaction(id: &str, from: &str, seconds: i64, target: &str, emoji: &str) -> Value {
    let content = json!({ "message_id": target, "emoji": emoji });
    item(id, from, seconds, "reaction", content)
}

pub fn edit(id: &str, from: &str, seconds: i64, target: &str, body: &str) -> Value {
    let message = json!({ "type": "text", "text": { "body": body } });
    let content = json!({ "original_message_id": target, "message": message });
    item(id, from, seconds, "edit", content)
}

pub fn deletion(id: &str, from: &str, seconds: i64, target: &str) -> Value {
    let content = json!({ "original_message_id": target });
    item(id, from, seconds, "revoke", content)
}

/// An echo of what was written to somebody in the business's app.
pub fn echo(mut item: Value, to: &str) -> Value {
    let fields = item.as_object_mut().unwrap();
    fields.remove("from_user_id");
    fields.insert("from".into(), "15550001111".into());
    let field = if to.contains('.') { "to_user_id" } else { "to" };
    fields.insert(field.into(), to.into());
    item
}

/// A change of a field, with what is in it.
pub fn change(field: &str, mut value: Value) -> Value {
    value["messaging_product"] = "whatsapp".into();
    value["metadata"] =
        json!({ "display_phone_number": "15550001111", "phone_number_id": NUMBER_ID });
    json!({ "field": field, "value": value })
}

/// A body with these changes.
pub fn body(changes: &[Value]) -> Value {
    json!({
        "object": "whatsapp_business_account",
        "entry": [{ "id": "102290129340398", "changes": changes }],
    })
}

/// A body with these messages.
pub fn messages(items: &[Value]) -> Value {
    body(&[change("messages", json!({ "messages": items }))])
}

/// A body with these echoes.
pub fn echoes(items: &[Value]) -> Value {
    body(&[change(
        "smb_message_echoes",
        json!({ "message_echoes": items }),
    )])
}

/// Posts bytes, signed.
pub async fn post_raw(client: &Client, body: impl Into<String>) -> Answer {
    let body = body.into();
    let signed = signature(APP_SECRET, &body);
    let headers = [
        ("content-type", "application/json"),
        ("x-hub-signature-256", &*signed),
    ];
    client.ask("POST", WEBHOOK, &headers, body).await
}

/// Posts a body, signed.
pub async fn post(client: &Client, body: &Value) -> Answer {
    post_raw(client, body.to_string()).await
}

/// A gateway whose channel whatsapp is connected.
pub async fn start() -> System {
    System::with(&CONNECTED).await
}

impl System {
    /// Posts a body, of whose items so many must be taken, known and ignored.
    #[track_caller]
    pub fn takes(&self, body: &Value, counts: [u64; 3]) -> impl Future<Output = ()> + use<> {
        let (client, body) = (self.client.clone(), body.clone());
        let caller = std::panic::Location::caller();
        async move {
            let answer = post(&client, &body).await;
            assert_eq!(answer.status, 200, "{caller}: {}", answer.text);
            let [received, duplicates, ignored] = counts;
            let expected =
                json!({ "received": received, "duplicates": duplicates, "ignored": ignored });
            assert_eq!(answer.json(), expected, "{caller}");
        }
    }

    /// Posts messages, all of them new.
    #[track_caller]
    pub fn receives(&self, items: &[Value]) -> impl Future<Output = ()> + use<> {
        self.takes(&messages(items), [items.len() as u64, 0, 0])
    }

    /// The messages of a participant's conversation, the newest first.
    pub async fn thread(&self, participant: &str) -> Vec<Value> {
        let conversation = self.client.conversation(participant).await;
        let path = format!("/conversations/{}?limit=200", super::id(&conversation));
        let detail = self.client.get(&path).await.expect(200);
        detail["messages"].as_array().unwrap().clone()
    }

    /// Their texts, the oldest first.
    pub async fn texts(&self, participant: &str) -> Vec<String> {
        let thread = self.thread(participant).await;
        let texts = thread.iter().rev();
        texts
            .map(|message| message["text"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The message of this wamid, as `GET /messages/{id}` shows it.
    pub async fn by_wamid(&self, wamid: &str) -> Value {
        self.message(&self.id_of(wamid).await).await
    }

    /// The id of the message of this wamid.
    pub async fn id_of(&self, wamid: &str) -> String {
        let found: uuid::Uuid = sqlx::query_scalar(
            "select message_id from webhook_events where event_id = $1 and provider = 'whatsapp'",
        )
        .bind(wamid)
        .fetch_one(self.database.pool())
        .await
        .unwrap();
        format!("msg_{}", found.simple())
    }

    /// The participants of all conversations, sorted.
    pub async fn participants(&self) -> Vec<String> {
        let list = self
            .client
            .get("/conversations?limit=100")
            .await
            .expect(200);
        let rows = list["data"].as_array().unwrap().iter();
        let mut all: Vec<String> = rows
            .map(|row| row["participantId"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    }
}
