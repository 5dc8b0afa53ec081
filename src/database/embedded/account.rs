//! Runs PostgreSQL's programs as a user that they accept, which root is not. They get nothing of
//! the caller's environment: it would change what they do, and has the gateway's secrets in it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::error::{EmbeddedError, failed};

/// Prints the first of its arguments that the user cannot enter.
const FIRST_CLOSED: &str =
    r#"for folder; do [ -x "$folder" ] || { printf %s "$folder"; exit; }; done"#;

/// Where programs are if `PATH` is not set.
const USUAL_PATH: &str = "/usr/bin:/bin";

/// The permission that lets others put something else into a directory.
pub(super) const OTHERS_WRITE: u32 = 0o022;

/// The user that runs `id` while the server's user is not known yet.
const NOBODY: u32 = 65534;

/// The user of the server: whoever runs the gateway, or another one if that is root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
    is_other: bool,
}

impl Account {
    /// The user of this process.
    pub(super) fn of_this_process() -> Self {
        Self {
            uid: our_uid(),
            gid: rustix::process::getegid().as_raw(),
            is_other: false,
        }
    }

    pub(super) fn other(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            is_other: true,
        }
    }

    /// Any user that may run the programs.
    #[cfg(test)]
    pub(super) fn any() -> Self {
        if our_uid() == 0 {
            Self::other(NOBODY, NOBODY)
        } else {
            Self::of_this_process()
        }
    }

    pub(super) fn uid(self) -> u32 {
        self.uid
    }

    /// Whether this process is root, and this user is somebody else.
    pub(super) fn is_other(self) -> bool {
        self.is_other
    }

    /// A command that runs as this user, that our terminal's Ctrl-C does not reach, and that speaks
    /// English and UTC.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("PATH", search_path())
            .current_dir("/")
            .process_group(0);
        if self.is_other {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives the user what we have just made.
    pub(super) fn give(self, made: &File, path: &Path) -> Result<(), EmbeddedError> {
        if self.is_other {
            fchown(made, Some(self.uid), Some(self.gid)).map_err(failed("give away", path))?;
        }
        Ok(())
    }

    /// Checks that the user can enter that folder.
    pub(super) fn check_reach(self, folder: &Path) -> Result<(), EmbeddedError> {
        if !self.is_other {
            return Ok(());
        }
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        let mut shell = self.command("/bin/sh");
        shell.args(["-c", FIRST_CLOSED, "sh"]).args(way);
        let output = shell
            .output()
            .map_err(failed("run", Path::new("/bin/sh")))?;
        let closed = String::from_utf8_lossy(&output.stdout).into_owned();
        if closed.is_empty() {
            Ok(())
        } else {
            Err(EmbeddedError::Unreachable {
                closed: closed.into(),
                uid: self.uid,
            })
        }
    }
}

/// The user that this process acts as.
pub(super) fn our_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The folders of `PATH` in which to look for programs. As root only those that nobody else can
/// change.
pub(super) fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into());
    let is_usable = |folder: &PathBuf| folder.is_absolute() && (our_uid() != 0 || is_roots(folder));
    env::split_paths(&path).filter(is_usable).collect()
}

fn search_path() -> &'static OsStr {
    static PATH: OnceLock<OsString> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = env::join_paths(folders()).unwrap_or_default();
        // An empty `PATH` would mean the current directory.
        if path.is_empty() {
            USUAL_PATH.into()
        } else {
            path
        }
    })
}

/// Whether nobody but root can change what is at this path, or the directories above it.
pub(super) fn is_roots(path: &Path) -> bool {
    let is_closed = |path: &Path| {
        let found = std::fs::symlink_metadata(path);
        found.is_ok_and(|found| found.uid() == 0 && found.mode() & OTHERS_WRITE == 0)
    };
    std::fs::canonicalize(path).is_ok_and(|path| path.ancestors().all(is_closed))
}

/// A number that `id` prints. It knows every kind of user directory that the machine has. As root
/// only.
pub(super) fn id(arguments: &[&str]) -> Option<u32> {
    let nobody = Account::other(NOBODY, NOBODY);
    let output = nobody.command("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
