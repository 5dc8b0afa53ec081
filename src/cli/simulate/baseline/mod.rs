//! What the gateway's burst is compared with: the transaction that one would write by hand, for each event one, behind a server of its own.
//!
//! In all that is open it has the better of it: a connection for each caller, which is never asked whether it still lives;
//! prepared statements; `axum::serve` as it comes. It checks no signature and no field, and has no limits, metrics or log.

mod http;
mod store;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use axum::serve::ListenerExt;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool};
use tokio::net::TcpListener;

use crate::channel::Channel;
use crate::id::ConversationId;
use crate::id::MessageId;
use crate::process::{hidden::Hidden, signal};

/// Longer than a caller ever waits for its connection.
const ACQUIRE: Duration = Duration::from_mins(1);

/// Serve webhooks by a hand-written transaction each, for `gateway simulate --burst`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database, in which it makes a schema `hand_written`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Hidden<String>,
    /// Connections to it
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_name = "N")]
    database_max_connections: u32,
}

/// An inbound event.
struct Event {
    id: String,
    channel: Channel,
    participant_id: String,
    text: String,
    timestamp: DateTime<Utc>,
    message_id: MessageId,
    body: Bytes,
}

/// What an event was stored as.
struct Receipt {
    event_id: String,
    duplicate: bool,
    conversation_id: ConversationId,
    message_id: MessageId,
}

/// What there is in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Events.
    pub events: i64,
    /// Messages.
    pub messages: i64,
    /// Unread messages, by the counts of their conversations.
    pub unread: i64,
}

/// Serves until it is stopped.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = signal::stop()?;
    let options: PgConnectOptions = args
        .database_url
        .parse()
        .map_err(|_| anyhow::anyhow!("DATABASE_URL is not a URL"))?;
    let connections = args.database_max_connections;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false)
        .acquire_timeout(ACQUIRE)
        .connect_with(options.disable_statement_logging())
        .await
        .context("cannot connect")?;
    store::create(&mut *pool.acquire().await?).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = format!("http://{}", listener.local_addr()?);
    tracing::info!(address, "listening");
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke");
        }
    });
    axum::serve(listener, http::router(pool))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await?;
    Ok(())
}

async fn store(pool: &PgPool, event: Event) -> sqlx::Result<Receipt> {
    let mut connection = pool.acquire().await?;
    let stored = transaction(&mut connection, event).await;
    if stored.is_err() {
        // Whatever it has begun ends with it.
        connection.close_on_drop();
    }
    stored
}

async fn transaction(connection: &mut PgConnection, event: Event) -> sqlx::Result<Receipt> {
    store::begin(connection).await?;
    let is_new = store::insert_event(connection, &event).await?;
    let (conversation_id, message_id) = if is_new {
        let conversation_id = store::upsert_conversation(connection, &event).await?;
        store::insert_message(connection, &event, conversation_id).await?;
        (conversation_id, event.message_id)
    } else {
        store::find_known(connection, &event.id).await?
    };
    store::commit(connection).await?;
    Ok(Receipt {
        event_id: event.id,
        duplicate: !is_new,
        conversation_id,
        message_id,
    })
}

async fn stored(pool: &PgPool) -> sqlx::Result<Stored> {
    let (events, messages, unread) = store::count(&mut *pool.acquire().await?).await?;
    Ok(Stored {
        events,
        messages,
        unread,
    })
}
