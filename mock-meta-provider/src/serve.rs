//! Connections: accepted up to a limit, served, and cut without a byte if an answer is a [`Cut`].
//! A trailing slash in a path makes no difference.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answer::{Cut, failure};
use crate::app::SharedApp;
use crate::edge::{Ambiguous, ConnectionSlots, Socket, bound, without_trailing_slash};

const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send a request's headers, and to read each piece of an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// The largest buffer of what was read or is to be written, in bytes.
const MAX_BUFFER: usize = 64 * 1024;
/// The wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the provider stops.
pub(crate) async fn accept(app: SharedApp, listener: TcpListener, router: Router) {
    if let Err(error) = bound(&listener) {
        tracing::warn!(%error, "cannot bound the kernel's buffers for connections");
    }
    // One client may have all slots: a provider usually has only one.
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
    match cause::<Cut>(&error) {
        Some(Cut::Reset) => peer.reset(),
        Some(Cut::Close) => {}
        None => {
            tracing::debug!(%error, "connection ended early");
            // A client that takes too little of its answer: the kernel shall not keep the rest.
            if cause(&error).is_some_and(|cause: &io::Error| cause.kind() == ErrorKind::TimedOut) {
                peer.reset();
            }
        }
    }
}

fn cause<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source()?.downcast_ref()
}

/// The answer to a request whose end is ambiguous; it is the last one of its connection.
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
