//! `PgBouncer`, the real one, in front of a database.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::{Child, Command, Stdio};

use super::{Database, Role, eventually};

/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// What it does with a client's connection.
#[derive(Debug, Clone, Copy)]
pub enum PoolerMode {
    Session,
    Transaction,
}

/// A running pooler; stopped when it is dropped.
pub struct Pooler {
    process: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Pooler {
    /// One that leads to this database as this role, and ignores these settings of its clients.
    pub async fn start(database: &Database, role: &Role, mode: PoolerMode, ignore: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-pooler-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let path = directory.path();
        let options = database.options();
        let server = options.get_socket().unwrap();
        let owner = std::fs::metadata(server).unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        let (name, user) = (database.name(), &role.name);
        let mode = match mode {
            PoolerMode::Session => "session",
            PoolerMode::Transaction => "transaction",
        };
        let mut configuration = format!(
            "[databases]\n{name} = host={} port=5432\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {}\nunix_socket_mode = 0777\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\n",
            server.display(),
            path.display(),
            path.join("users").display(),
        );
        if !ignore.is_empty() {
            writeln!(configuration, "ignore_startup_parameters = {ignore}").unwrap();
        }
        std::fs::write(path.join("users"), format!("\"{user}\" \"\"\n")).unwrap();
        std::fs::write(path.join("pgbouncer.ini"), configuration).unwrap();
        let mut command = if is_root() {
            // It refuses to run as root.
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", owner.uid()))
                .arg(format!("--regid={}", owner.gid()))
                .args(["--clear-groups", PROGRAM]);
            command
        } else {
            Command::new(PROGRAM)
        };
        let process = command
            .arg("--quiet")
            .arg(path.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer is not installed: see .ci/run");
        let socket = path.display().to_string().replace('/', "%2F");
        let url = format!("postgres://{user}@localhost:6432/{name}?host={socket}");
        let at = path.to_owned();
        eventually("the pooler listens", async || {
            at.join(".s.PGSQL.6432").exists().then_some(())
        })
        .await;
        Self {
            process,
            url,
            _directory: directory,
        }
    }

    /// What `DATABASE_URL` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
