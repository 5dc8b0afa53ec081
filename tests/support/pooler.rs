//! `PgBouncer`, the real one, in front of a database.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::UnixStream;

use super::{Database, Role, copy_program, eventually, signal};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerVersion {
    /// The machine's. Debian 12's mixes up prepared statements in transaction mode.
    Installed,
    /// The one that `.ci/pgbouncer` builds, which keeps them.
    Newer,
}

impl PoolerVersion {
    fn program(self) -> PathBuf {
        let program = match self {
            Self::Installed => PathBuf::from("/usr/sbin/pgbouncer"),
            Self::Newer => {
                Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("pgbouncer/pgbouncer")
            }
        };
        assert!(
            program.exists(),
            "{} is missing: see .ci/run",
            program.display()
        );
        program
    }
}

/// A running pooler; stopped when it is dropped.
pub struct Pooler {
    process: Child,
    url: String,
    configuration: String,
    directory: tempfile::TempDir,
}

impl Pooler {
    /// One that leads to this database as this role, with these settings.
    pub async fn start(
        version: PoolerVersion,
        database: &Database,
        role: &Role,
        settings: &[(&str, &str)],
    ) -> Self {
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
        let configuration = format!(
            "[databases]\n{name} = host={} port=5432\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {}\nunix_socket_mode = 0777\n\
             auth_type = trust\nauth_file = {}\n",
            server.display(),
            path.display(),
            path.join("users").display(),
        );
        std::fs::write(path.join("users"), format!("\"{user}\" \"\"\n")).unwrap();
        write(path, &configuration, settings);
        // A copy: the server's user may not get to where it was built.
        let program = path.join("pgbouncer");
        copy_program(&version.program(), &program);
        let mut command = if is_root() {
            // It refuses to run as root.
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", owner.uid()))
                .arg(format!("--regid={}", owner.gid()))
                .arg("--clear-groups")
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .arg("--quiet")
            .arg(path.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = path.display().to_string().replace('/', "%2F");
        let url = format!("postgres://{user}@localhost:6432/{name}?host={socket}");
        let pooler = Self {
            process,
            url,
            configuration,
            directory,
        };
        eventually("the pooler listens", async || {
            UnixStream::connect(pooler.socket()).await.ok()
        })
        .await;
        pooler
    }

    /// What `DATABASE_URL` is to be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.6432")
    }

    /// Gives it other settings, without a restart.
    pub fn reload(&self, settings: &[(&str, &str)]) {
        write(self.directory.path(), &self.configuration, settings);
        signal(self.process.id(), "HUP");
    }
}

fn write(directory: &Path, configuration: &str, settings: &[(&str, &str)]) {
    let settings = settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"));
    let configuration = format!("{configuration}{}", settings.collect::<String>());
    std::fs::write(directory.join("pgbouncer.ini"), configuration).unwrap();
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
