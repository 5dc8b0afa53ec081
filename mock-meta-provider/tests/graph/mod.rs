//! WhatsApp's wire, as Meta's Graph API has it.

mod fault;
mod inbound;
mod media;
mod message;
mod status;

use mock_meta_provider::{Config, Whatsapp, WhatsappBehaviour};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{Answer, Provider, Receiver, until};

pub const PHONE: &str = "106540352242922";
pub const TO: &str = "15551234567";
pub const MESSAGE_ID: &str = "019be0a4-4c7d-7f3a-9d2a-b8c1d2e3f405";
pub const OPAQUE: &str = "gw1.019be0a44c7d7f3a9d2ab8c1d2e3f405.1.0123456789ab";
pub const APP_SECRET: &str = "app-secret";

/// A provider that posts to a webhook of its own.
pub struct Graph {
    pub provider: Provider,
    pub receiver: Receiver,
}

impl Graph {
    pub async fn calm() -> Self {
        Self::behaving(WhatsappBehaviour::CALM).await
    }

    pub async fn behaving(behaviour: WhatsappBehaviour) -> Self {
        Self::start(behaviour, []).await
    }

    pub async fn start(
        behaviour: WhatsappBehaviour,
        refusals: impl IntoIterator<Item = crate::support::Refused>,
    ) -> Self {
        let receiver = Receiver::start(refusals).await;
        let whatsapp = Whatsapp {
            phone_number_id: Some(PHONE.to_owned()),
            access_token: Some("token-1".into()),
            app_secret: Some(APP_SECRET.into()),
            verify_token: Some("verify-1".into()),
            webhook_url: receiver.url.clone(),
            behaviour,
        };
        let provider = Provider::start(Config {
            whatsapp,
            webhook_retry_base_ms: 1,
            ..Config::calm()
        })
        .await;
        Self { provider, receiver }
    }

    pub fn request(&self, body: &Value) -> RequestBuilder {
        let url = format!("{}/v26.0/{PHONE}/messages", self.provider.mock.url());
        let request = self.provider.client.post(url).json(body);
        request.bearer_auth("token-1")
    }

    pub async fn call(&self, body: Value) -> Answer {
        Answer::read(self.request(&body)).await
    }

    pub async fn send(&self) -> Answer {
        self.call(text()).await
    }

    /// All items of this kind that have arrived, in order: `messages`, `statuses` …
    pub fn items(&self, kind: &str) -> Vec<Value> {
        let values = self.values();
        let lists = values.iter().filter_map(|value| value[kind].as_array());
        lists.flatten().cloned().collect()
    }

    /// The values of all changes that have arrived, in order.
    pub fn values(&self) -> Vec<Value> {
        let changes = self.changes().into_iter();
        changes.map(|change| change["value"].clone()).collect()
    }

    pub fn changes(&self) -> Vec<Value> {
        let entries = self.receiver.taken().into_iter().flat_map(|body| {
            assert_eq!(body["object"], "whatsapp_business_account", "{body}");
            body["entry"].as_array().unwrap().clone()
        });
        let changes = entries.flat_map(|entry| entry["changes"].as_array().unwrap().clone());
        changes.collect()
    }

    /// The names of the statuses that have arrived, in order; waits for as many.
    pub async fn statuses(&self, how_many: usize) -> Vec<String> {
        until("the statuses", || self.items("statuses").len() >= how_many).await;
        let statuses = self.items("statuses").into_iter();
        let names = statuses.map(|status| status["status"].as_str().unwrap().to_owned());
        names.collect()
    }

    /// Posts an event, and returns the change that has arrived with it.
    pub async fn arrives(&self, request: Value) -> Value {
        let before = self.changes().len();
        let mut request = request;
        request["wait"] = json!(true);
        let answer = self.provider.post("/simulate/whatsapp", request).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (200, &json!(200)),
            "{}",
            answer.body
        );
        self.changes()[before].clone()
    }
}

pub fn text() -> Value {
    json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": format!("+{TO}"),
        "type": "text", "text": { "body": "Hello" }, "biz_opaque_callback_data": OPAQUE,
    })
}

/// The code and the status of an error; checks that it has the form of all of Graph's.
pub fn error(answer: &Answer) -> (u16, u64) {
    let error = &answer.body["error"];
    for field in ["message", "type", "fbtrace_id"] {
        assert!(error[field].is_string(), "{}", answer.body);
    }
    (answer.status, error["code"].as_u64().unwrap())
}
