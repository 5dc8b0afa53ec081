//! Starts: one server for all that join it, whatever is around them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gateway::database::embedded::{Embedded, EmbeddedError};

use super::{
    DIRECTORY, Gateway, HOW, ask, ask_until_answered, child_process_name, lives, our_uid, place,
    run, runtime, signal, until,
};

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
