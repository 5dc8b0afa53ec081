//! Where customers' texts can be read on the way, that is said once, at the start.

use std::net::UdpSocket;

use serde_json::json;

use crate::support::{Database, Program, Run, mock, relay};

const PROVIDER: &str =
    "PROVIDER_URL is http and leads to another machine: customers' texts are in the clear";
const KEYS: &str = "HOST is public and this is plain http: keys and texts are in the clear, but for what a proxy with TLS in front carries";
const DATABASE: &str = "DATABASE_URL leads to another machine without TLS: customers' texts and the password's exchange are in the clear; sslmode=verify-full encrypts them";

/// Starts it, and says how often it has warned of these.
async fn warnings(run: Run, ready: &str) -> [usize; 3] {
    let program = run.start();
    program.logged(ready).await;
    let lines: Vec<_> = program.log();
    [PROVIDER, KEYS, DATABASE].map(|warning| {
        let said = lines.iter().filter(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["message"] == warning && line["level"] == json!("WARN")
        });
        said.count()
    })
}

#[tokio::test]
async fn what_goes_over_the_network_in_the_clear_is_said_once() {
    let database = Database::new().await;
    let serve = |provider: &str| {
        Program::new("serve")
            .env("DATABASE_URL", database.url())
            .env("PROVIDER_URL", provider)
    };
    let public = [("HOST", "0.0.0.0"), ("API_KEYS", "0123456789abcdef")];
    for (run, expected) in [
        (serve("http://127.0.0.1:1"), [0, 0, 0]),
        (serve("http://LOCALHOST:1/a"), [0, 0, 0]),
        (serve("https://provider.example"), [0, 0, 0]),
        (serve("http://provider.example"), [1, 0, 0]),
        (serve("http://10.1.2.3:4000"), [1, 0, 0]),
        (
            serve("https://provider.example").env("API_KEYS", "0123456789abcdef"),
            [0, 0, 0],
        ),
        (serve("https://provider.example").envs(&public), [0, 1, 0]),
        (serve("http://provider.example").envs(&public), [1, 1, 0]),
    ] {
        assert_eq!(warnings(run, "ready").await, expected);
    }
    let worker = Program::new("worker")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", "http://provider.example");
    assert_eq!(warnings(worker, "working").await, [1, 0, 0]);
}

#[tokio::test]
async fn a_database_on_the_network_without_tls_is_said_once() {
    let database = Database::new().await;
    let mock = mock().await;
    let options = database.options();
    let (user, name) = (options.get_username(), options.get_database().unwrap());
    let socket = options.get_socket().unwrap().join(".s.PGSQL.5432");
    // This machine's address on its network; no packet is sent.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = match probe
        .connect("192.0.2.1:9")
        .and_then(|()| probe.local_addr())
    {
        Ok(address) if !address.ip().is_loopback() => address.ip().to_string(),
        _ => return, // it has no network
    };
    let near = relay("127.0.0.1", socket.clone()).await;
    let far = relay(&address, socket).await;
    for (url, expected) in [
        (format!("postgres://{user}@127.0.0.1:{near}/{name}"), 0),
        (format!("postgres://{user}@{address}:{far}/{name}"), 1),
        (
            format!("postgres://{user}@{address}:{far}/{name}?sslmode=disable"),
            1,
        ),
    ] {
        let run = Program::new("serve")
            .env("DATABASE_URL", &url)
            .env("PROVIDER_URL", &mock.url());
        assert_eq!(warnings(run, "ready").await, [0, 0, expected], "{url}");
    }
}
