//! The container files name only what the programs know: nothing else would say that a setting has
//! gone.

use std::collections::BTreeSet;

use clap::{Args, Command, CommandFactory};
use gateway::cli::Cli;

use crate::support::{Program, System};

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");

/// Words such as `DATABASE_URL`, for themselves.
fn variables(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c)).collect()
}

#[test]
fn every_variable_of_the_container_files_is_one_that_the_programs_know() {
    let mut help = String::new();
    let mut gateway = Cli::command();
    gateway.build();
    for command in gateway.get_subcommands_mut() {
        help += &command.render_long_help().to_string();
    }
    let mut mock = mock_meta_provider::Config::augment_args(Command::new("mock-meta-provider"));
    help += &mock.render_long_help().to_string();
    let known = variables(&help);

    let of_compose = COMPOSE.lines().filter_map(|line| {
        let (name, _) = line.trim().split_once(':')?;
        variables(name).contains(name).then_some(name)
    });
    let of_images = DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "));
    let of_images = of_images.flat_map(str::split_whitespace);
    let of_images = of_images.filter_map(|setting| Some(setting.split_once('=')?.0));
    let named: BTreeSet<&str> = of_compose.chain(of_images).collect();

    assert!(
        named.contains("DATABASE_URL") && named.contains("WEBHOOK_URL") && named.contains("HOST"),
        "{named:?}"
    );
    let unknown = named
        .difference(&known)
        .filter(|name| !name.starts_with("POSTGRES_"));
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn every_command_of_the_container_files_is_one_that_the_gateway_knows() {
    let lines = COMPOSE.lines().chain(DOCKERFILE.lines()).map(str::trim);
    let commands = lines
        .clone()
        .filter_map(|line| line.strip_prefix("command: ").or(line.strip_prefix("CMD ")));
    let commands: Vec<Vec<String>> = commands
        .map(|command| serde_json::from_str(command).unwrap())
        .collect();
    assert!(commands.len() >= 3, "{commands:?}");
    // A check names the program, a command begins behind it.
    let checks = lines.filter_map(|line| {
        line.split_once("CMD\", \"gateway\", ")
            .or(line.split_once("CMD [\"gateway\", "))
    });
    let checks: Vec<Vec<String>> = checks
        .map(|(_, rest)| serde_json::from_str(&format!("[{rest}")).unwrap())
        .collect();
    assert_eq!(checks.len(), 2, "{checks:?}");
    for command in commands.into_iter().chain(checks) {
        let arguments = ["gateway".to_owned()].into_iter().chain(command.clone());
        let parsed = Cli::command().try_get_matches_from(arguments);
        assert!(parsed.is_ok(), "{command:?}: {parsed:?}");
    }
}

#[tokio::test]
async fn a_health_check_tells_by_its_exit_code_how_the_gateway_is() {
    let system = System::without_worker(&[]).await;
    let worker = system.worker(&[("METRICS_ADDR", "127.0.0.1:0")]).await;
    let check = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let check = Program::new("healthcheck").args(arguments);
        // A proxy is never asked about this machine.
        let check = check.env("HTTP_PROXY", "http://127.0.0.1:1");
        check.envs(environment).finish().await
    };
    let metrics = worker.logged("serving metrics").await;
    let metrics = port_of(metrics["address"].as_str().unwrap());
    let served = port_of(system.gateway.url());
    let metrics = format!("0.0.0.0:{metrics}");
    for environment in [
        &[("PORT", &*served), ("HOST", "0.0.0.0")][..],
        &[("PORT", &*served), ("METRICS_ADDR", "0.0.0.0")],
        &[("PORT", "1"), ("METRICS_ADDR", &*metrics)],
    ] {
        for path in ["/health", "/ready"] {
            let ended = check(&[path], environment).await;
            assert_eq!(
                (ended.code, &*ended.stderr),
                (Some(0), ""),
                "{environment:?}"
            );
        }
    }
    let mock = port_of(&system.mock.url());
    for (environment, why) in [
        (("PORT", "1"), "no gateway answers at 127.0.0.1:1"),
        // It has another route for that.
        (("PORT", &*mock), "/ready answers 404"),
    ] {
        let ended = check(&["/ready"], &[environment]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
}

fn port_of(url: &str) -> String {
    url.rsplit_once(':').unwrap().1.to_owned()
}
