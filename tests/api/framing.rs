//! Where a request ends: one that may end in two places is refused before anything reads it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, System, hello, rest};

/// Sends bytes in these pieces, and reads to the end.
async fn send_raw(client: &Client, pieces: &[&str]) -> String {
    let mut connection = client.connect().await;
    connection.set_nodelay(true).unwrap();
    for piece in pieces {
        // It may have been answered already.
        connection.write_all(piece.as_bytes()).await.ok();
        tokio::task::yield_now().await;
    }
    rest(&mut connection).await
}

#[tokio::test]
async fn a_request_that_may_end_in_two_places_is_refused_before_anything_reads_it() {
    let system = System::start().await;
    let body = hello("evt_1").to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("Content-Length: {}\r\n", body.len());
    let coding = "Transfer-Encoding: chunked\r\n";
    let start = "POST /webhooks/mock-meta HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let gzip = "Transfer-Encoding: gzip\r\n";
    for (status, code, fields) in [
        (400, "invalid_request", format!("{length}{coding}")),
        (400, "invalid_request", format!("{coding}{length}")),
        (
            400,
            "invalid_request",
            format!("{coding}X: y\r\ncontent-LENGTH:0\r\n"),
        ),
        (
            400,
            "invalid_request",
            "Content-Length: 4\r\nTransfer-Encoding: gzip, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: identity,chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
        ),
        (
            501,
            "unsupported_transfer_encoding",
            format!("{gzip}{coding}"),
        ),
    ] {
        let request = format!("{start}{fields}\r\n{chunked}{smuggled}");
        let (one, two) = request.split_at(start.len() + 9);
        for pieces in [&[&*request][..], &[one, two], &["\r\n", one, two]] {
            let answer = send_raw(&system.client, pieces).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{fields}: {answer}"
            );
            assert!(
                answer.to_lowercase().contains("\r\nconnection: close\r\n"),
                "{answer}"
            );
            assert!(
                answer.contains(code) && answer.contains("requestId"),
                "{answer}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1").count(),
                1,
                "it goes on: {answer}"
            );
        }
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        0
    );

    // In one packet with the request before it nobody can tell.
    let two = format!("{smuggled}{start}{coding}\r\n{chunked}");
    let answer = send_raw(&system.client, &[&two]).await;
    let statuses: Vec<&str> = answer.matches("HTTP/1.1 200").collect();
    assert_eq!(statuses.len(), 1, "{answer}");
    assert!(answer.contains("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_chunked_request_is_as_good_as_any_other() {
    let system = System::start().await;
    let mut connection = TcpStream::connect(system.client.address()).await.unwrap();
    for (n, coding) in ["chunked", "Chunked"]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        let body = hello(&format!("evt_{n}")).to_string();
        let start = "POST /webhooks/mock-meta HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let request = format!(
            "{start}Transfer-Encoding: {coding}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        for piece in request
            .as_bytes()
            .chunks(if n % 2 == 0 { 1000 } else { 40 })
        {
            connection.write_all(piece).await.unwrap();
        }
        let mut answer = String::new();
        while !answer.contains("messageId") {
            let mut bytes = [0; 2000];
            let read = connection.read(&mut bytes).await.unwrap();
            assert!(read > 0, "{answer}");
            answer += &String::from_utf8_lossy(&bytes[..read]);
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert_eq!(
        system
            .database
            .count("select count(*) from webhook_events")
            .await,
        6
    );
}
