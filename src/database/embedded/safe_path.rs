//! Ways to directories, on which no stranger's link is followed, and is known who can change something.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::account::{OTHERS_WRITE, our_uid};
use super::error::{EmbeddedError, failed};
use super::folder::{ELSEWHERE, Folder, OPEN, PRIVATE, PathStep, no_directory};

/// Links on one way, before it leads in circles.
const MAX_LINKS: usize = 40;

/// Opens what is there, also a link itself, without having to be allowed to read it.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OPEN.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OPEN.union(OFlags::DIRECTORY);

/// A directory, and what was passed on the way from the root.
#[derive(Debug)]
pub(super) struct SafePath {
    folder: Folder,
    passed: Vec<PathStep>,
}

/// What becomes of directories that are missing on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Error,
}

impl SafePath {
    /// Goes there, one name after the other.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, EmbeddedError> {
        let slash = rustix::fs::open("/", LOOK, Mode::empty());
        let slash = slash.map_err(|error| failed("open", Path::new("/"))(error.into()))?;
        let mut way = Self {
            folder: (slash.into(), "/".into()).into(),
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
                    name if name == ".." => way.folder.path().parent().unwrap_or(&path).to_owned(),
                    _ => path,
                };
                way.pass(&path, &metadata);
                way.folder = (found, path).into();
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
        if ![0, our_uid()].contains(&metadata.uid()) {
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
        self.passed.push(PathStep {
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
    pub(super) fn open_to_others(&self, uid: u32) -> Option<&PathStep> {
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
