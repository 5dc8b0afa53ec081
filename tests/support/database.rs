//! Real databases: one PostgreSQL for all tests of this checkout, started by the first of them, and
//! a database for each.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use gateway::database::embedded::{Embedded, EmbeddedError};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row};

use super::{eventually, run, signal};

/// A PostgreSQL of its own, for a test that stops or kills it.
pub struct Postgres {
    pub embedded: Embedded,
    // Dropped after the server.
    directory: tempfile::TempDir,
}

impl Postgres {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One with these settings.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-pg-")
            // Traversable for the user that PostgreSQL runs as.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let data = directory.path().join("data");
        let embedded = Embedded::start_with(&data, settings).await.unwrap();
        Self {
            embedded,
            directory,
        }
    }

    /// Stops it and starts it again on the same data.
    pub async fn restart(self) -> Self {
        let Self {
            embedded,
            directory,
        } = self;
        embedded.stop().await.unwrap();
        let data = directory.path().join("data");
        let embedded = Embedded::start_with(&data, &[]).await.unwrap();
        Self {
            embedded,
            directory,
        }
    }

    pub async fn database(&self) -> Database {
        Database::create(self.embedded.options()).await
    }

    /// The directory of the server's files.
    pub fn cluster(&self) -> PathBuf {
        self.directory.path().join("data/cluster")
    }
}

/// The processes of a server, all of them stopped; they go on when this is dropped.
pub struct Stopped(Vec<u32>);

impl Stopped {
    /// Stops all of them.
    pub fn all_of(postgres: &Postgres) -> Self {
        Self::all_under(postgres.embedded.postmaster_pid().unwrap())
    }

    /// Stops a postmaster and all that it has begun.
    pub fn all_under(postmaster: u32) -> Self {
        // From now on it begins no more of them, and none that ends goes away.
        signal(postmaster, "STOP");
        let processes = Command::new("ps")
            .args(["-eo", "pid=,ppid="])
            .output()
            .unwrap();
        let processes = String::from_utf8(processes.stdout).unwrap();
        let mut stopped = vec![postmaster];
        for process in processes.lines() {
            let (pid, parent) = process.trim().split_once(' ').unwrap();
            if parent.trim() == postmaster.to_string() {
                stopped.push(pid.parse().unwrap());
            }
        }
        stopped[1..].iter().for_each(|pid| signal(*pid, "STOP"));
        Self(stopped)
    }

    /// Kills all of them; the supervisor, where there is one, starts the server again.
    pub fn kill(mut self) {
        self.0.drain(..).for_each(|pid| signal(pid, "KILL"));
    }

    /// Kills all of them, and waits until they are gone: a server that is started while one is left
    /// finds its memory in use, and ends.
    pub async fn end(self) {
        let pids: Vec<String> = self.0.iter().map(u32::to_string).collect();
        let pids = pids.join(",");
        self.kill();
        eventually("the server's processes are gone", async || {
            let left = Command::new("ps")
                .args(["-o", "stat=", "-p", &pids])
                .output()
                .unwrap();
            // One that nobody has waited for has no memory any more.
            let left = String::from_utf8(left.stdout).unwrap();
            left.lines()
                .all(|state| state.starts_with('Z'))
                .then_some(())
        })
        .await;
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().rev().for_each(|pid| signal(*pid, "CONT"));
    }
}

/// An empty database; dropped in the background, and if that comes too late by the next run.
pub struct Database {
    server: PgConnectOptions,
    options: PgConnectOptions,
    url: String,
    pool: PgPool,
}

/// Somebody who may connect to a database.
pub struct Role {
    pub name: String,
    /// What `DATABASE_URL` is to be.
    pub url: String,
}

impl Database {
    /// A new one on the PostgreSQL that the tests share.
    pub async fn new() -> Self {
        static SHARED: OnceLock<PgConnectOptions> = OnceLock::new();
        // Blocks the first time; the server must outlive the runtime of the test that happened to
        // come first.
        let options = tokio::task::spawn_blocking(|| SHARED.get_or_init(start_shared).clone());
        Self::create(options.await.unwrap()).await
    }

    /// One with its tables.
    pub async fn migrated() -> Self {
        let database = Self::new().await;
        database.migrate().await;
        database
    }

    /// Gives it its tables.
    pub async fn migrate(&self) {
        let migrated = run(self, "migrate", &[]).finish().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
    }

    /// One with this encoding.
    pub async fn encoded(encoding: &str) -> Self {
        let server = Self::new().await.server.clone();
        let how = format!("encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'");
        Self::create_like(server, &how).await
    }

    async fn create(server: PgConnectOptions) -> Self {
        Self::create_like(server, "").await
    }

    async fn create_like(server: PgConnectOptions, how: &str) -> Self {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        let admin = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(server.clone())
            .await
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name} {how}")))
            .execute(&admin)
            .await
            .unwrap();
        admin.close().await;
        let options = server.clone().database(&name);
        let socket = options
            .get_socket()
            .unwrap()
            .display()
            .to_string()
            .replace('/', "%2F");
        let url = format!(
            "postgres://{}@localhost/{name}?host={socket}",
            options.get_username()
        );
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options.clone());
        Self {
            server,
            options,
            url,
            pool,
        }
    }

    /// What `DATABASE_URL` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        self.options.get_database().unwrap()
    }

    /// A new role that may do with this database what `rights` are, such as `connection limit 5`;
    /// and the URL with it.
    pub async fn role(&self, rights: &str) -> Role {
        let name = self.name().replace("test_", "role_");
        self.execute(&format!(
            "create role {name} login {rights}; grant all on schema public to {name}; alter schema public owner to {name}"
        ))
        .await;
        let url = self.url_of(&name);
        Role { name, url }
    }

    /// A new role that may do with the rows of its tables what it likes, and nothing else.
    pub async fn role_for_data(&self) -> Role {
        let name = self.name().replace("test_", "data_");
        self.execute(&format!(
            "revoke create on schema public from public; create role {name} login; grant usage on schema public to {name};
             grant select, insert, update, delete on all tables in schema public to {name}"
        ))
        .await;
        let url = self.url_of(&name);
        Role { name, url }
    }

    /// What `DATABASE_URL` is to be for this role.
    pub fn url_of(&self, role: &str) -> String {
        self.url.replace("//gateway@", &format!("//{role}@"))
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub async fn execute(&self, sql: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await;
        done.unwrap().rows_affected()
    }

    /// The one value of a query.
    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
            .get(0)
    }

    /// Waits until every message is sent.
    pub async fn all_sent(&self) {
        eventually("everything is sent", async || {
            (self.count("select count(*) from deliveries").await == 0).then_some(())
        })
        .await;
        self.assert_consistent().await;
    }

    /// How many rows each table has, and what is in them.
    pub async fn contents(&self) -> Vec<(i64, i64)> {
        let mut contents = Vec::new();
        for table in [
            "conversations",
            "messages",
            "webhook_events",
            "webhook_bodies",
            "deliveries",
        ] {
            let rows = self.count(&format!("select count(*) from {table}")).await;
            let hash =
                format!("select coalesce(sum(hashtext(row::text)), 0)::bigint from {table} row");
            contents.push((rows, self.count(&hash).await));
        }
        contents
    }

    /// What must be true of every database at rest: counts, previews and the queue are what a
    /// recount says.
    pub async fn assert_consistent(&self) {
        for (promise, sql) in [
            (
                "an event is one message",
                "select count(*) from (select * from webhook_events where message_id is not null or provider <> 'whatsapp') e
                 full join (select * from messages where direction = 'INBOUND' or origin is not null) m on m.id = e.message_id
                 where e.message_id is null or m.id is null",
            ),
            (
                "previews are those of the newest message",
                "select count(*) from conversations c cross join lateral (
                   select * from messages m where m.conversation_id = c.id order by sort_at desc, id desc limit 1) m
                 where (c.last_message_at, c.last_message_id, c.last_message_preview) is distinct from (m.sort_at, m.id, left(m.text, 200))",
            ),
            (
                "as many have come in as are counted, and no more are unread",
                "select count(*) from conversations c
                 where inbound_count <> (select count(*) from messages m where m.conversation_id = c.id and m.direction = 'INBOUND')
                   or unread_count > inbound_count",
            ),
            (
                "no conversation is empty",
                "select count(*) from conversations c where not exists (select from messages m where m.conversation_id = c.id)",
            ),
            (
                "the queue has what is not sent, and nothing else",
                "select count(*) from messages m left join deliveries d on d.message_id = m.id
                 where m.direction = 'OUTBOUND' and (m.status = 'SENT') = (d.message_id is not null)",
            ),
        ] {
            assert_eq!(self.count(sql).await, 0, "{promise}");
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server = self.server.clone();
        let name = self.options.get_database().unwrap().to_owned();
        std::thread::spawn(move || {
            runtime().block_on(async {
                // The test may have stopped the server.
                if let Ok(mut admin) = server.connect().await {
                    drop_database(&mut admin, &name).await;
                }
            });
        });
    }
}

/// Starts the shared server in a thread that is never joined: it ends with the process, by the pipe
/// to its supervisor.
fn start_shared() -> PgConnectOptions {
    std::thread::spawn(|| {
        runtime().block_on(async {
            let embedded = start_first_free().await;
            let options = embedded.options();
            close_template(&options).await;
            drop_leftovers(&options).await;
            std::mem::forget(embedded);
            options
        })
    })
    .join()
    .unwrap()
}

/// Usually the first directory; another one where two runs share the checkout.
async fn start_first_free() -> Embedded {
    for number in 1.. {
        let directory = shared_directory().join(format!("data-{number}"));
        // No test pulls this machine's plug; without fsync, making and dropping databases does not
        // slow the others down.
        let settings = [("max_connections", "500"), ("fsync", "off")];
        match Embedded::start_with(&directory, &settings).await {
            Err(EmbeddedError::InUse { .. }) => {}
            started => return started.unwrap(),
        }
    }
    unreachable!("there is always a further directory");
}

/// The same each time, so that a run does not begin with making a cluster; apart for each checkout.
fn shared_directory() -> PathBuf {
    let checkout: String = env!("CARGO_MANIFEST_DIR")
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    let directory = std::env::temp_dir().join(format!("gateway-tests{checkout}"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&directory)
        .unwrap();
    directory
}

/// New databases are like those of PostgreSQL 15 and newer: not everybody may create in them.
async fn close_template(server: &PgConnectOptions) {
    let mut template = server
        .clone()
        .database("template1")
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql("revoke create on schema public from public")
        .execute(&mut template)
        .await
        .unwrap();
}

async fn drop_leftovers(server: &PgConnectOptions) {
    let mut admin = server.connect().await.unwrap();
    let names = "select datname from pg_database where datname like 'test\\_%'";
    for row in sqlx::query(names).fetch_all(&mut admin).await.unwrap() {
        drop_database(&mut admin, row.get(0)).await;
    }
}

async fn drop_database(admin: &mut PgConnection, name: &str) {
    let sql = format!("drop database if exists {name} with (force)");
    // One that cannot be dropped now is dropped by the next run.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.ok();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
