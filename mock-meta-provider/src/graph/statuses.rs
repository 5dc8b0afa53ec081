//! What became of a message, told to the webhook: `sent`, `delivered`, `read`, `played`, `failed`.

use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use serde_json::{Value, json};

use super::fate::{Fate, Recipient};
use super::{codes, envelope, names};
use crate::app::SharedApp;

/// An accepted message, as its statuses know it.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) wamid: String,
    /// The number or the user id.
    pub(crate) to: String,
    pub(crate) opaque: Option<String>,
    pub(crate) phone_number_id: String,
}

/// One status with what may be left out of it.
#[derive(Debug)]
pub(crate) struct Status<'a> {
    pub(crate) name: &'a str,
    pub(crate) timestamp: String,
    pub(crate) code: u32,
    pub(crate) recipient: Recipient,
}

/// Posts the statuses of a message; those that come early are posted when this returns.
pub(crate) async fn follow(app: &SharedApp, accepted: Accepted, fate: Fate) {
    if fate.steps.is_empty() {
        return;
    }
    app.state().stats.whatsapp.statuses += fate.steps.len() as u64;
    if fate.batch {
        let together = Together {
            app: app.clone(),
            accepted,
            fate,
        };
        return together.follow().await;
    }
    let mut steps = fate.steps.clone().into_iter();
    let early = fate.early.then(|| steps.next()).flatten();
    if let Some((name, _)) = early {
        one(app, &accepted, &fate, name).await;
    }
    let shared = app.clone();
    envelope::spawn(app, async move {
        tokio::time::sleep(fate.late).await;
        if fate.foreign {
            let foreign = vec![foreign(&accepted)];
            tell(&shared, &fate, &body(&accepted, foreign, fate.recipient)).await;
        }
        for (name, wait) in steps {
            tokio::time::sleep(wait).await;
            one(&shared, &accepted, &fate, name).await;
        }
    });
}

async fn one(app: &SharedApp, accepted: &Accepted, fate: &Fate, name: &str) {
    let status = vec![item(accepted, &fate.status(name))];
    tell(app, fate, &body(accepted, status, fate.recipient)).await;
}

/// All statuses of a message in one body.
struct Together {
    app: SharedApp,
    accepted: Accepted,
    fate: Fate,
}

impl Together {
    async fn follow(self) {
        let app = self.app.clone();
        let wait: Duration = self.fate.steps.iter().map(|(_, wait)| *wait).sum();
        if self.fate.early {
            return tell(&app, &self.fate, &self.body()).await;
        }
        envelope::spawn(&app.clone(), async move {
            tokio::time::sleep(self.fate.late + wait).await;
            tell(&app, &self.fate, &self.body()).await;
        });
    }

    /// With a foreign status, with one that nobody knows, and with another field's change.
    fn body(&self) -> Bytes {
        let (accepted, fate) = (&self.accepted, &self.fate);
        let names = fate.steps.iter().map(|(name, _)| *name);
        let mut statuses: Vec<Value> = names
            .map(|name| item(accepted, &fate.status(name)))
            .collect();
        statuses.insert(0, foreign(accepted));
        let strange = Accepted {
            wamid: names::wamid(),
            ..accepted.clone()
        };
        statuses.push(item(&strange, &fate.status("in_orbit")));
        let other = json!({ "event": "ACCOUNT_UPDATE", "phone_number": envelope::DISPLAY_NUMBER });
        envelope::body(&[
            envelope::change("account_update", &other),
            change(accepted, statuses, fate.recipient),
        ])
    }
}

impl Fate {
    fn status<'a>(&self, name: &'a str) -> Status<'a> {
        Status {
            name,
            timestamp: envelope::seconds(&Utc::now()),
            code: self.code,
            recipient: self.recipient,
        }
    }
}

/// Posts a body, and again if it is to come twice.
async fn tell(app: &SharedApp, fate: &Fate, body: &Bytes) {
    let Some(post) = envelope::post(app, None, body) else {
        tracing::error!("too much waits to be posted: a status is lost");
        return;
    };
    envelope::deliver(app, post).await;
    if let Some(wait) = fate.repeat {
        envelope::repeat(app, None, body, wait);
    }
}

/// A body with these statuses.
pub(crate) fn body(accepted: &Accepted, statuses: Vec<Value>, recipient: Recipient) -> Bytes {
    envelope::body(&[change(accepted, statuses, recipient)])
}

fn change(accepted: &Accepted, statuses: Vec<Value>, recipient: Recipient) -> Value {
    let mut value = envelope::value(&accepted.phone_number_id);
    if let Some(contact) = contact(&accepted.to, recipient) {
        value["contacts"] = json!([contact]);
    }
    value["statuses"] = statuses.into();
    envelope::change("messages", &value)
}

fn contact(to: &str, recipient: Recipient) -> Option<Value> {
    let (number, user_id) = ids(to);
    match (recipient, number) {
        (Recipient::Bare, _) => None,
        (Recipient::Usual, Some(number)) => Some(json!({ "wa_id": number, "user_id": user_id })),
        _ => Some(json!({ "user_id": user_id })),
    }
}

/// A status in Meta's form.
pub(crate) fn item(accepted: &Accepted, status: &Status<'_>) -> Value {
    let mut item = json!({
        "id": accepted.wamid,
        "status": status.name,
        "timestamp": status.timestamp,
    });
    let (number, user_id) = ids(&accepted.to);
    if let (Recipient::Usual, Some(number)) = (status.recipient, number) {
        item["recipient_id"] = json!(number);
    }
    if status.recipient != Recipient::Bare {
        item["recipient_user_id"] = json!(user_id);
    }
    if let Some(opaque) = &accepted.opaque {
        item["biz_opaque_callback_data"] = json!(opaque);
    }
    match status.name {
        "sent" | "delivered" => {
            item["pricing"] = json!({
                "billable": false, "pricing_model": "PMP", "type": "free_customer_service", "category": "service",
            });
        }
        "failed" => {
            let title = codes::of(status.code).title;
            item["errors"] = json!([{
                "code": status.code, "title": title, "message": title,
                "error_data": { "details": title },
                "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
            }]);
        }
        _ => {}
    }
    item
}

/// A status of a message that was sent from elsewhere.
fn foreign(accepted: &Accepted) -> Value {
    let elsewhere = Accepted {
        wamid: names::wamid(),
        opaque: None,
        ..accepted.clone()
    };
    let status = Status {
        name: "delivered",
        timestamp: envelope::seconds(&Utc::now()),
        code: 0,
        recipient: Recipient::Usual,
    };
    item(&elsewhere, &status)
}

/// The number, if it is one, and the user id.
fn ids(to: &str) -> (Option<&str>, String) {
    if names::is_user_id(to) {
        (None, to.to_owned())
    } else {
        (Some(to), names::user_id(to))
    }
}
