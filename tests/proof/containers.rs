//! The container files name only what the programs know: nothing else would say that a setting has gone.

use std::collections::BTreeSet;

use clap::{Args, Command, CommandFactory};
use gateway::cli::Cli;

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
    let commands: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("command: ").or(line.strip_prefix("CMD ")))
        .collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let arguments: Vec<String> = serde_json::from_str(command).unwrap();
        let arguments = ["gateway".to_owned()].into_iter().chain(arguments);
        let parsed = Cli::command().try_get_matches_from(arguments);
        assert!(parsed.is_ok(), "{command}: {parsed:?}");
    }
}
