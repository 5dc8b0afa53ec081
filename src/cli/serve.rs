//! `gateway serve`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use mock_meta_provider::Mock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::database::{WAIT, max_connections, wait_for_database, wait_for_writers};
use super::process::{
    client_limits, shut_down, start_background_work, start_retention_of_feed, stop_signal,
    until_stopped, warn_of_clear_text, warn_of_unsigned_webhooks, warn_when_open,
};
use crate::app::{App, Role};
use crate::config::{
    Backends, ClientArgs, DatabaseArgs, DeliveryArgs, FeedArgs, HostArgs, ListenArgs, MockArgs,
    RetentionArgs, ShutdownArgs, WorkerArgs, check_exposure, secrets,
};
use crate::conversation::{self, Filter};
use crate::cursor::Start;
use crate::database::{bounded, embedded::Embedded, target::Target};
use crate::delivery;
use crate::feed::places::Places;
use crate::http::server::Server;
use crate::inbox::demo::Demo;
use crate::media::fetch::Media;
use crate::provider::providers::Providers;
use crate::telemetry;
use crate::{api_state, router};

/// Serve the API, and retry failed messages; unconfigured: with a private database and a mock
/// provider
///
/// Some settings are secrets, and are read from the environment only:
///
/// API_KEYS: the keys of the API's callers, comma-separated. Each is `secret`, `name:secret` or
/// `name:secret:scope+scope`, with the scopes inbox, send and admin. Unset: no key is needed.
///
/// WEBHOOK_SECRET: the secrets that sign webhooks, comma-separated. Each webhook must be signed
/// with one of them. Unset: no signature is needed.
///
/// WHATSAPP_ACCESS_TOKEN: what authorizes calls of WhatsApp's Cloud API. META_APP_SECRET: the
/// app's secrets, comma-separated, by one of which its webhooks are signed. META_VERIFY_TOKEN: what
/// Meta proves itself with at the handshake, comma-separated, 16 characters at least. All three are
/// needed with WHATSAPP_PHONE_NUMBER_ID, and API_KEYS too where HOST is not loopback.
///
/// Each may be in a file instead: API_KEYS_FILE, WEBHOOK_SECRET_FILE and so on name it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  gateway serve\n  \
                  DATABASE_URL=postgres://user:password@host/database PROVIDER_URL=https://provider.example gateway serve --host 0.0.0.0")]
pub struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    feed: FeedArgs,
    #[command(flatten)]
    shutdown: ShutdownArgs,
    #[command(flatten)]
    mock: MockArgs,
    /// Do not migrate the database: wait until another process has
    #[arg(long)]
    no_migrate: bool,
    /// Make first attempts only: `gateway worker` makes the others
    #[arg(long)]
    no_worker: bool,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let address = args.listen.address();
    let providers = args.delivery.providers()?;
    let role = role(providers.as_ref());
    let max_connections = max_connections(&args.database, role)?;
    let secrets = Arc::new(secrets(Some(address.ip()))?);
    check_exposure(providers.as_ref(), &secrets, address.ip())?;
    let has_mock_meta = providers.as_ref().is_none_or(Providers::has_mock_meta);
    let backends = Backends::of(&args.database, providers, address.ip())?;
    let hosts = Arc::new(args.host.hosts(address.ip()));
    let metrics = telemetry::metrics()?;
    let stop = stop_signal()?;
    let attempts = args.delivery.send_concurrency() + args.worker.concurrency();
    let limits = client_limits(&args.client, attempts)?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another port with --port or PORT")
    })?;
    let server = Server::start(listener, router::starting(), limits)?;
    tracing::info!(address = %format!("http://{}", server.address()), "listening");
    warn_when_open(&secrets, &server, role);
    if has_mock_meta {
        warn_of_unsigned_webhooks(&secrets, &server);
    }

    let mut parts = JoinSet::new();
    let ready = async {
        let ready = Ready::prepare(backends, &args, &server).await?;
        let deadline = Instant::now() + WAIT;
        let inspection = wait_for_database(&ready.database, !args.no_migrate, deadline).await?;
        warn_of_clear_text(&inspection, &ready.providers);
        let connections =
            max_connections.unwrap_or_else(|| role.usual_connections(inspection.connection_limit));
        let database = (ready.database.clone(), connections, args.database.plans());
        let providers = ready.providers.clone();
        let settings = args.delivery.settings(role, database, providers);
        let app = App::new(settings, &mut parts);
        wait_for_writers(&app, deadline).await?;
        bounded(delivery::hold::begin(&app.pool, &app.courier.providers)).await?;
        anyhow::Ok((ready, app))
    };
    let (ready, app) = tokio::select! {
        ready = ready => ready?,
        () = stop.cancelled() => return Ok(()),
    };
    let providers = &app.courier.providers;
    let state = api_state::Parts {
        app: Arc::clone(&app),
        stopping: stop.clone(),
        secrets,
        hosts,
        demo: ready.demo()?,
        media: media(providers)?,
        places: Arc::new(Places::new(args.feed.max_streams(), args.client.proxies())),
        metrics,
    };
    server.replace(router::api(state.into()));
    start_retention_of_feed(&app, &args.retention, &stop, &mut parts);
    if !args.no_worker {
        let worker = app.worker(args.worker.concurrency());
        start_background_work(&app, worker, &args.retention, &stop, &mut parts);
    }
    let own = format!("http://{}", server.address());
    tracing::info!(inbox = %format!("{own}/inbox"), docs = %format!("{own}/api"), worker = !args.no_worker, "ready");
    hint_when_empty(&app, ready.embedded.is_some()).await;

    let served = until_stopped(&stop, &mut parts).await;
    tracing::info!("stopping");
    stop.cancel();
    shut_down(app, Some(server), args.shutdown.timeout()).await;
    ready.stop().await?;
    served
}

/// Fetches files of messages, where WhatsApp is connected.
fn media(providers: &Providers) -> anyhow::Result<Option<Arc<Media>>> {
    let media = providers.whatsapp().cloned().map(Media::new).transpose();
    Ok(media.context("files cannot be fetched")?.map(Arc::new))
}

/// What a process with these providers does.
fn role(providers: Option<&Providers>) -> Role {
    match providers.and_then(Providers::whatsapp) {
        Some(_) => Role::ServeWhatsapp,
        None => Role::Serve,
    }
}

/// Says how a message gets into an inbox that has none.
async fn hint_when_empty(app: &App, is_embedded: bool) {
    let newest = conversation::store::list(&app.pool, Filter::default(), Start::Skip(0), 1);
    let is_empty = bounded(newest).await.is_ok_and(|found| found.is_empty());
    if !is_empty {
        return;
    }
    if is_embedded {
        tracing::info!(
            "the inbox is empty: it has a button that lets a customer write, and `gateway seed` loads a small demo"
        );
    } else {
        tracing::info!("the inbox is empty: it fills with the first webhook");
    }
}

/// The database and the providers, and the embedded ones, which `serve` starts and stops.
struct Ready {
    database: Target,
    providers: Providers,
    embedded: Option<(Embedded, Mock)>,
}

impl Ready {
    async fn prepare(backends: Backends, args: &Args, server: &Server) -> anyhow::Result<Self> {
        match backends {
            Backends::Given(database, providers) => Ok(Self {
                database,
                providers: *providers,
                embedded: None,
            }),
            Backends::Embedded(directory) => Self::embedded(&directory, args, server).await,
        }
    }

    async fn embedded(directory: &Path, args: &Args, server: &Server) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", args.mock.port())).await.with_context(|| {
            format!("the mock provider cannot listen on 127.0.0.1:{}: choose another port with --mock-port or MOCK_PORT", args.mock.port())
        })?;
        let mut config = args.mock.config()?;
        config.webhook_url = format!("http://{}/webhooks/mock-meta", server.address());
        let mock = Mock::start(config, listener)?;
        let embedded = Embedded::start(directory).await?;
        tracing::warn!(
            data = %directory.display(), provider = mock.url(),
            "DATABASE_URL and PROVIDER_URL are not set: using a private PostgreSQL and a mock provider that misbehaves on purpose; no message leaves this machine"
        );
        Ok(Self {
            database: embedded.private_options().into(),
            providers: args.delivery.provider_at(&mock.url())?,
            embedded: Some((embedded, mock)),
        })
    }

    /// Lets the built-in mock provider make customers up.
    fn demo(&self) -> anyhow::Result<Option<Demo>> {
        let mock = self.embedded.as_ref().map(|(_, mock)| mock.url());
        let demo = mock.map(|url| Demo::new(&url)).transpose();
        demo.context("the built-in mock provider cannot be called")
    }

    async fn stop(self) -> anyhow::Result<()> {
        if let Some((embedded, mock)) = self.embedded {
            mock.stop().await;
            embedded.stop().await?;
        }
        Ok(())
    }
}
