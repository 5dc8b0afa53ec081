//! Serves a router on a listener, with what `axum::serve` lacks: limits on connections and headers, and an end that waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// The most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16_384;
/// How long the headers of a request may take, and how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after the system refused a connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// Begins to serve.
    pub fn start(listener: TcpListener, router: Router) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let connections = TaskTracker::new();
        let stopping = CancellationToken::new();
        let (router, current) = watch::channel(router);
        let accepting = accept(listener, current, connections.clone(), stopping.clone());
        Ok(Self {
            address,
            router,
            connections,
            stopping,
            accepting: tokio::spawn(accepting),
        })
    }

    /// Serves every request from now on, also on connections that there are, by another router.
    pub fn replace(&self, router: Router) {
        drop(self.router.send_replace(router));
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Finishes the requests of the connections that there are, each of which then closes. New connections are still
    /// accepted, so that they are told that this process is stopping, until [`Self::close`].
    pub async fn finish(&self) {
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
    connections: TaskTracker,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) if stopping.is_cancelled() => {
                // Not waited for: it learns that nothing new is taken, or is cut off with the process.
                tokio::spawn(serve(
                    stream,
                    router.clone(),
                    CancellationToken::new(),
                    place,
                ));
            }
            Ok((stream, _)) => {
                connections.spawn(serve(stream, router.clone(), stopping.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    router: watch::Receiver<Router>,
    stopping: CancellationToken,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection broke");
        return;
    }
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let router = router.borrow().clone();
        router.oneshot(request.map(axum::body::Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
    drop(place);
}
