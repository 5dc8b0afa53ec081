//! The manners of the command line: what a terminal, a pipe and a shell may expect of it.

use std::process::{Command, Stdio};

use crate::support::Program;

const SUBCOMMANDS: [&str; 6] = ["serve", "worker", "migrate", "seed", "retry", "simulate"];

#[tokio::test]
async fn the_version_tells_the_commit() {
    let head = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let head = String::from_utf8(head.stdout).unwrap();
    let said = Program::new("--version").finish().await;
    assert_eq!(said.code, Some(0), "{said:#?}");
    let version = concat!("gateway ", env!("CARGO_PKG_VERSION"));
    // What was unpacked from an archive has no commit to tell.
    let expected = match head.get(..12) {
        Some(commit) => format!("{version} ({commit})\n"),
        None => format!("{version}\n"),
    };
    assert_eq!(said.stdout, expected);
}

#[tokio::test]
async fn every_help_has_examples_that_are_commands() {
    for subcommand in SUBCOMMANDS {
        let help = Program::new(subcommand).args(&["--help"]).finish().await;
        let (_, examples) = help.stdout.split_once("Example").expect(subcommand);
        let example = format!("gateway {subcommand}");
        assert!(examples.contains(&example), "{examples}");
    }
}

#[tokio::test]
async fn shells_complete_every_subcommand_with_a_script_that_they_accept() {
    for (shell, check) in [("bash", Some("bash")), ("zsh", None), ("fish", None)] {
        let script = Program::new("completions").args(&[shell]).finish().await;
        assert_eq!(script.code, Some(0), "{script:#?}");
        for subcommand in SUBCOMMANDS {
            assert!(script.stdout.contains(subcommand), "{shell}: {subcommand}");
        }
        if let Some(shell) = check {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, script.stdout.as_bytes()).unwrap();
            let parsed = Command::new(shell).arg("-n").arg(file.path()).status();
            assert!(parsed.unwrap().success(), "{shell}");
        }
    }
    let help = Program::new("--help").finish().await;
    assert!(!help.stdout.contains("completions"), "{}", help.stdout);
}

/// Runs a line of shell in which `$gateway` is the program.
fn shell(line: &str, variables: &[(&str, &str)]) -> std::process::Output {
    Command::new("bash")
        .args(["-o", "pipefail", "-c", line])
        .env("gateway", env!("CARGO_BIN_EXE_gateway"))
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    const SERVE: &str = "$gateway serve --port 0 --mock-port 0 --data-dir /dev/null/none";
    let has_colours = |line: &str, variables: &[(&str, &str)]| {
        let ended = shell(line, variables);
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // One line of log, and an error.
        assert!(
            said.contains("listening") && said.contains("error"),
            "{said}"
        );
        said.contains("\u{1b}[")
    };
    // `script` is a terminal.
    let in_terminal = format!("script -qec '{SERVE}' /dev/null");
    assert!(has_colours(&in_terminal, &[]));
    assert!(!has_colours(&in_terminal, &[("NO_COLOR", "1")]));
    assert!(!has_colours(SERVE, &[]));
}

#[tokio::test]
async fn an_unknown_option_or_subcommand_ends_with_2() {
    for (subcommand, arguments) in [
        ("serve", ["--no-such-option"]),
        ("no-such-subcommand", ["--json"]),
    ] {
        let ended = Program::new(subcommand).args(&arguments).finish().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.stdout.is_empty() && ended.stderr.contains("Usage"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn help_shows_every_setting_with_its_variable_and_default() {
    let serve = help("serve").await;
    let worker = help("worker").await;
    for (help, variable, default) in [
        (&serve, "HOST", "127.0.0.1"),
        (&serve, "PORT", "3000"),
        (&serve, "MOCK_PORT", "4000"),
        (&serve, "GATEWAY_DATA_DIR", ".gateway"),
        (&serve, "PROVIDER_TIMEOUT_MS", "10000"),
        (&serve, "SEND_WAIT_MS", "15000"),
        (&serve, "SEND_CONCURRENCY", "256"),
        (&serve, "DELIVERY_ORDER", "none"),
        (&serve, "ORDER_MAX_WAIT_MS", "60000"),
        (&serve, "WORKER_CONCURRENCY", "64"),
        (&serve, "RETRY_MAX_ATTEMPTS", "30"),
        (&serve, "RETRY_BASE_MS", "1000"),
        (&serve, "RETRY_CAP_MS", "3600000"),
        (&serve, "SHUTDOWN_TIMEOUT_MS", "15000"),
        (&serve, "LOG_FORMAT", "text"),
        (&worker, "WORKER_CONCURRENCY", "64"),
        (&worker, "SHUTDOWN_TIMEOUT_MS", "15000"),
    ] {
        let shown = help.split("\n\n").chain(help.lines()).any(|paragraph| {
            paragraph.contains(&format!("[env: {variable}"))
                && paragraph.contains(&format!("[default: {default}]"))
        });
        assert!(shown, "{variable} {default}: {help}");
    }
    for variable in [
        "DATABASE_URL",
        "PROVIDER_URL",
        "API_KEYS",
        "WEBHOOK_SECRET",
        "RUST_LOG",
    ] {
        assert!(serve.contains(variable), "{variable}: {serve}");
    }
    assert!(worker.contains("METRICS_ADDR"), "{worker}");
}

#[tokio::test]
async fn help_of_every_subcommand_names_each_option_and_no_secret() {
    let all = help("--help").await;
    let (_, commands) = all.split_once("Commands:").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    // Deeper lines go on with the description.
    let names = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let commands: Vec<&str> = names
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for subcommand in ["serve", "worker", "migrate", "seed", "retry", "simulate"] {
        assert!(commands.contains(&subcommand), "{commands:?}");
    }
    for subcommand in commands.iter().filter(|name| **name != "help") {
        assert!(help(subcommand).await.contains("--"), "{subcommand}");
    }
}

/// What `--help` of a subcommand says with secrets in its environment, none of which it shows.
async fn help(subcommand: &str) -> String {
    let ended = Program::new(subcommand)
        .args(&["--help"])
        .env("DATABASE_URL", "postgres://user:hunter2@host/database")
        .env("PROVIDER_URL", "https://user:hunter2@host")
        .env("API_KEYS", "hunter2")
        .env("WEBHOOK_SECRET", "hunter2")
        .finish()
        .await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
    ended.stdout
}
