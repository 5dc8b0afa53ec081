//! Sessions: a browser logs in with a key, and a cookie stands for it; for pages of this origin
//! only, and never longer than the key.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::JSON;
use crate::support::{Answer, Client, Postgres, Program, System, eventually, serve_at};

const DESK: &str = "desk-key-of-16-or-more";
const OPS: &str = "ops-key-of-16-or-more";
const KEYS: &str = "desk:desk-key-of-16-or-more:send+inbox,ops:ops-key-of-16-or-more";
/// On every process a session has ended by then.
const SOON: Duration = Duration::from_secs(5);

async fn system() -> System {
    System::with(&[("API_KEYS", KEYS)]).await
}

fn body(key: &str) -> String {
    json!({ "key": key }).to_string()
}

/// Tries to log in, with these headers too.
async fn try_log_in(client: &Client, key: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[JSON], headers].concat();
    client.ask("POST", "/session", &headers, body(key)).await
}

/// Logs in, however many others do; what the browser sends from then on.
async fn log_in(client: &Client, key: &str) -> String {
    let answer = eventually("a log-in", async || {
        let answer = try_log_in(client, key, &[]).await;
        (answer.status != 429).then_some(answer)
    })
    .await;
    answer.expect(204);
    cookie(&answer)
}

/// The one cookie that an answer sets, as the browser sends it.
fn cookie(answer: &Answer) -> String {
    let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    let [set] = set[..] else {
        panic!("{set:?}");
    };
    let (cookie, _) = set.to_str().unwrap().split_once(';').unwrap();
    cookie.to_owned()
}

fn value(cookie: &str) -> &str {
    cookie.split_once('=').unwrap().1
}

/// A request of the gateway's own page.
async fn ask(client: &Client, method: &str, path: &str, cookie: &str) -> Answer {
    let own = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
    client.ask(method, path, &own, "").await
}

async fn who(client: &Client, cookie: &str) -> Answer {
    ask(client, "GET", "/session", cookie).await
}

/// Waits until a cookie is good for nothing.
async fn ends(client: &Client, cookie: &str) {
    let began = Instant::now();
    eventually("the session ends", async || {
        let answer = who(client, cookie).await;
        (answer.status == 401).then(|| answer.expect_problem(401, "unauthorized"))
    })
    .await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_cookie_stands_for_the_key_that_it_was_got_with() {
    let system = system().await;
    let client = &system.client;
    let answer = try_log_in(client, DESK, &[]).await;
    answer.expect(204);
    let port = client.address().port();
    let cookie = cookie(&answer);
    let token = value(&cookie);
    assert_eq!(
        answer.header("set-cookie").unwrap(),
        format!("gateway_{port}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200")
    );
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(token.len() == 64 && token.chars().all(is_hex), "{token}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.text, "");

    let me = who(client, &cookie).await.expect(200);
    assert_eq!(me["name"], "desk");
    assert_eq!(me["scopes"], json!(["inbox", "send"]));
    assert_eq!(me["demo"], false);
    let ends_at = me["expiresAt"].as_str().unwrap().to_owned();
    let is_half_a_day = format!(
        "select count(*) from sessions where made_at + interval '12 hours' - '{ends_at}' between interval '0' and interval '1 ms'"
    );
    assert_eq!(system.database.count(&is_half_a_day).await, 1);

    ask(client, "GET", "/conversations", &cookie)
        .await
        .expect(200);
    ask(client, "GET", "/metrics", &cookie)
        .await
        .expect_problem(403, "forbidden");
    let sent = json!({ "channel": "whatsapp", "to": "user-1", "text": "Hi" });
    let own = [JSON, ("cookie", &*cookie), ("origin", &client.url(""))];
    let sent = client.ask("POST", "/messages/send", &own, sent.to_string());
    assert_eq!(sent.await.expect(201)["sentBy"], "desk");
    let line = system.gateway.logged("logged in").await;
    assert_eq!(line["spans"][0]["key"], "desk", "{line}");

    // A key has a session view too, but no session.
    let bearer = [("authorization", &*format!("Bearer {OPS}"))];
    let me = client.ask("GET", "/session", &bearer, "").await.expect(200);
    assert_eq!(me["name"], "ops");
    assert_eq!(me["scopes"], json!(["inbox", "send", "admin"]));
    assert_eq!(me["expiresAt"], Value::Null);

    // What is stored is no cookie, and no key.
    let stored =
        format!("select count(*) from sessions where token_hash = decode('{token}', 'hex')");
    assert_eq!(system.database.count(&stored).await, 0);
    let text = "select count(*) from sessions s where s::text like '%desk-key%'";
    assert_eq!(system.database.count(text).await, 0);
}

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
async fn a_request_by_cookie_must_come_from_a_page_of_this_origin() {
    let public = ("PUBLIC_ORIGINS", "https://gateway.example");
    let system = System::with(&[("API_KEYS", KEYS), public]).await;
    let client = &system.client;
    let own = client.url("");
    let cookie = log_in(client, DESK).await;
    let origin = |origin| ("origin", origin);
    let site = |site| ("sec-fetch-site", site);
    let navigation = ("sec-fetch-mode", "navigate");
    let id = "/conversations/conv_01941f297c0070008000000000000001";
    let read = format!("{id}/read");
    for (headers, get, post) in [
        (vec![], 404, 403),
        (vec![origin(&*own)], 404, 404),
        (vec![origin("https://gateway.example")], 404, 404),
        (vec![origin("http://gateway.example")], 403, 403),
        (vec![origin("http://127.0.0.1:5173")], 403, 403),
        (vec![origin("https://evil.example")], 403, 403),
        (vec![origin("null")], 403, 403),
        (
            vec![origin(&*own), origin("https://evil.example")],
            403,
            403,
        ),
        (vec![site("same-origin")], 404, 404),
        (
            vec![site("same-origin"), origin("https://proxied.example")],
            404,
            404,
        ),
        (vec![site("same-site")], 403, 403),
        (vec![site("same-site"), origin(&*own)], 403, 403),
        (vec![site("cross-site")], 403, 403),
        (vec![site("cross-site"), navigation], 403, 403),
        (vec![site("none"), navigation], 404, 403),
        (vec![site("same-origin"), site("cross-site")], 403, 403),
        // Nothing else decides.
        (
            vec![("referer", &*own), ("x-forwarded-host", "127.0.0.1")],
            404,
            403,
        ),
        (vec![("content-type", "application/json")], 404, 403),
    ] {
        let headers = [&headers[..], &[("cookie", &*cookie)]].concat();
        for (method, path, status) in [("GET", id, get), ("HEAD", id, get), ("POST", &read, post)] {
            // A browser says `none` of a GET only.
            if method == "HEAD" && headers.contains(&site("none")) {
                continue;
            }
            let answer = client.ask(method, path, &headers, "").await;
            assert_eq!(
                answer.status, status,
                "{method} {headers:?}: {}",
                answer.text
            );
        }
    }
    let kind = "gateway_auth_failures_total{kind=\"web_page\"}";
    let bearer = [("authorization", &*format!("Bearer {OPS}"))];
    let metrics = client.ask("GET", "/metrics", &bearer, "").await.text;
    assert!(!metrics.contains(&format!("{kind} 0\n")), "{metrics}");
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
async fn authorization_wins_over_a_cookie() {
    let system = system().await;
    let client = &system.client;
    let cookie = log_in(client, DESK).await;
    let with = async |authorization: &str| {
        let headers = [
            ("cookie", &*cookie),
            ("sec-fetch-site", "same-origin"),
            ("authorization", authorization),
        ];
        client.ask("GET", "/session", &headers, "").await
    };
    assert_eq!(
        with(&format!("Bearer {OPS}")).await.expect(200)["name"],
        "ops"
    );
    for wrong in [
        "",
        "Bearer",
        "Bearer wrong",
        "Basic ZGVzazo=",
        value(&cookie),
    ] {
        let answer = with(wrong).await;
        answer.expect_problem(401, "unauthorized");
    }
    // A token is no key, and a key no token.
    with(&format!("Bearer {}", value(&cookie)))
        .await
        .expect(401);
    let name = cookie.split('=').next().unwrap();
    who(client, &format!("{name}={DESK}")).await.expect(401);
    // A wrong header is wrong where none is needed, too.
    let wrong = [JSON, ("authorization", "Bearer wrong")];
    let answer = client.ask("POST", "/session", &wrong, body(DESK)).await;
    answer.expect_problem(401, "unauthorized");
    let answer = client.ask("DELETE", "/session", &wrong, "").await;
    answer.expect_problem(401, "unauthorized");
    // A key is taken from nowhere else.
    for path in [
        format!("/session?key={DESK}"),
        format!("/conversations?api_key={DESK}"),
    ] {
        client.get(&path).await.expect_problem(401, "unauthorized");
    }
    // A key may come from any page, a cookie beside it or not.
    let foreign = [
        ("authorization", &*format!("Bearer {OPS}")),
        ("cookie", &*cookie),
        ("origin", "https://app.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    client
        .ask("POST", "/messages/send", &foreign, "")
        .await
        .expect(415);
}

#[tokio::test]
async fn a_cookie_that_is_no_session_opens_nothing() {
    let system = system().await;
    let client = &system.client;
    let cookie = log_in(client, DESK).await;
    let (name, token) = cookie.split_once('=').unwrap();
    let other = if token.starts_with('0') { "1" } else { "0" };
    let changed = format!("{other}{}", &token[1..]);
    for forged in [
        format!("{name}="),
        format!("{name}={}", "0".repeat(64)),
        format!("{name}={changed}"),
        format!("{name}={}", &token[1..]),
        format!("{name}={token}0"),
        format!("{name}=\"{token}\""),
        format!("{name}={}", token.to_ascii_uppercase()),
        format!("{name}={token}; {name}={token}"),
        format!("{name}={changed}; {name}={token}"),
        format!("{name}={}", token.repeat(300)),
        format!("{name}=' or true --"),
        format!("gateway={token}"),
        format!("X{name}={token}"),
        format!("__Host-gateway={changed}; {cookie}"),
    ] {
        let answer = who(client, &forged).await;
        if forged.contains(&token.to_ascii_uppercase()) && token == token.to_ascii_uppercase() {
            continue;
        }
        answer.expect_problem(401, "unauthorized");
        assert!(answer.header("set-cookie").is_none(), "{forged}");
    }
    // Others of the same host do not disturb it.
    for good in [
        format!("a=b; {cookie}; c"),
        format!("theme=\"x;{cookie}"),
        format!("gateway_1={changed}; {cookie}"),
        format!("session=\u{e9}\u{fc}; {cookie}"),
    ] {
        let request = client.http.get(client.url("/session"));
        let request = request.header("cookie", good.as_bytes());
        client.call(request).await.unwrap().expect(200);
    }
    let bearer = [("authorization", &*format!("Bearer {OPS}"))];
    let metrics = client.ask("GET", "/metrics", &bearer, "").await.text;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("gateway_auth_failures_total{kind=\"wrong_session\"} "));
    let count: u32 = count.unwrap().parse().unwrap();
    assert!(count >= 10, "{count}");
}

#[tokio::test]
async fn a_session_ends_after_its_time_unused_or_when_its_row_is_gone() {
    let system = system().await;
    let client = &system.client;
    for end in [
        "update sessions set made_at = made_at - interval '12 hours'",
        "update sessions set used_at = used_at - interval '2 hours'",
        "delete from sessions",
    ] {
        let cookie = log_in(client, DESK).await;
        who(client, &cookie).await.expect(200);
        assert!(system.database.execute(end).await >= 1);
        ends(client, &cookie).await;
    }
    // A little less is nothing, and being used is written down.
    let cookie = log_in(client, DESK).await;
    let earlier = "update sessions set made_at = made_at - interval '11:58', used_at = now() - interval '1:58'";
    assert!(system.database.execute(earlier).await >= 1);
    let used = "select count(*) from sessions where used_at > now() - interval '1 minute'";
    eventually("the use is written", async || {
        who(client, &cookie).await.expect(200);
        (system.database.count(used).await == 1).then_some(())
    })
    .await;
    // But not each time, and what is old is deleted by a log-in.
    let writes = "select n_tup_upd from pg_stat_user_tables where relname = 'sessions'";
    let version =
        "select xmin::text::bigint from sessions where used_at > now() - interval '1 minute'";
    let before = system.database.count(version).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        who(client, &cookie).await.expect(200);
    }
    assert_eq!(system.database.count(version).await, before, "{writes}");
    let old = "update sessions set made_at = made_at - interval '12 hours'";
    assert_eq!(system.database.execute(old).await, 1);
    log_in(client, OPS).await;
    eventually("what is old is deleted", async || {
        let rows = system.database.count("select count(*) from sessions").await;
        (rows == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_holds_on_every_process_and_after_a_restart_and_ends_on_all() {
    let mut system = system().await;
    let (mut other, other_client) = system.another(&[("API_KEYS", KEYS)]).await;
    let cookie = log_in(&system.client, DESK).await;
    // Cookies are shared by the ports of a host.
    who(&other_client, &cookie).await.expect(200);
    system.gateway.terminate().await;
    other.terminate().await;

    let (_first, first) = system.another(&[("API_KEYS", KEYS)]).await;
    let (_second, second) = system.another(&[("API_KEYS", KEYS)]).await;
    for client in [&first, &second] {
        assert_eq!(who(client, &cookie).await.expect(200)["name"], "desk");
    }
    let answer = ask(&first, "DELETE", "/session", &cookie).await;
    answer.expect(204);
    let name = cookie.split('=').next().unwrap();
    let removed = answer.header("set-cookie").unwrap();
    assert!(
        removed.starts_with(&format!(
            "{name}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0"
        )),
        "{removed}"
    );
    assert_eq!(
        answer.header("clear-site-data"),
        Some("\"cache\", \"storage\"")
    );
    who(&first, &cookie)
        .await
        .expect_problem(401, "unauthorized");
    ends(&second, &cookie).await;
    // Once more changes nothing.
    ask(&first, "DELETE", "/session", &cookie).await.expect(204);
}

#[tokio::test]
async fn a_session_ends_with_its_key_or_when_that_has_other_scopes() {
    let system = system().await;
    let desk = log_in(&system.client, DESK).await;
    let ops = log_in(&system.client, OPS).await;
    for (keys, desk_status) in [
        // In another order, and with another name.
        (format!("ops:{OPS},clerk:{DESK}:inbox+send"), 200),
        (format!("ops:{OPS},desk:{DESK}:inbox"), 401),
        (format!("ops:{OPS},desk:{DESK}"), 401),
        (format!("ops:{OPS},desk:another-key-of-16:inbox+send"), 401),
        (format!("ops:{OPS}"), 401),
    ] {
        let (_gateway, client) = system.another(&[("API_KEYS", &keys)]).await;
        let answer = who(&client, &desk).await;
        assert_eq!(answer.status, desk_status, "{keys}");
        if desk_status == 200 {
            assert_eq!(answer.json()["name"], "clerk");
        }
        assert_eq!(
            who(&client, &ops).await.expect(200)["name"],
            "ops",
            "{keys}"
        );
    }
}

#[tokio::test]
async fn of_more_than_twenty_sessions_of_a_key_the_oldest_goes() {
    let system = system().await;
    let client = &system.client;
    let others = log_in(client, OPS).await;
    let mut cookies = Vec::new();
    for _ in 0..20 {
        cookies.push(log_in(client, DESK).await);
    }
    for cookie in &cookies {
        who(client, cookie).await.expect(200);
    }
    let last = log_in(client, DESK).await;
    ends(client, &cookies[0]).await;
    for cookie in cookies[1..].iter().chain([&last, &others]) {
        who(client, cookie).await.expect(200);
    }
    let rows = "select count(*) from sessions";
    assert_eq!(system.database.count(rows).await, 21);

    // However many processes log in at once.
    let (_gateway, second) = system.another(&[("API_KEYS", KEYS)]).await;
    let log_ins = (0..30).map(|number| {
        let client = if number % 2 == 0 { client } else { &second };
        log_in(client, DESK)
    });
    let all = join_all(log_ins).await;
    assert_eq!(all.len(), 30);
    assert_eq!(system.database.count(rows).await, 21);
    who(client, &others).await.expect(200);
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
async fn without_keys_everybody_is_everything() {
    let system = System::start().await;
    let me = system.client.get("/session").await.expect(200);
    let expected = json!({
        "name": null, "scopes": ["inbox", "send", "admin"], "expiresAt": null, "demo": false,
    });
    assert_eq!(me, expected);
    // A cookie of an earlier time means nothing.
    let old = format!(
        "gateway_{}={}",
        system.client.address().port(),
        "0".repeat(64)
    );
    assert_eq!(who(&system.client, &old).await.expect(200), expected);
    let answer = ask(&system.client, "DELETE", "/session", &old).await;
    answer.expect(204);
    let foreign = [("origin", "https://evil.example")];
    let answer = system.client.ask("GET", "/session", &foreign, "").await;
    answer.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn while_the_database_is_away_nobody_is_logged_out() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let system = System::on(database, &[("API_KEYS", KEYS)]).await;
    let client = &system.client;
    let cookie = log_in(client, DESK).await;
    drop(postgres);
    eventually("the session has to be looked up", async || {
        let answer = who(client, &cookie).await;
        assert_ne!(answer.status, 401, "{}", answer.text);
        (answer.status == 503).then(|| answer.expect_problem(503, "database_unavailable"))
    })
    .await;
    let answer = ask(client, "DELETE", "/session", &cookie).await;
    answer.expect_problem(503, "database_unavailable");
    assert!(answer.header("set-cookie").is_none());
    try_log_in(client, DESK, &[])
        .await
        .expect_problem(503, "database_unavailable");
    try_log_in(client, "wrong", &[]).await.expect(401);
}

#[tokio::test]
async fn no_key_and_no_cookie_is_in_a_log() {
    let database = crate::support::Database::new().await;
    let mock = crate::support::mock().await;
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
