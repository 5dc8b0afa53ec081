//! URLs, proxies and certificates: what is given is understood or refused by name, this machine is
//! reached directly, and no error shows a secret.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Client, Collector, Database, Finished, NO_RETRY, Program, Proxy, Run, System, mock, relay,
    serve,
};

/// A machine without certificates.
const NO_CERTIFICATES: [(&str, &str); 2] = [
    ("SSL_CERT_FILE", "/nonexistent"),
    ("SSL_CERT_DIR", "/nonexistent"),
];
/// An authority that has signed nothing.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUZ+boVbOhAqIloH27+9m0DnOQJIAwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGYSB0ZXN0MCAXDTI2MTEyNjAyMzYyMFoYDzIxMjYxMTAyMDIz
NjIwWjARMQ8wDQYDVQQDDAZhIHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATMYPydJnaGEOvu/Q2pGNdW1PJWBSB0iEHlgrruYc3kz5vfQ9AQE8Yh4YaW5GRr
T2QoeqW5cxrTRD2O28WsetJPo1MwUTAdBgNVHQ4EFgQU/ZRi13vabjadisE7/Q6Y
EjvOpF0wHwYDVR0jBBgwFoAU/ZRi13vabjadisE7/Q6YEjvOpF0wDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiA4riHH4qH5vOCB8imjgyGVm6IZ6OSC
f7v15pRUgaJslgIhAKvoWCpAeWWZfeZ3lyPM7sYk00Dpvb/j0Vd+8Xe19Kj4
-----END CERTIFICATE-----
";
/// Nothing listens there.
const NO_DATABASE: &str = "postgres://u:s3cret@127.0.0.1:1/db";
const COMMANDS: [&[&str]; 5] = [
    &["serve"],
    &["worker"],
    &["migrate", "--status"],
    &["seed"],
    &["retry", "--list"],
];

/// A command that is to be refused before it looks for its database, or else ends without it.
fn command(arguments: &[&str]) -> Run {
    Program::on(NO_DATABASE, arguments).env("RUST_LOG", "trace")
}

#[track_caller]
fn assert_refused(ended: &Finished, code: i32, said: &str) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    for secret in ["s3cret", "t4il"] {
        assert!(!ended.stderr.contains(secret), "{ended:?}");
    }
}

#[tokio::test]
async fn a_database_url_that_is_not_understood_is_refused_by_every_command() {
    let wrong = [
        ("db.internal:5432/gateway", "postgres://"),
        ("jdbc:postgresql://u:s3cret@h/db", "postgres://"),
        ("mysql://u:s3cret@127.0.0.1:1/db", "postgres://"),
        (
            "postgres://u:s3cret@127.0.0.1:1,127.0.0.1:99999/db",
            "not a URL",
        ),
        (
            "postgres://u:s3cret@127.0.0.1:1/db?sslmode=no-verify",
            "sslmode",
        ),
        ("postgres://u:s3cret#t4il@127.0.0.1:1/db", "%23"),
        ("postgres://u:1/s3cret@127.0.0.1:1/db", "%2F"),
        (
            "postgres://u:s3cret@127.0.0.1:1,[::1]:1/db?target_session_attrs=standby",
            "target_session_attrs",
        ),
        (
            "postgres://u:s3cret@127.0.0.1:1/db?sslrootcert=/no/such.pem",
            "/no/such.pem",
        ),
    ];
    let runs = COMMANDS.iter().flat_map(|arguments| {
        wrong.map(|(url, said)| async move {
            let ended = command(arguments).env("DATABASE_URL", url).finish().await;
            assert_refused(&ended, 2, said);
        })
    });
    for run in runs {
        run.await;
    }
}

#[tokio::test]
async fn variables_of_libpq_that_cannot_be_are_refused() {
    for (name, value, url) in [
        ("PGSSLROOTCERT", "/no/such.pem", NO_DATABASE),
        ("PGSSLMODE", "no-verify", NO_DATABASE),
        ("PGPORT", "none", "postgres://u:s3cret@127.0.0.1/db"),
        ("PGPORT", "1,2,3", "postgres://u:s3cret@127.0.0.1,[::1]/db"),
        ("PGTARGETSESSIONATTRS", "standby", NO_DATABASE),
        ("PGCHANNELBINDING", "require", NO_DATABASE),
    ] {
        let run = command(&["migrate"]).env("DATABASE_URL", url);
        assert_refused(&run.env(name, value).finish().await, 2, name);
    }
}

#[tokio::test]
async fn a_database_is_found_at_an_ipv6_literal_and_by_the_variables_of_libpq() {
    let database = Database::new().await;
    let options = database.options();
    let (user, name) = (options.get_username(), options.get_database().unwrap());
    let socket = options.get_socket().unwrap();
    let port = relay("::1", socket.join(".s.PGSQL.5432")).await;
    let literal = format!("postgres://{user}@[::1]:{port}/{name}");
    let addresses = [
        (literal, "", ""),
        (
            format!("postgresql:///{name}"),
            socket.to_str().unwrap(),
            user,
        ),
    ];
    for (url, host, user) in addresses {
        let mut run = command(&["migrate"]).env("DATABASE_URL", &url);
        if !host.is_empty() {
            run = run.env("PGHOST", host).env("PGUSER", user);
        }
        let ended = run.finish().await;
        assert_eq!(ended.code, Some(0), "{url}: {ended:?}");
    }
}

#[tokio::test]
async fn a_base_url_that_paths_cannot_be_added_to_is_refused_without_its_secrets() {
    for url in [
        "127.0.0.1:4000",
        "ftp://u:s3cret@127.0.0.1",
        "http://u:s3cret@",
        "http://u:s3cret@127.0.0.1:1?key=t4il",
        "http://127.0.0.1:1/#s3cret",
    ] {
        for arguments in [&["serve"][..], &["worker"], &["retry", "--all"]] {
            let ended = command(arguments).env("PROVIDER_URL", url).finish().await;
            assert_refused(&ended, 2, "PROVIDER_URL");
        }
        let traced = command(&["worker"]).env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
        assert_refused(&traced.finish().await, 2, "OTEL_EXPORTER_OTLP_ENDPOINT");
        let against = command(&["simulate"]).env("SIMULATE_MOCK", "http://127.0.0.1:1");
        let against = against.env("SIMULATE_AGAINST", url).finish().await;
        assert_refused(&against, 2, "SIMULATE_AGAINST");
        let mock = command(&["simulate"]).env("SIMULATE_AGAINST", "http://127.0.0.1:1");
        assert_refused(
            &mock.env("SIMULATE_MOCK", url).finish().await,
            2,
            "SIMULATE_MOCK",
        );
    }
    // The built-in mock reads its own variable, which is a URL too.
    let directory = tempfile::tempdir().unwrap();
    let run = Program::new("serve").directory(directory.path().to_owned());
    let ended = run.env("WEBHOOK_URL", "u:s3cret@h").finish().await;
    assert_refused(&ended, 2, "WEBHOOK_URL");
    let nobody = command(&["simulate"]).env("SIMULATE_AGAINST", "http://u:s3cret@127.0.0.1:1");
    let ended = nobody
        .env("SIMULATE_MOCK", "http://127.0.0.1:1")
        .finish()
        .await;
    assert_refused(&ended, 1, "http://127.0.0.1:1");
}

#[tokio::test]
async fn serve_listens_on_an_ipv6_address_in_brackets_and_on_localhost() {
    let (database, mock) = (Database::new().await, mock().await);
    for (host, address) in [
        ("[::1]", "http://[::1]:"),
        ("::1", "http://[::1]:"),
        ("localhost", "http://127.0.0.1:"),
    ] {
        let gateway = serve(&database, &mock, &[("HOST", host)]).await;
        let listening = gateway.logged("listening").await;
        let url = listening["address"].as_str().unwrap();
        assert!(url.starts_with(address), "{url}");
        Client::new(url).get("/ready").await.expect(200);
    }
    for host in ["[::1", "[127.0.0.1]", "[]"] {
        let ended = command(&["serve"]).env("HOST", host).finish().await;
        assert_refused(&ended, 2, "localhost");
    }
}

/// All variables that a client may take a proxy from.
fn proxied(proxy: &str) -> Vec<(&'static str, String)> {
    let names = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ];
    let url = format!("http://u:s3cret@{proxy}");
    names.map(|name| (name, url.clone())).to_vec()
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    variables
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect()
}

#[tokio::test]
async fn nothing_on_this_machine_is_asked_for_through_a_proxy() {
    let proxy = Proxy::answering("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    let proxies = proxied(&proxy.address);
    let (database, collector, mock) = (
        Database::new().await,
        Collector::start().await,
        mock().await,
    );
    let port = mock.address().port();
    for host in ["localhost", "127.0.0.1"] {
        let provider = format!("http://{host}:{port}");
        let mut environment = borrowed(&proxies);
        environment.extend([
            ("PROVIDER_URL", &*provider),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ]);
        let mut gateway = serve(&database, &mock, &environment).await;
        let client = Client::new(gateway.url());
        let body = json!({ "channel": "whatsapp", "to": host, "text": "Merhaba" });
        let sent = client.post("/messages/send", &body).await.expect(201);
        assert_eq!(sent["status"], "SENT", "{sent}");
        let simulated = Program::new("simulate")
            .args(&["--duplicate", "--events", "5", "--mock", &provider])
            .env("SIMULATE_AGAINST", gateway.url())
            .envs(&borrowed(&proxies))
            .finish()
            .await;
        assert_eq!(simulated.code, Some(0), "{simulated:?}");
        assert_eq!(gateway.terminate().await.code(), Some(0));
        collector
            .span("the request", |span| span.name == "POST /messages/send")
            .await;
    }
    assert_eq!(proxy.asked(), Vec::<String>::new());
}

/// The failure of a send to a provider elsewhere, by way of this proxy; nothing that is logged
/// shows its password.
async fn failure(provider: &str, proxy: &str, environment: &[(&str, &str)]) -> Value {
    let proxies = proxied(proxy);
    let mut variables = borrowed(&proxies);
    variables.extend([("PROVIDER_URL", provider), ("RUST_LOG", "trace"), NO_RETRY]);
    variables.extend(environment);
    let system = System::with(&variables).await;
    let message = system.send("user-1", "Merhaba").await;
    system.gateway.logged("an attempt failed").await;
    let log = system.gateway.log();
    // As it is, and as the proxy is told.
    for secret in ["s3cret", "dTpzM2NyZXQ"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{log:#?}");
    }
    assert!(!message.to_string().contains("s3cret"), "{message}");
    assert_eq!(message["status"], "FAILED", "{message}");
    message["lastError"].clone()
}

fn certificate(directory: &Path) -> String {
    let file = directory.join("ca.pem");
    std::fs::write(&file, CERTIFICATE).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn an_error_by_a_proxy_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certificate(directory.path());
    let (plain, tls) = ("http://provider.invalid", "https://provider.invalid");
    let asks_for_a_key = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let bad_gateway =
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
    for (answer, provider, kind, ambiguous, first_line) in [
        (
            asks_for_a_key,
            plain,
            "connection",
            false,
            "POST http://provider.invalid/messages HTTP/1.1",
        ),
        (
            asks_for_a_key,
            tls,
            "connection",
            false,
            "CONNECT provider.invalid:443 HTTP/1.1",
        ),
        (
            bad_gateway,
            plain,
            "server_error",
            true,
            "POST http://provider.invalid/messages HTTP/1.1",
        ),
        (
            bad_gateway,
            tls,
            "connection",
            false,
            "CONNECT provider.invalid:443 HTTP/1.1",
        ),
    ] {
        let proxy = Proxy::answering(answer).await;
        let environment = [("SSL_CERT_FILE", &*certificate)];
        let error = failure(provider, &proxy.address, &environment).await;
        assert_eq!(
            (&error["kind"], &error["ambiguous"]),
            (&json!(kind), &json!(ambiguous)),
            "{error}"
        );
        assert_eq!(error["retryable"], true, "{error}");
        let named = format!("(through the proxy {})", proxy.address);
        assert!(
            error["detail"].as_str().unwrap().ends_with(&named),
            "{error}"
        );
        assert_eq!(proxy.asked(), [first_line]);
    }
    let away = tokio::net::TcpSocket::new_v4().unwrap();
    away.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = away.local_addr().unwrap().to_string();
    let error = failure(plain, &address, &[]).await;
    assert_eq!(
        (&error["kind"], &error["ambiguous"]),
        (&json!("connection"), &json!(false))
    );
    assert!(
        error["detail"].as_str().unwrap().contains(&address),
        "{error}"
    );

    let against = command(&["simulate", "--duplicate"])
        .args(&["--against", plain, "--mock", plain])
        .envs(&borrowed(&proxied(&address)))
        .finish()
        .await;
    assert_refused(&against, 1, &format!("(through the proxy {address})"));
}

#[tokio::test]
async fn a_provider_elsewhere_is_reached_through_a_proxy_or_directly_as_the_environment_says() {
    let accepts = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"success\":true,\"providerMessageId\":\"far_1\"}";
    let proxy = Proxy::answering(accepts).await;
    let proxies = proxied(&proxy.address);
    let mut environment = borrowed(&proxies);
    environment.extend([("PROVIDER_URL", "http://provider.invalid"), NO_RETRY]);
    let system = System::with(&environment).await;
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["providerMessageId"], "far_1", "{message}");
    environment.push(("NO_PROXY", "other.example, .invalid"));
    let system = System::with(&environment).await;
    let message = system.send("user-1", "Merhaba").await;
    assert_eq!(message["lastError"]["kind"], "connection", "{message}");
    let detail = message["lastError"]["detail"].as_str().unwrap();
    assert!(!detail.contains("proxy"), "{message}");
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn without_certificates_everything_works_that_is_not_encrypted() {
    let collector = Collector::start().await;
    let mut environment = NO_CERTIFICATES.to_vec();
    environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()));
    let mut system = System::with(&environment).await;
    assert_eq!(system.send("user-1", "Merhaba").await["status"], "SENT");
    let _worker = system.worker(&environment).await;
    let simulated = Program::new("simulate")
        .args(&["--server-error", "--events", "5"])
        .env("SIMULATE_AGAINST", system.gateway.url())
        .env("SIMULATE_MOCK", &system.mock.url())
        .envs(&NO_CERTIFICATES)
        .finish()
        .await;
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
    collector
        .span("the request", |span| span.name == "POST /messages/send")
        .await;
}

#[tokio::test]
async fn where_certificates_are_needed_their_package_is_named_at_the_start() {
    for arguments in [&["serve"][..], &["worker"], &["retry", "--all"]] {
        let run = command(arguments).envs(&NO_CERTIFICATES);
        let run = run.env("PROVIDER_URL", "https://u:s3cret@provider.invalid");
        assert_refused(&run.finish().await, 2, "install ca-certificates");
    }
    let traced = command(&["worker"])
        .env(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://u:s3cret@collector.invalid/",
        )
        .envs(&NO_CERTIFICATES);
    assert_refused(&traced.finish().await, 2, "install ca-certificates");
    let against = command(&["simulate"])
        .args(&[
            "--against",
            "https://gateway.invalid",
            "--mock",
            "http://127.0.0.1:1",
        ])
        .envs(&NO_CERTIFICATES);
    assert_refused(&against.finish().await, 1, "install ca-certificates");
    // A proxy can be encrypted too.
    let run = command(&["worker"])
        .env("PROVIDER_URL", "http://provider.invalid")
        .env("HTTP_PROXY", "https://u:s3cret@127.0.0.1:1")
        .envs(&NO_CERTIFICATES);
    assert_refused(&run.finish().await, 2, "install ca-certificates");
}
