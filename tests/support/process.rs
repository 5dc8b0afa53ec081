//! The real program, as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::{NOWHERE, eventually};

/// How to start the program. Nothing of this process's environment that could configure it gets
/// through.
pub struct Run(Command);

impl Run {
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    #[must_use]
    pub fn envs(mut self, variables: &[(&str, &str)]) -> Self {
        self.0.envs(variables.iter().copied());
        self
    }

    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// As this user, which only root may become.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        use std::os::unix::process::CommandExt;
        self.0.uid(uid).gid(uid);
        self
    }

    #[must_use]
    pub fn directory(mut self, directory: PathBuf) -> Self {
        self.0.current_dir(directory);
        self
    }

    /// With these limits of open files: the one that it begins with, and the one up to which it may
    /// raise that.
    #[must_use]
    pub fn limited_to_files(self, soft: u32, hard: u32) -> Self {
        let limit = format!(r#"ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$0" "$@""#);
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &limit])
            .arg(self.0.get_program())
            .args(self.0.get_args());
        let variables = self.0.get_envs();
        let variables = variables.filter_map(|(name, value)| Some((name, value?)));
        shell.env_clear().envs(variables).stdin(Stdio::null());
        Self(shell)
    }

    /// Where its data goes, instead of being captured.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.0.stdout(stdout);
        self
    }

    /// Starts a program that goes on.
    pub fn start(mut self) -> Program {
        let mut child = self.0.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reading = Arc::new(Mutex::new(Reading::GoesOn));
        let how = Arc::clone(&reading);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
                while *how.lock().unwrap() == Reading::Paused {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if *how.lock().unwrap() == Reading::Ended {
                    break;
                }
            }
        });
        Program {
            child,
            log,
            reading,
            reader,
            url: std::sync::OnceLock::new(),
        }
    }

    /// Runs a program that must end within a minute.
    pub async fn end(self) -> Finished {
        let mut program = self.start();
        let code = program.ended().await.code();
        let log = eventually("its last words", async || {
            let log = program.log();
            let ended = log.last().is_some_and(|line| line.starts_with("error: "));
            (code == Some(0) || ended).then_some(log)
        });
        Finished {
            code,
            stdout: String::new(),
            stderr: log.await.join("\n"),
        }
    }

    /// Runs a program to its end.
    pub async fn finish(mut self) -> Finished {
        let output = tokio::task::spawn_blocking(move || self.0.output().unwrap())
            .await
            .unwrap();
        output.into()
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The JSON on stdout of a command that must have ended well.
    #[track_caller]
    pub fn data(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A running program; killed when it is dropped.
pub struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reading: Arc<Mutex<Reading>>,
    reader: JoinHandle<()>,
    url: std::sync::OnceLock<String>,
}

/// What becomes of its stderr after the next line.
#[derive(PartialEq)]
enum Reading {
    GoesOn,
    Paused,
    Ended,
}

/// Copies a program that is to be run. Another process does: of a file that was written here, a child
/// that another test starts meanwhile would hold a descriptor, and nobody could run it ("Text file
/// busy").
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "{}: {copied}", to.display());
}

impl Program {
    /// `gateway <subcommand>`, on any free port, logging JSON.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(subcommand: &str) -> Run {
        Self::at(Path::new(env!("CARGO_BIN_EXE_gateway")), subcommand)
    }

    /// A command, such as `["retry", "--list"]`, on this database, with a provider that is not
    /// there.
    pub fn on(database_url: &str, arguments: &[&str]) -> Run {
        Self::new(arguments[0])
            .args(&arguments[1..])
            .env("DATABASE_URL", database_url)
            .env("PROVIDER_URL", NOWHERE)
    }

    /// `gateway <subcommand>` of a copy of the program.
    pub fn at(program: &Path, subcommand: &str) -> Run {
        let mut command = Command::new(program);
        command.arg(subcommand).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME", "TMPDIR", "USER"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LOG_FORMAT", "json")
            .env("PORT", "0")
            .env("MOCK_PORT", "0");
        Run(command)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines of its log so far that have this message.
    pub fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line["message"] == message)
            .collect()
    }

    /// Closes its stderr after one more line.
    pub fn stop_reading(&self) {
        *self.reading.lock().unwrap() = Reading::Ended;
    }

    /// Stops to read its stderr after one more line, but leaves it open.
    pub fn pause_reading(&self) {
        *self.reading.lock().unwrap() = Reading::Paused;
    }

    /// Reads its stderr again.
    pub fn resume_reading(&self) {
        *self.reading.lock().unwrap() = Reading::GoesOn;
    }

    /// Waits for a line of its log with this message; the line.
    pub async fn logged(&self, message: &str) -> Value {
        eventually(
            &format!(
                "{message:?} in the log of {}: {:#?}",
                self.child.id(),
                self.log()
            ),
            async || self.lines(message).into_iter().next(),
        )
        .await
    }

    /// The most memory that it has had so far, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = peak
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        kib / 1024
    }

    /// Where it listens; once it has logged `listening`.
    pub fn url(&self) -> &str {
        self.url.get_or_init(|| {
            let listening = self.lines("listening");
            let line = listening.first().expect("it is not listening yet");
            line["address"].as_str().unwrap().to_owned()
        })
    }

    /// SIGKILL: nothing of it runs any more when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `TERM` or `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended, if it has.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and where its log is read, for the last line of that.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = eventually("the program ends", async || self.try_ended()).await;
        eventually("its log is read", async || {
            let is_paused = *self.reading.lock().unwrap() == Reading::Paused;
            (is_paused || self.reader.is_finished()).then_some(())
        })
        .await;
        ended
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }
}

impl Drop for Program {
    #[allow(clippy::print_stderr)] // where a test that failed is explained
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.child.id(), self.log().join("\n"));
        }
    }
}

/// Sends a signal to a process that this test knows to be its own.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}
