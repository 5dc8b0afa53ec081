//! What is killed, at whatever moment, leaves a directory that the next start can use, with all
//! data.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use gateway::database::embedded::{Embedded, EmbeddedError};
use sqlx::{ConnectOptions as _, Executor as _};

use super::{Gateway, ask, ask_until_answered, lives, our_uid, place, run, signal, until};

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
