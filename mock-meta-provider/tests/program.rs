//! The program: its messages, its signals and its exit codes.

use std::process::Stdio;

use mock_meta_provider::{Config, Secret};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::DEADLINE;

const SECRET: &str = "top-secret";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mock-meta-provider"));
    command
        .env_clear()
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Reads what the program says until it listens.
async fn listening(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = tokio::time::timeout(DEADLINE, lines.next_line())
        .await
        .unwrap()
        .unwrap()
    {
        if line.contains("listening on http://") {
            // Nobody reads on, so the pipe must stay open.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return line;
        }
    }
    panic!("it never listened");
}

#[tokio::test]
async fn it_listens_and_a_signal_stops_it_with_0() {
    for signal in ["TERM", "INT"] {
        let mut child = program().env("SEED", "7").spawn().unwrap();
        let line = listening(&mut child).await;
        assert!(line.contains("seed=7"), "{line}");
        let pid = child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
        let status = tokio::time::timeout(DEADLINE, child.wait())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_taken_port_is_exit_1_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, stderr) = output(program().env("PORT", &port)).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_wrong_option_or_variable_is_exit_2() {
    let wrong = [
        ("FAILURE_RATE", "1.5"),
        ("DUPLICATE_RATE", "NaN"),
        ("OUT_OF_ORDER_RATE", "-1"),
        ("DELAY_MAX_MS", "soon"),
        ("DELAY_MAX_MS", "600001"),
        ("WEBHOOK_URL", "nowhere"),
        ("SEED", "-1"),
        ("PORT", "70000"),
        ("DEDUPE", "perhaps"),
    ];
    for (variable, value) in wrong {
        let (code, _, stderr) = output(program().env(variable, value)).await;
        assert_eq!(code, Some(2), "{variable}={value}: {stderr}");
        assert!(
            stderr.contains(&variable.to_lowercase().replace('_', "-")),
            "{stderr}"
        );
    }
    assert_eq!(output(program().arg("--no-such-option")).await.0, Some(2));
}

#[tokio::test]
async fn help_shows_variables_and_defaults_and_never_the_secret() {
    let (code, stdout, _) = output(program().arg("--help").env("WEBHOOK_SECRET", SECRET)).await;
    assert_eq!(code, Some(0));
    assert!(!stdout.contains(SECRET));
    for (variable, default) in [
        ("HOST", "127.0.0.1"),
        ("WEBHOOK_URL", "http://localhost:3000/webhooks/mock-meta"),
        ("FAILURE_RATE", "0.3"),
        ("DUPLICATE_RATE", "0.2"),
        ("OUT_OF_ORDER_RATE", "0.15"),
        ("DELAY_MAX_MS", "2000"),
        ("ALLOW_REMOTE_WEBHOOKS", "false"),
        ("HANG_MS", "60000"),
        ("DEDUPE", "true"),
    ] {
        let unwrapped = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            unwrapped.contains(&format!("[env: {variable}=] [default: {default}]")),
            "{variable}: {stdout}"
        );
    }
    assert!(
        stdout.contains("[env: PORT=0] [default: 4000]")
            && stdout.contains("SEED")
            && stdout.contains("WEBHOOK_SECRET")
    );
}

/// What [`the_environment_alone_makes_a_configuration`] runs in an environment of its own.
#[test]
#[ignore = "run by another test"]
fn reads_the_environment() {
    let config = Config::from_env();
    let error = config.as_ref().err().map(ToString::to_string);
    let secret = config
        .as_ref()
        .ok()
        .and_then(|config| config.webhook_secret.clone());
    let secret = secret.map(|secret| secret == Secret::new(SECRET));
    let rate = config
        .as_ref()
        .map_or(0.0, |config| config.behaviour.failure_rate);
    std::fs::write(
        std::env::var("REPORT").unwrap(),
        format!("{error:?} {secret:?} {rate}"),
    )
    .unwrap();
}

#[tokio::test]
async fn the_environment_alone_makes_a_configuration() {
    let secrets = format!(" {SECRET} ,old-secret");
    let cases = [
        (vec![("WEBHOOK_SECRET", "")], "None None 0.3"),
        (
            vec![("WEBHOOK_SECRET", &*secrets), ("FAILURE_RATE", "0")],
            "None Some(true) 0",
        ),
        (vec![("FAILURE_RATE", "7")], "must be from 0 to 1"),
    ];
    for (number, (variables, expected)) in cases.into_iter().enumerate() {
        let report = format!("{}/environment-{number}", env!("CARGO_TARGET_TMPDIR"));
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.env_clear().envs(variables).env("REPORT", &report);
        child.args(["--exact", "program::reads_the_environment", "--ignored"]);
        let (code, stdout, _) = output(&mut child).await;
        assert_eq!(code, Some(0), "{stdout}");
        let reported = std::fs::read_to_string(report).unwrap();
        assert!(reported.contains(expected), "{reported}");
    }
}
