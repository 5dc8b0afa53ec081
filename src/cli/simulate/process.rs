//! Processes of this program, which are killed without warning: on purpose, and when the process
//! that started them ends.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Runs a program until it ends, or until standard input ends: then it kills the program. The other
/// end of that pipe was closed on purpose, or its process is gone.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
(
    while read -r _ <&3; do :; done
    kill -s KILL "$child"
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child"
kill -s KILL "$watcher"
"#;

/// How long a process may take until it logs that it is ready.
const START: Duration = Duration::from_secs(30);
/// Lines of a log that are kept.
const LINES: usize = 10;

/// A running `gateway` of some subcommand; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    shell: Child,
    pipe: ChildStdin,
    log: Arc<Log>,
}

/// The last lines of a log, and the fields of the line that was waited for.
#[derive(Debug)]
struct Log {
    lines: Mutex<VecDeque<String>>,
    found: watch::Sender<Option<Value>>,
}

impl Process {
    /// Starts a subcommand with this environment only, waits until it logs `message`, and returns
    /// that line's fields.
    pub async fn start(
        subcommand: &'static str,
        environment: &[(&str, String)],
        message: &'static str,
    ) -> anyhow::Result<(Self, Value)> {
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(program)
            .arg(subcommand)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C is for the process that started it.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut shell = command
            .spawn()
            .with_context(|| format!("cannot start gateway {subcommand}"))?;
        let (Some(pipe), Some(stderr)) = (shell.stdin.take(), shell.stderr.take()) else {
            bail!("gateway {subcommand} has no pipes");
        };
        let log = Arc::new(Log {
            lines: Mutex::default(),
            found: watch::Sender::new(None),
        });
        tokio::spawn(read(BufReader::new(stderr), Arc::clone(&log), message));
        let process = Self {
            name: subcommand,
            shell,
            pipe,
            log,
        };
        let fields = process.logged().await?;
        Ok((process, fields))
    }

    /// Kills it and waits until nothing of it runs.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        drop(self.pipe);
        self.shell.wait().await?;
        Ok(())
    }

    /// An error with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.shell.try_wait()? {
            None => Ok(()),
            Some(_) => bail!("gateway {} has ended:\n{}", self.name, self.log.end()),
        }
    }

    async fn logged(&self) -> anyhow::Result<Value> {
        let mut found = self.log.found.subscribe();
        let line = timeout(START, found.wait_for(Option::is_some)).await;
        match line {
            Ok(Ok(line)) => Ok(line.clone().expect("this is what was waited for")),
            _ => bail!(
                "gateway {} did not start within {} s:\n{}",
                self.name,
                START.as_secs(),
                self.log.end()
            ),
        }
    }
}

impl Log {
    fn end(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

/// Reads a log of JSON lines to its end, so that the pipe never fills.
async fn read(log: BufReader<tokio::process::ChildStderr>, kept: Arc<Log>, message: &'static str) {
    let mut lines = log.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        if fields["message"] == message {
            kept.found.send_replace(Some(fields));
        }
        let mut lines = kept.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}
