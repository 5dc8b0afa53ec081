//! The private PostgreSQL, by what the outside sees of it: processes, files, and a database.

mod crashes;
mod directories;
mod starts;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::database::embedded::Embedded;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tempfile::TempDir;

const DIRECTORY: &str = "EMBEDDED_TEST_DIRECTORY";
const HOW: &str = "EMBEDDED_TEST_HOW";

/// Not a claim: what `Gateway::spawn` runs in a process of its own.
#[test]
#[allow(clippy::print_stderr)] // how it talks to whoever spawned it
fn child_process() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    runtime().block_on(async {
        let directory = Path::new(&directory);
        let started = match std::env::var(HOW).unwrap().as_str() {
            "join" => Embedded::join_or_start(directory).await,
            _ => Embedded::start(directory).await,
        };
        match started {
            Ok(embedded) => {
                eprintln!("READY {}", embedded.postmaster_pid().unwrap());
                std::io::stdin().read_line(&mut String::new()).unwrap();
                embedded.stop().await.unwrap();
                eprintln!("STOPPED");
            }
            Err(error) => eprintln!("ERROR {error}"),
        }
    });
}

fn child_process_name() -> String {
    module_path!()
        .split_once("::")
        .map_or("child_process".to_owned(), |(_, module)| {
            format!("{module}::child_process")
        })
}

/// A process that starts or joins, says so, and stops when told to.
struct Gateway {
    process: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Gateway {
    fn spawn(directory: &Path, how: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &child_process_name(), "--nocapture"])
            .env(DIRECTORY, directory)
            .env(HOW, how);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        Self { process, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn postmaster(&mut self) -> u32 {
        let line = self.line();
        line.strip_prefix("READY ")
            .unwrap_or_else(|| panic!("{line}"))
            .parse()
            .unwrap()
    }

    fn stop(mut self) {
        self.process.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(self.line(), "STOPPED");
        self.process.wait().unwrap();
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A data directory in a place that every user can reach.
fn place() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = fs::canonicalize(place.path()).unwrap().join("data");
    (place, data)
}

fn our_uid() -> u32 {
    fs::metadata(tempfile::tempdir().unwrap().path())
        .unwrap()
        .uid()
}

fn lives(pid: u32) -> bool {
    // A zombie is no more alive than a number that is nobody's.
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    !output.stdout.is_empty() && !output.stdout.starts_with(b"Z")
}

fn signal(pid: u32, signal: &str) {
    assert!(
        Command::new("kill")
            .args(["-s", signal, &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "not within a minute: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn ask(embedded: &Embedded, query: &'static str) -> Result<String, sqlx::Error> {
    let mut connection = embedded.options().connect().await?;
    let answer = sqlx::query(query)
        .fetch_one(&mut connection)
        .await?
        .try_get(0)?;
    connection.close().await?;
    Ok(answer)
}

async fn run(embedded: &Embedded, statement: &'static str) {
    let mut connection = embedded.options().connect().await.unwrap();
    connection.execute(statement).await.unwrap();
    connection.close().await.unwrap();
}

async fn ask_until_answered(embedded: &Embedded, query: &'static str) -> String {
    let began = Instant::now();
    loop {
        match ask(embedded, query).await {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < Duration::from_mins(1), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
