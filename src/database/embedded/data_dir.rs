//! The data directory: private, owned by one gateway at a time, with a whole cluster in it or none.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::account::{Account, id, our_uid};
use super::error::{EmbeddedError, failed};
use super::folder::Folder;
use super::programs::Programs;
use super::safe_path::{Missing, SafePath};

/// The superuser of the cluster, and the gateway's database in it.
pub(super) const NAME: &str = "gateway";
/// Only a part of the socket's name: the server listens on no network.
pub(super) const PORT: u16 = 5432;
/// A file in every data directory, locked by the gateway that owns it.
const OWNER_LOCK: &str = "gateway.lock";
/// How long a server may take to stop. Its supervisor kills it earlier.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// A log that has grown beyond this is put aside at the next start.
const LOG_MAX_BYTES: u64 = 8 << 20;
/// How much of the end of a log is read.
const LOG_TAIL_BYTES: u64 = 64 << 10;
/// The system's limit for the path of a socket, without the final zero byte.
const SOCKET_PATH_MAX_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

const CLUSTER: &str = "cluster";
const UNFINISHED: &str = "cluster.unfinished";
const PID_FILE: &str = "postmaster.pid";
const LOG: &str = "postgres.log";
const SOCKET: &str = "socket";
const IGNORE: &str = ".gitignore";

/// A data directory. It is ours to use once [`Self::lock_owner`] has succeeded.
#[derive(Debug)]
pub(super) struct DataDir {
    folder: Folder,
    account: Account,
}

impl DataDir {
    /// Makes the directory, or takes over an empty one. The owner and mode of an existing directory
    /// are not changed.
    pub(super) fn prepare(path: &Path) -> Result<Self, EmbeddedError> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name),
            _ => (&*path, OsStr::new(".")),
        };
        let way = SafePath::open(parent, Missing::Make)?;
        let parent = way.folder();
        let found = parent.folder(name)?;
        let account = choose_account(&way, found.as_ref())?;
        account.check_reach(parent.path())?;
        // The lock is there from the beginning: whoever sees a gateway's directory sees its lock as
        // well.
        let folder = match found {
            Some(found) => found,
            None => match parent.make(name, account, &[OWNER_LOCK])? {
                Some(made) => made,
                // Another process was faster.
                None => parent
                    .folder(name)?
                    .ok_or_else(|| failed("open", &path)(io::ErrorKind::NotFound.into()))?,
            },
        };
        let is_empty = folder.has_only("lost+found");
        if !is_empty.map_err(failed("read", folder.path()))? && !folder.has(OWNER_LOCK) {
            return Err(EmbeddedError::Foreign {
                directory: folder.path().to_owned(),
            });
        }
        let owner = folder.metadata()?.uid();
        folder.check_on_path(account, way.open_to_others(owner))?;
        Ok(Self { folder, account })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn account(&self) -> Account {
        self.account
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.path().join(LOG)
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path().join(CLUSTER)
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join(PID_FILE)
    }

    fn open_cluster(&self) -> Result<Option<Folder>, EmbeddedError> {
        let cluster = self.folder.folder(CLUSTER)?;
        if let Some(cluster) = &cluster {
            cluster.check(self.account)?;
        }
        Ok(cluster)
    }

    /// The major version of the cluster, if there is one.
    pub(super) fn version(&self) -> Result<Option<u32>, EmbeddedError> {
        const FILE: &str = "PG_VERSION";
        let Some(cluster) = self.open_cluster()? else {
            return Ok(None);
        };
        let Some(file) = cluster.file(FILE)? else {
            return Ok(None);
        };
        // Before 10, a major version was two numbers.
        let version = beginning(file).and_then(|version| {
            let major = version.trim().split('.').next().unwrap_or_default();
            major.parse().map_err(io::Error::other)
        });
        version
            .map(Some)
            .map_err(failed("read", &cluster.path().join(FILE)))
    }

    /// Makes this process the directory's owner, for as long as it keeps the file.
    pub(super) fn lock_owner(&self) -> Result<File, EmbeddedError> {
        let in_use = || EmbeddedError::InUse {
            directory: self.path().to_owned(),
        };
        let owner = self.try_lock(OWNER_LOCK)?.ok_or_else(in_use)?;
        // So that a `.gateway` in a checkout is never committed.
        if !self.folder.has(IGNORE) {
            let ignore = self.folder.own_file(IGNORE, self.account)?;
            io::Write::write_all(&mut &ignore, b"*\n")
                .map_err(failed("write", &self.path().join(IGNORE)))?;
        }
        Ok(owner)
    }

    /// The lock that all processes of a server share; none while one of them is left.
    pub(super) fn try_lock_server(&self) -> Result<Option<File>, EmbeddedError> {
        self.try_lock("server.lock")
    }

    /// The same, but waits for a server that is about to stop.
    pub(super) fn wait_for_server_lock(&self) -> Result<File, EmbeddedError> {
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT {
            if let Some(lock) = self.try_lock_server()? {
                return Ok(lock);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(self.still_running())
    }

    fn still_running(&self) -> EmbeddedError {
        EmbeddedError::StillRunning {
            directory: self.path().to_owned(),
        }
    }

    fn try_lock(&self, name: &str) -> Result<Option<File>, EmbeddedError> {
        let file = self.folder.own_file(name, self.account)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => {
                Err(failed("lock", &self.path().join(name))(error))
            }
        }
    }

    /// Makes the cluster under another name, and renames it when it is whole.
    pub(super) fn make_cluster(
        &self,
        programs: &Programs,
        lock: &File,
    ) -> Result<(), EmbeddedError> {
        let initdb = programs.path("initdb");
        self.folder.remove(UNFINISHED)?;
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
            .arg(self.path().join(UNFINISHED))
            // initdb's output is of no use. With the lock in its place, initdb and its children
            // keep the lock even when we are killed.
            .stdout(
                lock.try_clone()
                    .map_err(failed("share the lock of", self.path()))?,
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
        self.folder.rename(UNFINISHED, CLUSTER)?;
        self.folder.sync().map_err(failed("write", self.path()))
    }

    /// The directory of the socket, if an owner has made it.
    pub(super) fn find_socket_directory(&self) -> Result<Option<Folder>, EmbeddedError> {
        let socket = match self.folder.link(SOCKET) {
            Some(elsewhere) => open_linked(&elsewhere)?,
            None => self.folder.folder(SOCKET)?,
        };
        if let Some(socket) = &socket {
            socket.check(self.account)?;
        }
        Ok(socket)
    }

    /// Makes the directory of the socket: in the data directory or, if that path is too long,
    /// elsewhere, with a link to it.
    pub(super) fn make_socket_directory(&self) -> Result<Folder, EmbeddedError> {
        let link = self.folder.link(SOCKET);
        if fits(&self.path().join(SOCKET)) {
            if link.is_some() {
                self.folder.remove(SOCKET)?;
            }
            if let Some(found) = self.find_socket_directory()? {
                return Ok(found);
            }
            let made = self.folder.make(SOCKET.as_ref(), self.account, &[])?;
            return made.ok_or_else(|| {
                failed("make", &self.path().join(SOCKET))(io::ErrorKind::AlreadyExists.into())
            });
        }
        // If it was cleaned away, it may be another user's by now.
        if link.is_some_and(|link| fits(&link))
            && let Ok(Some(found)) = self.find_socket_directory()
        {
            return Ok(found);
        }
        let temporary = self.make_temporary()?;
        self.folder.remove(SOCKET)?;
        self.folder.make_link(SOCKET, temporary.path())?;
        Ok(temporary)
    }

    fn make_temporary(&self) -> Result<Folder, EmbeddedError> {
        let way = SafePath::open(&env::temp_dir(), Missing::Error)?;
        self.account.check_reach(way.folder().path())?;
        loop {
            let name = format!("gateway-{:08x}", rand::random::<u32>());
            let path = way.folder().path().join(&name);
            if !fits(&path) {
                return Err(EmbeddedError::SocketPath { directory: path });
            }
            // Never use another user's directory of that name.
            if !way.folder().has(&name)
                && let Some(made) = way.folder().make(name.as_ref(), self.account, &[])?
            {
                return Ok(made);
            }
        }
    }

    /// Removes the files of a killed server. A new server would not start if the old process id
    /// belonged to another process by now. Only the holder of the lock may call it.
    pub(super) fn remove_stale(&self, socket: &Folder, _lock: &File) -> Result<(), EmbeddedError> {
        if let Some(cluster) = self.open_cluster()? {
            // Somebody may have started the cluster by hand, without our lock. A server's working
            // directory is its cluster.
            let here = cluster.metadata()?;
            let is_here = |pid: u32| {
                let works_in = fs::metadata(format!("/proc/{pid}/cwd"));
                works_in.is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()))
            };
            let pid = cluster.file(PID_FILE)?.and_then(read_pid);
            if pid.is_some_and(is_here) {
                return Err(self.still_running());
            }
            cluster.remove(PID_FILE)?;
        }
        let name = socket_name();
        socket.remove(&name)?;
        socket.remove(&format!("{name}.lock"))
    }

    /// The log, opened for appending.
    pub(super) fn log(&self) -> Result<File, EmbeddedError> {
        self.folder.own_file(LOG, self.account)
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> Result<String, EmbeddedError> {
        let read = |mut log: File| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut text = Vec::new();
            log.take(LOG_TAIL_BYTES).read_to_end(&mut text)?;
            Ok(text)
        };
        let text = read(self.log()?).map_err(failed("read", &self.log_file()))?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(10)..].join("\n"))
    }

    /// Renames a log that has grown large.
    pub(super) fn rotate_log(&self) -> Result<(), EmbeddedError> {
        let log = self.log()?.metadata();
        if log.map_err(failed("look at", &self.log_file()))?.len() > LOG_MAX_BYTES {
            self.folder.rename(LOG, "postgres.log.old")?;
        }
        Ok(())
    }
}

/// The user of this process, unless that is root. Then the directory's owner, if nobody else can
/// change the path to it, else `postgres`.
fn choose_account(way: &SafePath, data: Option<&Folder>) -> Result<Account, EmbeddedError> {
    if our_uid() != 0 {
        return Ok(Account::of_this_process());
    }
    if let Some(data) = data {
        let owner = data.metadata()?;
        let may_run = owner.uid() != 0 && way.open_to_others(owner.uid()).is_none();
        // Everything without its own user runs as `nobody` and could read the data: accept that
        // owner only if the gateway has used the directory before.
        let is_nobody = || id(&["-u", "nobody"]) == Some(owner.uid()) && !data.has(OWNER_LOCK);
        if may_run && !is_nobody() {
            return Ok(Account::other(owner.uid(), owner.gid()));
        }
    }
    let number = |of| id(&[of, "postgres"]).ok_or(EmbeddedError::NoAccount);
    Ok(Account::other(number("-u")?, number("-g")?))
}

/// The directory that a link in a data directory leads to, if it still exists.
fn open_linked(path: &Path) -> Result<Option<Folder>, EmbeddedError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.is_absolute() => SafePath::open(parent, Missing::Error)?
            .folder()
            .folder(name),
        _ => Ok(None),
    }
}

/// The process id in the first line of a `postmaster.pid`.
pub(super) fn read_pid(file: File) -> Option<u32> {
    beginning(file).ok()?.lines().next()?.trim().parse().ok()
}

/// The beginning of a file: long enough for a number.
fn beginning(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text)?;
    Ok(text)
}

/// The name of the socket in its directory.
pub(super) fn socket_name() -> String {
    format!(".s.PGSQL.{PORT}")
}

/// Whether a socket can be in that directory: its path must be short enough, and UTF-8, as the
/// client requires.
fn fits(directory: &Path) -> bool {
    let socket = directory.join(socket_name());
    socket
        .to_str()
        .is_some_and(|socket| socket.len() <= SOCKET_PATH_MAX_BYTES)
}
