//! Where secrets may be: in the environment, or in a file that a variable names; not in an
//! argument, nor in what is printed of a setting.

use std::path::Path;
use std::process::Command;

use clap::{Args, CommandFactory, FromArgMatches};
use gateway::app::Role;
use gateway::cli::Cli;
use gateway::config::DeliveryArgs;
use gateway::database::plans::Plans;
use gateway::process::environment;

use crate::support::{Client, Database, Finished, Program, System, mock};

#[track_caller]
fn refused(ended: &Finished, names: &[&str]) {
    assert_eq!(ended.code, Some(2), "{names:?}: {ended:?}");
    for name in names {
        assert!(ended.stderr.contains(name), "{name}: {ended:?}");
    }
    assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
}

#[tokio::test]
async fn an_option_with_a_password_is_refused_and_its_variable_named() {
    for (subcommand, option, variable, url) in [
        (
            "serve",
            "--database-url",
            "DATABASE_URL",
            "postgres://gw:s3cret@127.0.0.1:1/none",
        ),
        (
            "worker",
            "--database-url",
            "DATABASE_URL",
            "postgres://gw:s3cret@127.0.0.1:1/none",
        ),
        (
            "migrate",
            "--database-url",
            "DATABASE_URL",
            "postgresql://:s3cret@127.0.0.1:1/none",
        ),
        (
            "seed",
            "--database-url",
            "DATABASE_URL",
            "postgres://127.0.0.1:1/none?user=gw&password=s3cret",
        ),
        (
            "retry",
            "--database-url",
            "DATABASE_URL",
            "postgres://gw:s3cret@%2Ftmp%2Fnowhere/none",
        ),
        (
            "migrate",
            "--database-url",
            "DATABASE_URL",
            "gw:s3cret@127.0.0.1:1/none",
        ),
        (
            "migrate",
            "--database-url",
            "DATABASE_URL",
            "postgres://gw:s3cret@[broken/none",
        ),
        (
            "serve",
            "--provider-url",
            "PROVIDER_URL",
            "http://u:s3cret@127.0.0.1:1",
        ),
        (
            "worker",
            "--provider-url",
            "PROVIDER_URL",
            "https://s3cret@127.0.0.1:1",
        ),
        (
            "retry",
            "--provider-url",
            "PROVIDER_URL",
            "http://127.0.0.1:1/?api_key=s3cret",
        ),
        (
            "worker",
            "--otlp-endpoint",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://u:s3cret@127.0.0.1:1",
        ),
        (
            "simulate",
            "--against",
            "SIMULATE_AGAINST",
            "http://u:s3cret@127.0.0.1:1",
        ),
        (
            "simulate",
            "--mock",
            "SIMULATE_MOCK",
            "http://u:s3cret@127.0.0.1:1",
        ),
    ] {
        let joined = format!("{option}={url}");
        for arguments in [&[option, url][..], &[&joined]] {
            let run = Program::on("postgres://127.0.0.1:1/none", &[subcommand])
                .env("SIMULATE_AGAINST", "http://127.0.0.1:1")
                .env("SIMULATE_MOCK", "http://127.0.0.1:1");
            let ended = match subcommand {
                "retry" => run.args(&["--list"]),
                _ => run,
            };
            let ended = ended.args(arguments).finish().await;
            refused(&ended, &[option, variable, &format!("{variable}_FILE")]);
        }
    }
    // A global option also in front of the command.
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["--otlp-endpoint", "http://u:s3cret@127.0.0.1:1", "migrate"]);
    let ended = Finished::from(command.env_clear().output().unwrap());
    refused(&ended, &["--otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
}

#[tokio::test]
async fn an_option_without_a_password_and_a_variable_with_one_are_fine() {
    let database = Database::new().await;
    let option = Program::new("migrate").args(&["--database-url", database.url()]);
    assert_eq!(option.finish().await.code, Some(0));
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let with_password = format!("{scheme}://{user}:s3cret@{rest}");
    let variable = Program::new("migrate").env("DATABASE_URL", &with_password);
    let ended = variable.args(&["--status"]).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Makes a file with this in it.
fn file(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_secret_may_be_in_a_file() {
    let (database, mock) = (Database::new().await, mock().await);
    let files = tempfile::tempdir().unwrap();
    let gateway = Program::new("serve")
        .env(
            "DATABASE_URL_FILE",
            &file(files.path(), "d", format!("{}\n", database.url())),
        )
        .env(
            "PROVIDER_URL_FILE",
            &file(files.path(), "p", format!("{}\r\n", mock.url())),
        )
        .env(
            "API_KEYS_FILE",
            &file(files.path(), "k", "desk:s3cret-1,\nops:s3cret-2\n"),
        )
        .env(
            "WEBHOOK_SECRET_FILE",
            &file(files.path(), "w", "s3cret-3 \n\n"),
        )
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT_FILE",
            &file(files.path(), "o", "http://127.0.0.1:1\n"),
        )
        .env("API_KEYS", " ")
        .start();
    gateway.logged("ready").await;
    let client = Client::new(gateway.url());
    client.get("/conversations").await.expect(401);
    for key in ["s3cret-1", "s3cret-2"] {
        let request = client.http.get(client.url("/conversations"));
        let answer = client.call(request.bearer_auth(key)).await.unwrap();
        answer.expect(200);
    }
    let unsigned = client
        .post("/webhooks/mock-meta", &serde_json::json!({}))
        .await;
    unsigned.expect(401);

    // The callers of a running system too.
    let system = System::with(&[("API_KEYS", "s3cret-1")]).await;
    let simulate = Program::new("simulate").args(&["--duplicate", "--events", "10"]);
    let ended = simulate
        .env(
            "SIMULATE_AGAINST_FILE",
            &file(files.path(), "a", system.gateway.url()),
        )
        .env(
            "SIMULATE_MOCK_FILE",
            &file(files.path(), "m", system.mock.url()),
        )
        .env("API_KEYS_FILE", &file(files.path(), "k", "s3cret-1\n"))
        .finish()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_is_named_with_its_variable() {
    let files = tempfile::tempdir().unwrap();
    let empty = file(files.path(), "empty", " \n");
    let large = file(files.path(), "large", "s3cret".repeat(11_000));
    let binary = file(files.path(), "binary", b"s3cret\xff");
    let directory = files.path().to_str().unwrap();
    let missing = files.path().join("missing");
    for variable in [
        "DATABASE_URL",
        "PROVIDER_URL",
        "API_KEYS",
        "WEBHOOK_SECRET",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        let name = format!("{variable}_FILE");
        let serve = || {
            let others = ["DATABASE_URL", "PROVIDER_URL"].map(|other| {
                let url = if other == "DATABASE_URL" {
                    "postgres://127.0.0.1:1/none"
                } else {
                    "http://127.0.0.1:1"
                };
                (other, if other == variable { "" } else { url })
            });
            Program::new("serve").envs(&others)
        };
        for path in [&empty, &large, directory, missing.to_str().unwrap()] {
            let ended = serve().env(&name, path).finish().await;
            refused(&ended, &[&name, path]);
        }
        let ended = serve().env(&name, &binary).finish().await;
        refused(&ended, &[variable]);
        let both = serve()
            .env(variable, "s3cret")
            .env(&name, &empty)
            .finish()
            .await;
        refused(&both, &[variable, &name]);
        let help = serve().env(&name, &empty).args(&["--help"]).finish().await;
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.stdout.contains(&name), "{name}: {help:?}");
    }
    // A blank one is an unset one, and an option wins.
    let database = Database::new().await;
    let ended = Program::new("migrate").env("DATABASE_URL_FILE", " ");
    let ended = ended.env("DATABASE_URL", database.url()).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = Program::new("migrate").args(&["--database-url", database.url()]);
    let ended = ended.env("DATABASE_URL_FILE", &empty).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Half a configuration, by a file: a misspelled other half must not end in a private database.
    let ended =
        Program::new("migrate").env("PROVIDER_URL_FILE", &file(files.path(), "p", "http://x"));
    refused(&ended.finish().await, &["DATABASE_URL"]);
}

#[tokio::test]
async fn a_url_in_the_environment_is_not_repeated_where_it_is_wrong() {
    let wrong = "ftp://u:s3cret@127.0.0.1:1";
    for (subcommand, variable) in [
        ("serve", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("simulate", "SIMULATE_MOCK"),
        ("simulate", "SIMULATE_AGAINST"),
    ] {
        let run = Program::on("postgres://127.0.0.1:1/none", &[subcommand])
            .env("SIMULATE_AGAINST", "http://127.0.0.1:1")
            .env("SIMULATE_MOCK", "http://127.0.0.1:1");
        let ended = run.env(variable, wrong).finish().await;
        refused(&ended, &[]);
    }
    let run = Program::new("simulate")
        .env("SIMULATE_AGAINST", "http://u:s3cret@127.0.0.1:1")
        .env("SIMULATE_MOCK", "http://u:s3cret@127.0.0.1:1");
    let ended = run.finish().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("127.0.0.1:1") && !ended.stderr.contains("s3cret"),
        "{ended:?}"
    );
}

/// Not a claim: what is printed of the settings, in a process that has the secrets in its
/// environment.
#[test]
#[allow(clippy::print_stdout)] // how it talks to whoever spawned it
fn printed_settings() {
    if std::env::var_os("PRINT_SETTINGS").is_none() {
        return;
    }
    for subcommand in [
        &["serve"][..],
        &["worker"],
        &["migrate"],
        &["seed"],
        &["retry", "--all"],
        &["simulate"],
    ] {
        let arguments = ["gateway"].iter().chain(subcommand).map(Into::into);
        let matches = environment::matches(&Cli::command(), arguments).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        println!("{cli:?}\n{cli:#?}");
    }
    let command = DeliveryArgs::augment_args(clap::Command::new("deliver"));
    let matches = environment::matches(&command, ["deliver".into()]).unwrap();
    let delivery = DeliveryArgs::from_arg_matches(&matches).unwrap();
    let database = gateway::database::url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
    let providers = delivery.providers().unwrap().unwrap();
    let settings = delivery.settings(Role::Command, (database, 2, Plans::default()), providers);
    println!("{delivery:?}\n{delivery:#?}\n{settings:?}\n{settings:#?}");
}

#[test]
fn nothing_that_is_printed_of_a_setting_has_a_secret() {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        &format!("{module}::printed_settings"),
        "--nocapture",
    ]);
    for (name, value) in [
        ("PRINT_SETTINGS", "1"),
        ("DATABASE_URL", "postgres://gw:s3cret-1@127.0.0.1/none"),
        ("PROVIDER_URL", "http://u:s3cret-2@127.0.0.1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret-3@127.0.0.1"),
        ("API_KEYS", "ops:s3cret-4"),
        ("WEBHOOK_SECRET", "s3cret-5"),
        ("SIMULATE_AGAINST", "http://u:s3cret-6@127.0.0.1"),
        ("SIMULATE_MOCK", "http://u:s3cret-7@127.0.0.1"),
        ("WHATSAPP_PHONE_NUMBER_ID", "106540352242922"),
        ("WHATSAPP_ACCESS_TOKEN", "s3cret-8"),
        ("META_APP_SECRET", "s3cret-9,s3cret-10"),
        ("META_VERIFY_TOKEN", "s3cret-11-of-20-characters"),
        ("GRAPH_URL", "http://u:s3cret-12@127.0.0.1"),
    ] {
        command.env(name, value);
    }
    let ended = Finished::from(command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "Serve",
        "database_url",
        "against",
        "Settings {",
        "MockMeta",
        "access_token",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("s3cret"), "{}", ended.stdout);
}
