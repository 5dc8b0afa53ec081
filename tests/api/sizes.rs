//! Bodies: how large they may be, and that they are JSON objects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{bodies, post_as, post_raw, rows, with};
use crate::support::{System, hello};

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    const KIB: usize = 1024;
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let body = body.to_string();
        let padded = |length: usize| body.clone() + &" ".repeat(length - body.len());
        for length in [64 * KIB + 1, 200 * KIB, KIB * KIB] {
            let answer = post_raw(&system.client, path, padded(length)).await;
            answer.expect_problem(413, "too_large");
        }
        let nothing_stored = rows(&system).await;
        post_raw(&system.client, path, padded(64 * KIB))
            .await
            .expect(success);
        assert!(rows(&system).await > nothing_stored);
    }
    assert_eq!(
        system.database.count("select count(*) from messages").await,
        2
    );
}

/// Posts a mebibyte, in halves; whether there was an answer in between, and the answer at the end.
fn post_in_halves(address: &str, path: &str) -> std::io::Result<(bool, String)> {
    let half = vec![b' '; 512 * 1024];
    let mut stream = TcpStream::connect(address)?;
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1048576\r\n");
    write!(
        stream,
        "{head}content-type: application/json\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(&half)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let early = stream.peek(&mut [0]).is_ok();
    stream.set_read_timeout(None)?;
    stream.write_all(&half)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((early, answer))
}

#[tokio::test]
async fn up_to_a_mebibyte_is_read_before_it_is_refused_so_that_the_answer_arrives() {
    let system = System::start().await;
    for (path, ..) in bodies() {
        let address = system
            .gateway
            .url()
            .trim_start_matches("http://")
            .to_owned();
        let posted = tokio::task::spawn_blocking(move || post_in_halves(&address, path));
        let (early, answer) = posted.await.unwrap().unwrap();
        assert!(!early, "a caller that is still writing would not read this");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"too_large\""), "{answer}");
    }
}

#[tokio::test]
async fn an_inbound_text_may_fill_the_whole_body() {
    let system = System::start().await;
    let room = 64 * 1024 - with(hello("evt_1"), "text", "").to_string().len();
    let text = "x".repeat(room);
    let receipt = system
        .client
        .webhook(&with(hello("evt_1"), "text", &*text))
        .await
        .expect(200);
    let message = system.message(receipt["messageId"].as_str().unwrap()).await;
    assert_eq!(message["text"], text);
    let answer = system
        .client
        .webhook(&with(hello("evt_1"), "text", ""))
        .await;
    assert_eq!(answer.fields(), ["text"]);
}

#[tokio::test]
async fn only_json_is_taken_in() {
    let system = System::start().await;
    for (path, body, success) in bodies() {
        let before = rows(&system).await;
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some(""),
        ] {
            let answer = post_as(&system.client, path, content_type, body.to_string()).await;
            answer.expect_problem(415, "unsupported_media_type");
        }
        assert_eq!(rows(&system).await, before);
        let content_type = Some("application/json; charset=utf-8");
        post_as(&system.client, path, content_type, body.to_string())
            .await
            .expect(success);
        let again = post_as(
            &system.client,
            path,
            Some("Application/JSON"),
            body.to_string(),
        )
        .await;
        again.expect(200);
    }
}

#[tokio::test]
async fn what_is_not_a_json_object_is_invalid() {
    let system = System::start().await;
    let deep = "[".repeat(10_000);
    for (path, body, _) in bodies() {
        let good = body.to_string();
        let (start, end) = good.split_at(good.find("user").unwrap());
        for body in [
            &b""[..],
            b" ",
            b"{",
            b"nonsense",
            b"null",
            b"true",
            b"1",
            b"\"text\"",
            b"[]",
            format!("[{good}]").as_bytes(),
            deep.as_bytes(),
            format!("{{\"unknown\": {deep}").as_bytes(),
            &good.as_bytes()[1..],
            &good.as_bytes()[..good.len() - 1],
            format!("{good}x").as_bytes(),
            format!("{good}{good}").as_bytes(),
            // Not Unicode.
            &[start.as_bytes(), &[0xfc], end.as_bytes()].concat(),
            // The fields' values alone, in the order in which they are read.
            br#"["evt_1", "whatsapp", "user-1", "Hello", "2025-01-01T10:00:00Z"]"#,
            br#"["whatsapp", "user-1", "Hi", "order-1"]"#,
        ] {
            let answer = post_raw(&system.client, path, body.to_vec()).await;
            answer.expect_problem(400, "invalid_request");
        }
    }
    assert_eq!(rows(&system).await, 0);
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_invalid() {
    let system = System::start().await;
    for (path, body, _) in bodies() {
        for (field, value) in body.as_object().unwrap() {
            let twice = body
                .to_string()
                .replacen('{', &format!("{{\"{field}\":{value},"), 1);
            let answer = post_raw(&system.client, path, twice).await;
            assert_eq!(answer.fields(), [field.as_str()]);
        }
    }
    assert_eq!(rows(&system).await, 0);
}
