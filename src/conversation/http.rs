//! The inbox.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::routes;
use validator::Validate;

use super::search::{self, Found, Prefix};
use super::view::{AliasView, ConversationView};
use super::{Channel, Conversation, ConversationId, Filter, Status, store};
use crate::alias;
use crate::api_state::{ApiState, Route};
use crate::caller::Caller;
use crate::channel::participant::Participant;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::http::extract::{Id, OptionalJson, Query};
use crate::http::field::{Fault, Field, Parsed, one_of, parsed};
use crate::http::key::Scope;
use crate::http::page::{Limit, NextCursor, PageMeta, PageNumber, Window};
use crate::http::problem::Problem;
use crate::http::route::Access;
use crate::message::Message;
use crate::message::store::list_thread;
use crate::message::view::ListedMessage;

/// The routes of this file.
pub fn routes() -> Vec<Route> {
    const INBOX: Access = Access::Key(&[Scope::Inbox]);
    vec![
        Route::new(routes!(list_conversations), INBOX),
        Route::new(routes!(get_conversation), INBOX),
        Route::new(routes!(read_conversation), INBOX),
        Route::new(routes!(close_conversation), INBOX),
        Route::new(routes!(reopen_conversation), INBOX),
        Route::new(routes!(archive_conversation), INBOX),
        Route::new(routes!(unarchive_conversation), INBOX),
    ]
}

/// A part of the inbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationList {
    /// Newest activity first.
    data: Vec<ConversationView>,
    meta: PageMeta,
}

/// A conversation and a part of its messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationDetail {
    #[serde(flatten)]
    conversation: ConversationView,
    /// The ids that lead to it, if there are any: the newest first, at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    aliases: Vec<AliasView>,
    /// Newest first.
    messages: Vec<ListedMessage>,
    meta: PageMeta,
}

/// Which conversations to list.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InboxQuery {
    /// The page, from 1; not together with `cursor`. Times `limit` it is at most 100,000: only
    /// `cursor` leads further.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<PageNumber>)]
    page: Option<Parsed<PageNumber>>,
    /// The `nextCursor` of the page before; not together with `page`. It costs the same at any
    /// depth.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Cursor>)]
    cursor: Option<Parsed<NextCursor<Cursor>>>,
    /// The most conversations of a page.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Limit<100, 20>>)]
    limit: Parsed<Limit<100, 20>>,
    /// Only those of this channel.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Channel>)]
    channel: Option<Parsed<Channel>>,
    /// Only those with this status.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Status>)]
    status: Option<Parsed<Status>>,
    /// `true`: only archived ones. `false`: none of them.
    #[validate(custom(function = parsed))]
    #[param(value_type = Option<bool>, default = false)]
    archived: Option<Parsed<bool>>,
    /// `true`: only those with unread messages. `false`: all.
    #[validate(custom(function = parsed))]
    #[param(value_type = Option<bool>, default = false)]
    unread: Option<Parsed<bool>>,
    /// Only those whose participant begins with this, compared by bytes. Where few of very many
    /// conversations match, a page may have less than `limit` of them, or none, and be followed by
    /// another: `hasMore` says so, and then only `cursor` leads further.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Participant>)]
    participant: Option<Parsed<Participant>>,
}

impl Field for Status {
    fn parse(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

/// The inbox, newest activity first.
#[utoipa::path(
    get, path = "/conversations", tag = "inbox",
    params(InboxQuery),
    responses((status = 200, description = "A part of the inbox.", body = ConversationList)),
)]
pub async fn list_conversations(
    State(state): State<ApiState>,
    Query(query): Query<InboxQuery>,
) -> Result<Json<ConversationList>, Problem> {
    let window = Window::new(query.page, query.cursor, query.limit)?;
    let filter = Filter {
        channel: query.channel.map(Parsed::value),
        status: query.status.map(Parsed::value),
        archived: query.archived.is_some_and(Parsed::value),
        unread: query.unread.is_some_and(Parsed::value),
    };
    let (pool, start, limit) = (&state.app.pool, window.start, window.to_read());
    let prefix = query.participant.map(Parsed::value);
    let prefix = prefix.map(|Participant(begin)| Prefix(begin));
    let Found { mut rows, reached } = if prefix.is_some() || filter.unread {
        search::list(pool, filter, prefix.as_ref(), start, limit).await?
    } else {
        Found {
            rows: store::list(pool, filter, start, limit).await?,
            reached: None,
        }
    };
    let meta = match reached {
        Some(place) => window.cut_at(place, &mut rows, Conversation::cursor)?,
        None => window.cut(&mut rows, Conversation::cursor),
    };
    Ok(Json(ConversationList {
        data: rows.into_iter().map(ConversationView::from).collect(),
        meta,
    }))
}

/// Which messages of a conversation to list.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ThreadQuery {
    /// The page, from 1; not together with `cursor`. Times `limit` it is at most 100,000: only
    /// `cursor` leads further.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<PageNumber>)]
    page: Option<Parsed<PageNumber>>,
    /// The `nextCursor` of the page before; not together with `page`. It costs the same at any
    /// depth.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Cursor>)]
    cursor: Option<Parsed<NextCursor<Cursor>>>,
    /// The most messages of a page.
    #[validate(custom(function = parsed))]
    #[param(inline, value_type = Option<Limit<200, 50>>)]
    limit: Parsed<Limit<200, 50>>,
    /// `true`: each message with its `content`, if it has one.
    #[validate(custom(function = parsed))]
    #[param(value_type = Option<bool>, default = false)]
    content: Option<Parsed<bool>>,
}

/// One conversation and its messages, newest first.
#[utoipa::path(
    get, path = "/conversations/{id}", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation."), ThreadQuery),
    responses((status = 200, description = "The conversation, and a part of its messages.", body = ConversationDetail)),
)]
pub async fn get_conversation(
    State(state): State<ApiState>,
    Id(id): Id<ConversationId>,
    Query(query): Query<ThreadQuery>,
) -> Result<Json<ConversationDetail>, Problem> {
    let window = Window::new(query.page, query.cursor, query.limit)?;
    let with_content = query.content.is_some_and(Parsed::value);
    let pool = &state.app.pool;
    // Before its messages: a reader that has seen them all hands in this `inboundCount`, so it must
    // count none that they lack.
    let found = store::find(pool, id).await?;
    let conversation = found.ok_or(Error::NotFound("conversation"))?;
    let aliases = if conversation.channel == Channel::Whatsapp {
        alias::list(pool, &conversation.participant_id).await?
    } else {
        Vec::new()
    };
    let mut rows = list_thread(pool, id, window.start, window.to_read()).await?;
    let meta = window.cut(&mut rows, Message::cursor);
    let listed = |message| ListedMessage::of(message, with_content);
    Ok(Json(ConversationDetail {
        conversation: conversation.into(),
        aliases: aliases.into_iter().map(AliasView::from).collect(),
        messages: rows.into_iter().map(listed).collect(),
        meta,
    }))
}

/// What was read of a conversation.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadRequest {
    #[schema(inline, value_type = SeenCount)]
    #[validate(custom(function = parsed))]
    inbound_count: Parsed<SeenCount>,
}

/// The conversation's `inboundCount` when it was read: what came in since then stays unread. One
/// that is greater than all that ever came in counts as all.
#[derive(Debug)]
pub struct SeenCount(i64);

impl PartialSchema for SeenCount {
    fn schema() -> RefOr<Schema> {
        // Without a format: any number may be given, however large.
        let schema = ObjectBuilder::new().schema_type(Type::Integer);
        schema.minimum(Some(0)).examples([7]).into()
    }
}

impl ToSchema for SeenCount {}

impl SeenCount {
    /// All that there is.
    const ALL: Self = Self(i64::MAX);
}

impl Field for SeenCount {
    fn parse(_: &str) -> Result<Self, Fault> {
        Err(Self::mistyped())
    }

    fn whole(number: u64) -> Result<Self, Fault> {
        Ok(i64::try_from(number).map_or(Self::ALL, Self))
    }

    fn mistyped() -> Fault {
        "must be a whole number from 0 on".into()
    }
}

/// Marks a conversation as read, all of it or up to what the reader has seen.
///
/// With a body, what came in after the messages that it counts stays unread: so none is marked that
/// the reader could not see. Nothing becomes unread again, and doing it twice changes nothing more.
#[utoipa::path(
    post, path = "/conversations/{id}/read", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation.")),
    request_body(content = Option<ReadRequest>, description = "What was seen; without a body, all."),
    responses((status = 200, description = "The conversation as it is now.", body = ConversationView)),
)]
pub async fn read_conversation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<ConversationId>,
    OptionalJson(request): OptionalJson<ReadRequest>,
) -> Result<Json<ConversationView>, Problem> {
    let seen = request.map_or(SeenCount::ALL, |request| request.inbound_count.value());
    let conversation = store::mark_read(&state.app.pool, id, seen.0).await?;
    log(&caller, "read", conversation.as_ref());
    state.app.changed.notify_one();
    view(conversation)
}

/// Closes a conversation; an inbound message opens it again.
#[utoipa::path(
    post, path = "/conversations/{id}/close", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation.")),
    responses((status = 200, description = "The conversation as it is now.", body = ConversationView)),
)]
pub async fn close_conversation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    let conversation = store::set_status(&state.app.pool, id, Status::Closed).await?;
    log(&caller, "close", conversation.as_ref());
    state.app.changed.notify_one();
    view(conversation)
}

/// Opens a conversation again.
#[utoipa::path(
    post, path = "/conversations/{id}/reopen", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation.")),
    responses((status = 200, description = "The conversation as it is now.", body = ConversationView)),
)]
pub async fn reopen_conversation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    let conversation = store::set_status(&state.app.pool, id, Status::Open).await?;
    log(&caller, "reopen", conversation.as_ref());
    state.app.changed.notify_one();
    view(conversation)
}

/// Takes a conversation out of the inbox; an inbound message puts it back.
#[utoipa::path(
    post, path = "/conversations/{id}/archive", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation.")),
    responses((status = 200, description = "The conversation as it is now.", body = ConversationView)),
)]
pub async fn archive_conversation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    let conversation = store::set_archived(&state.app.pool, id, true).await?;
    log(&caller, "archive", conversation.as_ref());
    state.app.changed.notify_one();
    view(conversation)
}

/// Puts a conversation back into the inbox.
#[utoipa::path(
    post, path = "/conversations/{id}/unarchive", tag = "inbox",
    params(("id" = inline(ConversationId), Path, description = "The conversation.")),
    responses((status = 200, description = "The conversation as it is now.", body = ConversationView)),
)]
pub async fn unarchive_conversation(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    let conversation = store::set_archived(&state.app.pool, id, false).await?;
    log(&caller, "unarchive", conversation.as_ref());
    state.app.changed.notify_one();
    view(conversation)
}

/// Logs what a key has changed.
fn log(caller: &Caller, change: &'static str, conversation: Option<&Conversation>) {
    if let (Some(_), Some(conversation)) = (caller.key_index(), conversation) {
        tracing::info!(conversation_id = %conversation.id, change, "a conversation was changed");
    }
}

fn view(conversation: Option<Conversation>) -> Result<Json<ConversationView>, Problem> {
    let conversation = conversation.ok_or(Error::NotFound("conversation"))?;
    Ok(Json(conversation.into()))
}
