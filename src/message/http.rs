//! Sends messages, and looks after those that failed.

use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use strum::{EnumString, VariantNames};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use super::outbox::{MayRepeat, WaitFor};
use super::request::{ClientMessageId, SendRequest};
use super::store::Unsent;
use super::view::{ListedMessage, MessageView};
use super::{Dialect, MessageId, store};
use crate::api_state::{ApiState, Route};
use crate::caller::Caller;
use crate::channel::Channel;
use crate::http::extract::{self, Id, Query};
use crate::http::field::{Fault, Field, Parsed, one_of, parsed};
use crate::http::key::Scope;
use crate::http::page::{Limit, NextCursor};
use crate::http::prefer::prefers;
use crate::http::problem::{FieldError, Problem, kind};
use crate::http::route::Access;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static MISMATCH: HeaderName = HeaderName::from_static("idempotent-mismatch");
static APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The preference for an answer that does not wait for the first attempt.
const RESPOND_ASYNC: &str = "respond-async";
static TRUE: HeaderValue = HeaderValue::from_static("true");

/// The routes of this file. A send waits as long as `send_wait` for its first attempt.
pub fn routes(send_wait: Duration) -> Vec<Route> {
    const READ: Access = Access::Key(&Scope::ALL);
    const SEND: Access = Access::Key(&[Scope::Send]);
    const CHANGE: Access = Access::Key(&[Scope::Send, Scope::Admin]);
    vec![
        Route::new(routes!(send_message), SEND)
            .extra_time(send_wait)
            .problems(&[
                kind::CLIENT_MESSAGE_ID_TAKEN,
                kind::CHANNEL_NOT_CONNECTED,
                kind::PARTICIPANT_CHANGED,
            ]),
        Route::new(routes!(list_messages), READ),
        Route::new(routes!(get_message), READ),
        Route::new(routes!(retry_message), CHANGE).problems(&[kind::NOT_FAILED, kind::AMBIGUOUS]),
        Route::new(routes!(cancel_message), CHANGE).problems(&[kind::NOT_CANCELABLE]),
    ]
}

/// Sends a message: stores it, makes the first attempt, and answers with the status after it.
///
/// `PENDING` in the answer means that the attempt is still going on, or that a worker will make it.
/// The attempt goes on when the caller hangs up. The same `(channel, clientMessageId)` again never
/// sends a second message.
#[utoipa::path(
    post, path = "/messages/send", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Stands for a `clientMessageId` that the body does not have. Together they must be equal.",
        min_length = 1, max_length = 128, pattern = "^[!-~]*$", example = "order-1001"),
        ("Prefer" = Option<String>, Header,
        description = "With `respond-async` (RFC 7240) the answer is `PENDING` as soon as the message is stored; the first attempt begins at once all the same. Other preferences are ignored.",
        example = "respond-async")),
    request_body = SendRequest,
    responses(
        (status = 201, description = "Stored; the status after the first attempt.", body = MessageView, headers(
            ("Preference-Applied" = String, description = "`respond-async`, if that was preferred: the answer has not waited for the first attempt"),
        )),
        (status = 200, description = "The key was known: the existing record.", body = MessageView, headers(
            ("Idempotent-Replayed" = String, description = "`true`"),
            ("Idempotent-Mismatch" = String, description = "`true` when `to`, `text`, `type`, `content` or `replyTo` differ from the record's; the record wins"),
        )),
    ),
)]
pub async fn send_message(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Result<Sendable, Problem>,
) -> Result<Response, Problem> {
    let (Sendable(request, dialect), key) = match (request, idempotency_key(&headers)) {
        (Ok(request), Ok(key)) => (request, key),
        (Ok(_), Err(error)) => return Err(Problem::fields(vec![error])),
        (Err(problem), Err(error)) => return Err(problem.and(error)),
        (Err(problem), Ok(_)) => return Err(problem),
    };
    let outbox = &state.app.outbox;
    let asked = request.on(dialect, key)?;
    let is_async = prefers(&headers, RESPOND_ASYNC);
    let wait_for = if is_async {
        WaitFor::Commit
    } else {
        WaitFor::Attempt
    };
    let sent = outbox.send(&caller, asked, wait_for).await?;
    let status = if sent.replayed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = (status, Json(MessageView::from(sent.message))).into_response();
    let headers = response.headers_mut();
    if sent.replayed {
        headers.insert(REPLAYED.clone(), TRUE.clone());
    } else if is_async {
        // A replay waits for nothing, whatever is preferred.
        let applied = HeaderValue::from_static(RESPOND_ASYNC);
        headers.insert(APPLIED.clone(), applied);
    }
    if sent.mismatch {
        headers.insert(MISMATCH.clone(), TRUE.clone());
    }
    Ok(response)
}

/// What its channel can carry, and how the channel understands it.
pub struct Sendable(SendRequest, Dialect);

impl FromRequest<ApiState> for Sendable {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        let dialect = |request: &SendRequest| {
            let dialect = state.app.outbox.dialect(request.channel()?);
            Some(dialect.unwrap_or(Dialect::MockMeta))
        };
        let misfits = |request: &SendRequest| {
            dialect(request).map_or_else(Vec::new, |dialect| request.misfits(dialect))
        };
        let extract::Json(request) = extract::Json::fitting(request, misfits).await?;
        let dialect = dialect(&request).unwrap_or(Dialect::MockMeta);
        Ok(Self(request, dialect))
    }
}

/// The key of the header. An empty one is refused: who sends it expects to be protected by it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<ClientMessageId>, FieldError> {
    let mut keys = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let refuse = |message| Err(FieldError::new("Idempotency-Key", message));
    if keys.next().is_some() {
        return refuse("must not be there twice".to_owned());
    }
    match key.to_str() {
        Ok(key)
            if (1..=ClientMessageId::LONGEST).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Some(ClientMessageId(key.to_owned())))
        }
        _ => refuse(format!(
            "must have 1 to {} visible ASCII characters",
            ClientMessageId::LONGEST
        )),
    }
}

/// One message and its status.
///
/// A key that has neither `inbox` nor `admin` finds its own messages only.
#[utoipa::path(
    get, path = "/messages/{id}", tag = "messages",
    params(("id" = inline(MessageId), Path, description = "The message.")),
    responses((status = 200, description = "The message as it is now.", body = MessageView)),
)]
pub async fn get_message(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MessageId>,
) -> Result<Json<MessageView>, Problem> {
    Ok(Json(state.app.outbox.find(&caller, id).await?.into()))
}

/// Which unsent messages to list.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UnsentQuery {
    /// The status.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = UnsentStatus)]
    status: Parsed<UnsentStatus>,
    /// Only those of this channel.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Channel>)]
    channel: Option<Parsed<Channel>>,
    /// The most messages of a page.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Limit<100, 20>>)]
    limit: Parsed<Limit<100, 20>>,
    /// The `nextCursor` of the page before.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<MessageId>)]
    cursor: Option<Parsed<NextCursor<MessageId>>>,
    /// `true`: each with its `content`, if it has one.
    #[validate(custom(function = parsed))]
    #[param(value_type = Option<bool>, default = false)]
    content: Option<Parsed<bool>>,
}

/// The statuses of messages that are not sent yet.
#[derive(Debug, EnumString, VariantNames, ToSchema)]
#[strum(serialize_all = "UPPERCASE")]
#[schema(rename_all = "UPPERCASE")]
pub enum UnsentStatus {
    /// No attempt has ended.
    Pending,
    /// The last attempt failed.
    Failed,
}

impl Field for UnsentStatus {
    fn parse(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }

    fn missing() -> Result<Self, Fault> {
        Err("is required: PENDING or FAILED".into())
    }
}

/// Unsent messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnsentList {
    /// Newest first.
    data: Vec<ListedMessage>,
    meta: UnsentMeta,
}

/// About a page of unsent messages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnsentMeta {
    /// The most messages of a page.
    #[schema(minimum = 1, example = 20)]
    limit: u32,
    /// What to pass as `cursor` for what follows; null at the end.
    #[schema(required, pattern = "^msg_[0-9a-f]{32}$")]
    next_cursor: Option<String>,
}

/// Outbound messages that are `PENDING` or `FAILED`, newest first.
///
/// A key that has neither `inbox` nor `admin` finds its own messages only.
#[utoipa::path(
    get, path = "/messages", tag = "messages",
    params(UnsentQuery),
    responses((status = 200, description = "A part of the unsent messages.", body = UnsentList)),
)]
pub async fn list_messages(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<UnsentQuery>,
) -> Result<Json<UnsentList>, Problem> {
    let Limit(limit) = query.limit.value();
    let with_content = query.content.is_some_and(Parsed::value);
    let to_read = i64::from(limit) + 1;
    let pool = &state.app.pool;
    let which = Unsent {
        channel: query.channel.map(Parsed::value),
        sent_by: caller.only_sender(),
        before: query.cursor.map(|cursor| cursor.value().0),
    };
    let mut messages = match query.status.value() {
        UnsentStatus::Pending => store::list_pending(pool, which, to_read).await?,
        UnsentStatus::Failed => store::list_failed_latest(pool, which, to_read).await?,
    };
    let has_more = messages.len() > limit as usize;
    messages.truncate(limit as usize);
    let next_cursor = messages
        .last()
        .filter(|_| has_more)
        .map(|message| message.id.to_string());
    let listed = |message| ListedMessage::of(message, with_content);
    Ok(Json(UnsentList {
        data: messages.into_iter().map(listed).collect(),
        meta: UnsentMeta { limit, next_cursor },
    }))
}

/// How to retry a message.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RetryQuery {
    /// `true`: also if the provider may have accepted it (`lastError.ambiguous`) and cannot tell that
    /// it is the same message, as WhatsApp cannot: the participant may get it twice.
    #[validate(custom(function = parsed))]
    #[param(value_type = Option<bool>, default = false)]
    ambiguous: Option<Parsed<bool>>,
}

/// Makes a failed message due now, with a fresh budget of attempts.
///
/// While an attempt is in flight nothing changes. A key that has neither `inbox` nor `admin` retries
/// its own messages only.
#[utoipa::path(
    post, path = "/messages/{id}/retry", tag = "messages",
    params(("id" = inline(MessageId), Path, description = "The message."), RetryQuery),
    responses(
        (status = 202, description = "It is due, or an attempt is in flight.", body = MessageView),
    ),
)]
pub async fn retry_message(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MessageId>,
    Query(query): Query<RetryQuery>,
) -> Result<(StatusCode, Json<MessageView>), Problem> {
    let may_repeat = if query.ambiguous.is_some_and(Parsed::value) {
        MayRepeat::Yes
    } else {
        MayRepeat::No
    };
    let message = state.app.outbox.retry(&caller, id, may_repeat).await?;
    state.app.changed.notify_one();
    Ok((StatusCode::ACCEPTED, Json(message.into())))
}

/// Ends the attempts at a message that waits for one: it becomes `FAILED`, kind `canceled`, without a next attempt.
///
/// A message that has failed for good is answered as it is. A key that has neither `inbox` nor
/// `admin` cancels its own messages only.
#[utoipa::path(
    post, path = "/messages/{id}/cancel", tag = "messages",
    params(("id" = inline(MessageId), Path, description = "The message.")),
    responses(
        (status = 200, description = "No further attempt is made.", body = MessageView),
    ),
)]
pub async fn cancel_message(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MessageId>,
) -> Result<Json<MessageView>, Problem> {
    let message = state.app.outbox.cancel(&caller, id).await?;
    state.app.changed.notify_one();
    Ok(Json(message.into()))
}
