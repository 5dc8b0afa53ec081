//! A streaming standby of a server, and a switch before servers.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::AbortHandle;

use super::{Postgres, eventually};

const SOCKET: &str = ".s.PGSQL.5432";

/// A running standby; stopped when it is dropped.
pub struct Standby {
    process: Child,
    programs: PathBuf,
    owner: (u32, u32),
    directory: tempfile::TempDir,
}

impl Standby {
    /// One that has all of this server, and follows it.
    pub async fn of(primary: &Postgres) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-standby-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let owner = std::fs::metadata(primary.cluster()).unwrap();
        let owner = (owner.uid(), owner.gid());
        chown(directory.path(), Some(owner.0), Some(owner.1)).unwrap();
        // Those that the primary runs.
        let postmaster = primary.embedded.postmaster_pid().unwrap();
        let program = std::fs::read_link(format!("/proc/{postmaster}/exe")).unwrap();
        let programs = program.parent().unwrap().to_owned();
        let options = primary.embedded.options();
        let socket = options.get_socket().unwrap();
        let data = directory.path().join("data");
        let copied = command(&programs.join("pg_basebackup"), owner)
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--username", options.get_username()])
            .arg("--host")
            .arg(socket)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = command(&programs.join("postgres"), owner)
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses="])
            .args(["-c", "unix_socket_permissions=0777"])
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                directory.path().display()
            ))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let standby = Self {
            process,
            programs,
            owner,
            directory,
        };
        let answers = async || standby.options("postgres").connect().await.ok().map(drop);
        eventually("the standby answers", answers).await;
        standby
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    /// How to connect to this database of it.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.directory.path())
            .port(5432)
            .username("gateway")
            .database(database)
    }

    /// The one number that a query answers with, in this database of it.
    pub async fn count(&self, database: &str, sql: &str) -> i64 {
        let mut connection = self.options(database).connect().await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    /// Makes it a primary.
    pub fn promote(&self) {
        let promoted = command(&self.programs.join("pg_ctl"), self.owner)
            .args(["promote", "-w", "-D"])
            .arg(self.directory.path().join("data"))
            .output()
            .unwrap();
        assert!(promoted.status.success(), "{promoted:?}");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // SIGQUIT: at once, its processes too.
        super::signal(self.process.id(), "QUIT");
        self.process.wait().unwrap();
    }
}

/// A program as this user, which only root has to become.
fn command(program: &Path, (uid, gid): (u32, u32)) -> Command {
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    if own == uid {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .arg("--clear-groups")
        .arg(program);
    command
}

/// The socket of a server that the tests have started.
pub fn socket_of(primary: &Postgres) -> PathBuf {
    let options = primary.embedded.options();
    options.get_socket().unwrap().join(SOCKET)
}

/// A TCP port that leads to one server or another.
pub struct Switch {
    pub port: u16,
    target: Arc<Mutex<PathBuf>>,
    relays: Arc<Mutex<HashMap<u16, AbortHandle>>>,
}

impl Switch {
    /// One that leads to the server on this socket.
    pub async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(Mutex::new(socket));
        let relays = Arc::new(Mutex::new(HashMap::new()));
        let (now, all) = (Arc::clone(&target), Arc::clone(&relays));
        tokio::spawn(async move {
            while let Ok((mut client, address)) = listener.accept().await {
                let socket = now.lock().unwrap().clone();
                let relay = tokio::spawn(async move {
                    if let Ok(mut server) = UnixStream::connect(socket).await {
                        copy_bidirectional(&mut client, &mut server).await.ok();
                    }
                });
                all.lock()
                    .unwrap()
                    .insert(address.port(), relay.abort_handle());
            }
        });
        Self {
            port,
            target,
            relays,
        }
    }

    /// Leads new connections to the server on this socket; those that there are stay where they
    /// are.
    pub fn lead_to(&self, socket: PathBuf) {
        *self.target.lock().unwrap() = socket;
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for (_, relay) in self.relays.lock().unwrap().drain() {
            relay.abort();
        }
    }
}
