//! Strangers: what they send and do not read takes little, none of it from those who have a key,
//! and silence keeps nobody out.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Bounded;
use super::clients::{
    IMPATIENT, PATIENT, ask, assert_answered, connect_many, large_page, serve_limited_to_files,
};
use crate::support::whatsapp::{APP_SECRET, CONNECTED};
use crate::support::{
    Client, Database, System, assert_full_service, eventually, mock, rest, signature,
};

const SIGNED: (&str, &str) = ("WEBHOOK_SECRET", "a-secret-of-16-or-more");
/// As many as src/docs/security.md speaks of.
const STRANGERS: usize = 300;

/// Writes as much as the other side takes; it may refuse some of it.
async fn write(connection: &mut TcpStream, bytes: &[u8]) {
    connection.write_all(bytes).await.ok();
}

#[tokio::test]
async fn headers_that_never_end_are_refused_and_take_little_memory() {
    let system = System::with(&[PATIENT]).await;
    assert_full_service(&system.client).await;
    let bounded = Bounded::to(45, &system.gateway);
    let head = format!(
        "GET /nothing HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "a".repeat(32_600)
    );
    let (mut refused, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..STRANGERS {
        let mut connection = system.client.connect().await;
        write(&mut connection, head.as_bytes()).await;
        waiting.push(connection);
        let mut connection = system.client.connect().await;
        write(&mut connection, "a".repeat(16).as_bytes()).await;
        write(&mut connection, head.repeat(12).as_bytes()).await;
        refused.push(connection);
    }
    for connection in &mut refused {
        // Or a reset, since it had sent more than anybody wanted to read.
        let answer = rest(connection).await;
        let is_refused = answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 ");
        assert!(answer.is_empty() || is_refused, "{answer}");
    }
    assert_full_service(&system.client).await;
    for connection in &mut waiting {
        let end = b"\r\n\r\n";
        connection.write_all(end).await.unwrap();
        assert_answered(connection, 404).await;
    }
    bounded.check();
}

#[tokio::test]
async fn a_request_has_32_kib_for_its_head_and_not_more() {
    let system = System::start().await;
    for (length, answer) in [(32_000, "200"), (33_000, "431"), (200_000, "431")] {
        let mut connection = system.client.connect().await;
        let request = format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
            "a".repeat(length)
        );
        write(&mut connection, request.as_bytes()).await;
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert!(start.ends_with(answer.as_bytes()), "{length}: {start:?}");
    }
}

/// The beginning of a webhook whose last byte never comes.
fn unfinished(signature: &str, length: usize) -> String {
    let body = "x".repeat(length - 1);
    format!(
        "POST /webhooks/mock-meta HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{signature}content-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_webhook_that_cannot_be_signed_is_refused_before_its_body_has_come() {
    let system = System::with(&[SIGNED, PATIENT]).await;
    let hex = "0".repeat(64);
    for signature in [
        String::new(),
        "x-hub-signature-256: \r\n".to_owned(),
        "x-hub-signature-256: sha256=\r\n".to_owned(),
        format!("x-hub-signature-256: {hex}\r\n"),
        format!("x-hub-signature-256: sha1={hex}\r\n"),
        format!("x-hub-signature-256: sha256={hex}0\r\n"),
        format!("x-hub-signature-256: sha256={}g\r\n", &hex[1..]),
        format!("x-hub-signature: sha256={hex}\r\n"),
    ] {
        for length in [2, 1000, 65_536, 500_000] {
            let mut connection = system.client.connect().await;
            let request = unfinished(&signature, length);
            write(&mut connection, request.as_bytes()).await;
            // Not after the 10 seconds that a body may take.
            let answer = timeout(Duration::from_secs(8), rest(&mut connection)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{signature:?} {length}: no answer"));
            assert!(
                answer.starts_with("HTTP/1.1 401 "),
                "{signature:?} {length}: {answer}"
            );
            assert!(answer.contains("invalid_signature"), "{answer}");
        }
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        0
    );
}

/// The beginning of a webhook of `WhatsApp`'s of this length, with this signature.
fn large(signature: &str, length: usize) -> String {
    format!(
        "POST /webhooks/whatsapp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\nx-hub-signature-256: {signature}\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn large_webhooks_with_made_up_signatures_share_their_memory_and_hold_up_no_signed_one() {
    const MIB: usize = 1024 * 1024;
    let system = System::with(&[&CONNECTED[..], &[PATIENT]].concat()).await;
    let address = system.client.address();
    let bounded = Bounded::to(32 + 30, &system.gateway);
    let made_up = large(&format!("sha256={}", "0".repeat(64)), 4 * MIB);
    let strangers = (0..40).map(async |_| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        write(&mut connection, made_up.as_bytes()).await;
        // All but the end, as fast as it is taken.
        write(&mut connection, &vec![b' '; 4 * MIB - 1]).await;
        rest(&mut connection).await
    });
    let body = format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[]{}}}",
        " ".repeat(3 * MIB)
    );
    let signed = async {
        let signature = signature(APP_SECRET, &body);
        eventually("a signed one is taken", async || {
            let mut connection = TcpStream::connect(address).await.unwrap();
            write(&mut connection, large(&signature, body.len()).as_bytes()).await;
            write(&mut connection, body.as_bytes()).await;
            let answer = rest(&mut connection).await;
            answer.starts_with("HTTP/1.1 200 ").then_some(())
        })
        .await;
    };
    let (refused, ()) = tokio::join!(join_all(strangers), signed);
    // Given up for others, or too slow with the last byte; or a reset, after so much was sent.
    for answer in refused {
        let is_refused = ["HTTP/1.1 503 ", "HTTP/1.1 408 "]
            .iter()
            .any(|start| answer.starts_with(start));
        assert!(answer.is_empty() || is_refused, "{answer}");
    }
    bounded.check();
    system.client.get("/ready").await.expect(200);
}

#[tokio::test]
async fn who_sends_a_large_unsigned_webhook_to_its_end_gets_to_read_the_refusal() {
    let system = System::with(&[SIGNED]).await;
    for length in [10, 70_000, 900_000] {
        for _ in 0..5 {
            let request = system
                .client
                .http
                .post(system.client.url("/webhooks/mock-meta"));
            let request = request.body("x".repeat(length));
            let answer = system.client.call(request).await.unwrap();
            answer.expect_problem(401, "invalid_signature");
        }
    }
}

#[tokio::test]
async fn bodies_that_never_end_take_little_memory() {
    let signature = format!("x-hub-signature-256: sha256={}\r\n", "0".repeat(64));
    for (signature, growth_mib) in [("", 25), (&*signature, 75)] {
        let system = System::with(&[SIGNED, PATIENT]).await;
        let bounded = Bounded::to(growth_mib, &system.gateway);
        let request = unfinished(signature, 65_536);
        let mut strangers = connect_many(&system.client, STRANGERS).await;
        for connection in &mut strangers {
            write(connection, request.as_bytes()).await;
        }
        let status = if signature.is_empty() { 401 } else { 408 };
        for connection in &mut strangers {
            assert_answered(connection, status).await;
        }
        bounded.check();
    }
}

/// The gateway's ends of connections, also of those that it has closed: how many bytes the kernel
/// keeps for each.
fn kept_by_the_kernel(gateway: SocketAddr) -> Vec<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", gateway.port());
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    // Local address, remote address, state (0A: it listens, 06: nobody's any more), bytes to send
    // and to read.
    let own = rows.filter(|row| row[1].ends_with(&port) && !matches!(row[3], "0A" | "06"));
    own.map(|row| usize::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn what_nobody_reads_is_little_in_the_kernel_and_gone_when_it_is_cut_off() {
    const STATIC: &str = "/api/swagger-ui-bundle.js";
    let system = System::with(&[IMPATIENT]).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = socket.connect(system.client.address()).await.unwrap();
        for _ in 0..4 {
            ask(&mut connection, STATIC).await;
        }
        connection.readable().await.unwrap();
        deaf.push(connection);
    }
    let kept = kept_by_the_kernel(system.client.address());
    assert!(kept.iter().all(|bytes| *bytes <= 320 * 1024), "{kept:?}");
    system
        .gateway
        .logged("client did not read its answer in time, closing the connection")
        .await;
    // They are still there, and acknowledge that they cannot take more.
    eventually("the kernel keeps nothing", async || {
        let kept = kept_by_the_kernel(system.client.address());
        kept.is_empty().then_some(())
    })
    .await;
    drop(deaf);
    assert_full_service(&system.client).await;
}

/// Asks with a key, on a connection of its own, reads nothing of the answer, and waits until it is
/// coming.
async fn ask_and_read_nothing(client: &Client, key: &str, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(client.address()).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let answered = timeout(Duration::from_mins(1), connection.readable()).await;
    answered.expect("no answer").unwrap();
    connection
}

#[tokio::test]
async fn the_room_for_answers_is_no_strangers_and_half_of_it_is_left_by_any_key() {
    let (one, other) = ("one-key-of-16-or-more", "other-key-of-16-or-more");
    let keys = format!("one:{one},other:{other}");
    let system = System::with(&[PATIENT, ("API_KEYS", &keys)]).await;
    let page = large_page_with_key(&system.client, one).await;
    let bounded = Bounded::to(128, &system.gateway);
    let mut strangers = Vec::new();
    for _ in 0..70 {
        strangers
            .push(ask_and_read_nothing(&system.client, "none", "/api/swagger-ui-bundle.js").await);
    }
    let status = async |key: &str| {
        let request = system
            .client
            .http
            .get(system.client.url(&page))
            .bearer_auth(key);
        let answer = system.client.call(request).await.unwrap();
        if answer.status != 200 {
            answer.expect_problem(503, "overloaded");
        }
        answer.status
    };
    assert_eq!(status(one).await, 200, "strangers have taken the room");
    // Each page is 12 MB, and half of the room 32 MiB.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        deaf.push(ask_and_read_nothing(&system.client, one, &page).await);
    }
    assert_eq!(status(one).await, 503);
    assert_eq!(status(other).await, 200, "one key has taken all the room");
    bounded.check();
    drop((deaf, strangers));
    eventually("the page is served again", async || {
        (status(one).await == 200).then_some(())
    })
    .await;
}

async fn large_page_with_key(client: &Client, key: &str) -> String {
    let page = large_page(client).await;
    let request = client.http.get(client.url(&page)).bearer_auth(key);
    client.call(request).await.unwrap().expect(200);
    page
}

/// Reads as many bytes at most at a time, with pauses, to the end; how many it were.
async fn read_slowly(client: &Client, path: &str, bytes: usize, pause: Duration) -> usize {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    let mut connection = socket.connect(client.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; bytes]);
    loop {
        let mut filled = 0;
        while filled < bytes {
            match connection.read(&mut piece[filled..]).await {
                Ok(0) | Err(_) => return read + filled,
                Ok(count) => filled += count,
            }
        }
        read += filled;
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn who_reads_a_little_at_a_time_is_cut_off_and_who_reads_enough_is_not() {
    let system = System::start().await;
    let page = large_page(&system.client).await;
    let whole = system.client.get(&page).await.text.len();
    let (_gateway, client) = system.another(&[IMPATIENT]).await;
    // Together 6000 bytes in its time, and 2 MB.
    let little = read_slowly(&client, &page, 1500, Duration::from_millis(500));
    let enough = read_slowly(&client, &page, 500_000, Duration::from_millis(500));
    let (little, enough) = tokio::join!(timeout(Duration::from_mins(1), little), enough);
    let little = little.expect("it is still served");
    assert!(little < 2_000_000, "{little}");
    assert!(enough > whole, "{enough} of {whole}");
}

#[tokio::test]
async fn who_is_silent_makes_room_where_there_is_no_other() {
    let database = Database::new().await;
    let mock = mock().await;
    let gateway = serve_limited_to_files(&database, &mock, 256, 512);
    let line = gateway
        .logged("the limit of open files allows fewer connections than usual")
        .await;
    let places = usize::try_from(line["connections"].as_u64().unwrap()).unwrap();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    let begin = async |beginning: &'static str| {
        let mut connections = connect_many(&client, places / 3 + 1).await;
        for connection in &mut connections {
            write(connection, beginning.as_bytes()).await;
        }
        connections
    };
    let silent = [
        begin("").await,
        begin("G").await,
        begin("GET /conversations HTTP/1.1\r\n").await,
        begin("POST /messages/send HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{").await,
    ];
    join_all((0..20).map(async |_| {
        let answer = timeout(
            Duration::from_secs(20),
            Client::new(gateway.url()).get("/health"),
        )
        .await;
        answer.expect("no answer").expect(200);
    }))
    .await;
    gateway
        .logged("all connections are taken, further ones wait")
        .await;
    assert_full_service(&Client::new(gateway.url())).await;
    drop(silent);
    assert_full_service(&client).await;
}

/// An address of this machine by which others can reach it, where it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn one_address_has_a_quarter_of_the_connections_unless_it_is_a_proxys() {
    let Some(own) = own_address() else {
        return; // Its rules are tried where they are written, too.
    };
    for (proxies, is_counted) in [
        ("192.0.2.0/32,198.51.100.0/24", true),
        (&*format!(" 198.51.100.7, {own}/24,"), false),
        (&*own.to_string(), false),
    ] {
        let database = Database::new().await;
        let mock = mock().await;
        let gateway = crate::support::Program::new("serve")
            .env("DATABASE_URL", database.url())
            .env("PROVIDER_URL", &mock.url())
            .env("HOST", "0.0.0.0")
            .env("TRUSTED_PROXIES", proxies)
            .limited_to_files(256, 512)
            .start();
        let line = gateway
            .logged("the limit of open files allows fewer connections than usual")
            .await;
        let places = usize::try_from(line["connections"].as_u64().unwrap()).unwrap();
        gateway.logged("ready").await;
        let port = Client::new(gateway.url()).address().port();
        let mut connections = Vec::new();
        for _ in 0..places / 2 {
            connections.push(TcpStream::connect((own, port)).await.unwrap());
        }
        let mut last = TcpStream::connect((own, port)).await.unwrap();
        ask(&mut last, "/health").await;
        assert_answered(&mut last, 200).await;
        let mut closed = 0;
        for connection in &mut connections {
            let read = timeout(Duration::from_millis(20), connection.read(&mut [0])).await;
            closed += usize::from(read.is_ok());
        }
        let expected = if is_counted {
            places / 2 + 1 - places / 4
        } else {
            0
        };
        assert_eq!(closed, expected, "{proxies}, {places} places");
        // Everybody else has the rest.
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        assert_full_service(&client).await;
    }
}
