//! Log-ins: who may try, how often, and what a browser gets.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;

use super::JSON;
use super::sessions::{DESK, KEYS, OPS, ask, body, cookie, log_in, system, try_log_in, value, who};
use crate::support::{Client, Database, Program, System, mock, serve_at};

#[tokio::test]
async fn every_log_in_is_a_new_session_and_ends_the_one_that_it_was_made_with() {
    let system = system().await;
    let client = &system.client;
    let first = log_in(client, DESK).await;
    let second = log_in(client, DESK).await;
    assert_ne!(first, second);
    who(client, &first).await.expect(200);
    let own = [("cookie", &*second), ("sec-fetch-site", "same-origin")];
    let third = try_log_in(client, OPS, &own).await;
    third.expect(204);
    who(client, &second)
        .await
        .expect_problem(401, "unauthorized");
    who(client, &first).await.expect(200);
    let third = cookie(&third);
    assert_eq!(who(client, &third).await.expect(200)["name"], "ops");
    // A log-in that fails ends nothing.
    let own = [("cookie", &*third), ("sec-fetch-site", "same-origin")];
    try_log_in(client, "no-key", &own).await.expect(401);
    who(client, &third).await.expect(200);
}

#[tokio::test]
async fn no_other_page_logs_a_browser_in_or_out() {
    let keyless = System::start().await;
    for (system, good) in [(system().await, 204), (keyless, 401)] {
        let client = &system.client;
        let own = &*client.url("");
        for foreign in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("sec-fetch-site", "same-site"), ("origin", own)],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            // A browser that says nothing of the page, but has been here.
            &[("cookie", "gateway_1=1")],
        ] {
            let answer = try_log_in(client, DESK, foreign).await;
            answer.expect_problem(403, "forbidden");
            assert!(answer.header("set-cookie").is_none());
            let answer = client.ask("DELETE", "/session", foreign, "").await;
            answer.expect_problem(403, "forbidden");
        }
        for own in [
            &[][..],
            &[("origin", own)],
            &[("sec-fetch-site", "same-origin")],
            &[("cookie", "other=1")],
        ] {
            try_log_in(client, DESK, own).await.expect(good);
            client.ask("DELETE", "/session", own, "").await.expect(204);
        }
    }
}

#[tokio::test]
async fn over_https_the_cookie_is_secure() {
    let public = ("PUBLIC_ORIGINS", "https://gateway.example");
    let system = System::with(&[("API_KEYS", KEYS), public]).await;
    let client = &system.client;
    let https = ("origin", "https://gateway.example");
    let answer = try_log_in(client, DESK, &[https]).await;
    answer.expect(204);
    let secure = cookie(&answer);
    let token = value(&secure);
    assert_eq!(
        answer.header("set-cookie").unwrap(),
        format!("__Host-gateway={token}; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=43200")
    );
    assert_eq!(who(client, &secure).await.expect(200)["name"], "desk");
    // It wins over one that any page of this host could have set.
    let plain = log_in(client, OPS).await;
    for both in [format!("{secure}; {plain}"), format!("{plain}; {secure}")] {
        assert_eq!(who(client, &both).await.expect(200)["name"], "desk");
    }
    assert_eq!(who(client, &plain).await.expect(200)["name"], "ops");

    // A log-in over http ends and removes both: else the old one would win over the new one.
    let both = format!("{secure}; {plain}");
    let own = [("cookie", &*both), ("sec-fetch-site", "same-origin")];
    let answer = try_log_in(client, OPS, &own).await;
    answer.expect(204);
    let set = answer.headers.get_all("set-cookie").iter();
    let set: Vec<_> = set.map(|value| value.to_str().unwrap()).collect();
    assert_eq!(set.len(), 2, "{set:?}");
    assert!(
        set[0].starts_with("__Host-gateway=; ") && set[0].contains("; Secure; Path=/; Max-Age=0")
    );
    assert!(set[1].starts_with("gateway_") && set[1].contains("Max-Age=43200"));
    for ended in [&secure, &plain] {
        who(client, ended).await.expect(401);
    }
}

#[tokio::test]
async fn ten_log_ins_a_second_are_tried() {
    let system = system().await;
    let began = Instant::now();
    let tries = (0..60).map(async |number| {
        let guess = format!("guess-{number}");
        try_log_in(&system.client, &guess, &[]).await
    });
    let answers = join_all(tries).await;
    let seconds = began.elapsed().as_secs() + 1;
    let tried = answers.iter().filter(|answer| answer.status == 401);
    let tried = u64::try_from(tried.count()).unwrap();
    assert!(
        (10..=10 * seconds).contains(&tried),
        "{tried} in {seconds} s"
    );
    for answer in answers.iter().filter(|answer| answer.status != 401) {
        answer.expect_problem(429, "rate_limited");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Sessions go on, and so does everything else.
    log_in(&system.client, DESK).await;
    let line = system.gateway.lines("a caller did not prove who it is");
    let kinds: Vec<_> = line.iter().map(|line| &line["kind"]).collect();
    assert!(kinds.contains(&&json!("wrong_login")), "{kinds:?}");
    assert!(kinds.contains(&&json!("too_many_logins")), "{kinds:?}");
    assert!(kinds.len() < 20, "{kinds:?}");
    let client = line[0]["client"].as_str().unwrap();
    assert!(client.starts_with("127.0.0.1:"), "{client}");
}

#[tokio::test]
async fn a_log_in_that_fails_has_one_answer() {
    let system = system().await;
    let keyless = System::start().await;
    let mut answers = Vec::new();
    for (system, wrong) in [
        (&system, "wrong"),
        (&system, "desk"),
        (&system, "desk:desk-key-of-16-or-more"),
        (&system, "desk-key-of-16-or-mor"),
        (&system, "Bearer desk-key-of-16-or-more"),
        (&system, " desk-key-of-16-or-more"),
        (&system, "\u{1}\u{1F642}"),
        (&keyless, DESK),
    ] {
        let answer = try_log_in(&system.client, wrong, &[]).await;
        let mut problem = answer.expect_problem(401, "unauthorized");
        problem["requestId"].take();
        let names = answer.headers.keys().map(ToString::to_string);
        answers.push((problem, names.collect::<Vec<_>>()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_log_in_is_a_small_json_object_with_a_key() {
    let system = system().await;
    let client = &system.client;
    let post = async |body: String| client.ask("POST", "/session", &[JSON], body).await;
    for wrong in [
        json!({}),
        json!({ "key": null }),
        json!({ "key": "" }),
        json!({ "key": 1 }),
        json!({ "key": [DESK] }),
        json!({ "key": { "key": DESK } }),
        json!({ "Key": DESK }),
    ] {
        assert_eq!(post(wrong.to_string()).await.fields(), ["key"], "{wrong}");
    }
    let twice = format!(r#"{{"key":"{DESK}","key":"{DESK}"}}"#);
    assert_eq!(post(twice).await.fields(), ["key"]);
    for broken in ["", "{", "null", "[]", r#""key""#, r#"{"key":"a"} {}"#] {
        let answer = post(broken.to_owned()).await;
        answer.expect_problem(400, "invalid_request");
    }
    let largest = format!("{}{}", body(DESK), " ".repeat(4096 - body(DESK).len()));
    post(largest.clone()).await.expect(204);
    let larger = post(format!("{largest} ")).await;
    larger.expect_problem(413, "too_large");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [("content-type", content_type)];
        let answer = client.ask("POST", "/session", &headers, body(DESK)).await;
        answer.expect_problem(415, "unsupported_media_type");
    }
    let zipped = [JSON, ("content-encoding", "gzip")];
    let answer = client.ask("POST", "/session", &zipped, body(DESK)).await;
    answer.expect_problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn no_key_and_no_cookie_is_in_a_log() {
    let database = Database::new().await;
    let mock = mock().await;
    let environment = [
        ("API_KEYS", KEYS),
        ("RUST_LOG", "trace"),
        ("HOST", "0.0.0.0"),
    ];
    let (gateway, _) = serve_at(database.url(), &mock.url(), &["serve"], &environment).await;
    let port = gateway.url().rsplit(':').next().unwrap().to_owned();
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let cookie = log_in(&client, DESK).await;
    who(&client, &cookie).await.expect(200);
    let forged = format!("gateway_{port}={}", "5".repeat(64));
    who(&client, &forged).await.expect(401);
    let guess = "guess-of-a-stranger";
    try_log_in(&client, guess, &[]).await.expect(401);
    let wrong = format!(r#"{{"key":["{guess}"]}}"#);
    client
        .ask("POST", "/session", &[JSON], wrong)
        .await
        .expect(400);
    let broken = format!(r#"{{"key":"{guess}"#);
    client
        .ask("POST", "/session", &[JSON], broken)
        .await
        .expect(400);
    ask(&client, "DELETE", "/session", &cookie)
        .await
        .expect(204);
    // What others on the way can read is said, once.
    let plain = "a browser has logged in over plain http: its key and its cookie are in the clear; put a proxy with TLS in front";
    log_in(&client, DESK).await;
    gateway.logged("logged out").await;
    assert_eq!(gateway.lines(plain).len(), 1);
    assert_silent(
        &gateway,
        &[DESK, OPS, value(&cookie), &"5".repeat(64), guess],
    );
}

/// That none of these is in the log.
fn assert_silent(gateway: &Program, secrets: &[&str]) {
    let log = gateway.log().join("\n");
    assert!(log.contains("logged in"), "{log}");
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
