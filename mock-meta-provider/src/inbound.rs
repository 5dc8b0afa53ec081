//! `POST /simulate/inbound`: makes an event, answers at once, and posts it in the background.

use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Url;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::Refusal;
use crate::app::{App, SharedApp};
use crate::body::JsonBody;
use crate::chance::{self, InboundPlan};
use crate::post::Post;
use crate::wire::{Channel, Event, check_name, check_text_length, format_time};

/// How far ahead the event from the future is stamped.
const FUTURE: TimeDelta = TimeDelta::seconds(60);

/// The body of `POST /simulate/inbound`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InboundRequest {
    event_id: Option<String>,
    channel: Channel,
    from: String,
    #[serde(deserialize_with = "customer_text")]
    text: String,
    duplicate: Option<bool>,
    out_of_order: Option<bool>,
    webhook_url: Option<String>,
}

/// Reads a text that a customer wrote: half a surrogate pair becomes U+FFFD, since UTF-8 has none.
fn customer_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        /// Half a surrogate pair comes as three bytes that are not UTF-8.
        fn visit_bytes<E>(self, text: &[u8]) -> Result<String, E> {
            let mut text = text.to_vec();
            for at in 0..text.len() {
                if let [0xED, 0xA0..=0xBF, _, ..] = text[at..] {
                    text[at..at + 3].copy_from_slice("\u{FFFD}".as_bytes());
                }
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
    }

    // For bytes the parser does not insist on UTF-8.
    deserializer.deserialize_bytes(Text)
}

/// The posts of one simulation and their times.
struct Simulation {
    /// The event from the future that is posted first, and the wait after it.
    overtaking: Option<(Post, Duration)>,
    post: Post,
    /// The same event again, each with its wait after the first try of `post` has begun.
    repeats: Vec<(Post, Duration)>,
}

/// `POST /simulate/inbound`
pub(crate) async fn simulate_inbound(
    State(app): State<SharedApp>,
    JsonBody(request): JsonBody<InboundRequest>,
) -> Result<Json<Value>, Refusal> {
    check_name("from", &request.from)?;
    check_text_length(&request.text)?;
    if let Some(event_id) = &request.event_id {
        check_name("eventId", event_id)?;
    }
    let url = app.webhook.resolve(request.webhook_url.as_deref());
    let url = url.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let asked = (request.duplicate, request.out_of_order);
    let plan = plan(&app, request.event_id.as_deref(), asked);
    let event_id = request.event_id.clone().unwrap_or_else(make_event_id);
    let timestamp = Utc::now();
    let simulation = prepare(&app, &request, &plan, &url, &event_id, timestamp)?;
    count(&app, &plan);
    tracing::info!(%event_id, duplicate = plan.duplicate, out_of_order = plan.out_of_order, "inbound event");
    let shared = app.clone();
    drop(app.spawn(async move { shared.unless_stopping(run(&shared, simulation)).await }));
    Ok(Json(json!({
        "success": true,
        "eventId": event_id,
        "timestamp": format_time(&timestamp),
        "simulation": { "duplicate": plan.duplicate, "outOfOrder": plan.out_of_order },
    })))
}

/// Makes an id that never repeats, even with the same seed: the receiver remembers ids for ever.
fn make_event_id() -> String {
    format!("evt_{}", Uuid::now_v7().simple())
}

/// Draws what a request leaves open: whether the event comes twice, and out of order. The same for
/// the same id.
pub(crate) fn plan(
    app: &App,
    id: Option<&str>,
    (duplicate, out_of_order): (Option<bool>, Option<bool>),
) -> InboundPlan {
    let mut state = app.state();
    let name = if let Some(id) = id {
        format!("id {id}")
    } else {
        state.made_up_events += 1;
        format!("number {}", state.made_up_events)
    };
    let drawn = chance::plan_inbound(app.seed, &state.behaviour, &name);
    InboundPlan {
        duplicate: duplicate.unwrap_or(drawn.duplicate),
        out_of_order: out_of_order.unwrap_or(drawn.out_of_order),
        ..drawn
    }
}

fn prepare(
    app: &SharedApp,
    request: &InboundRequest,
    plan: &InboundPlan,
    url: &Url,
    event_id: &str,
    timestamp: DateTime<Utc>,
) -> Result<Simulation, Refusal> {
    let overloaded = || Refusal::overloaded("too many events are waiting to be posted");
    let post = |event_id: &str, body: &Bytes| {
        Post::new(app, url.clone(), event_id.to_owned(), body.clone()).ok_or_else(overloaded)
    };
    let (future_id, future_text) = (
        make_event_id(),
        format!("[Future Message] {}", request.text),
    );
    let event = |id, text, timestamp| Event {
        id,
        channel: request.channel,
        from: &request.from,
        text,
        timestamp,
    };
    let overtaking = if plan.out_of_order {
        let body = encode(&event(&future_id, &future_text, timestamp + FUTURE));
        Some((post(&future_id, &body)?, plan.lateness))
    } else {
        None
    };
    let body = encode(&event(event_id, &request.text, timestamp));
    let repeats = if plan.duplicate {
        plan.repeats.as_slice()
    } else {
        &[]
    };
    let repeats = repeats
        .iter()
        .map(|wait| Ok((post(event_id, &body)?, *wait)));
    Ok(Simulation {
        overtaking,
        post: post(event_id, &body)?,
        repeats: repeats.collect::<Result<_, Refusal>>()?,
    })
}

fn encode(event: &Event<'_>) -> Bytes {
    let json = serde_json::to_vec(event);
    json.expect("an event has only texts").into()
}

fn count(app: &App, plan: &InboundPlan) {
    let webhooks = &mut app.state().stats.webhooks;
    webhooks.events += 1 + u64::from(plan.out_of_order);
    webhooks.out_of_order += u64::from(plan.out_of_order);
    if plan.duplicate {
        webhooks.duplicates += plan.repeats.len() as u64;
    }
}

async fn run(app: &App, simulation: Simulation) {
    if let Some((future, lateness)) = simulation.overtaking {
        if let Err(retry_after) = future.attempt(1).await {
            spawn(app, future.deliver(Some(retry_after)));
        }
        tokio::time::sleep(lateness).await;
    }
    for (repeat, wait) in simulation.repeats {
        spawn(app, async move {
            tokio::time::sleep(wait).await;
            repeat.deliver(None).await;
        });
    }
    simulation.post.deliver(None).await;
}

/// Runs a delivery until the provider stops.
fn spawn(app: &App, delivery: impl Future<Output = ()> + Send + 'static) {
    let stopping = app.stopping.clone();
    drop(app.spawn(stopping.run_until_cancelled_owned(delivery)));
}
