//! Statuses as Meta writes them, and a gateway that they come to.

use serde_json::{Value, json};
use sqlx::Row as _;

use crate::support::whatsapp::{ANN, APP_SECRET, CONNECTED, NOON, body, change};
use crate::support::{Held, LONG_ATTEMPT, SHORT_WAIT, System, id, mock, signature};

pub const HOLD: (&str, &str) = ("AMBIGUOUS_POLICY", "hold");
pub const FOREIGN: &str = "gateway_foreign_statuses_total";
pub const DOUBLES: &str = "gateway_double_sends_total";

/// A gateway whose channel whatsapp is connected to the mock, which sends no statuses of itself.
pub async fn start(environment: &[(&str, &str)]) -> System {
    let mock = mock().await;
    let url = mock.url();
    let settings = [&CONNECTED[..], &[("GRAPH_URL", &*url)], environment].concat();
    let system = System {
        mock,
        ..System::with(&settings).await
    };
    let mut quiet = system.mock.whatsapp_behaviour();
    quiet.status_never_rate = 1.0;
    system.mock.set_whatsapp_behaviour(quiet).unwrap();
    system
}

/// One whose calls a test answers by hand.
pub async fn start_held(environment: &[(&str, &str)]) -> (System, Held) {
    let provider = Held::start().await;
    let settings = [
        &CONNECTED[..],
        &[("GRAPH_URL", provider.url()), LONG_ATTEMPT, SHORT_WAIT],
        environment,
    ];
    let system = System::without_worker(&settings.concat()).await;
    (system, provider)
}

/// Graph's answer to a send.
pub fn accepted(wamid: &str) -> Value {
    json!({ "messaging_product": "whatsapp", "contacts": [{ "input": ANN, "wa_id": ANN }], "messages": [{ "id": wamid }] })
}

/// A status of a message, so many seconds after noon.
pub fn status(wamid: &str, step: &str, seconds: i64) -> Value {
    json!({ "id": wamid, "status": step, "timestamp": (NOON + seconds).to_string() })
}

/// With the one that it is about.
pub fn to(mut status: Value, field: &str, recipient: &str) -> Value {
    status[field] = recipient.into();
    status
}

/// What a message was sent with in this attempt.
pub fn sent_with(message: &Value, attempt: u32, secret: &str) -> String {
    let signed = format!("gw1.{}.{attempt}", &id(message)["msg_".len()..]);
    let tag = &signature(secret, &signed)["sha256=".len()..][..12];
    format!("{signed}.{tag}")
}

/// With what its message was sent with.
pub fn of(mut status: Value, message: &Value) -> Value {
    status["biz_opaque_callback_data"] = sent_with(message, 1, APP_SECRET).into();
    status
}

/// A body with these statuses.
pub fn statuses(items: &[Value]) -> Value {
    body(&[change("messages", json!({ "statuses": items }))])
}

/// The fields that statuses change.
pub fn shown(message: &Value) -> Value {
    let fields = [
        "status",
        "deliveryStatus",
        "deliveredAt",
        "readAt",
        "deliveryError",
    ];
    fields
        .iter()
        .map(|field| (*field, message[*field].clone()))
        .collect()
}

/// What is stored of a message by the provider's id, but for our own times.
pub async fn receipt(system: &System, wamid: &str) -> Option<String> {
    let sql = "select row(sent_at, delivered_at, read_at, played_at, failed_at, error_code, error_title, error_detail)::text
      from receipts where provider_message_id = $1";
    let row = sqlx::query(sql)
        .bind(wamid)
        .fetch_optional(system.database.pool());
    row.await.unwrap().map(|row| row.get(0))
}

/// A counter or gauge, as it is written.
pub async fn count(system: &System, metric: &str) -> String {
    system.client.metric(metric).await.to_string()
}

impl System {
    /// Posts statuses, so many of which are known.
    pub async fn told(&self, items: &[Value], duplicates: u64) {
        self.takes(&statuses(items), [items.len() as u64, duplicates, 0])
            .await;
    }
}
