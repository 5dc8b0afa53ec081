//! Serves a router on a listener.
//!
//! `axum::serve` lacks what is here: limits on connections and their time, notice of clients that
//! go away, and a stop that waits for requests. A trailing slash in a path makes no difference.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::HeaderValue;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::observe::{REQUEST_ID, count_abandoned, visible};
use crate::edge::{ConnectionSlots, Network, Peer, Socket, bound, without_trailing_slash};
use crate::log_throttle::LogThrottle;

/// The most connections at once, where the system allows so many.
pub const MAX_CONNECTIONS: usize = 16_384;
/// One address has at most this part of them: one in four.
const PART_OF_ADDRESS: usize = 4;
/// The largest head of a request, in bytes: its line and its headers.
const MAX_HEAD: usize = 32 * 1024;
/// The largest buffer for reading, and for writing unless one answer is larger, in bytes.
const MAX_BUFFER: usize = 64 * 1024;
/// How often the log says that all connections are taken.
const FULL_NOTICE: Duration = Duration::from_mins(1);
/// How long to wait after the system refused a connection, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for the reset by which a client that is gone refuses an answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stream may still be read when the process stops.
const STREAM_END: Duration = Duration::from_millis(500);

/// Marks an answer that goes on until the process stops. Nobody waits then for a client that does
/// not read it.
#[derive(Debug, Clone, Copy)]
pub struct EndsWithProcess;

/// Limits on client connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at once. A further one replaces the one that has waited longest for its
    /// client.
    pub connections: usize,
    /// How long a client may take for a request's headers, or to take some of its answer.
    pub client_timeout: Duration,
    /// Where proxies call from. One stands for many callers, so it may have all connections.
    pub proxies: Vec<IpNet>,
}

impl Limits {
    /// The network whose connections are counted for this client. This machine's own are not counted:
    /// a proxy in front is often here, and other programs here could do worse.
    fn network(&self, client: SocketAddr) -> Option<Network> {
        let address = client.ip().to_canonical();
        let is_proxy =
            address.is_loopback() || self.proxies.iter().any(|net| net.contains(&address));
        (!is_proxy).then(|| Network::of(address))
    }
}

/// A router that is being served.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    router: watch::Sender<Router>,
    connections: TaskTracker,
    stopping: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts to serve.
    pub fn start(listener: TcpListener, router: Router, limits: Limits) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        bound(&listener)?;
        let connections = TaskTracker::new();
        let stopping = CancellationToken::new();
        let (router, current) = watch::channel(router);
        let accepting = accept(
            listener,
            current,
            limits,
            connections.clone(),
            stopping.clone(),
        );
        Ok(Self {
            address,
            router,
            connections,
            stopping,
            accepting: tokio::spawn(accepting),
        })
    }

    /// Serves every request from now on by another router, also on open connections.
    pub fn replace(&self, router: Router) {
        drop(self.router.send_replace(router));
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes the requests of open connections, and closes each. New connections are still taken
    /// until [`Self::close`], to tell their clients that this process stops.
    pub async fn drain(&self) {
        self.stopping.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    /// Stops listening.
    pub fn close(self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    router: watch::Receiver<Router>,
    limits: Limits,
    connections: TaskTracker,
    stopping: CancellationToken,
) {
    let slots = ConnectionSlots::new(
        limits.connections,
        (limits.connections / PART_OF_ADDRESS).max(1),
    );
    let mut noticed_at: Option<Instant> = None;
    let mut greedy = LogThrottle::default();
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection broke");
            continue;
        }
        let socket = Socket::new(stream, limits.client_timeout);
        let is_full = slots.are_taken();
        if is_full && noticed_at.is_none_or(|at| at.elapsed() > FULL_NOTICE) {
            noticed_at = Some(Instant::now());
            let connections = limits.connections;
            tracing::warn!(connections, "all connections are taken, further ones wait");
        }
        let network = limits.network(client);
        if network.is_some_and(|network| slots.are_taken_by(network))
            && let Some(passed_over) = greedy.admit("")
        {
            tracing::warn!(%client, passed_over, "one address has a quarter of all connections, further ones replace its own");
        }
        let Some(slot) = slots.take(network, &socket.peer()).await else {
            socket.peer().reset();
            continue;
        };
        let (router, client_timeout) = (router.clone(), limits.client_timeout);
        if stopping.is_cancelled() {
            // Nobody waits for it: it gets a refusal, or is cut off with the process.
            tokio::spawn(async move {
                serve(
                    socket,
                    client,
                    router,
                    client_timeout,
                    CancellationToken::new(),
                )
                .await;
                drop(slot);
            });
        } else {
            let stopping = stopping.clone();
            connections.spawn(async move {
                serve(socket, client, router, client_timeout, stopping).await;
                drop(slot);
            });
        }
    }
}

async fn serve(
    socket: Socket,
    client: SocketAddr,
    router: watch::Receiver<Router>,
    client_timeout: Duration,
    stopping: CancellationToken,
) {
    let peer = socket.peer();
    let half_closed = OnceLock::new();
    let is_stream = AtomicBool::new(false);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let router = router.borrow().clone();
        let ambiguous = peer.ambiguous(request.headers());
        let mut request = normalized(request).map(|body| peer.receive(body));
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(client));
        if let Some(ambiguous) = ambiguous {
            extensions.insert(ambiguous);
        }
        // Boxed: else each connection, also an idle one, would have room for this future.
        let answer = Box::pin(router.oneshot(request));
        answered(&peer, answer, &half_closed, &is_stream)
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        // A client that has finished sending may still read.
        .half_close(true)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let serving = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        if !is_stream.load(Ordering::Relaxed) {
            return connection.await;
        }
        let ended = tokio::time::timeout(STREAM_END, connection).await;
        ended.unwrap_or_else(|_| {
            peer.reset();
            Ok(())
        })
    };
    let ended = tokio::select! {
        biased;
        ended = serving => ended,
        // Its requests are dropped with the connection.
        () = peer.gone() => Ok(()),
    };
    match ended {
        // What it has not read when the process ends is left to the kernel.
        Ok(()) => drop(
            stopping
                .run_until_cancelled(peer.linger(client_timeout))
                .await,
        ),
        Err(error) if was_not_read(&error) => {
            tracing::info!(%client, "client did not read its answer in time, closing the connection");
            // Else the kernel would keep what was not read, while the client says that it is full.
            peer.reset();
        }
        Err(error) => tracing::debug!(%client, %error, "a connection broke"),
    }
    if let Some(request_id) = half_closed.get() {
        report_refused(&peer, request_id).await;
    }
}

/// The same request without a trailing slash in its path. The documentation's page keeps its own.
fn normalized<T>(mut request: hyper::Request<T>) -> hyper::Request<T> {
    if request.uri().path() != "/api/"
        && let Some(uri) = without_trailing_slash(request.uri())
    {
        *request.uri_mut() = uri;
    }
    request
}

/// Answers a request, and notes its id if the client has finished sending: it may be gone.
async fn answered<E>(
    peer: &Peer,
    answer: impl Future<Output = Result<Response, E>>,
    half_closed: &OnceLock<HeaderValue>,
    is_stream: &AtomicBool,
) -> Result<Response, E> {
    let response = peer.serve(answer).await?;
    let ends_with_process = response.extensions().get::<EndsWithProcess>().is_some();
    is_stream.store(ends_with_process, Ordering::Relaxed);
    if peer.has_left()
        && let Some(request_id) = response.headers().get(&REQUEST_ID)
    {
        half_closed.get_or_init(|| request_id.clone());
    }
    Ok(response)
}

/// Counts a request as abandoned if its client refuses the answer: then it was gone before.
async fn report_refused(peer: &Peer, request_id: &HeaderValue) {
    if tokio::time::timeout(REFUSAL_TIMEOUT, peer.gone())
        .await
        .is_ok()
    {
        count_abandoned();
        let request_id = visible(request_id);
        tracing::debug!(request_id, "a caller went away before its answer");
    }
}

fn was_not_read(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| cause.kind() == ErrorKind::TimedOut)
}
