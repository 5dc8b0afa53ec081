//! The database: what it must be, what the gateway makes of it, and what happens when it is not
//! there.

mod batches;
mod cluster;
mod connections;
mod embedded;
mod embedded_gateway;
mod fitness;
mod growth;
mod migrating;
mod plans;
mod poolers;
mod replication;
mod roles;
mod schemas;

use futures_util::future::join_all;

use crate::support::{Database, Program};

const COMMANDS: [&[&str]; 6] = [
    &["serve"],
    &["worker"],
    &["migrate"],
    &["migrate", "--status"],
    &["seed"],
    &["retry", "--list"],
];

/// Every command ends at once, with all of this in its last line.
async fn assert_refused(database: &Database, with: &[&str]) {
    let ends = COMMANDS.map(|command| Program::on(database.url(), command).end());
    for end in join_all(ends).await {
        assert_eq!(end.code, Some(1), "{end:?}");
        let last = end.stderr.lines().last().unwrap();
        for with in with {
            assert!(last.contains(with), "{with}: {last}");
        }
        assert!(!end.stderr.contains("waiting for the database"), "{end:?}");
    }
}
