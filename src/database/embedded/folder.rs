//! Directories that are opened once and then used by their descriptors, so that nobody can replace
//! them by renaming or linking. The owner and mode of what was not made here are never changed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::account::Account;
use super::error::{EmbeddedError, failed};

pub(super) const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OPEN.union(OFlags::DIRECTORY);
pub(super) const PRIVATE: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// The permissions that others must not have.
const OTHERS: u32 = 0o077;
/// An open directory. Its path is for messages, and for programs that cannot be given a descriptor.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    path: PathBuf,
}

impl From<(File, PathBuf)> for Folder {
    fn from((file, path): (File, PathBuf)) -> Self {
        Self { file, path }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads into this very directory, whatever is at its own path by now. For this
    /// process, while this value lives.
    pub(super) fn path_by_descriptor(&self) -> PathBuf {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // Only Linux has it.
        if path.is_dir() {
            path
        } else {
            self.path.clone()
        }
    }

    pub(super) fn metadata(&self) -> Result<Metadata, EmbeddedError> {
        self.file.metadata().map_err(failed("look at", self.path()))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The directory of this name, if it exists.
    pub(super) fn folder(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, EmbeddedError> {
        let (name, path) = (name.as_ref(), self.join(name.as_ref()));
        match rustix::fs::openat(self, name, DIRECTORY, Mode::empty()) {
            Ok(file) => Ok(Some(Self {
                file: file.into(),
                path,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(no_directory(path, self.link(name).is_some())),
            Err(error) => Err(failed("open", &path)(error.into())),
        }
    }

    pub(super) fn join(&self, name: &OsStr) -> PathBuf {
        if name == "." {
            self.path.clone()
        } else {
            self.path.join(name)
        }
    }

    /// The target of the link of this name, if it is one.
    pub(super) fn link(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(self, name.as_ref(), Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether there is anything of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether nothing in it has another name.
    pub(super) fn has_only(&self, name: &str) -> io::Result<bool> {
        for entry in Dir::read_from(self)? {
            let entry = entry?;
            if ![".", "..", name]
                .map(str::as_bytes)
                .contains(&entry.file_name().to_bytes())
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens a plain file for reading, if it exists.
    pub(super) fn file(&self, name: &str) -> Result<Option<File>, EmbeddedError> {
        let path = self.path.join(name);
        let file = match rustix::fs::openat(self, name, OPEN | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(no_file(path, error)),
        };
        let found = file.metadata().map_err(failed("look at", &path))?;
        if found.is_file() {
            Ok(Some(file))
        } else {
            Err(no_file(path, Errno::LOOP))
        }
    }

    /// Opens or makes a file of this user's, for reading and appending.
    pub(super) fn own_file(&self, name: &str, account: Account) -> Result<File, EmbeddedError> {
        let path = self.path.join(name);
        let flags = OPEN | OFlags::RDWR | OFlags::APPEND;
        let new = flags | OFlags::CREATE | OFlags::EXCL;
        match rustix::fs::openat(self, name, new, PRIVATE_FILE) {
            Ok(made) => {
                let made = File::from(made);
                account.give(&made, &path)?;
                return Ok(made);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make", &path)(error.into())),
        }
        let opened = rustix::fs::openat(self, name, flags | OFlags::NONBLOCK, Mode::empty());
        let opened = File::from(opened.map_err(|error| no_file(path.clone(), error))?);
        let found = opened.metadata().map_err(failed("look at", &path))?;
        // A file that root has just made and not given away yet is ours too; but not if it has a
        // second name elsewhere.
        let is_ours = found.uid() == account.uid() || (found.uid() == 0 && found.nlink() == 1);
        if found.is_file() && is_ours {
            Ok(opened)
        } else {
            Err(no_file(path, Errno::LOOP))
        }
    }

    /// Makes a directory of this user's that nobody else can read, with these files in it. None if
    /// something else has taken the name meanwhile.
    ///
    /// It is made inside another directory that only we can change, and then moved: nobody can
    /// replace it before it is given to the user.
    pub(super) fn make(
        &self,
        name: &OsStr,
        account: Account,
        files: &[&str],
    ) -> Result<Option<Self>, EmbeddedError> {
        let staging = format!(".gateway-{:016x}", rand::random::<u64>());
        let path = self.path.join(name);
        rustix::fs::mkdirat(self, &staging, PRIVATE)
            .map_err(|error| failed("make", &path)(error.into()))?;
        let made = self.make_within(&staging, name, account, files);
        // Only while it is empty: it could be another one by now.
        rustix::fs::unlinkat(self, &staging, AtFlags::REMOVEDIR).ok();
        made
    }

    fn make_within(
        &self,
        staging: &str,
        name: &OsStr,
        account: Account,
        files: &[&str],
    ) -> Result<Option<Self>, EmbeddedError> {
        const NEW: &str = "new";
        let path = self.path.join(name);
        let cannot = |error: Errno| failed("make", &path)(error.into());
        let staging = self.folder(staging)?.ok_or(Errno::NOENT).map_err(cannot)?;
        staging.check(Account::of_this_process())?;
        rustix::fs::mkdirat(&staging, NEW, PRIVATE).map_err(cannot)?;
        let filled = || {
            let made = staging.folder(NEW)?.ok_or(Errno::NOENT).map_err(cannot)?;
            for file in files {
                made.own_file(file, account)?;
            }
            account.give(&made.file, &path)?;
            match rustix::fs::renameat(&staging, NEW, self, name) {
                Ok(()) => Ok(Some(made.file)),
                Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(None),
                Err(error) => Err(cannot(error)),
            }
        };
        let made = filled();
        if !matches!(made, Ok(Some(_))) {
            staging.remove(NEW)?;
        }
        Ok(made?.map(|file| Self { file, path }))
    }

    /// Fails unless it belongs to this user, and nobody else can read it.
    pub(super) fn check(&self, account: Account) -> Result<(), EmbeddedError> {
        self.check_on_path(account, None)
    }

    /// The same for a directory whose path somebody else may be able to change. That is then named
    /// as the reason why root runs nothing as the directory's owner.
    pub(super) fn check_on_path(
        &self,
        account: Account,
        open: Option<&PathStep>,
    ) -> Result<(), EmbeddedError> {
        let found = self.metadata()?;
        let (uid, mode) = (found.uid(), found.mode() & 0o7777);
        let path = self.path.display();
        let mut wrong = Vec::new();
        let mut remedies = Vec::new();
        if uid != account.uid() {
            wrong.push(format!(
                "belongs to uid {uid}, and not to uid {}, whose PostgreSQL would run there",
                account.uid()
            ));
            if account.is_other() && uid == 0 {
                remedies.push(format!("chown {} {path}", account.uid()));
            } else if account.is_other()
                && let Some(open) = open
            {
                wrong.push(format!(
                    "root runs nothing as its owner, since {} can be changed by others ({})",
                    open.path.display(),
                    open.whose()
                ));
            }
        }
        if mode & OTHERS != 0 {
            wrong.push(format!("is open to other users (mode {mode:o})"));
            if uid == account.uid() || !remedies.is_empty() {
                remedies.push(format!("chmod 700 {path}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(EmbeddedError::NotPrivate {
            path: self.path.clone(),
            found: wrong.join("; "),
            remedy: if remedies.is_empty() {
                ELSEWHERE.to_owned()
            } else {
                format!(
                    "where nobody else has put anything into it, `{}`; else {ELSEWHERE}",
                    remedies.join(" && ")
                )
            },
        })
    }

    /// Renames something in it.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), EmbeddedError> {
        rustix::fs::renameat(self, from, self, to)
            .map_err(|error| failed("rename", &self.path.join(from))(error.into()))
    }

    /// Makes a link in it.
    pub(super) fn make_link(&self, name: &str, target: &Path) -> Result<(), EmbeddedError> {
        rustix::fs::symlinkat(target, self, name)
            .map_err(|error| failed("make", &self.path.join(name))(error.into()))
    }

    /// Removes what has this name, with everything in it.
    pub(super) fn remove(&self, name: &str) -> Result<(), EmbeddedError> {
        remove(self.as_fd(), name.as_ref()).map_err(failed("remove", &self.path.join(name)))
    }
}

/// A directory or a link on the way to another one.
#[derive(Debug)]
pub(super) struct PathStep {
    pub(super) path: PathBuf,
    pub(super) uid: u32,
    pub(super) mode: u32,
    pub(super) is_link: bool,
}

impl PathStep {
    pub(super) fn whose(&self) -> String {
        format!("uid {}, mode {:o}", self.uid, self.mode)
    }
}

/// The remedy that always works.
pub(super) const ELSEWHERE: &str = "set GATEWAY_DATA_DIR to another directory, or DATABASE_URL";

pub(super) fn no_directory(path: PathBuf, is_link: bool) -> EmbeddedError {
    let found = if is_link {
        "is a link"
    } else {
        "is no directory"
    };
    EmbeddedError::NotPrivate {
        path,
        found: found.to_owned(),
        remedy: if is_link {
            "set GATEWAY_DATA_DIR to where it leads, if that is meant, or DATABASE_URL".to_owned()
        } else {
            ELSEWHERE.to_owned()
        },
    }
}

fn no_file(path: PathBuf, error: Errno) -> EmbeddedError {
    match error {
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => EmbeddedError::NotPrivate {
            path,
            found: "is no plain file of the user whose PostgreSQL runs there".to_owned(),
            remedy: ELSEWHERE.to_owned(),
        },
        error => failed("open", &path)(error.into()),
    }
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // The errors for a directory, on Linux and on other systems.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?.file_name().to_owned();
        if ![c".", c".."].contains(&&*entry) {
            remove(folder.as_fd(), &OsString::from_vec(entry.into_bytes()))?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::fs::{RenameFlags, renameat_with};

    use super::super::account::our_uid;
    use super::super::safe_path::{Missing, SafePath};
    use super::*;

    #[test]
    fn what_is_swapped_for_a_new_directory_is_never_given_away() {
        let place = tempfile::tempdir().unwrap();
        let way = SafePath::open(place.path(), Missing::Error).unwrap();
        let parent = way.folder();
        let swap = || renameat_with(parent, "new", parent, "ours", RenameFlags::EXCHANGE);
        let make = || {
            rustix::fs::mkdirat(parent, "ours", PRIVATE).unwrap();
            let ours = parent.folder("ours").unwrap().unwrap();
            let made = parent.make("new".as_ref(), Account::any(), &[]).unwrap();
            assert!(made.is_some());
            // Whatever their names are by now; with one of them gone, they stay.
            parent.remove("new").unwrap();
            parent.remove("ours").unwrap();
            ours.metadata().unwrap().uid()
        };
        let owners: Vec<u32> = std::thread::scope(|scope| {
            let makes = scope.spawn(|| (0..500).map(|_| make()).collect());
            while !makes.is_finished() {
                swap().ok();
            }
            makes.join().unwrap()
        });
        assert!(owners.iter().all(|owner| *owner == our_uid()), "{owners:?}");
    }
}
