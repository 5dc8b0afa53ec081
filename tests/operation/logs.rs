//! Nothing waits for whoever reads the log, and nobody who reads it misses anything.

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{ALL_LINES, Client, Program, System};

const LOST: &str = "log lines lost: earlier ones were not read";

/// Calls `/health` so many times, each of which is a line; the processes answer all of them.
async fn call(client: &Client, times: usize) {
    const CALLERS: usize = 16;
    let mut calls = JoinSet::new();
    for caller in 0..CALLERS {
        let client = client.clone();
        let times = times / CALLERS + usize::from(caller < times % CALLERS);
        calls.spawn(async move {
            for _ in 0..times {
                client.get("/health").await.expect(200);
            }
        });
    }
    while let Some(called) = calls.join_next().await {
        called.unwrap();
    }
}

async fn lost_lines(client: &Client) -> u64 {
    let metrics = client.get("/metrics").await;
    let mut lines = metrics.text.lines();
    let lost = lines.find_map(|line| line.strip_prefix("gateway_log_lines_lost_total "));
    lost.unwrap().parse().unwrap()
}

/// Pauses whoever reads a log, until more lines are lost; how many.
async fn overflow(program: &Program, client: &Client) -> u64 {
    assert_eq!(lost_lines(client).await, 0);
    program.pause_reading();
    loop {
        call(client, 2000).await;
        let lost = lost_lines(client).await;
        if lost > 0 {
            return lost;
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_request_and_says_so_once_it_is_read() {
    let system = System::with(&[ALL_LINES]).await;
    let worker = system
        .worker(&[ALL_LINES, ("METRICS_ADDR", "127.0.0.1:0")])
        .await;
    let address = worker.logged("serving metrics").await;
    let address = address["address"].as_str().unwrap();
    for (program, client) in [
        (&system.gateway, system.client.clone()),
        (&worker, Client::new(address)),
    ] {
        let lost = overflow(program, &client).await;
        program.resume_reading();
        let said = program.logged(LOST).await;
        assert_eq!(said["level"], "WARN", "{said}");
        assert!(said["lines"].as_u64().unwrap() >= lost, "{said} {lost}");
        let log = program.log();
        let said = log.iter().filter(|line| line.contains(LOST));
        assert_eq!(said.count(), 1);
        for line in &log {
            serde_json::from_str::<Value>(line).expect("each line is a whole one");
        }
    }
    system.send("user-1", "Merhaba").await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let mut system = System::with(&[ALL_LINES]).await;
    overflow(&system.gateway, &system.client).await;
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
    // Also where it waits in the pipe alone.
    let mut system = System::with(&[ALL_LINES]).await;
    system.gateway.pause_reading();
    call(&system.client, 1000).await;
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn what_was_logged_before_an_orderly_end_is_written_before_it() {
    const CALLS: usize = 3000;
    let mut system = System::with(&[ALL_LINES]).await;
    call(&system.client, CALLS).await;
    assert_eq!(system.gateway.terminate().await.code(), Some(0));
    let log = system.gateway.log();
    let answered = log.iter().filter(|line| line.contains("\"answered\""));
    assert_eq!(answered.count(), CALLS);
}
