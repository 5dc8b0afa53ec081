//! Sessions: a browser logs in with a key, and a cookie stands for it; for pages of this origin
//! only, and never longer than the key.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::JSON;
use crate::support::{Answer, Client, Listener, Postgres, System, eventually, hello};

pub const DESK: &str = "desk-key-of-16-or-more";
pub const OPS: &str = "ops-key-of-16-or-more";
pub const KEYS: &str = "desk:desk-key-of-16-or-more:send+inbox,ops:ops-key-of-16-or-more";
/// On every process a session has ended by then.
const SOON: Duration = Duration::from_secs(5);

pub async fn system() -> System {
    System::with(&[("API_KEYS", KEYS)]).await
}

pub fn body(key: &str) -> String {
    json!({ "key": key }).to_string()
}

/// Tries to log in, with these headers too.
pub async fn try_log_in(client: &Client, key: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[JSON], headers].concat();
    client.ask("POST", "/session", &headers, body(key)).await
}

/// Logs in, however many others do; what the browser sends from then on.
pub async fn log_in(client: &Client, key: &str) -> String {
    let answer = eventually("a log-in", async || {
        let answer = try_log_in(client, key, &[]).await;
        (answer.status != 429).then_some(answer)
    })
    .await;
    answer.expect(204);
    cookie(&answer)
}

/// The one cookie that an answer sets, as the browser sends it.
pub fn cookie(answer: &Answer) -> String {
    let set: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    let [set] = set[..] else {
        panic!("{set:?}");
    };
    let (cookie, _) = set.to_str().unwrap().split_once(';').unwrap();
    cookie.to_owned()
}

pub fn value(cookie: &str) -> &str {
    cookie.split_once('=').unwrap().1
}

/// A request of the gateway's own page.
pub async fn ask(client: &Client, method: &str, path: &str, cookie: &str) -> Answer {
    let own = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
    client.ask(method, path, &own, "").await
}

pub async fn who(client: &Client, cookie: &str) -> Answer {
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
    let version =
        "select xmin::text::bigint from sessions where used_at > now() - interval '1 minute'";
    let before = system.database.count(version).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        who(client, &cookie).await.expect(200);
    }
    assert_eq!(system.database.count(version).await, before);
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
async fn a_stream_ends_with_its_session_whichever_process_ends_that() {
    let system = system().await;
    let (_other, other) = system.another(&[("API_KEYS", KEYS)]).await;
    let (ended, kept) = (
        log_in(&system.client, DESK).await,
        log_in(&system.client, DESK).await,
    );
    let listen = async |cookie: &str| {
        let own = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
        Listener::open_with(&other, "", &own).await
    };
    let (mut ends, mut stays) = (listen(&ended).await, listen(&kept).await);
    ask(&system.client, "DELETE", "/session", &ended)
        .await
        .expect(204);
    while ends.try_next().await.is_some() {}
    // It is still told what happens.
    system.client.webhook(&hello("evt-1")).await.expect(200);
    stays.until_text("Hello").await;
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
async fn without_keys_everybody_is_everything() {
    let system = System::start().await;
    let me = system.client.get("/session").await.expect(200);
    let expected = json!({
        "name": null, "scopes": ["inbox", "send", "admin"], "expiresAt": null, "demo": false,
        "whatsapp": false,
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
