//! Clients that are slow, deaf or many: each has its time, together they have a limit, and the
//! others are served meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mock_meta_provider::Mock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Bounded;
use crate::support::{
    Client, Database, Program, System, assert_full_service, event, eventually, mock, rest,
};

/// Longer than any limit of the gateway's, for those that are not to be cut off.
pub const PATIENT: (&str, &str) = ("CLIENT_TIMEOUT_MS", "600000");
pub const IMPATIENT: (&str, &str) = ("CLIENT_TIMEOUT_MS", "2000");

pub async fn connect_many(client: &Client, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(client.connect().await);
    }
    connections
}

/// Sends a request that keeps the connection open.
pub async fn ask(connection: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
}

/// Waits for an answer's beginning, which has this status.
pub async fn assert_answered(connection: &mut TcpStream, status: u16) {
    let mut start = [0; 12];
    let read = timeout(Duration::from_mins(1), connection.read_exact(&mut start)).await;
    read.expect("no answer").unwrap();
    let start = String::from_utf8_lossy(&start).into_owned();
    assert_eq!(start, format!("HTTP/1.1 {status}"));
}

/// A patient `gateway serve` with these soft and hard limits of open files.
pub fn serve_limited_to_files(database: &Database, mock: &Mock, soft: u32, hard: u32) -> Program {
    Program::new("serve")
        .envs(&[
            ("DATABASE_URL", database.url()),
            ("PROVIDER_URL", &mock.url()),
            PATIENT,
        ])
        .limited_to_files(soft, hard)
        .start()
}

/// How many files, and with them connections, the gateway has open; no other process can look.
async fn open_files(client: &Client) -> usize {
    let metrics = client.get("/metrics").await.text;
    let files = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_open_fds "));
    files.unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_from_anything() {
    const IDLE: usize = 10_000;
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(
        limit > 12_000,
        "this test needs more open files than {limit}"
    );
    let database = Database::new().await;
    let mock = mock().await;
    // What a login shell or systemd usually begins a program with.
    let gateway = serve_limited_to_files(&database, &mock, 1024, 20_000);
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    assert_full_service(&client).await;
    let files = open_files(&client).await;
    let bounded = Bounded::to(160, &gateway);
    let mut idle = Vec::new();
    while idle.len() < IDLE {
        // No more at once than wait in the kernel's queue.
        idle.extend(connect_many(&client, 500).await);
        eventually("all are accepted", async || {
            (open_files(&client).await >= idle.len()).then_some(())
        })
        .await;
    }
    let stranger = Client::new(gateway.url());
    join_all((0..20).map(async |_| assert_full_service(&stranger).await)).await;
    bounded.check();
    drop(idle);
    eventually("they are gone", async || {
        (open_files(&client).await < files + 200).then_some(())
    })
    .await;
    assert_full_service(&client).await;
}

#[tokio::test]
async fn where_files_are_few_connections_are_fewer_and_wait_for_each_other() {
    let database = Database::new().await;
    let mock = mock().await;
    let gateway = serve_limited_to_files(&database, &mock, 256, 512);
    let line = gateway
        .logged("the limit of open files allows fewer connections than usual")
        .await;
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["open_files"], 512, "{line}");
    let places = usize::try_from(line["connections"].as_u64().unwrap()).unwrap();
    assert!((100..500).contains(&places), "{line}");
    gateway.logged("ready").await;

    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    // One place is the client's.
    let mut idle = connect_many(&client, places - 1).await;
    let mut waiting = connect_many(&client, 20).await;
    for connection in &mut waiting {
        ask(connection, "/health").await;
    }
    let line = gateway
        .logged("all connections are taken, further ones wait")
        .await;
    assert_eq!(
        (&line["level"], &line["connections"]),
        (&json!("WARN"), &json!(places)),
        "{line}"
    );
    // The database and the provider have files of their own.
    assert_full_service(&client).await;
    for connection in &mut waiting {
        drop(idle.pop());
        assert_answered(connection, 200).await;
    }
    let log = gateway.log().concat();
    assert_eq!(
        log.matches("all connections are taken").count(),
        1,
        "one line a while is enough"
    );
    drop((idle, waiting));
    assert_full_service(&Client::new(gateway.url())).await;
}

/// A conversation whose largest page is about 12 MB; its path.
pub async fn large_page(client: &Client) -> String {
    let text = "x".repeat(60_000);
    let receipts = join_all((0..200).map(async |n| {
        let event = event(&format!("evt_{n}"), "user-1", &text, "2025-01-01T10:00:00Z");
        client.webhook(&event).await.expect(200)
    }));
    let conversation_id = receipts.await[0]["conversationId"]
        .as_str()
        .unwrap()
        .to_owned();
    format!("/conversations/{conversation_id}?limit=200")
}

/// Asks for something on a connection of its own and waits until the answer is coming, but reads
/// none of it.
async fn ask_and_read_nothing(client: &Client, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(client.address()).await.unwrap();
    ask(&mut connection, path).await;
    let answered = timeout(Duration::from_mins(1), connection.readable()).await;
    answered.expect("no answer").unwrap();
    connection
}

#[tokio::test]
async fn clients_that_never_read_share_a_limited_memory() {
    let system = System::with(&[PATIENT]).await;
    let page = large_page(&system.client).await;
    system.client.get(&page).await.expect(200);
    let bounded = Bounded::to(128, &system.gateway);
    let mut deaf = Vec::new();
    for _ in 0..16 {
        deaf.push(ask_and_read_nothing(&system.client, &page).await);
    }
    bounded.check();
    system
        .client
        .get(&page)
        .await
        .expect_problem(503, "overloaded");
    system.gateway.logged("request not served").await;
    assert_full_service(&system.client).await;
    drop(deaf);
    eventually("the page is served again", async || {
        (system.client.get(&page).await.status == 200).then_some(())
    })
    .await;
    assert_full_service(&system.client).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_for_long_is_cut_off() {
    let system = System::start().await;
    let page = large_page(&system.client).await;
    let (gateway, client) = system.another(&[IMPATIENT]).await;
    let mut deaf = ask_and_read_nothing(&client, &page).await;
    let line = gateway
        .logged("client did not read its answer in time, closing the connection")
        .await;
    assert!(
        line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    let read = rest(&mut deaf).await;
    assert!(read.starts_with("HTTP/1.1 200"), "{read}");
    assert!(read.len() < 12_000_000);

    assert_full_service(&client).await;
}

#[tokio::test]
async fn an_idle_connection_outlives_those_of_load_balancers_whatever_slow_clients_are_allowed() {
    let system = System::with(&[("CLIENT_TIMEOUT_MS", "500")]).await;
    let mut silent = system.client.connect().await;
    let mut idle = system.client.connect().await;
    ask(&mut idle, "/health").await;
    assert_answered(&mut idle, 200).await;
    // What begins a request has to end it in time.
    let mut slow = system.client.connect().await;
    slow.write_all(b"GET /health HTTP/1.1\r\nhost:")
        .await
        .unwrap();
    assert_eq!(rest(&mut slow).await, "");
    let asked_at = Instant::now();
    ask(&mut idle, "/health").await;
    let closed = async |connection: &mut TcpStream| {
        let mut said = String::new();
        let closed = timeout(Duration::from_mins(3), connection.read_to_string(&mut said));
        closed.await.expect("it is still open").unwrap();
        said
    };
    assert_eq!(closed(&mut silent).await, "");
    let said = closed(&mut idle).await;
    assert!(said.ends_with(r#"{"status":"ok"}"#), "{said}");
    assert!(
        asked_at.elapsed() >= Duration::from_secs(75),
        "{:?}",
        asked_at.elapsed()
    );
}

/// Sends one byte a second until nobody takes it any more, or something is answered; the answer.
async fn trickle(mut connection: TcpStream) -> String {
    let (mut reader, mut writer) = connection.split();
    let mut answer = Vec::new();
    let slowly = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = slowly => {}
    }
    // It may be refused to go on before it has read why.
    reader.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn hundreds_that_send_a_byte_a_second_are_cut_off_and_keep_nobody_from_anything() {
    let system = System::with(&[("CLIENT_TIMEOUT_MS", "3000")]).await;
    let bounded = Bounded::to(64, &system.gateway);
    let slow = |head: &'static str| {
        let client = &system.client;
        join_all((0..200).map(async move |_| {
            let mut connection = client.connect().await;
            connection.write_all(head.as_bytes()).await.unwrap();
            timeout(Duration::from_mins(1), trickle(connection))
                .await
                .unwrap()
        }))
    };
    let heads = slow("GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: ");
    let bodies = slow(
        "POST /webhooks/mock-meta HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
    );
    let others = async {
        for _ in 0..10 {
            join_all((0..10).map(async |_| assert_full_service(&system.client).await)).await;
        }
    };
    let (heads, bodies, ()) = tokio::join!(heads, bodies, others);
    for answer in heads {
        assert_eq!(answer, "");
    }
    for answer in bodies {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(
            answer.contains("the body did not arrive in time"),
            "{answer}"
        );
    }
    bounded.check();
    assert_full_service(&system.client).await;
}
