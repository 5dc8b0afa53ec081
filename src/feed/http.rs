//! The feed over HTTP, as server-sent events.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;
use validator::Validate;

use super::Filter;
use super::stream::{Start, stream};
use crate::api_state::{ApiState, Route};
use crate::caller::Caller;
use crate::channel::Channel;
use crate::conversation::store::find;
use crate::error::Error;
use crate::http::extract::Query;
use crate::http::field::{Fault, Field, Parsed, parsed};
use crate::http::key::Scope;
use crate::http::problem::{Problem, kind};
use crate::http::route::Access;
use crate::http::server::EndsWithProcess;
use crate::id::ConversationId;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The longest position that is looked at, in bytes.
const MOST_TOKEN: usize = 256;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    const INBOX: Access = Access::Key(&[Scope::Inbox]);
    vec![Route::new(routes!(get_events), INBOX).problems(&[kind::NOT_FOUND])]
}

/// What to tell.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only what belongs to this channel.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Channel>)]
    channel: Option<Parsed<Channel>>,
    /// Of messages, only those of this conversation; conversations always come.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<ConversationId>)]
    conversation: Option<Parsed<Thread>>,
    /// The position to go on from, where the header `Last-Event-ID` cannot be set; that wins. One
    /// that is unknown or too old is answered with `reset`.
    #[validate(custom(function = parsed))]
    #[param(rename = "lastEventId", value_type = Option<String>)]
    last_event_id: Option<Parsed<Token>>,
}

/// A conversation's id; a text of any other spelling names none.
#[derive(Debug)]
pub struct Thread(Option<ConversationId>);

impl Field for Thread {
    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(Self(text.parse().ok()))
    }
}

/// A position as it was handed in. Any text is one, since a client that gets an error for it stops
/// for ever.
#[derive(Debug)]
pub struct Token(String);

impl Token {
    /// One that is too long is as unknown as none.
    fn of(text: &str) -> String {
        if text.len() <= MOST_TOKEN {
            text.to_owned()
        } else {
            String::new()
        }
    }
}

impl Field for Token {
    fn parse(text: &str) -> Result<Self, Fault> {
        Ok(Self(Self::of(text)))
    }
}

/// What changes in the inbox, as it happens: server-sent events.
///
/// `hello` comes first. `conversation.updated` has `{"conversation":{…}}` as in the list,
/// `message.created` and `message.updated` have `{"message":{…}}` as in `GET /messages/{id}`; both
/// show the record as it is now, with its `revision`. After `reset` fetch again what you show, and
/// go on; a conversation that moves up the list while you read it page by page may be on none of
/// them, but it comes as an event. `ping` comes every 15 seconds. `id` is a position:
/// `Last-Event-ID` resumes behind it. The stream ends after 10 to 15 minutes: come again.
#[utoipa::path(
    get, path = "/events", tag = "inbox",
    params(EventsQuery),
    responses((status = 200, description = "The events.", body = String, content_type = "text/event-stream")),
)]
pub async fn get_events(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    client: Option<Extension<ConnectInfo<std::net::SocketAddr>>>,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Problem> {
    let channel = query.channel.map(Parsed::value);
    let thread = query.conversation.map(Parsed::value);
    let filter = filter(&state, channel, thread).await?;
    if method == Method::HEAD {
        return Ok(answer(Body::empty()));
    }
    let client = client.map(|Extension(ConnectInfo(client))| client);
    let place = state.places.take(&caller, client);
    let place =
        place.ok_or_else(|| Problem::overloaded("too many streams are open: come again later"))?;
    let start = start(&headers, query.last_event_id.map(Parsed::value));
    let feed = &state.app.feed;
    let joined = feed.join(filter).await?;
    let stopping = state.stopping.clone();
    let sessions = Arc::clone(&state.app.sessions);
    let ended = async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = sessions.ended(&caller) => {}
        }
    };
    let events = stream(Arc::clone(feed), joined, &start, place, ended);
    Ok(answer(Body::from_stream(events)))
}

async fn filter(
    state: &ApiState,
    channel: Option<Channel>,
    thread: Option<Thread>,
) -> Result<Filter, Problem> {
    let mut filter = Filter {
        channel,
        conversation: None,
    };
    if let Some(Thread(id)) = thread {
        let unknown = || Error::NotFound("conversation");
        let id = id.ok_or_else(unknown)?;
        find(&state.app.pool, id).await?.ok_or_else(unknown)?;
        filter.conversation = Some(id);
    }
    Ok(filter)
}

/// Where the caller goes on: the header wins, and several of them are none.
fn start(headers: &HeaderMap, parameter: Option<Token>) -> Start {
    let mut given = headers.get_all(LAST_EVENT_ID).iter();
    let token = match (given.next(), given.next()) {
        (None, _) => match parameter {
            Some(Token(token)) => token,
            None => return Start::Now,
        },
        (Some(one), None) => Token::of(one.to_str().unwrap_or_default()),
        (Some(_), Some(_)) => String::new(),
    };
    Start::Behind(token)
}

fn answer(body: Body) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, no-transform"),
        ),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    let mut response = (HEADERS, body).into_response();
    response.extensions_mut().insert(EndsWithProcess);
    response
}
