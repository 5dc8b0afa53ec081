//! A gateway whose channel whatsapp is a number of the mock's Graph API.

use mock_meta_provider::{Config, Mock, Whatsapp, WhatsappBehaviour};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Client, Database, Program, System, serve_at};

/// What connects the channel, but for the URL of the Graph API.
pub const ACCOUNT: [(&str, &str); 4] = [
    ("WHATSAPP_PHONE_NUMBER_ID", "106540352242922"),
    ("WHATSAPP_ACCESS_TOKEN", TOKEN),
    ("META_APP_SECRET", APP_SECRET),
    ("META_VERIFY_TOKEN", "verify-quokka-0123"),
];
pub const TOKEN: &str = "token-quokka-0123456789";
pub const APP_SECRET: &str = "secret-quokka-0123456789";

/// A mock that tells what becomes of messages as this says, once it is told where to.
pub async fn graph(behaviour: WhatsappBehaviour) -> Mock {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let whatsapp = Whatsapp {
        app_secret: Some(APP_SECRET.to_owned().into()),
        behaviour,
        ..Whatsapp::calm()
    };
    let config = Config {
        whatsapp,
        ..Config::calm()
    };
    Mock::start(config, listener).unwrap()
}

/// No word of what becomes of a message.
pub const SILENT: WhatsappBehaviour = WhatsappBehaviour {
    status_never_rate: 1.0,
    ..WhatsappBehaviour::CALM
};

/// A gateway with these environment variables, connected to such a mock.
pub async fn connected(behaviour: WhatsappBehaviour, environment: &[(&str, &str)]) -> System {
    let database = Database::new().await;
    let mock = graph(behaviour).await;
    let (gateway, client) = serve_connected(&database, &mock, environment).await;
    System {
        database,
        mock,
        gateway,
        client,
    }
}

/// One more gateway on this database, which the mock tells from now on.
pub async fn serve_connected(
    database: &Database,
    mock: &Mock,
    environment: &[(&str, &str)],
) -> (Program, Client) {
    let url = mock.url();
    let mut variables = vec![("GRAPH_URL", url.as_str())];
    variables.extend(ACCOUNT);
    variables.extend(environment);
    let (gateway, client) = serve_at(database.url(), &url, &["serve"], &variables).await;
    mock.set_whatsapp_webhook_url(&client.url("/webhooks/whatsapp"))
        .unwrap();
    (gateway, client)
}

impl System {
    /// Ends what follows a pair's throttle, as if its time were over.
    pub async fn end_pair_pauses(&self) {
        self.database
            .execute("update conversations set paused_until = null")
            .await;
        self.skip_backoffs().await;
    }

    /// For how many seconds nobody calls the channel, if it is held.
    pub async fn hold(&self) -> Option<i64> {
        let seconds =
            "select coalesce(max(extract(epoch from paused_until - now())::bigint), -1000)
            from channels where channel = 'whatsapp' and held_for = 'unauthorized'";
        let seconds = self.database.count(seconds).await;
        (seconds > -1000).then_some(seconds)
    }

    /// How often the mock was called for a message, and how often it has accepted it.
    pub fn calls(&self, message: &Value) -> (u64, u64) {
        let known = self.mock.message(&key(message));
        known.map_or((0, 0), |known| (known.calls, known.deliveries))
    }

    /// Has Meta tell that it has accepted a message.
    pub async fn tell(&self, message: &Value, status: &str) {
        let status = json!({ "messageId": key(message), "status": status });
        let url = format!("{}/simulate/status", self.mock.url());
        let answer = self.client.http.post(url).json(&status).send();
        let answer = answer.await.unwrap();
        let is_told = answer.status().is_success();
        assert!(is_told, "{}", answer.text().await.unwrap());
    }

    /// Sends a text by this channel.
    pub async fn send_on(&self, channel: &str, to: &str, text: &str) -> Value {
        let body = json!({ "channel": channel, "to": to, "text": text });
        self.client.post("/messages/send", &body).await.expect(201)
    }
}

/// What the mock knows a message by.
fn key(message: &Value) -> String {
    let digits = super::id(message).strip_prefix("msg_").unwrap();
    uuid::Uuid::try_parse(digits).unwrap().to_string()
}
