//! Listeners who do not read, or are too many, harm neither the others nor the process.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{texts, write};
use crate::support::{Client, Event, Listener, Program, System, event, eventually, rest};

/// Counts no listener of this machine by its address.
const PROXY: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1");
/// Nearly as long as a body may be.
const LONG: usize = 60_000;

/// A listener that reads its first bytes, and then nothing.
async fn stalled(client: &Client) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(client.address()).await.unwrap();
    let request = "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    stream
}

/// So many long messages.
async fn write_long(client: &Client, name: &str, count: usize) {
    for number in 0..count {
        let text = format!("{name}-{number}-{}", "x".repeat(LONG));
        let key = format!("{name}-{number}");
        let event = event(&key, "user-long", &text, "2025-01-01T10:00:00Z");
        client.webhook(&event).await.expect(200);
    }
}

async fn streams(client: &Client) -> f64 {
    client.metric("gateway_feed_streams").await
}

#[tokio::test]
async fn beyond_its_most_streams_a_process_answers_503() {
    let system = System::with(&[("FEED_MAX_STREAMS", "3")]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Listener::open(&system.client, "").await);
    }
    let refused = system.client.get("/events").await;
    refused.expect_problem(503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    open.pop();
    // Its place is free once it is known to be gone.
    eventually("there is a place again", async || {
        write(&system.client, [uuid::Uuid::now_v7().to_string()]).await;
        (streams(&system.client).await < 3.0).then_some(())
    })
    .await;
    open.push(Listener::open(&system.client, "").await);
}

#[tokio::test]
async fn without_keys_an_address_has_a_hundred_streams() {
    let system = System::start().await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(Listener::open(&system.client, "").await);
    }
    let refused = system.client.get("/events").await;
    refused.expect_problem(503, "overloaded");
}

#[tokio::test]
async fn a_process_that_stops_ends_all_streams_at_once() {
    let never = [
        PROXY,
        ("SHUTDOWN_TIMEOUT_MS", "600000"),
        ("CLIENT_TIMEOUT_MS", "600000"),
    ];
    let mut system = System::with(&never).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(Listener::open(&system.client, "").await);
    }
    let _stalled = stalled(&system.client).await;
    write_long(&system.client, "a", 30).await;
    // From then on the others have all of it, and one has more than its socket takes.
    let is_last = |event: &Event| {
        let text = event.data["message"]["text"].as_str();
        text.is_some_and(|text| text.starts_with("a-29-"))
    };
    open[0].until(is_last).await;
    let reading = open.into_iter().map(|mut listener| {
        tokio::spawn(async move { while listener.try_next().await.is_some() {} })
    });
    let reading: Vec<_> = reading.collect();
    let began = Instant::now();
    let ended = system.gateway.terminate().await;
    assert_eq!(ended.code(), Some(0));
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    let late = system
        .gateway
        .lines("shutdown timed out, what is left is taken over when its leases expire");
    assert!(late.is_empty(), "{late:?}");
    for reading in reading {
        reading.await.unwrap();
    }
}

#[tokio::test]
async fn listeners_who_read_nothing_are_cut_off_and_cost_the_others_nothing() {
    let short = [PROXY, ("CLIENT_TIMEOUT_MS", "1500")];
    let system = System::with(&short).await;
    let mut stalled_ones = Vec::new();
    for _ in 0..40 {
        stalled_ones.push(stalled(&system.client).await);
    }
    let mut listener = Listener::open(&system.client, "").await;
    let before = peak(&system.gateway);
    let reading = tokio::spawn(async move {
        let mut told = Vec::new();
        while told.len() < 151 {
            let event = listener.next().await;
            assert_ne!(event.kind, "reset");
            told.extend(texts(&[event]));
        }
        listener
    });
    write_long(&system.client, "a", 150).await;
    write(&system.client, ["last"]).await;
    reading.await.unwrap();
    // 40 times 9 MB, if each had its own.
    let grown = peak(&system.gateway) - before;
    assert!(grown < 120, "{grown} MiB");
    for mut stalled in stalled_ones {
        rest(&mut stalled).await;
    }
    eventually("they are gone", async || {
        (streams(&system.client).await <= 1.0).then_some(())
    })
    .await;
    let cut = "client did not read its answer in time, closing the connection";
    system.gateway.logged(cut).await;
}

fn peak(gateway: &Program) -> u64 {
    gateway.peak_memory_mib()
}

#[tokio::test]
async fn a_listener_that_does_not_keep_up_is_told_to_fetch_again_and_goes_on() {
    let system = System::start().await;
    let mut listener = Listener::open(&system.client, "").await;
    write_long(&system.client, "a", 200).await;
    let told = listener.until(|event| event.kind == "reset").await;
    assert_eq!(told.last().unwrap().reason(), "too_slow");
    write(&system.client, ["last"]).await;
    listener.until_text("last").await;
    // Where it goes on, it has missed nothing that the reset did not stand for.
    let mut again = Listener::resume(&system.client, &listener.id).await;
    write(&system.client, ["more"]).await;
    let events = again.until(|event| event.id.is_some()).await;
    assert_eq!(texts(&events), ["more"]);
}
