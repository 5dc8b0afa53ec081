//! What stands between a browser and the gateway: it passes everything on, and can hold an answer,
//! lose it, refuse, or cut the line.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A proxy on a port of its own, so an origin of its own.
pub struct Gate {
    url: String,
    state: Arc<State>,
}

struct State {
    client: reqwest::Client,
    now: Mutex<Now>,
}

struct Now {
    upstream: String,
    line: Line,
    /// Ends all connections there are.
    cut: CancellationToken,
    /// Ends what all answers there are still say, but not their connections.
    hushed: CancellationToken,
    held: Vec<(String, Held, watch::Sender<Answer>)>,
    /// What is answered in the gateway's place.
    files: Vec<(String, File)>,
    asked: Vec<String>,
}

/// A file that the gate has, as it came from a provider.
#[derive(Clone)]
pub struct File {
    pub status: u16,
    pub content_type: &'static str,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Open,
    /// Everything is answered 503, as by a gateway that stops.
    Refusing,
    Cut,
}

#[derive(Clone, Copy, PartialEq)]
enum Held {
    BeforeGateway,
    BehindGateway,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    NotThere,
    /// The browser has asked, and waits.
    Waiting,
    Passed,
    Lost,
}

/// Answers to some requests, which do not get through before the test says so.
pub struct HeldAnswer {
    answer: watch::Sender<Answer>,
    what: String,
}

impl Gate {
    /// One in front of this gateway.
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A connection that was kept may be to a gateway that is gone.
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        let now = Now {
            upstream: upstream.to_owned(),
            line: Line::Open,
            cut: CancellationToken::new(),
            hushed: CancellationToken::new(),
            held: Vec::new(),
            files: Vec::new(),
            asked: Vec::new(),
        };
        let state = Arc::new(State {
            client,
            now: Mutex::new(now),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { url, state }
    }

    /// Where the browser goes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads to another gateway from now on.
    pub fn lead_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.state.now.lock().unwrap().upstream);
    }

    /// Ends all connections, and takes no others.
    pub fn cut(&self) {
        let mut now = self.state.now.lock().unwrap();
        now.line = Line::Cut;
        now.cut.cancel();
    }

    /// Ends all connections; others may follow.
    pub fn interrupt(&self) {
        let mut now = self.state.now.lock().unwrap();
        now.cut.cancel();
        now.cut = CancellationToken::new();
    }

    /// Passes nothing more on the streams that there are, which stay open: so a machine finds its
    /// connections when it has slept.
    pub fn hush(&self) {
        let mut now = self.state.now.lock().unwrap();
        now.hushed.cancel();
        now.hushed = CancellationToken::new();
    }

    /// Answers 503, and ends what streams there are.
    pub fn refuse(&self) {
        self.interrupt();
        self.state.now.lock().unwrap().line = Line::Refusing;
    }

    /// As at first.
    pub fn open(&self) {
        let mut now = self.state.now.lock().unwrap();
        now.line = Line::Open;
        now.cut = CancellationToken::new();
    }

    /// Holds the answers to requests that begin like this, such as `GET /conversations?`.
    pub fn hold(&self, request: &str) -> HeldAnswer {
        self.hold_at(request, Held::BehindGateway)
    }

    /// Holds such requests themselves.
    pub fn stop(&self, request: &str) -> HeldAnswer {
        self.hold_at(request, Held::BeforeGateway)
    }

    /// Answers requests that begin like this by itself, as a gateway would that had got this.
    pub fn has(&self, request: &str, file: File) {
        let mut now = self.state.now.lock().unwrap();
        now.files.push((request.to_owned(), file));
    }

    fn hold_at(&self, request: &str, at: Held) -> HeldAnswer {
        let (answer, _) = watch::channel(Answer::NotThere);
        let mut now = self.state.now.lock().unwrap();
        now.held.push((request.to_owned(), at, answer.clone()));
        HeldAnswer {
            answer,
            what: request.to_owned(),
        }
    }

    /// What was asked so far, each as `GET /conversations?limit=20`.
    pub fn asked(&self) -> Vec<String> {
        self.state.now.lock().unwrap().asked.clone()
    }

    /// How often something that begins like this was asked.
    pub fn count(&self, request: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|line| line.starts_with(request))
            .count()
    }
}

impl HeldAnswer {
    /// Waits until there is one.
    pub async fn arrived(&self) {
        let mut answer = self.answer.subscribe();
        let arrived = answer.wait_for(|answer| *answer == Answer::Waiting);
        let arrived = tokio::time::timeout(Duration::from_mins(1), arrived).await;
        let what = &self.what;
        assert!(arrived.is_ok(), "the browser never asked {what}");
    }

    /// Lets it through, and all that follow.
    pub fn pass(self) {
        self.answer.send_replace(Answer::Passed);
    }

    /// Ends its connection in its place, and lets those that follow through.
    pub fn lose(self) {
        self.answer.send_replace(Answer::Lost);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let cut = {
            let now = state.now.lock().unwrap();
            if now.line == Line::Cut {
                continue;
            }
            now.cut.clone()
        };
        tokio::spawn(serve(stream, Arc::clone(&state), cut));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, cut: CancellationToken) {
    let service = service_fn(|request| pass(Arc::clone(&state), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A browser may go away at any time.
        _ = connection => {}
        () = cut.cancelled() => {}
    }
}

/// An error ends the connection.
async fn pass(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let (url, held, hushed, file) = {
        let mut now = state.now.lock().unwrap();
        now.asked.push(line.clone());
        if now.line == Line::Refusing {
            return Ok(overloaded());
        }
        // Only the latest of those that fit: others may have been passed already.
        let mut held = now.held.iter().rev();
        let held = held.find(|(start, ..)| line.starts_with(start.as_str()));
        let url = format!("{}{}", now.upstream, head.uri);
        let held = held.map(|(_, at, answer)| (*at, answer.clone()));
        let mut files = now.files.iter().rev();
        let file = files.find(|(start, _)| line.starts_with(start.as_str()));
        let file = file.map(|(_, file)| file.clone());
        (url, held, now.hushed.clone(), file)
    };
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if let Some((Held::BeforeGateway, held)) = &held {
        wait_for(held).await?;
    }
    if let Some(file) = file {
        return Ok(file.answer());
    }
    let request = state.client.request(head.method, url).body(body);
    let answer = request.headers(passed_on(&head.headers)).send().await;
    let answer = answer.map_err(io::Error::other)?;
    let (status, headers) = (answer.status(), passed_on(answer.headers()));
    let is_stream = headers
        .get(CONTENT_TYPE)
        .is_some_and(|it| it == "text/event-stream");
    let body = match held {
        Some((Held::BehindGateway, held)) if is_stream => {
            wait_for(&held).await?;
            flowing(answer, hushed)
        }
        Some((Held::BehindGateway, held)) => {
            let bytes = answer.bytes().await.map_err(io::Error::other)?;
            wait_for(&held).await?;
            Full::new(bytes).map_err(never).boxed_unsync()
        }
        _ => flowing(answer, hushed),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

impl File {
    fn answer(self) -> Response<Body> {
        let mut response = Response::new(Full::new(self.bytes).map_err(never).boxed_unsync());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        response
    }
}

async fn wait_for(held: &watch::Sender<Answer>) -> io::Result<()> {
    held.send_if_modified(|answer| {
        let is_first = *answer == Answer::NotThere;
        if is_first {
            *answer = Answer::Waiting;
        }
        is_first
    });
    let was_waiting = *held.borrow() == Answer::Waiting;
    let mut answer = held.subscribe();
    let end = answer.wait_for(|answer| matches!(answer, Answer::Passed | Answer::Lost));
    let end = *end.await.map_err(io::Error::other)?;
    if end == Answer::Lost && was_waiting {
        return Err(io::Error::other("the answer is lost"));
    }
    Ok(())
}

/// A body as it comes, for as long as it comes, or until it is hushed.
fn flowing(answer: reqwest::Response, hushed: CancellationToken) -> Body {
    let frames = stream::unfold((answer, hushed), |(mut answer, hushed)| async {
        let chunk = tokio::select! {
            biased;
            () = hushed.cancelled() => std::future::pending().await,
            chunk = answer.chunk() => chunk.map_err(io::Error::other).transpose()?,
        };
        Some((chunk.map(Frame::data), (answer, hushed)))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers
}

fn overloaded() -> Response<Body> {
    let problem = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"overloaded","detail":"stopping"}"#;
    let mut response = Response::new(Full::from(problem).map_err(never).boxed_unsync());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

fn never(error: Infallible) -> io::Error {
    match error {}
}
