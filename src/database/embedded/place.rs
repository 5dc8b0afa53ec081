//! Directories that are opened once, without following a stranger's link, and are meant by their descriptors from then on: whoever
//! renames or links something on the way changes nothing. Owner and mode are changed of nothing that was not made here.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::account::{self, Account};
use super::{EmbeddedError, failed};

/// Links on one way, before it leads in circles.
const MAX_LINKS: usize = 40;
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OPEN.union(OFlags::DIRECTORY);
const PRIVATE: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// What others must not have of a directory.
const OTHERS: u32 = 0o077;
/// What lets others put something else into its place.
const OTHERS_WRITE: u32 = 0o022;

/// Opens what is there, also a link itself, without having to be allowed to read it.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OPEN.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = DIRECTORY;

/// An open directory. Its path is for messages, and for programs that cannot be given a descriptor.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    path: PathBuf,
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

    /// A path that leads into this very directory, whatever is at its place by now; for this process, while this is open.
    pub(super) fn path_by_descriptor(&self) -> PathBuf {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // Elsewhere than on Linux there is no such thing.
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

    /// The directory of this name, where there is something.
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

    fn join(&self, name: &OsStr) -> PathBuf {
        if name == "." {
            self.path.clone()
        } else {
            self.path.join(name)
        }
    }

    /// Where the link of this name leads, where there is one.
    pub(super) fn link(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(self, name.as_ref(), Vec::new()).ok()?;
        Some(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether there is anything of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether everything in it has this name.
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

    /// Opens a plain file to be read; none where there is nothing.
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

    /// Opens a file of this user's, or else makes it, to be read and added to.
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
        // One that root has made and not given away yet is a file of ours as well; not so one that has another name elsewhere.
        let is_ours = found.uid() == account.uid() || (found.uid() == 0 && found.nlink() == 1);
        if found.is_file() && is_ours {
            Ok(opened)
        } else {
            Err(no_file(path, Errno::LOOP))
        }
    }

    /// Makes a directory of this user's that nobody else can look into, and these files in it; none where there is something else of
    /// that name meanwhile.
    ///
    /// It is made in another one that only we can change, and then moved: nobody can put something in its place before it is given away.
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
        // Only while it is empty: by now it could be another one.
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
        staging.check(Account::of_this_process(), None)?;
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

    /// An error unless it is this user's, and nobody else's to look into. On the way there others may be able to change something,
    /// which then is the reason why root has chosen no other user.
    pub(super) fn check(&self, account: Account, way: Option<&Way>) -> Result<(), EmbeddedError> {
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
                && let Some(open) = way.and_then(|way| way.open_to_others(uid))
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

    /// Moves something to another name in it.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), EmbeddedError> {
        rustix::fs::renameat(self, from, self, to)
            .map_err(|error| failed("rename", &self.path.join(from))(error.into()))
    }

    /// Makes a link in it.
    pub(super) fn make_link(&self, name: &str, target: &Path) -> Result<(), EmbeddedError> {
        rustix::fs::symlinkat(target, self, name)
            .map_err(|error| failed("make", &self.path.join(name))(error.into()))
    }

    /// Removes what may be of this name, with everything in it.
    pub(super) fn remove(&self, name: &str) -> Result<(), EmbeddedError> {
        remove(self.as_fd(), name.as_ref()).map_err(failed("remove", &self.path.join(name)))
    }
}

/// What else to do about a directory.
const ELSEWHERE: &str = "set GATEWAY_DATA_DIR to another directory, or DATABASE_URL";

fn no_directory(path: PathBuf, is_link: bool) -> EmbeddedError {
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
        // What a directory is answered with, by Linux and by others.
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

/// A directory, and what was passed on the way from the root.
#[derive(Debug)]
pub(super) struct Way {
    folder: Folder,
    passed: Vec<Passed>,
}

/// A directory or a link on the way.
#[derive(Debug)]
pub(super) struct Passed {
    path: PathBuf,
    uid: u32,
    mode: u32,
    is_link: bool,
}

impl Passed {
    fn whose(&self) -> String {
        format!("uid {}, mode {:o}", self.uid, self.mode)
    }
}

/// What becomes of directories that are missing on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Error,
}

impl Way {
    /// Goes there, one name after the other.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, EmbeddedError> {
        let slash = rustix::fs::open("/", DIRECTORY, Mode::empty());
        let slash = slash.map_err(|error| failed("open", Path::new("/"))(error.into()))?;
        let mut way = Self {
            folder: Folder {
                file: slash.into(),
                path: "/".into(),
            },
            passed: Vec::new(),
        };
        way.pass(Path::new("/"), &way.folder.metadata()?);
        // Where a link cannot be opened, none may be left; the names are gone through all the same.
        #[cfg(not(target_os = "linux"))]
        let path = &settled(path, missing)?;
        let mut names = backwards(path);
        let mut links = 0;
        while let Some(name) = names.pop() {
            let path = way.folder.join(&name);
            let found = way
                .look(&name, missing)
                .map_err(|error| failed("open", &path)(error.into()))?;
            let metadata = found.metadata().map_err(failed("look at", &path))?;
            if metadata.is_symlink() {
                links += 1;
                names.extend(way.follow(&path, &found, &metadata, links)?);
            } else if metadata.is_dir() {
                let path = match &*name {
                    name if name == "/" => name.into(),
                    name if name == ".." => way.folder.path.parent().unwrap_or(&path).to_owned(),
                    _ => path,
                };
                way.pass(&path, &metadata);
                way.folder = Folder { file: found, path };
            } else {
                return Err(no_directory(path, false));
            }
        }
        Ok(way)
    }

    fn look(&self, name: &OsStr, missing: Missing) -> rustix::io::Result<File> {
        let look = || rustix::fs::openat(&self.folder, name, LOOK, Mode::empty());
        match look() {
            Err(Errno::NOENT) if missing == Missing::Make => {
                // Others may look in, as usual, but change nothing.
                let mode = PRIVATE | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
                match rustix::fs::mkdirat(&self.folder, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => look(),
                    Err(error) => Err(error),
                }
            }
            found => found,
        }
        .map(File::from)
    }

    /// The names that a link stands for, the last one first.
    fn follow(
        &mut self,
        path: &Path,
        link: &File,
        metadata: &Metadata,
        links: usize,
    ) -> Result<Vec<OsString>, EmbeddedError> {
        if ![0, account::our_uid()].contains(&metadata.uid()) {
            return Err(EmbeddedError::NotPrivate {
                path: path.to_owned(),
                found: format!("is a link of uid {}, which is not followed", metadata.uid()),
                remedy: ELSEWHERE.to_owned(),
            });
        }
        if links > MAX_LINKS {
            return Err(failed("open", path)(Errno::LOOP.into()));
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new());
        let target = target.map_err(|error| failed("open", path)(error.into()))?;
        self.pass(path, metadata);
        Ok(backwards(Path::new(&OsString::from_vec(
            target.into_bytes(),
        ))))
    }

    fn pass(&mut self, path: &Path, metadata: &Metadata) {
        self.passed.push(Passed {
            path: path.to_owned(),
            uid: metadata.uid(),
            mode: metadata.mode() & 0o7777,
            is_link: metadata.is_symlink(),
        });
    }

    /// The end of the way.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The first thing on the way that somebody else than root and this user can change; what is sticky is no better.
    pub(super) fn open_to_others(&self, uid: u32) -> Option<&Passed> {
        self.passed.iter().find(|passed| {
            let is_writable = !passed.is_link && passed.mode & OTHERS_WRITE != 0;
            is_writable || ![0, uid].contains(&passed.uid)
        })
    }
}

fn backwards(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    names.map(|name| name.as_os_str().to_owned()).collect()
}

#[cfg(not(target_os = "linux"))]
fn settled(path: &Path, missing: Missing) -> Result<PathBuf, EmbeddedError> {
    if missing == Missing::Make {
        std::fs::create_dir_all(path).map_err(failed("make", path))?;
    }
    std::fs::canonicalize(path).map_err(failed("open", path))
}

/// Whether nobody but root can change what is at this path, or leads there.
pub(super) fn is_roots(path: &Path) -> bool {
    let is_closed = |path: &Path| {
        let found = std::fs::symlink_metadata(path);
        found.is_ok_and(|found| found.uid() == 0 && found.mode() & OTHERS_WRITE == 0)
    };
    std::fs::canonicalize(path).is_ok_and(|path| path.ancestors().all(is_closed))
}
