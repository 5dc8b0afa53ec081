//! Connections: accepted up to a limit, served, and cut without a byte where an answer is a [`Cut`]. A trailing slash in a path
//! makes no difference.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::edge::{Ambiguous, ConnectionSlots, Socket, bound, without_trailing_slash};
use crate::http::failure;
use crate::mock::App;

const MAX_CONNECTIONS: usize = 4096;
/// How long a request's headers may take, and each piece of an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes, and the most that is kept of what was read or is to be written.
const MAX_HEAD: usize = 32 * 1024;
const MAX_BUFFER: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An answer that is none: the connection ends instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Closed in an orderly way (FIN).
    Close,
    /// Reset (RST).
    Reset,
}

impl IntoResponse for Cut {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// Accepts connections until the provider stops.
pub(crate) async fn accept(app: Arc<App>, listener: TcpListener, router: Router) {
    if let Err(error) = bound(&listener) {
        tracing::warn!(%error, "what the kernel keeps for connections is not bounded");
    }
    // One client may have all slots: a provider usually has one.
    let slots = ConnectionSlots::new(MAX_CONNECTIONS, MAX_CONNECTIONS);
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    let socket = Socket::new(stream, CLIENT_TIMEOUT);
                    let Some(slot) = slots.take(None, &socket.peer()).await else {
                        continue;
                    };
                    let (router, stopping) = (router.clone(), app.stopping.clone());
                    drop(app.spawn(async move {
                        serve_connection(socket, router, stopping).await;
                        drop(slot);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    app.unless_stopping(accepting).await;
}

async fn serve_connection(socket: Socket, router: Router, stopping: CancellationToken) {
    let peer = socket.peer();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let ambiguous = peer.ambiguous(request.headers());
        let mut request = request.map(|body| peer.receive(body));
        if let Some(uri) = without_trailing_slash(request.uri()) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(peer.clone());
        let answer = router.call(request);
        let peer = &peer;
        async move {
            if let Some(ambiguous) = ambiguous {
                return Ok(refused(ambiguous));
            }
            let Ok(response) = peer.serve(answer).await;
            match response.extensions().get::<Cut>() {
                Some(cut) => Err(*cut),
                None => Ok(response),
            }
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let Err(error) = served else {
        stopping
            .run_until_cancelled(peer.linger(CLIENT_TIMEOUT))
            .await;
        return;
    };
    let cut =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Cut>().copied());
    match cut {
        Some(Cut::Reset) => peer.reset(),
        Some(Cut::Close) => {}
        None => {
            tracing::debug!(%error, "connection ended early");
            // Nothing is kept for a client that does not read; others have seen the end already.
            if is_timeout(&error) {
                peer.reset();
            }
        }
    }
}

/// Whether an answer was given up because its client took too little of it.
fn is_timeout(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// The answer to a request whose end is not certain, and so the last one of its connection.
fn refused(ambiguous: Ambiguous) -> Response {
    let status = match ambiguous {
        Ambiguous::TwoLengths => StatusCode::BAD_REQUEST,
        Ambiguous::Coding => StatusCode::NOT_IMPLEMENTED,
    };
    let mut response = failure(status, ambiguous.detail());
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
