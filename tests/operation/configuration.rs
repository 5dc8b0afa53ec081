//! A configuration that cannot work: it ends the program with 2, names the setting, and repeats no
//! secret.

use crate::support::Program;

const CLOSED: &str = "postgres://gateway:hunter2@127.0.0.1:1/gateway";
const PROVIDER: &str = "http://user:hunter2@127.0.0.1:1";

#[tokio::test]
async fn half_a_configuration_ends_with_2_and_names_what_is_missing() {
    let (database, provider) = (("DATABASE_URL", CLOSED), ("PROVIDER_URL", PROVIDER));
    refuses("serve", &[database], "PROVIDER_URL").await;
    refuses("serve", &[provider], "DATABASE_URL").await;
    refuses("serve", &[database, ("PROVIDER_URL", " ")], "PROVIDER_URL").await;
    let open = ("HOST", "0.0.0.0");
    refuses("serve", &[open], "DATABASE_URL and PROVIDER_URL").await;
    refuses("serve", &[open, provider], "DATABASE_URL").await;
    refuses("worker", &[], "DATABASE_URL").await;
    refuses("worker", &[database], "PROVIDER_URL").await;
    refuses("worker", &[provider], "DATABASE_URL").await;
}

#[tokio::test]
async fn a_url_that_is_none_ends_with_2_and_is_not_repeated() {
    let provider = ("PROVIDER_URL", PROVIDER);
    for url in [
        "postgres://user:hunter2@[",
        "postgres://user:hunter2@host:port/d",
        "mysql//user:hunter2@host",
        "hunter2",
    ] {
        for subcommand in ["serve", "worker", "migrate", "seed"] {
            refuses(
                subcommand,
                &[("DATABASE_URL", url), provider],
                "DATABASE_URL",
            )
            .await;
        }
    }
    for url in [
        "user:hunter2@example.com",
        "ftp://user:hunter2@example.com",
        "http://",
    ] {
        let environment = [("DATABASE_URL", CLOSED), ("PROVIDER_URL", url)];
        refuses("serve", &environment, "PROVIDER_URL").await;
        refuses("worker", &environment, "PROVIDER_URL").await;
    }
}

#[tokio::test]
async fn a_value_out_of_bounds_ends_with_2_and_names_its_setting() {
    for (variable, value, named) in [
        ("RETRY_MAX_ATTEMPTS", "0", "RETRY_MAX_ATTEMPTS"),
        ("PROVIDER_TIMEOUT_MS", "0", "PROVIDER_TIMEOUT_MS"),
        ("WORKER_CONCURRENCY", "0", "WORKER_CONCURRENCY"),
        ("PORT", "70000", "PORT"),
        ("HOST", "example.com", "HOST"),
        ("DELIVERY_ORDER", "random", "DELIVERY_ORDER"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT"),
        ("API_KEYS", "user:hunter2:everything", "API_KEYS"),
    ] {
        let setting = (variable, value);
        let environment = [
            ("DATABASE_URL", CLOSED),
            ("PROVIDER_URL", PROVIDER),
            setting,
        ];
        refuses("serve", &environment, named).await;
    }
}

/// A usage error, which names the setting and shows no secret.
async fn refuses(subcommand: &str, environment: &[(&str, &str)], named: &str) {
    let ended = Program::new(subcommand).envs(environment).finish().await;
    assert_eq!(
        ended.code,
        Some(2),
        "{subcommand} {environment:?}: {ended:?}"
    );
    assert!(
        ended.stderr.contains(named),
        "{subcommand} {environment:?}: {ended:?}"
    );
    assert!(
        ended.stdout.is_empty() && !ended.stderr.contains("hunter2"),
        "{ended:?}"
    );
}
