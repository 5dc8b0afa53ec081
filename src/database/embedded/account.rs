//! Runs the programs as a user that PostgreSQL accepts, which root is not, and without what the caller's environment would
//! have them do.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use super::{EmbeddedError, failed};

/// Prints the first of its arguments that the user cannot enter.
const FIRST_CLOSED: &str =
    r#"for folder; do [ -x "$folder" ] || { printf %s "$folder"; exit; }; done"#;

/// The user of the server; `None` is whoever runs the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    /// Ourselves, unless we are root: then the owner of the data directory, `postgres` or `nobody`, whichever is there first.
    pub(super) fn choose(data: &Path) -> Result<Self, EmbeddedError> {
        if id(&["-u"]) != Some(0) {
            return Ok(Self(None));
        }
        let owner = fs::metadata(data)
            .ok()
            .map(|data| (data.uid(), data.gid()))
            .filter(|(uid, _)| *uid != 0);
        let named = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
        let other = owner
            .or_else(|| named("postgres"))
            .or_else(|| named("nobody"));
        other
            .map(|other| Self(Some(other)))
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this user, apart from our terminal's Ctrl-C, and understands everybody in English and UTC.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
        {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .process_group(0);
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives the user what we have made.
    pub(super) fn give(self, path: &Path) -> Result<(), EmbeddedError> {
        self.0.map_or(Ok(()), |(uid, gid)| {
            lchown(path, Some(uid), Some(gid)).map_err(failed("give away", path))
        })
    }

    /// Whether the user can get to that folder.
    pub(super) fn check_reach(self, folder: &Path) -> Result<(), EmbeddedError> {
        let Some((uid, _)) = self.0 else {
            return Ok(());
        };
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
                uid,
            })
        }
    }

    /// Whether that folder is this user's alone.
    pub(super) fn owns_privately(self, folder: &Path) -> bool {
        let Ok(found) = fs::symlink_metadata(folder) else {
            return false;
        };
        let uid = self.0.map(|(uid, _)| uid).or_else(|| id(&["-u"]));
        found.is_dir() && Some(found.uid()) == uid && found.mode() & 0o777 == 0o700
    }
}

/// A number that `id` prints, which asks whatever directory of users the machine has.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
