//! Real databases: one PostgreSQL for all tests of this checkout, started by the first of them, and a database for each.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use gateway::database::embedded::Embedded;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row};

/// A PostgreSQL of its own, for a test that stops or kills it.
pub struct Postgres {
    pub embedded: Embedded,
    // Dropped after the server.
    _directory: tempfile::TempDir,
}

impl Postgres {
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-pg-")
            // Traversable for the user that PostgreSQL runs as.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let embedded = Embedded::start(&directory.path().join("data"))
            .await
            .unwrap();
        Self {
            embedded,
            _directory: directory,
        }
    }

    pub async fn database(&self) -> Database {
        Database::create(self.embedded.options()).await
    }
}

/// An empty database.
pub struct Database {
    options: PgConnectOptions,
    url: String,
    pool: PgPool,
}

impl Database {
    /// A new one on the PostgreSQL that the tests share.
    pub async fn new() -> Self {
        static SHARED: OnceLock<PgConnectOptions> = OnceLock::new();
        // Blocks the first time; the server must outlive the runtime of the test that happened to come first.
        let options = tokio::task::spawn_blocking(|| SHARED.get_or_init(start_shared).clone());
        Self::create(options.await.unwrap()).await
    }

    async fn create(server: PgConnectOptions) -> Self {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        let admin = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(server.clone())
            .await
            .unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}")))
            .execute(&admin)
            .await
            .unwrap();
        admin.close().await;
        let options = server.database(&name);
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
        Self { options, url, pool }
    }

    /// What `DATABASE_URL` is to be.
    pub fn url(&self) -> &str {
        &self.url
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

    /// What must be true of every database at rest: counts, previews and the queue are what a recount says.
    pub async fn assert_consistent(&self) {
        for (promise, sql) in [
            (
                "an event is one message",
                "select count(*) from webhook_events e full join (select * from messages where direction = 'INBOUND') m on m.id = e.message_id
                 where e.message_id is null or m.id is null",
            ),
            (
                "previews are those of the newest message",
                "select count(*) from conversations c cross join lateral (
                   select * from messages m where m.conversation_id = c.id order by sort_at desc, id desc limit 1) m
                 where (c.last_message_at, c.last_message_id, c.last_message_preview) is distinct from (m.sort_at, m.id, left(m.text, 200))",
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

/// Starts the shared server in a thread that is never joined: it ends with the process, by the pipe to its supervisor.
fn start_shared() -> PgConnectOptions {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let embedded = Embedded::start_with(&shared_directory(), &[("max_connections", "500")])
                .await
                .unwrap();
            let options = embedded.options();
            drop_leftovers(&options).await;
            std::mem::forget(embedded);
            options
        })
    })
    .join()
    .unwrap()
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
    directory.join("data")
}

async fn drop_leftovers(server: &PgConnectOptions) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(server.clone())
        .await
        .unwrap();
    let names = "select datname from pg_database where datname like 'test\\_%'";
    for row in sqlx::query(names).fetch_all(&pool).await.unwrap() {
        let name: String = row.get(0);
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)")))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;
}
