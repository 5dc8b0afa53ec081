//! The data directory: private, one gateway's at a time, and with either a whole cluster in it or none.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use super::account::Account;
use super::find::Programs;
use super::{EmbeddedError, NAME, PORT, failed};

/// How long a server may take to stop; its supervisor loses patience earlier.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// A log that has grown beyond this is put aside at the next start.
const LOG_MAX_BYTES: u64 = 8 << 20;
/// The system's limit for the path of a socket, without the final zero byte.
const SOCKET_PATH_MAX_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A data directory that exists and is ours to use, once [`Self::lock_owner`] has succeeded.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    account: Account,
}

impl Directory {
    /// Makes the directory if need be, or takes over an empty one.
    pub(super) fn prepare(path: &Path) -> Result<Self, EmbeddedError> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        let account = Account::choose(&path)?;
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).map_err(failed("make", parent))?;
        account.check_reach(&fs::canonicalize(parent).map_err(failed("find", parent))?)?;
        if !make_private(&path)? && !Self::is_gateways(&path)? {
            return Err(EmbeddedError::Foreign { directory: path });
        }
        let path = fs::canonicalize(&path).map_err(failed("find", &path))?;
        let directory = Self { path, account };
        if !directory.path.join("gateway.lock").exists() {
            let private = Permissions::from_mode(0o700);
            fs::set_permissions(&directory.path, private)
                .map_err(failed("make private", &directory.path))?;
            account.give(&directory.path)?;
        }
        Ok(directory)
    }

    /// Whether an existing directory may be used: its mode and owner are going to be changed.
    fn is_gateways(path: &Path) -> Result<bool, EmbeddedError> {
        let entries = fs::read_dir(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(failed("read", path))?;
        // The lock is the first thing made in it, so whoever sees anything of a gateway's sees the lock as well.
        Ok(entries
            .iter()
            .all(|entry| entry.file_name() == "lost+found")
            || path.join("gateway.lock").exists())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn account(&self) -> Account {
        self.account
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("cluster")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    /// The major version that the cluster was made with, if there is a cluster.
    pub(super) fn version(&self) -> Result<Option<u32>, EmbeddedError> {
        let file = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&file) {
            // Before 10, a version was two numbers.
            Ok(version) => version
                .trim()
                .split('.')
                .next()
                .unwrap_or_default()
                .parse()
                .map(Some)
                .map_err(io::Error::other),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
        .map_err(failed("read", &file))
    }

    /// Makes this process the directory's owner, for as long as it keeps the file.
    pub(super) fn lock_owner(&self) -> Result<File, EmbeddedError> {
        let in_use = || EmbeddedError::InUse {
            directory: self.path.clone(),
        };
        let owner = self.try_lock("gateway.lock")?.ok_or_else(in_use)?;
        // So that a `.gateway` in a checkout is never committed.
        let ignore = self.path.join(".gitignore");
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&ignore)
            .and_then(|mut file| file.write_all(b"*\n"))
        {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(failed("write", &ignore)(error))
            }
            _ => Ok(owner),
        }
    }

    /// The lock that every process of the server shares, if there is none left that has it.
    pub(super) fn try_lock_server(&self) -> Result<Option<File>, EmbeddedError> {
        self.try_lock("server.lock")
    }

    /// The same, after a server that is about to stop has stopped.
    pub(super) fn wait_for_server_lock(&self) -> Result<File, EmbeddedError> {
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT {
            if let Some(lock) = self.try_lock_server()? {
                return Ok(lock);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(EmbeddedError::StillRunning {
            directory: self.path.clone(),
        })
    }

    fn try_lock(&self, name: &str) -> Result<Option<File>, EmbeddedError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(failed("open", &path))?;
        self.account.give(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    /// Makes the cluster under another name first: one that has its name is whole.
    pub(super) fn make_cluster(
        &self,
        programs: &Programs,
        lock: &File,
    ) -> Result<(), EmbeddedError> {
        let (unfinished, initdb) = (
            self.path.join("cluster.unfinished"),
            programs.path("initdb"),
        );
        remove(&unfinished, |path| fs::remove_dir_all(path))?;
        let output = self
            .account
            .command(&initdb)
            .args([
                "--username",
                NAME,
                "--auth-local=trust",
                "--auth-host=reject",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(&unfinished)
            // What it says there is of no use; like this, it and its children keep the lock even when we are killed.
            .stdout(
                lock.try_clone()
                    .map_err(failed("share the lock of", &self.path))?,
            )
            .output()
            .map_err(failed("run", &initdb))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(EmbeddedError::Initdb {
                status: output.status,
                output: said,
            });
        }
        let renamed = fs::rename(&unfinished, self.cluster())
            .and_then(|()| File::open(&self.path)?.sync_all());
        renamed.map_err(failed("rename", &unfinished))
    }

    /// Where the socket is, once an owner has made the place.
    pub(super) fn socket_directory(&self) -> PathBuf {
        let here = self.path.join("socket");
        fs::read_link(&here).unwrap_or(here)
    }

    /// Makes the place for the socket: in the data directory, or, when that path is too long, a link there to a private one.
    pub(super) fn make_socket_directory(&self) -> Result<PathBuf, EmbeddedError> {
        let here = self.path.join("socket");
        let before = fs::read_link(&here);
        if fits(&here) {
            if before.is_ok() {
                remove(&here, |path| fs::remove_file(path))?;
            }
            make_private(&here)?;
            self.account.give(&here)?;
            return Ok(here);
        }
        if let Some(before) = before
            .ok()
            .filter(|before| fits(before) && self.account.owns_privately(before))
        {
            return Ok(before);
        }
        let temporary = self.make_temporary()?;
        remove(&here, |path| {
            fs::remove_file(path).or_else(|_| fs::remove_dir_all(path))
        })?;
        symlink(&temporary, &here).map_err(failed("make", &here))?;
        Ok(temporary)
    }

    fn make_temporary(&self) -> Result<PathBuf, EmbeddedError> {
        let temporary = env::temp_dir();
        self.account.check_reach(&temporary)?;
        let mut number = 0;
        loop {
            let path = temporary.join(format!("gateway-{}-{number}", process::id()));
            if !fits(&path) {
                return Err(EmbeddedError::SocketPath { directory: path });
            }
            // Somebody else's directory of that name is never used.
            if make_private(&path)? {
                return self.account.give(&path).map(|()| path);
            }
            number += 1;
        }
    }

    /// Removes what a killed server has left, which would keep a new one from starting if its number is another process's by
    /// now. Call it with the lock only.
    pub(super) fn remove_stale(&self, _lock: &File) -> Result<(), EmbeddedError> {
        let pid = self.pid_file();
        // Someone may have started the cluster by hand, without our lock: a server works in its cluster's directory.
        let by_hand = read_pid(&pid).and_then(|pid| fs::read_link(format!("/proc/{pid}/cwd")).ok());
        if by_hand == Some(self.cluster()) {
            return Err(EmbeddedError::StillRunning {
                directory: self.path.clone(),
            });
        }
        let socket = self.socket_directory().join(format!(".s.PGSQL.{PORT}"));
        let mut socket_lock = OsString::from(&socket);
        socket_lock.push(".lock");
        for file in [pid, socket, socket_lock.into()] {
            remove(&file, |path| fs::remove_file(path))?;
        }
        Ok(())
    }

    /// Puts a log that has grown large aside.
    pub(super) fn rotate_log(&self) -> Result<(), EmbeddedError> {
        let log = self.log_file();
        if fs::metadata(&log).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
            fs::rename(&log, self.path.join("postgres.log.old")).map_err(failed("rename", &log))?;
        }
        Ok(())
    }
}

/// The process id in the first line of a `postmaster.pid`.
pub(super) fn read_pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Makes a directory that nobody else can look into; false if there is something of that name already.
fn make_private(path: &Path) -> Result<bool, EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("make", path)(error)),
    }
}

/// Removes something that may not be there.
fn remove(path: &Path, by: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), EmbeddedError> {
    match by(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether a socket can be in that directory: short enough, and in UTF-8, which the client asks for.
fn fits(directory: &Path) -> bool {
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    socket
        .to_str()
        .is_some_and(|socket| socket.len() <= SOCKET_PATH_MAX_BYTES)
}
