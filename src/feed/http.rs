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

impl Field for Token {
    fn parse(text: &str) -> Result<Self, Fault> {
        let is_short = text.len() <= MOST_TOKEN;
        Ok(Self(is_short.then(|| text.to_owned()).unwrap_or_default()))
    }
}

/// What changes in the inbox, as it happens: server-sent events.
///
/// `hello` comes first. `conversation.updated` has `{"conversation":{…}}` as in the list,
/// `message.created` and `message.updated` have `{"message":{…}}` as in `GET /messages/{id}`; both
/// show the record as it is now, with its `revision`. After `reset` fetch again what you show, and
/// go on. `ping` comes every 15 seconds. `id` is a position: `Last-Event-ID` resumes behind it. The
/// stream ends after 10 to 15 minutes: come again.
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
    let filter = filter(&state, query.channel, query.conversation).await?;
    if method == Method::HEAD {
        return Ok(answer(Body::empty()));
    }
    let client = client.map(|Extension(ConnectInfo(client))| client);
    let place = state.places.take(&caller, client);
    let place =
        place.ok_or_else(|| Problem::overloaded("too many streams are open: come again later"))?;
    let start = start(&headers, query.last_event_id);
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
    channel: Option<Parsed<Channel>>,
    conversation: Option<Parsed<Thread>>,
) -> Result<Filter, Problem> {
    let conversation = match conversation.map(Parsed::value) {
        None => None,
        Some(Thread(id)) => {
            let unknown = Error::NotFound("conversation");
            let Some(id) = id else {
                return Err(unknown.into());
            };
            find(&state.app.pool, id).await?.ok_or(unknown)?;
            Some(id)
        }
    };
    let channel = channel.map(Parsed::value);
    Ok(Filter {
        channel,
        conversation,
    })
}

/// Where the caller goes on: the header wins, and several of them are none.
fn start(headers: &HeaderMap, parameter: Option<Parsed<Token>>) -> Start {
    let mut given = headers.get_all(LAST_EVENT_ID).iter();
    let token = match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().ok().map(Token::parse),
        (Some(_), Some(_)) => None,
        (None, _) => match parameter {
            Some(parameter) => Some(Ok(parameter.value())),
            None => return Start::Now,
        },
    };
    let token = token.and_then(Result::ok).map(|Token(token)| token);
    Start::Behind(token.unwrap_or_default())
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
