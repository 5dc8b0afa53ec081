//! The private PostgreSQL, by what the outside sees of it: processes, files, and a database.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::database::embedded::{Embedded, EmbeddedError};
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

#[tokio::test]
async fn a_first_start_makes_a_database_and_a_second_one_finds_it() {
    let (_place, data) = place();
    let first = Embedded::start(&data).await.unwrap();
    run(&first, "create table kept as select 'kept' as word").await;
    first.stop().await.unwrap();

    let second = Embedded::start(&data).await.unwrap();
    assert_eq!(ask(&second, "select word from kept").await.unwrap(), "kept");
    assert_eq!(
        ask(&second, "select current_database() || ' ' || current_user")
            .await
            .unwrap(),
        "gateway gateway"
    );
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_that_has_grown_large_is_put_aside() {
    let (_place, data) = place();
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
    let log = data.join("postgres.log");
    fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(9 << 20)
        .unwrap();
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
    assert_eq!(
        fs::metadata(data.join("postgres.log.old")).unwrap().len(),
        9 << 20
    );
}

#[tokio::test]
async fn the_server_is_durable_private_and_in_utc() {
    let (_place, data) = place();
    let embedded = Embedded::start_with(&data, &[("max_connections", "17")])
        .await
        .unwrap();
    for (setting, value) in [
        ("show fsync", "on"),
        ("show synchronous_commit", "on"),
        ("show full_page_writes", "on"),
        ("show listen_addresses", ""),
        ("show unix_socket_permissions", "0700"),
        ("show timezone", "UTC"),
        ("show server_encoding", "UTF8"),
        ("show max_connections", "17"),
    ] {
        assert_eq!(ask(&embedded, setting).await.unwrap(), value, "{setting}");
    }
    for directory in ["", "cluster", "socket"] {
        assert_eq!(
            fs::metadata(data.join(directory)).unwrap().mode() & 0o777,
            0o700,
            "{directory}"
        );
    }
    assert_eq!(fs::read_to_string(data.join(".gitignore")).unwrap(), "*\n");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_gateway_on_the_directory_gets_a_clear_error_at_once() {
    let (_place, data) = place();
    let embedded = Embedded::start(&data).await.unwrap();
    let began = Instant::now();
    let mut second = Gateway::spawn(&data, "start");
    let said = second.line();
    assert!(
        said.starts_with("ERROR another gateway") && said.contains(data.to_str().unwrap()),
        "{said}"
    );
    assert!(said.contains("GATEWAY_DATA_DIR"), "{said}");
    assert!(
        // It waits 15 s for a server without a gateway.
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let here = Embedded::start(&data).await;
    assert!(matches!(here, Err(EmbeddedError::InUse { .. })), "{here:?}");
    assert_eq!(
        ask(&embedded, "select 'unharmed'").await.unwrap(),
        "unharmed"
    );
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn one_that_joined_leaves_the_server_running() {
    let (_place, data) = place();
    let owner = Embedded::start(&data).await.unwrap();
    let mut joiner = Gateway::spawn(&data, "join");
    assert_eq!(Some(joiner.postmaster()), owner.postmaster_pid());
    joiner.stop();
    assert_eq!(ask(&owner, "select 'running'").await.unwrap(), "running");
    owner.stop().await.unwrap();
}

#[tokio::test]
async fn one_that_found_nothing_to_join_starts_the_server_for_its_own_time() {
    let (_place, data) = place();
    let mut alone = Gateway::spawn(&data, "join");
    let pid = alone.postmaster();
    alone.stop();
    assert!(!lives(pid));
}

#[tokio::test]
async fn several_that_join_a_new_directory_at_once_share_one_server() {
    let (_place, data) = place();
    let mut gateways: Vec<Gateway> = (0..3).map(|_| Gateway::spawn(&data, "join")).collect();
    let pids: Vec<u32> = gateways.iter_mut().map(Gateway::postmaster).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

#[tokio::test]
async fn of_several_starts_at_once_on_a_new_directory_exactly_one_wins() {
    let (_place, data) = place();
    let mut gateways: Vec<Gateway> = (0..4).map(|_| Gateway::spawn(&data, "start")).collect();
    let said: Vec<String> = gateways.iter_mut().map(Gateway::line).collect();
    assert_eq!(
        said.iter().filter(|said| said.starts_with("READY")).count(),
        1,
        "{said:?}"
    );
    assert_eq!(
        said.iter()
            .filter(|said| said.starts_with("ERROR another gateway"))
            .count(),
        3,
        "{said:?}"
    );
}

#[tokio::test]
async fn a_killed_gateway_takes_its_server_along_and_the_next_finds_the_data() {
    let (_place, data) = place();
    let mut gateway = Gateway::spawn(&data, "start");
    let pid = gateway.postmaster();
    let joined = Embedded::join_or_start(&data).await.unwrap();
    run(&joined, "create table kept as select 'kept' as word").await;
    gateway.kill();
    let next = Embedded::start(&data).await.unwrap();
    assert!(!lives(pid));
    assert_eq!(ask(&next, "select word from kept").await.unwrap(), "kept");
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_gateway_leaves_no_process_behind() {
    let (_place, data) = place();
    let mut gateway = Gateway::spawn(&data, "start");
    let pid = gateway.postmaster();
    gateway.kill();
    until("the server has ended", || !lives(pid));
    until("nothing names the directory", || {
        let processes = Command::new("ps").args(["-eo", "args="]).output().unwrap();
        !String::from_utf8_lossy(&processes.stdout).contains(data.to_str().unwrap())
    });
}

#[tokio::test]
async fn a_gateway_killed_during_its_first_start_hinders_no_other() {
    for delay_ms in [20, 300, 700] {
        let (_place, data) = place();
        let gateway = Gateway::spawn(&data, "start");
        // Not to wait for something: the moment itself is what is tried.
        std::thread::sleep(Duration::from_millis(delay_ms));
        gateway.kill();
        let next = Embedded::start(&data)
            .await
            .unwrap_or_else(|error| panic!("after {delay_ms} ms: {error}"));
        assert_eq!(
            ask(&next, "select current_database()").await.unwrap(),
            "gateway"
        );
        assert!(!data.join("cluster.unfinished").exists());
        next.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_start_that_is_dropped_halfway_leaves_the_directory_usable() {
    let (_place, data) = place();
    for delay_ms in [1, 20, 100, 300, 700, 50, 100] {
        let dropped =
            tokio::time::timeout(Duration::from_millis(delay_ms), Embedded::start(&data)).await;
        drop(dropped);
    }
    let began = Instant::now();
    let embedded = loop {
        match Embedded::start(&data).await {
            Err(EmbeddedError::InUse { .. }) if began.elapsed() < Duration::from_mins(1) => {}
            ended => break ended.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(ask(&embedded, "select 'usable'").await.unwrap(), "usable");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postmaster_comes_back_by_itself_with_the_data() {
    let (_place, data) = place();
    let embedded = Embedded::start(&data).await.unwrap();
    run(&embedded, "create table kept as select 'kept' as word").await;
    for _ in 0..3 {
        let pid = embedded.postmaster_pid().unwrap();
        // A backend in the middle of something outlives its postmaster by a moment.
        let mut busy = embedded.options().connect().await.unwrap();
        let busy = tokio::spawn(async move {
            busy.execute("select count(*) from generate_series(1, 3000000)")
                .await
                .is_ok()
        });
        signal(pid, "KILL");
        until("a new postmaster", || {
            embedded.postmaster_pid().is_some_and(|new| new != pid)
        });
        assert_eq!(
            ask_until_answered(&embedded, "select word from kept").await,
            "kept"
        );
        busy.await.unwrap();
    }
    let pid = embedded.postmaster_pid().unwrap();
    embedded.stop().await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_server_whose_shell_was_killed_is_taken_over_by_a_new_one() {
    let (_place, data) = place();
    let embedded = Embedded::start(&data).await.unwrap();
    run(&embedded, "create table kept as select 'kept' as word").await;
    let pid = embedded.postmaster_pid().unwrap();
    let parent = Command::new("ps")
        .args(["-o", "ppid=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    signal(
        String::from_utf8_lossy(&parent.stdout)
            .trim()
            .parse()
            .unwrap(),
        "KILL",
    );
    until("the old postmaster has ended", || !lives(pid));
    until("a new postmaster", || {
        embedded.postmaster_pid().is_some_and(|new| new != pid)
    });
    assert_eq!(
        ask_until_answered(&embedded, "select word from kept").await,
        "kept"
    );
    let pid = embedded.postmaster_pid().unwrap();
    embedded.stop().await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_living_process_is_no_obstacle_and_no_danger() {
    let (_place, data) = place();
    let mut gateway = Gateway::spawn(&data, "start");
    let pid = gateway.postmaster();
    let files = [
        data.join("cluster/postmaster.pid"),
        data.join("socket/.s.PGSQL.5432.lock"),
    ];
    let texts = files
        .each_ref()
        .map(|file| fs::read_to_string(file).unwrap());
    let socket = data.join("socket/.s.PGSQL.5432");
    gateway.kill();
    until("the server has ended", || !lives(pid));

    // The number has become somebody else's: of the same user, as PostgreSQL would respect it.
    let mut stranger = Command::new("sleep");
    stranger.arg("60");
    let owner = fs::metadata(data.join("cluster")).unwrap().uid();
    if owner != our_uid() {
        std::os::unix::process::CommandExt::uid(&mut stranger, owner);
    }
    let mut stranger = stranger.spawn().unwrap();
    for (file, text) in files.iter().zip(texts) {
        fs::write(
            file,
            text.replacen(&pid.to_string(), &stranger.id().to_string(), 1),
        )
        .unwrap();
        std::os::unix::fs::chown(file, Some(owner), None).unwrap();
    }
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());

    let embedded = Embedded::start(&data).await.unwrap();
    assert_eq!(ask(&embedded, "select 'started'").await.unwrap(), "started");
    embedded.stop().await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_directory_too_deep_for_a_socket_works_and_can_be_joined() {
    let (place, _) = place();
    let data = place.path().join("d".repeat(120));
    let embedded = Embedded::start(&data).await.unwrap();
    let socket = fs::read_link(data.join("socket")).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o700);
    let mut joiner = Gateway::spawn(&data, "join");
    assert_eq!(Some(joiner.postmaster()), embedded.postmaster_pid());
    joiner.stop();
    embedded.stop().await.unwrap();

    let again = Embedded::start(&data).await.unwrap();
    assert_eq!(fs::read_link(data.join("socket")).unwrap(), socket);
    again.stop().await.unwrap();

    // A cleaner of temporary files, and somebody who was faster to make a directory of that name.
    fs::remove_dir_all(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let again = Embedded::start(&data).await.unwrap();
    let other = fs::read_link(data.join("socket")).unwrap();
    assert_ne!(other, socket);
    again.stop().await.unwrap();
    fs::remove_dir_all(&socket).unwrap();
    fs::remove_dir_all(&other).unwrap();
}

#[tokio::test]
async fn a_directory_with_an_odd_name_works() {
    let (place, _) = place();
    let data = place.path().join(r#" a, "b" $c 'd' \e;"#);
    let embedded = Embedded::start(&data).await.unwrap();
    assert!(data.join("socket/.s.PGSQL.5432").exists());
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn somebody_elses_directory_is_left_as_it_is() {
    let (place, _) = place();
    fs::write(place.path().join("letter"), "private").unwrap();
    let error = Embedded::start(place.path()).await.unwrap_err();
    assert!(error.to_string().contains("neither empty nor"), "{error}");
    let after = fs::metadata(place.path()).unwrap();
    assert_eq!((after.mode() & 0o777, after.uid()), (0o755, our_uid()));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_empty_directory_is_taken_once_it_is_private_as_the_error_says_how() {
    let (_place, data) = place();
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Embedded::start(&data).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("mode 755"), "{said}");
    let after = fs::metadata(&data).unwrap();
    assert_eq!((after.mode() & 0o777, after.uid()), (0o755, our_uid()));
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);

    let remedy = said.split('`').nth(1).unwrap();
    let typed = Command::new("sh").args(["-c", remedy]).status().unwrap();
    assert!(typed.success(), "{remedy}");
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_are_named_with_both_versions() {
    let (_place, data) = place();
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
    fs::write(data.join("cluster/PG_VERSION"), "9\n").unwrap();
    let error = Embedded::start(&data).await.unwrap_err();
    assert!(
        matches!(&error, EmbeddedError::OtherVersion { version: 9, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let (_place, data) = place();
    let error = Embedded::start_with(&data, &[("shared_buffers", "much")])
        .await
        .unwrap_err();
    // Not by waiting until it is too slow.
    assert!(
        matches!(&error, EmbeddedError::NotStarted { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[test]
fn the_server_outlives_the_runtime_that_started_it() {
    let (_place, data) = place();
    let embedded = runtime().block_on(Embedded::start(&data)).unwrap();
    let pid = embedded.postmaster_pid().unwrap();
    assert_eq!(
        runtime()
            .block_on(ask(&embedded, "select 'alive'"))
            .unwrap(),
        "alive"
    );
    signal(pid, "KILL");
    assert_eq!(
        runtime().block_on(ask_until_answered(&embedded, "select 'alive again'")),
        "alive again"
    );
    let pid = embedded.postmaster_pid().unwrap();
    drop(embedded);
    until("the dropped server has ended", || !lives(pid));
}

#[tokio::test]
async fn the_callers_environment_does_not_matter() {
    let (_place, data) = place();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &child_process_name(), "--nocapture"])
        .env(DIRECTORY, &data)
        .env(HOW, "start");
    for (name, value) in [
        ("PGHOST", "db.invalid"),
        ("PGPORT", "1"),
        ("PGUSER", "stranger"),
        ("PGDATABASE", "other"),
        ("PGPASSWORD", "wrong"),
        ("PGDATA", "/nowhere"),
        ("PGSSLMODE", "verify-full"),
        ("LC_ALL", "xx_YY.UTF-8"),
        ("TZ", "Europe/Istanbul"),
    ] {
        command.env(name, value);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("READY") && said.contains("STOPPED"), "{said}");
}

#[tokio::test]
async fn a_ctrl_c_in_the_terminal_does_not_reach_the_server() {
    let (_place, data) = place();
    let embedded = Embedded::start(&data).await.unwrap();
    let group = |pid: u32| {
        let output = Command::new("ps")
            .args(["-o", "pgid=", "-p", &pid.to_string()])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_ne!(
        group(embedded.postmaster_pid().unwrap()),
        group(std::process::id())
    );
    embedded.stop().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_cluster_that_somebody_started_by_hand_is_not_started_twice() {
    let (_place, data) = place();
    let embedded = Embedded::start(&data).await.unwrap();
    let pid = embedded.postmaster_pid().unwrap();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    embedded.stop().await.unwrap();
    let words: Vec<&str> = std::str::from_utf8(&command)
        .unwrap()
        .split_terminator('\0')
        .collect();
    let mut by_hand = Command::new(words[0]);
    by_hand
        .args(&words[1..])
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let owner = fs::metadata(data.join("cluster")).unwrap();
    if owner.uid() != our_uid() {
        std::os::unix::process::CommandExt::uid(&mut by_hand, owner.uid());
    }
    let mut by_hand = by_hand.spawn().unwrap();
    until("it has started", || {
        fs::read_to_string(data.join("cluster/postmaster.pid"))
            .is_ok_and(|text| text.contains("ready"))
    });
    let error = Embedded::start(&data).await.unwrap_err();
    assert!(
        matches!(error, EmbeddedError::StillRunning { .. }),
        "{error}"
    );
    assert!(by_hand.try_wait().unwrap().is_none());
    signal(by_hand.id(), "INT");
    by_hand.wait().unwrap();
    Embedded::start(&data).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn root_is_told_which_directory_its_other_user_cannot_enter() {
    if our_uid() != 0 {
        return;
    }
    let (place, _) = place();
    let closed = place.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = Embedded::start(&closed.join("open/data"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EmbeddedError::Unreachable { closed: named, .. } if *named == closed),
        "{error}"
    );
    assert!(!closed.join("open/data").exists());
}
