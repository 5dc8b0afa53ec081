//! A host that says where files are, and has them: both as each test likes it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// The token of the number.
pub const TOKEN: &str = "an-access-token-of-20";
/// Where Graph tells of the file with the id 1, and where the file is.
pub const GRAPH: &str = "/v26.0/1";
pub const FILE: &str = "/file";

/// A call that it got.
#[derive(Debug, Clone)]
pub struct Call {
    /// With the query.
    pub path: String,
    pub authorization: Option<String>,
    pub user_agent: Option<String>,
}

/// A call that it has to answer.
pub struct Asked {
    /// Its own URL.
    pub base: String,
    /// Without the query.
    pub path: String,
    /// How often that was called before.
    pub before: usize,
}

pub struct Host {
    pub url: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Host {
    /// It answers each call so.
    pub async fn start(
        answer: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let (seen, base) = (Arc::clone(&calls), url.clone());
        let router = Router::new().fallback(async move |request: Request| {
            let header = |name| {
                let value = request.headers().get(name)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let path = request.uri().path().to_owned();
            let call = Call {
                path: request.uri().to_string(),
                authorization: header(header::AUTHORIZATION),
                user_agent: header(header::USER_AGENT),
            };
            let mut calls = seen.lock().unwrap();
            let is_same = |call: &&Call| call.path.split('?').next() == Some(&*path);
            let before = calls.iter().filter(is_same).count();
            calls.push(call);
            drop(calls);
            let base = base.clone();
            answer(&Asked { base, path, before })
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, calls }
    }

    /// One that has this file, and says that it is of this kind.
    pub async fn with_file(kind: &'static str, file: &'static [u8]) -> Self {
        Self::start(move |asked| match &*asked.path {
            GRAPH => asked.found(kind, file),
            FILE => file.into_response(),
            _ => answered(404, ""),
        })
        .await
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

impl Asked {
    /// What Graph says of its file, which is declared to be of this kind.
    pub fn found(&self, kind: &str, file: &[u8]) -> Response {
        let url = format!("{}{FILE}?ext=1", self.base);
        answered(200, &found(&url, kind, file))
    }
}

/// What Graph says of a file that is at this URL and declared to be that.
pub fn found(url: &str, kind: &str, file: &[u8]) -> Value {
    json!({
        "messaging_product": "whatsapp", "url": url, "mime_type": kind,
        "sha256": STANDARD.encode(Sha256::digest(file)), "file_size": file.len(), "id": "1",
    })
}

pub fn answered(status: u16, body: &(impl ToString + ?Sized)) -> Response {
    (
        axum::http::StatusCode::from_u16(status).unwrap(),
        body.to_string(),
    )
        .into_response()
}

/// An error of Graph's, with a text that nobody is to see.
pub fn refused(status: u16, code: i64) -> Response {
    let error = json!({ "message": format!("{TOKEN} is bad"), "code": code });
    answered(status, &json!({ "error": error }))
}

/// A file of these pieces, without a length.
pub fn in_pieces(pieces: Vec<Vec<u8>>) -> Response {
    let pieces = pieces
        .into_iter()
        .map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    Body::from_stream(stream::iter(pieces)).into_response()
}

/// A file of which only the beginning comes.
pub fn hanging(start: &[u8]) -> Response {
    let start = Bytes::copy_from_slice(start);
    let start = stream::once(async move { Ok::<_, std::io::Error>(start) });
    Body::from_stream(start.chain(stream::pending())).into_response()
}
