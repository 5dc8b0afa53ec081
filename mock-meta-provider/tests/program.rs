//! The program: its options, its log, its signals and its exit codes.

use std::process::Stdio;

use mock_meta_provider::Config;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::support::{DEADLINE, Receiver, until};

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

/// The standard error of a program, line by line.
struct Said(Lines<BufReader<ChildStderr>>);

impl Said {
    fn by(child: &mut Child) -> Self {
        Self(BufReader::new(child.stderr.take().unwrap()).lines())
    }

    /// Reads until a line has this in it, and returns the line.
    async fn until(&mut self, what: &str) -> String {
        loop {
            let line = tokio::time::timeout(DEADLINE, self.0.next_line()).await;
            let line = line.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("it never said {what}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Reads its URL, once it listens.
    async fn url(&mut self) -> String {
        let line = self.until("listening on http://").await;
        let words = line.split_whitespace();
        let mut urls = words.filter(|word| word.starts_with("http://"));
        urls.next().unwrap().to_owned()
    }
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let mut kill = Command::new("kill");
    let sent = kill.args(["-s", name, &pid]).status().await.unwrap();
    assert!(sent.success());
}

async fn exit_code(child: &mut Child) -> Option<i32> {
    let ended = tokio::time::timeout(DEADLINE, child.wait()).await;
    ended.unwrap().unwrap().code()
}

#[tokio::test]
async fn it_listens_and_a_signal_stops_it_with_0() {
    for name in ["TERM", "INT"] {
        let mut child = program().env("SEED", "7").spawn().unwrap();
        let mut said = Said::by(&mut child);
        said.until("seed=7").await;
        signal(&child, name).await;
        assert_eq!(exit_code(&mut child).await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn a_second_interrupt_ends_it_at_once() {
    let slow = [("FAILURE_RATE", "0"), ("DELAY_MAX_MS", "600000")];
    let mut child = program().envs(slow).spawn().unwrap();
    let mut said = Said::by(&mut child);
    let url = said.url().await;
    let call = tokio::spawn(call(client(), url, "user-1".to_owned()));
    said.until(": call").await;
    signal(&child, "INT").await;
    said.until("stopping").await;
    signal(&child, "INT").await;
    assert_eq!(exit_code(&mut child).await, Some(130));
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn sighup_changes_nothing_and_is_said() {
    let mut child = program().spawn().unwrap();
    let mut said = Said::by(&mut child);
    said.url().await;
    for _ in 0..2 {
        signal(&child, "HUP").await;
        said.until("SIGHUP changes nothing").await;
    }
    signal(&child, "TERM").await;
    assert_eq!(exit_code(&mut child).await, Some(0));
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn call(client: reqwest::Client, url: String, to: String) -> reqwest::Result<u16> {
    let body = json!({ "channel": "whatsapp", "to": to, "text": "x", "clientMessageId": to });
    let post = client.post(format!("{url}/messages")).json(&body);
    Ok(post.send().await?.status().as_u16())
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_calls_nor_the_end() {
    let calm = [("FAILURE_RATE", "0"), ("DELAY_MAX_MS", "0")];
    let mut child = program().envs(calm).spawn().unwrap();
    let mut said = Said::by(&mut child);
    let url = said.url().await;
    // Each is a line of more than 100 bytes, and the pipe has room for 64 KiB.
    let client = client();
    for number in 0..1000 {
        let called = call(client.clone(), url.clone(), format!("user-{number}")).await;
        assert_eq!(called.unwrap(), 200);
    }
    signal(&child, "TERM").await;
    assert_eq!(exit_code(&mut child).await, Some(0));
}

#[tokio::test]
async fn a_blank_variable_is_an_unset_one_and_blanks_around_a_value_are_cut_off() {
    let (_, help, _) = output(program().arg("--help")).await;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let names: Vec<&str> = help
        .split("[env: ")
        .skip(1)
        .filter_map(|rest| rest.split_once('='))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() >= 20, "{names:?}");
    let blank = names.iter().map(|name| (*name, " \n"));
    let set = [
        ("PORT", "\t0"),
        ("SEED", " 7\n"),
        ("DEDUPE", "false "),
        ("WEBHOOK_SECRET", " "),
        ("RUST_LOG", "info\n"),
    ];
    let mut child = program().envs(blank).envs(set).spawn().unwrap();
    let mut said = Said::by(&mut child);
    said.until("seed=7").await;
}

#[tokio::test]
async fn a_secret_that_is_none_and_a_host_that_is_none_are_exit_2() {
    for (variable, value) in [
        ("WEBHOOK_SECRET", "\"top-secret\""),
        ("WEBHOOK_SECRET", ","),
        ("ALLOWED_HOSTS", "*example.com"),
        ("ALLOWED_HOSTS", "example.com:80"),
        ("RUST_LOG", "a=b=c"),
    ] {
        let (code, _, stderr) = output(program().env(variable, value)).await;
        assert_eq!(code, Some(2), "{variable}={value}: {stderr}");
        assert!(
            stderr.contains(variable) && !stderr.contains(SECRET),
            "{stderr}"
        );
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
        assert!(stderr.contains(variable), "{stderr}");
    }
    assert_eq!(output(program().arg("--no-such-option")).await.0, Some(2));
}

#[tokio::test]
async fn a_host_may_be_in_brackets_or_localhost() {
    for (host, address) in [
        ("[::1]", "http://[::1]:"),
        ("localhost", "http://127.0.0.1:"),
    ] {
        let mut child = program().env("HOST", host).spawn().unwrap();
        let url = Said::by(&mut child).url().await;
        assert!(url.starts_with(address), "{url}");
    }
}

#[tokio::test]
async fn a_webhook_url_is_never_shown() {
    for url in [
        "u:top-secret@host",
        "ftp://u:top-secret@host",
        "http://u:top-secret@",
        "http://u:top-secret@h:x/",
    ] {
        let (code, stdout, stderr) = output(program().env("WEBHOOK_URL", url)).await;
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("WEBHOOK_URL"), "{stderr}");
        assert!(
            !stderr.contains(SECRET) && !stdout.contains(SECRET),
            "{stderr}"
        );
    }
    let url = format!("http://u:{SECRET}@127.0.0.1");
    let (code, stdout, _) = output(program().arg("--help").env("WEBHOOK_URL", url)).await;
    assert_eq!(code, Some(0));
    assert!(!stdout.contains(SECRET), "{stdout}");
}

#[tokio::test]
async fn certificates_are_needed_for_an_https_webhook_only() {
    let without = || {
        let mut command = program();
        command
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent");
        command
    };
    let (code, _, stderr) = output(without().env("WEBHOOK_URL", "https://127.0.0.1:1/")).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("install ca-certificates"), "{stderr}");

    let mut child = without().spawn().unwrap();
    let mut said = Said::by(&mut child);
    let url = said.url().await;
    let client = client();
    for (webhook, status) in [("http://127.0.0.1:1/", 200), ("https://127.0.0.1:1/", 400)] {
        let body =
            json!({ "channel": "whatsapp", "from": "user-1", "text": "Hi", "webhookUrl": webhook });
        let request = client.post(format!("{url}/simulate/inbound")).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let text = answer.text().await.unwrap();
        assert_eq!(
            text.contains("install ca-certificates"),
            status == 400,
            "{text}"
        );
    }
}

#[tokio::test]
async fn no_webhook_goes_through_a_proxy() {
    let receiver = Receiver::start([]).await;
    let mut command = program();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:1");
    }
    let mut child = command.env("WEBHOOK_URL", &receiver.url).spawn().unwrap();
    let mut said = Said::by(&mut child);
    let url = said.url().await;
    let client = client();
    let body = json!({ "channel": "whatsapp", "from": "user-1", "text": "Hi" });
    let request = client.post(format!("{url}/simulate/inbound")).json(&body);
    assert_eq!(request.send().await.unwrap().status().as_u16(), 200);
    until("the event arrives", || !receiver.taken().is_empty()).await;
}

#[tokio::test]
async fn help_shows_variables_and_defaults_and_never_the_secret() {
    let (code, stdout, _) = output(program().arg("--help").env("WEBHOOK_SECRET", SECRET)).await;
    assert_eq!(code, Some(0));
    assert!(!stdout.contains(SECRET));
    for (variable, default) in [
        ("HOST", "127.0.0.1"),
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
    let webhook_url = "[env: WEBHOOK_URL] [default: http://localhost:3000/webhooks/mock-meta]";
    let unwrapped = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unwrapped.contains(webhook_url), "{stdout}");
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
    let secret = secret.map(|secret| secret.expose_secret() == SECRET);
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

#[tokio::test]
async fn its_secrets_are_in_variables_or_files_and_not_in_arguments() {
    const URL: &str = "http://u:top-secret@localhost:1/hook";
    let refused = async |command: &mut Command, named: &[&str]| {
        let (code, _, said) = output(command).await;
        assert_eq!(code, Some(2), "{named:?}: {said}");
        for name in named {
            assert!(said.contains(name), "{name}: {said}");
        }
        assert!(!said.contains(SECRET), "{said}");
    };
    let named = ["--webhook-url", "WEBHOOK_URL", "WEBHOOK_URL_FILE"];
    refused(program().args(["--webhook-url", URL]), &named).await;
    refused(program().arg(format!("--webhook-url={URL}")), &named).await;
    let wrong = "ftp://u:top-secret@localhost:1/hook";
    refused(program().env("WEBHOOK_URL", wrong), &["WEBHOOK_URL"]).await;
    refused(program().args(["--webhook-url", wrong]), &["--webhook-url"]).await;
    let (code, help, _) = output(program().env("WEBHOOK_URL", URL).arg("--help")).await;
    assert!(
        code == Some(0) && help.contains("WEBHOOK_URL_FILE") && !help.contains(SECRET),
        "{help}"
    );
    let variable = "WEBHOOK_SECRET_FILE";
    refused(program().env(variable, "/nowhere"), &[variable, "/nowhere"]).await;
    let mut both = program();
    both.env(variable, "/nowhere").env("WEBHOOK_SECRET", SECRET);
    refused(&mut both, &[variable]).await;

    let directory = std::env::temp_dir().join(format!("mock-secrets-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let (url, secret) = (directory.join("url"), directory.join("secret"));
    std::fs::write(&url, format!("{URL}\n")).unwrap();
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut mock = program()
        .env("WEBHOOK_URL_FILE", &url)
        .env(variable, &secret)
        .spawn()
        .unwrap();
    Said::by(&mut mock).url().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", mock.id().unwrap()));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        assert!(core.unwrap().contains(" 0 "), "{limits}");
    }
    signal(&mock, "TERM").await;
    assert_eq!(exit_code(&mut mock).await, Some(0));
    std::fs::remove_dir_all(&directory).unwrap();
}
