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
fn a_reader_that_goes_away_is_no_error() {
    for arguments in ["--help", "completions bash"] {
        let line = format!("for _ in 1 2 3 4 5; do $gateway {arguments} | true || exit; done");
        let ended = shell(&line, &[]);
        assert!(ended.status.success(), "{arguments}: {ended:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
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
