//! Connections: accepted up to a limit, served, and cut without a byte where an answer is a [`Cut`]. A trailing slash in a path
//! makes no difference.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::mock::App;
use crate::socket::Socket;

const MAX_CONNECTIONS: usize = 4096;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
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
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        // A closed semaphore would end the loop; nobody closes it.
        while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (router, stopping) = (router.clone(), app.stopping.clone());
                    drop(app.spawn(async move {
                        serve_connection(stream, router, stopping).await;
                        drop(permit);
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

async fn serve_connection(stream: TcpStream, router: Router, stopping: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let socket = Socket::new(stream, HEADER_TIMEOUT);
    let peer = socket.peer();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(uri) = without_trailing_slash(request.uri()) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(peer.clone());
        let answer = router.call(request);
        let peer = &peer;
        async move {
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
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let Err(error) = served else { return };
    let cut =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Cut>().copied());
    match cut {
        Some(Cut::Reset) => peer.reset(),
        Some(Cut::Close) => {}
        None => tracing::debug!(%error, "connection ended early"),
    }
}

/// The same address without the one slash that its path ends with; `None` where there is no such slash, or nothing else.
#[must_use]
pub fn without_trailing_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/')?;
    if path.is_empty() || path.ends_with('/') {
        return None;
    }
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_trailing_slash_makes_no_difference() {
        for (given, meant) in [
            ("/messages/", Some("/messages")),
            ("/messages/?a=/", Some("/messages?a=/")),
            ("/messages/?", Some("/messages?")),
            (
                "http://localhost:4000/messages/",
                Some("http://localhost:4000/messages"),
            ),
            ("/%2e/", Some("/%2e")),
            ("/", None),
            ("//", None),
            ("/messages//", None),
            ("/messages", None),
            ("/messages?a=/", None),
            ("/messages%2f", None),
            ("*", None),
        ] {
            let uri = without_trailing_slash(&given.parse().unwrap());
            assert_eq!(uri.map(|uri| uri.to_string()).as_deref(), meant, "{given}");
        }
    }
}
