//! Settings as env files, compose files and shells pass them: blank ones, ones with a line break,
//! quotes or a `~`.

use std::collections::BTreeMap;

use crate::support::{Client, Database, Program, System, mock, run, serve};

/// The variables that the help of a subcommand shows, with their defaults.
async fn variables(subcommand: &str) -> BTreeMap<String, Option<String>> {
    let help = Program::new(subcommand).args(&["--help"]).finish().await;
    let help = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = help.split("[env: ").skip(1).map(|rest| {
        let (shown, rest) = rest.split_once(']').unwrap();
        let default = rest.strip_prefix(" [default: ");
        let default = default.map(|rest| rest.split(']').next().unwrap().to_owned());
        // Beside what these tests set themselves; of a secret only the name is shown.
        (shown.split('=').next().unwrap().to_owned(), default)
    });
    shown.collect()
}

/// Starts a program with these settings, all at once, until it says that it works.
async fn works(subcommand: &str, settings: &BTreeMap<String, String>) {
    let (database, mock) = (Database::new().await, mock().await);
    if subcommand == "worker" {
        database.migrate().await;
    }
    let settings: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let database_url = format!(" {}\n", database.url());
    let program = Program::new(subcommand)
        .envs(&settings)
        .env("DATABASE_URL", &database_url)
        .env("PROVIDER_URL", &format!("{}\r\n", mock.url()))
        .env("LOG_FORMAT", "json\n")
        .env("PORT", "0 ")
        .env("MOCK_PORT", "\t0")
        .start();
    let says = if subcommand == "serve" {
        "ready"
    } else {
        "working"
    };
    program.logged(says).await;
}

#[tokio::test]
async fn a_blank_variable_is_an_unset_one_and_blanks_around_a_value_are_cut_off() {
    for subcommand in ["serve", "worker"] {
        let variables = variables(subcommand).await;
        assert!(variables.len() >= 20, "{variables:#?}");
        for blank in ["", " ", "\n"] {
            let names = variables.keys().cloned();
            works(
                subcommand,
                &names.map(|name| (name, blank.to_owned())).collect(),
            )
            .await;
        }
        let with_blanks = variables.iter().filter_map(|(name, default)| {
            let value = format!("\t{}\n", default.as_ref()?);
            Some((name.clone(), value))
        });
        works(subcommand, &with_blanks.collect()).await;
    }
}

#[tokio::test]
async fn the_page_about_configuration_has_every_variable_with_its_default() {
    let page = include_str!("../../src/docs/configuration.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let told: BTreeMap<String, String> = rows
        .flat_map(|(names, rest)| {
            let defaults = rest.split('|').next().unwrap().split(',');
            let plain = |text: &str| text.trim().trim_matches('`').to_owned();
            names.split(',').map(plain).zip(defaults.map(plain))
        })
        .collect();
    for subcommand in ["serve", "worker", "migrate"] {
        for (name, default) in variables(subcommand).await {
            let row = told.get(&name).unwrap_or_else(|| panic!("{name}"));
            if let Some(default) = default {
                assert_eq!(*row, default, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn every_variable_that_is_wrong_is_named() {
    let serve = variables("serve").await;
    let numbers: Vec<_> = serve
        .iter()
        .filter(|(_, default)| {
            let default = default.as_ref();
            default.is_some_and(|default| default.parse::<f64>().is_ok())
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(numbers.len() >= 12, "{numbers:?}");
    for name in numbers.into_iter().chain([
        "DELIVERY_ORDER",
        "AMBIGUOUS_POLICY",
        "HOST",
        "PROVIDER_MAX_PER_SECOND",
    ]) {
        for value in ["no", "-1", "1 2", "\"7\""] {
            let run = Program::new("serve").env("DATABASE_URL", "postgres://127.0.0.1:1/none");
            let run = run.env("PROVIDER_URL", "http://127.0.0.1:1");
            let ended = run.env(name, value).finish().await;
            assert_eq!(ended.code, Some(2), "{name}={value}: {ended:?}");
            assert!(ended.stderr.contains(name), "{name}={value}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn an_option_wins_over_its_variable_also_over_one_that_is_wrong() {
    let database = Database::new().await;
    for argument in [&["--log-format", "text"][..], &["--log-format=text"]] {
        let ended = run(&database, "migrate", argument)
            .env("LOG_FORMAT", "xml")
            .finish()
            .await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// Runs `serve` with a variable that it must refuse, and not repeat.
async fn refuses(variable: &str, value: &str) {
    for subcommand in ["serve", "worker"] {
        let run = Program::new(subcommand).env("DATABASE_URL", "postgres://127.0.0.1:1/none");
        let run = run.env("PROVIDER_URL", "http://127.0.0.1:1");
        let ended = run.env(variable, value).finish().await;
        assert_eq!(ended.code, Some(2), "{variable}={value}: {ended:?}");
        assert!(ended.stderr.contains(variable), "{ended:?}");
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_secret_that_nobody_could_present_is_refused() {
    for value in [
        "\"s3cret\"",
        "'s3cret'",
        "\"one:s3cret,two:s3cret2\"",
        "plain, \"s3cret\"",
        "s3cret-café",
        "desk:s3cret-ключ:inbox",
        "s3cret two",
        ",",
        " , ",
    ] {
        refuses("API_KEYS", value).await;
    }
    for value in ["\"s3cret\"", "'s3cret'", "other,'s3cret'", ","] {
        refuses("WEBHOOK_SECRET", value).await;
    }
}

#[tokio::test]
async fn a_name_that_is_no_pattern_of_hosts_is_refused() {
    for value in [
        "*example.com",
        "*.",
        ".",
        "a.*.example.com",
        "**",
        "example.com:3000",
        "*.example.com:3000",
        "https://example.com",
        "example.com/",
        "good.example, b@d.example",
        "\"example.com\"",
    ] {
        refuses("ALLOWED_HOSTS", value).await;
    }
}

/// Whether a caller who addresses the gateway by this name is served.
async fn is_served(client: &Client, host: &str) -> bool {
    let request = client.http.get(client.url("/conversations"));
    let answer = client.call(request.header("host", host)).await.unwrap();
    assert!([200, 403].contains(&answer.status), "{}", answer.text);
    answer.status == 200
}

#[tokio::test]
async fn patterns_of_hosts_mean_what_they_say() {
    let (database, mock) = (Database::new().await, mock().await);
    for (value, served, refused) in [
        ("*", &["example.com", "10.0.0.1:3000"][..], &[][..]),
        ("one.example, *", &["two.example"], &[]),
        (
            "*.Example.com,,plain.example",
            &[
                "a.example.com",
                "A.B.example.COM:80",
                "plain.example",
                "localhost",
            ],
            &[
                "example.com",
                "aexample.com",
                ".example.com",
                "a.plain.example",
                "example.com.evil.example",
            ],
        ),
        (
            ".example.com",
            &["a.example.com"],
            &["example.com", "badexample.com", "a.example.org"],
        ),
    ] {
        let gateway = serve(&database, &mock, &[("ALLOWED_HOSTS", value)]).await;
        let client = Client::new(gateway.url());
        for host in served {
            assert!(is_served(&client, host).await, "{value}: {host}");
        }
        for host in refused {
            assert!(!is_served(&client, host).await, "{value}: {host}");
        }
    }
}

#[tokio::test]
async fn a_worker_shows_its_metrics_where_it_is_told_in_whatever_form() {
    let system = System::without_worker(&[]).await;
    for (address, host, port, shown) in [
        (":0", "", "1", "127.0.0.1:"),
        (":0", "0.0.0.0", "1", "0.0.0.0:"),
        ("localhost:0", "0.0.0.0", "1", "127.0.0.1:"),
        ("127.0.0.2", "", "0", "127.0.0.2:"),
        ("0.0.0.0", "", "0", "0.0.0.0:"),
        ("[::1]:0", "", "1", "[::1]:"),
    ] {
        let settings = [("METRICS_ADDR", address), ("HOST", host), ("PORT", port)];
        let worker = system.worker(&settings).await;
        let said = worker.logged("serving metrics").await;
        let said = said["address"].as_str().unwrap();
        let place = said.strip_prefix("http://").unwrap();
        assert!(place.starts_with(shown), "{address}: {place}");
        let url = said.replace("0.0.0.0", "127.0.0.1");
        Client::new(&url).get("/health").await.expect(200);
    }
    for wrong in [
        "somewhere:9111",
        "127.0.0.1:",
        ":70000",
        "127.0.0.1:metrics",
        "9111",
    ] {
        let run = Program::new("worker").env("DATABASE_URL", system.database.url());
        let run = run.env("PROVIDER_URL", &system.mock.url());
        let ended = run.env("METRICS_ADDR", wrong).finish().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("METRICS_ADDR"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_data_directory_may_begin_with_the_home_directory() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().to_str().unwrap();
    let migrate = |directory: &str| {
        let run = Program::new("migrate").args(&["--status"]);
        // Where a `~` of its own would show.
        run.directory(home.path().into())
            .env("GATEWAY_DATA_DIR", directory)
    };
    std::fs::set_permissions(
        home.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let ended = migrate("~/data").env("HOME", place).finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(home.path().join("data/cluster").exists());
    let ended = migrate("~postgres/data").env("HOME", place).finish().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("GATEWAY_DATA_DIR"), "{ended:?}");
    assert!(!home.path().join("~").exists() && !home.path().join("~postgres").exists());
}
