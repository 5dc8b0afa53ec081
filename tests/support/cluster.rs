//! PostgreSQL with a synchronous standby. Nobody watches over the two: what is killed stays dead,
//! and only the test promotes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use tokio::process::{Child, Command as Running};

use super::{Program, Stopped, eventually, signal};

/// The superuser and the database.
const NAME: &str = "gateway";
/// What the standby calls itself.
const STANDBY: &str = "standby";
/// Runs the server until it ends, or until standard input does: then whoever held the other end of
/// the pipe is gone.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
( while read -r _ <&3; do :; done; kill -s QUIT "$server"; kill -s CONT "$server" ) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"
kill -s KILL "$watcher"
"#;

/// A primary, and its standby, for which every commit waits.
pub struct Cluster {
    pub primary: Server,
    pub standby: Server,
    /// Else commits do not wait.
    synchronous: bool,
}

impl Cluster {
    /// A new one, with an empty database.
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    pub async fn start_with(synchronous: bool) -> Self {
        let place = Arc::new(Place::make());
        let (mut primary, standby) = (Server::new(&place), Server::new(&place));
        primary.make().await;
        primary.start(&[]).await;
        let postgres = primary.options().database("postgres");
        primary.run_on(&postgres, "create database gateway").await;
        primary
            .run("revoke create on schema public from public")
            .await;
        standby.copy(&primary).await;
        let mut cluster = Self {
            primary,
            standby,
            synchronous,
        };
        cluster.join().await;
        cluster
    }

    /// Gives the database its tables.
    pub async fn migrate(&self) {
        let migrate = Program::new("migrate").env("DATABASE_URL", &self.primary.url());
        let migrated = migrate.finish().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
    }

    /// What `DATABASE_URL` is to be, with this way there.
    pub fn url(hosts: &str) -> String {
        format!("postgres://{NAME}@{hosts}/{NAME}?sslmode=disable")
    }

    /// Promotes the standby, which waits for nobody; the old primary, however it is, takes its
    /// name.
    pub async fn promote(&mut self) {
        self.standby.promote().await;
        std::mem::swap(&mut self.primary, &mut self.standby);
    }

    /// Makes the standby anew, from the primary, and has commits wait for it. The old one may have
    /// what the primary never had.
    pub async fn replace_standby(&mut self) {
        self.standby.kill().await;
        self.standby.copy(&self.primary).await;
        self.join().await;
    }

    /// Starts the standby, which has been copied, and has commits wait for it.
    async fn join(&mut self) {
        self.start_standby().await;
        let wait = self.waits_for();
        self.primary.configure(&[wait]);
        eventually("the standby follows", async || self.has_followed().await).await;
        // The process that makes it knows the settings by then: from now on commits wait.
        self.primary.run("checkpoint").await;
        eventually("the standby has all", async || self.has_followed().await).await;
    }

    /// Whether the standby has all that the primary has.
    async fn has_followed(&self) -> Option<()> {
        let state = if self.synchronous { "sync" } else { "async" };
        let followed = format!(
            "select count(*) from pg_stat_replication
             where state = 'streaming' and sync_state = '{state}' and flush_lsn >= pg_current_wal_flush_lsn()"
        );
        (self.primary.count(&followed).await == 1).then_some(())
    }

    /// Starts the primary after a crash; commits wait for the standby as before.
    pub async fn restart_primary(&mut self) {
        let wait = self.waits_for();
        self.primary.start(&[wait]).await;
    }

    /// Kills the standby, with what it has not read yet, and starts it again.
    pub async fn restart_standby(&mut self) {
        self.standby.kill().await;
        self.start_standby().await;
    }

    async fn start_standby(&mut self) {
        let primary = format!(
            "host=127.0.0.1 port={} user={NAME} application_name={STANDBY}",
            self.primary.port
        );
        self.standby.start(&[("primary_conninfo", &primary)]).await;
    }

    fn waits_for(&self) -> (&'static str, &'static str) {
        let name = if self.synchronous { STANDBY } else { "" };
        ("synchronous_standby_names", name)
    }
}

/// Where the servers are, and whose they are.
struct Place {
    directory: tempfile::TempDir,
    programs: PathBuf,
    /// PostgreSQL refuses root.
    account: Option<(u32, u32)>,
}

impl Place {
    fn make() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-cluster-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let id = |of| said("id", &[of, "postgres"]).parse().unwrap();
        let account = is_root.then(|| (id("-u"), id("-g")));
        if let Some((uid, gid)) = account {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let find =
            "ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -V | tail -n 1";
        let programs = said("sh", &["-c", find]).into();
        Self {
            directory,
            programs,
            account,
        }
    }

    fn command(&self, program: &Path) -> Running {
        let mut command = Running::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// One server, on a port that stays its own.
pub struct Server {
    place: Arc<Place>,
    pub port: u16,
    /// Nobody else is given the port while the server does not run.
    _held: Socket,
    shell: Option<Child>,
    asleep: Option<Stopped>,
}

impl Server {
    fn new(place: &Arc<Place>) -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // The server says so too; and as long as this one does not listen, it may.
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        Self {
            place: Arc::clone(place),
            port: address.port(),
            _held: held,
            shell: None,
            asleep: None,
        }
    }

    /// How to connect as its superuser.
    pub fn options(&self) -> PgConnectOptions {
        Self::options_at(self.port)
    }

    fn options_at(port: u16) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(NAME)
            .database(NAME)
            .ssl_mode(PgSslMode::Disable)
    }

    /// What `DATABASE_URL` is to be.
    pub fn url(&self) -> String {
        Cluster::url(&format!("127.0.0.1:{}", self.port))
    }

    /// The one number of a query; none while it does not answer.
    pub async fn try_count(&self, sql: &str) -> Option<i64> {
        let mut connection = self.options().connect().await.ok()?;
        let row = sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await;
        Some(row.ok()?.get(0))
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.try_count(sql).await.expect(sql)
    }

    pub async fn run(&self, sql: &str) {
        self.run_on(&self.options(), sql).await;
    }

    async fn run_on(&self, options: &PgConnectOptions, sql: &str) {
        let mut connection = options.connect().await.unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        done.unwrap();
    }

    /// Ends the backends that wait for the standby in this statement, as an administrator would;
    /// how many those were.
    pub async fn terminate_waiting(&self, statement: &str) -> i64 {
        let waiting = waiting(statement);
        self.count(&format!(
            "select count(*) filter (where pg_terminate_backend(pid)) from ({waiting}) w"
        ))
        .await
    }

    /// How many backends wait for the standby in this statement, such as `webhook::ingest`.
    pub async fn waiting(&self, statement: &str) -> i64 {
        self.count(&format!("select count(*) from ({}) w", waiting(statement)))
            .await
    }

    async fn make(&self) {
        let mut initdb = self.place.command(&self.place.programs.join("initdb"));
        initdb
            .args([
                "--username",
                NAME,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--pgdata",
            ])
            .arg(self.data());
        succeed(initdb).await;
    }

    /// Becomes a copy of another.
    async fn copy(&self, of: &Self) {
        // It may never have been.
        std::fs::remove_dir_all(self.data()).ok();
        let mut copy = self
            .place
            .command(&self.place.programs.join("pg_basebackup"));
        copy.args([
            "--host=127.0.0.1",
            "--username",
            NAME,
            "--checkpoint=fast",
            "--no-sync",
            "--port",
        ])
        .arg(of.port.to_string())
        .arg("--pgdata")
        .arg(self.data());
        succeed(copy).await;
    }

    /// Starts it with these settings, and waits until it answers: as a standby where one of them
    /// says whose.
    pub async fn start(&mut self, settings: &[(&str, &str)]) {
        self.configure(settings);
        let signal = self.data().join("standby.signal");
        if settings.iter().any(|(name, _)| *name == "primary_conninfo") {
            std::fs::write(&signal, "").unwrap();
        } else {
            std::fs::remove_file(&signal).ok();
        }
        let path = self.data().with_extension("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let mut shell = self.place.command(Path::new("/bin/sh"));
        shell
            .env("PATH", "/usr/bin:/bin")
            .args(["-c", SCRIPT, "server"])
            .arg(self.place.programs.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        let shell = self.shell.insert(shell.spawn().unwrap());
        let options = Self::options_at(self.port).database("postgres");
        eventually("the server answers", async || {
            let ended = shell.try_wait().unwrap();
            let log = || std::fs::read_to_string(&path).unwrap();
            assert!(ended.is_none(), "the server has ended: {}", log());
            options.connect().await.ok()
        })
        .await;
    }

    /// Replaces its settings; at once, where it runs.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let always = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &*self.port.to_string()),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("wal_keep_size", "256MB"),
            // A standby looks for its primary again as often.
            ("wal_retrieve_retry_interval", "100ms"),
            ("jit", "off"),
        ];
        let mut lines = String::new();
        for (name, value) in always.iter().chain(settings) {
            writeln!(lines, "{name} = '{value}'").unwrap();
        }
        std::fs::write(self.data().join("postgresql.auto.conf"), lines).unwrap();
        if self.shell.is_some() {
            signal(self.postmaster(), "HUP");
        }
    }

    /// SIGKILL to all of it.
    pub async fn kill(&mut self) {
        let Some(mut shell) = self.shell.take() else {
            return;
        };
        let asleep = self.asleep.take();
        let asleep = asleep.unwrap_or_else(|| Stopped::all_under(self.postmaster()));
        asleep.end().await;
        shell.wait().await.unwrap();
    }

    /// Ends its connections and stops it, in an orderly way.
    pub async fn stop(&mut self) {
        signal(self.postmaster(), "INT");
        self.shell.take().unwrap().wait().await.unwrap();
    }

    /// Puts it to sleep: its connections stay, and nobody answers.
    pub fn sleep(&mut self) {
        self.asleep = Some(Stopped::all_under(self.postmaster()));
    }

    /// It goes on as if nothing had happened.
    pub fn wake(&mut self) {
        self.asleep = None;
    }

    async fn promote(&self) {
        // Later it is to follow nobody, and to wait for nobody.
        self.configure(&[]);
        self.run("select pg_promote()").await;
        eventually("the standby is a primary", async || {
            (self
                .try_count("select (not pg_is_in_recovery())::int::bigint")
                .await
                == Some(1))
            .then_some(())
        })
        .await;
    }

    fn postmaster(&self) -> u32 {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.place.directory.path().join(self.port.to_string())
    }
}

fn waiting(statement: &str) -> String {
    format!(
        "select pid from pg_stat_activity where wait_event = 'SyncRep' and query like '-- {statement}%'"
    )
}

async fn succeed(mut command: Running) {
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
