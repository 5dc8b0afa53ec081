//! Bodies on a route that takes large ones: they share a budget, and come at a pace. The route is a
//! small one of this test's on the gateway's own server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use axum::routing::post;
use futures_util::future::join_all;
use gateway::http::body::{Received, read_within};
use gateway::http::body_budget::{BLOCK, BodyBudget};
use gateway::http::middleware::MiddlewareLayer;
use gateway::http::observe::Observe;
use gateway::http::problem::Problem;
use gateway::http::route::BodyLimit;
use gateway::http::server::{Limits, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::rest;

const LIMIT: BodyLimit = BodyLimit(4 * 1024 * 1024);

/// A server with one route, which answers with a body's length once it may.
struct Large {
    server: Server,
    may_answer: Arc<Semaphore>,
}

type Parts = (BodyBudget, Arc<Semaphore>);

async fn length(
    State((budget, may_answer)): State<Parts>,
    request: Request,
) -> Result<impl IntoResponse, Problem> {
    let Received { bytes, problem } = read_within(&budget, request.into_body(), LIMIT).await;
    if let Some(problem) = problem {
        return Err(problem);
    }
    may_answer.acquire().await.unwrap().forget();
    Ok(bytes.len().to_string())
}

impl Large {
    /// With a budget of so many blocks, and so many answers that need not be allowed.
    async fn start(blocks: usize, answers: usize) -> Self {
        let may_answer = Arc::new(Semaphore::new(answers));
        let parts = (BodyBudget::of(blocks), Arc::clone(&may_answer));
        let router = Router::new()
            .route("/", post(length))
            .with_state(parts)
            .layer(MiddlewareLayer(Observe));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = Limits {
            connections: 1000,
            client_timeout: Duration::from_mins(1),
            proxies: Vec::new(),
        };
        let server = Server::start(listener, router, limits).unwrap();
        Self { server, may_answer }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

/// Begins a request whose body is announced as so long; or, without a length, comes in one chunk of
/// which nobody knows the end.
async fn begin(address: SocketAddr, length: Option<usize>) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let framing = match length {
        Some(length) => format!("content-length: {length}\r\n\r\n"),
        None => format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", 1_u64 << 40),
    };
    let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{framing}");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

/// Sends so much; it may be refused meanwhile.
async fn send(connection: &mut TcpStream, length: usize) {
    connection.write_all(&vec![b'x'; length]).await.ok();
}

async fn post_all(address: SocketAddr, length: usize) -> String {
    let mut connection = begin(address, Some(length)).await;
    send(&mut connection, length).await;
    rest(&mut connection).await
}

#[track_caller]
fn assert_overloaded(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"overloaded""#), "{answer}");
}

/// 16 bodies of 2.2 MiB, and room for 15 of them: one is slower than the others.
#[tokio::test]
async fn where_large_bodies_take_up_all_room_the_slowest_goes_and_the_others_end_well() {
    const BLOCKS: usize = 35;
    let large = Large::start(512, 0).await;
    let address = large.address();
    let mut slow = begin(address, Some(BLOCKS * BLOCK)).await;
    let slow_one = tokio::spawn(async move {
        for _ in 0..BLOCKS {
            send(&mut slow, BLOCK).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        rest(&mut slow).await
    });
    // It has some blocks by then. The others need all but two.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let others = join_all((0..15).map(|_| post_all(address, BLOCKS * BLOCK)));
    let others = tokio::spawn(others);
    assert_overloaded(&slow_one.await.unwrap());
    large.may_answer.add_permits(15);
    for answer in others.await.unwrap() {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with(&(BLOCKS * BLOCK).to_string()), "{answer}");
    }
}

#[tokio::test]
async fn a_body_of_the_usual_size_needs_none_of_the_shared_room() {
    let large = Large::start(0, Semaphore::MAX_PERMITS).await;
    let address = large.address();
    let answers = join_all((0..100).map(|_| post_all(address, BLOCK))).await;
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_overloaded(&post_all(address, BLOCK + 1).await);
}

#[tokio::test]
async fn room_is_taken_as_bytes_come_and_not_as_they_are_announced() {
    let large = Large::start(1, Semaphore::MAX_PERMITS).await;
    let address = large.address();
    let mut announced = Vec::new();
    for _ in 0..50 {
        let mut connection = begin(address, Some(LIMIT.0)).await;
        send(&mut connection, BLOCK).await;
        announced.push(connection);
    }
    let answer = post_all(address, 2 * BLOCK).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_large_body_that_trickles_is_cut_off_soon_and_a_small_one_has_its_usual_time() {
    let large = Large::start(512, Semaphore::MAX_PERMITS).await;
    let address = large.address();
    let trickled = |length: Option<usize>, first: usize| async move {
        let mut connection = begin(address, length).await;
        send(&mut connection, first).await;
        let began = Instant::now();
        let (mut reading, mut writing) = connection.split();
        let mut answer = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
        let trickle = async {
            loop {
                writing.write_all(b"x").await.ok();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            read = read => drop(read),
            () = trickle => {}
        }
        (String::from_utf8(answer).unwrap(), began.elapsed())
    };
    for (length, first) in [
        (Some(LIMIT.0), 100),
        (Some(LIMIT.0), 20 * BLOCK),
        (None, 100),
        (None, 3 * BLOCK),
    ] {
        let (answer, time) = trickled(length, first).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(time < Duration::from_secs(6), "{first}: {time:?}");
    }
    // 30 bytes of it are still missing.
    let (answer, time) = trickled(Some(1000), 970).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(time > Duration::from_secs(2), "{time:?}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_it_says_so_or_not() {
    let large = Large::start(512, Semaphore::MAX_PERMITS).await;
    let whole = post_all(large.address(), LIMIT.0).await;
    assert!(whole.starts_with("HTTP/1.1 200 "), "{whole}");
    let announced = post_all(large.address(), LIMIT.0 + 1).await;
    let mut endless = begin(large.address(), None).await;
    send(&mut endless, LIMIT.0 + 1).await;
    for answer in [announced, rest(&mut endless).await] {
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("larger than 4194304 bytes"), "{answer}");
    }
}
