//! Databases that have no connection left, or no room on their disk: callers are told so, and
//! nothing acknowledged is lost.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::Bounded;
use crate::operation::outages::{CALLERS, Load, assert_kept};
use crate::support::{
    Client, Database, Postgres, Program, System, assert_full_service, eventually, mock,
};

/// A server that is soon full; each connection may be anybody's.
const FEW_CONNECTIONS: [(&str, &str); 4] = [
    ("max_connections", "20"),
    ("superuser_reserved_connections", "0"),
    ("autovacuum", "off"),
    ("max_wal_senders", "0"),
];

/// Takes every connection of a server, those that others have included.
async fn take_all(postgres: &Postgres) -> Vec<PgConnection> {
    let options = postgres.embedded.options();
    let mut taken = vec![options.connect().await.unwrap()];
    loop {
        match options.connect().await {
            Ok(connection) => taken.push(connection),
            Err(error) => {
                let code = error.as_database_error().and_then(DatabaseError::code);
                assert_eq!(code.as_deref(), Some("53300"), "{error}");
                let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                              where backend_type = 'client backend' and application_name = 'gateway'";
                let ended: i64 = sqlx::query_scalar(others)
                    .fetch_one(&mut taken[0])
                    .await
                    .unwrap();
                if ended == 0 {
                    return taken;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_database_without_a_free_connection_is_503_and_loses_nothing() {
    let postgres = Postgres::start_with(&FEW_CONNECTIONS).await;
    let mut system = System::on(postgres.database().await, &[("SEND_WAIT_MS", "1000")]).await;
    let bounded = Bounded::to(64, &system.gateway);
    let load = Load::default();
    let outage = async {
        load.goes_on().await;
        // The test's own look at the database is one of those that would be refused.
        let taken = take_all(&postgres).await;
        system.client.becomes_unready().await;
        let list = system.client.get("/conversations").await;
        list.expect_problem(503, "database_unavailable");
        eventually("every caller is refused", async || {
            (load.refused() == CALLERS).then_some(())
        })
        .await;
        eventually("it says why", async || {
            let log = system.gateway.log();
            let failed = |line: &&String| line.contains("batch write failed, retrying");
            let mut failed = log.iter().filter(failed);
            failed
                .find(|line| line.contains("too many clients already"))
                .map(drop)
        })
        .await;
        for connection in taken {
            connection.close().await.unwrap();
        }
        system.client.becomes_ready().await;
        load.goes_on().await;
        load.over.cancel();
    };
    let (promises, ()) = tokio::join!(load.run(&system.client), outage);
    bounded.check();
    assert_kept(&system, &promises).await;
    assert_full_service(&system.client).await;
    assert!(system.gateway.terminate().await.success());
}

#[tokio::test]
async fn a_start_before_a_database_without_a_free_connection_waits() {
    let postgres = Postgres::start_with(&FEW_CONNECTIONS).await;
    let database = postgres.database().await;
    let mock = mock().await;
    let taken = take_all(&postgres).await;
    let gateway = Program::new("serve")
        .env("DATABASE_URL", database.url())
        .env("PROVIDER_URL", &mock.url())
        .start();
    eventually("it says why it waits", async || {
        let log = gateway.log().concat();
        log.contains("waiting for the database: ").then_some(())
    })
    .await;
    let log = gateway.log().concat();
    assert!(log.contains("too many clients already"), "{log}");
    let client = Client::new(gateway.url());
    client.get("/health").await.expect(200);
    let ready = client.get("/ready").await;
    ready.expect_problem(503, "database_unavailable");
    for connection in taken {
        connection.close().await.unwrap();
    }
    gateway.logged("ready").await;
    assert_full_service(&client).await;
}

/// A small disk of memory, which only root can make.
struct Disk(tempfile::TempDir);

impl Disk {
    /// None where this process may not make one.
    fn mount() -> Option<Self> {
        let directory = tempfile::Builder::new()
            .prefix("gateway-disk-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=0777", "gateway-test"])
            .arg(directory.path())
            .output()
            .unwrap();
        mounted.status.success().then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let filler = std::fs::File::create(self.filler()).unwrap();
        let error = std::io::copy(&mut &zeros, &mut &filler).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file there ends on its own.
        Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .status()
            .ok();
    }
}

/// What makes a database's disk full: a real disk, or where this process may not mount one, a
/// trigger that says so.
enum Room {
    Disk(Disk),
    Trigger,
}

impl Room {
    /// Puts a database, to which nobody is connected yet, onto a small disk.
    async fn limit(postgres: &Postgres, database: &Database) -> Self {
        let Some(disk) = Disk::mount() else {
            return Self::Trigger;
        };
        let location = disk.path().join("tablespace");
        std::fs::create_dir(&location).unwrap();
        let owner = std::fs::metadata(postgres.cluster()).unwrap();
        chown(&location, Some(owner.uid()), Some(owner.gid())).unwrap();
        let name = database.options().get_database().unwrap().to_owned();
        let mut admin = postgres.embedded.options().connect().await.unwrap();
        for sql in [
            format!("create tablespace small location '{}'", location.display()),
            format!("alter database {name} set tablespace small"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut admin)
                .await
                .unwrap();
        }
        Self::Disk(disk)
    }

    async fn fill(&self, database: &Database) {
        match self {
            Self::Disk(disk) => disk.fill(),
            Self::Trigger => {
                let sql = "create function full_disk() returns trigger language plpgsql as $$ begin
                               raise exception 'No space left on device' using errcode = 'disk_full';
                           end $$;
                           create trigger full_disk before insert or update on messages execute function full_disk()";
                database.execute(sql).await;
            }
        }
    }

    async fn free(&self, database: &Database) {
        match self {
            Self::Disk(disk) => disk.free(),
            Self::Trigger => {
                database.execute("drop function full_disk() cascade").await;
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_503_and_loses_nothing() {
    let postgres = Postgres::start().await;
    let database = postgres.database().await;
    let room = Room::limit(&postgres, &database).await;
    let mut system = System::on(database, &[("SEND_WAIT_MS", "1000")]).await;
    let bounded = Bounded::to(64, &system.gateway);
    let load = Load::default();
    let outage = async {
        load.goes_on().await;
        room.fill(&system.database).await;
        eventually("every caller is refused", async || {
            (load.refused() == CALLERS).then_some(())
        })
        .await;
        let line = system.gateway.logged("batch write failed, retrying").await;
        let error = line["error"].as_str().unwrap();
        assert!(error.contains("No space left on device"), "{line}");
        // What is there can be read.
        system.client.get("/conversations").await.expect(200);
        system.client.get("/ready").await.expect(200);
        room.free(&system.database).await;
        load.goes_on().await;
        load.over.cancel();
    };
    let (promises, ()) = tokio::join!(load.run(&system.client), outage);
    bounded.check();
    assert_kept(&system, &promises).await;
    assert_full_service(&system.client).await;
    assert!(system.gateway.terminate().await.success());
}
