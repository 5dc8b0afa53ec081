//! Paths on which no link of a stranger is followed, and of which it is known who can change them.

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

/// The most links on one path: more are a circle.
const MAX_LINKS: usize = 40;

/// Opens anything, also a link itself, without the right to read it.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OPEN.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OPEN.union(OFlags::DIRECTORY);

/// A directory, and what led to it from the root.
#[derive(Debug)]
pub(super) struct SafePath {
    folder: Folder,
    passed: Vec<PathStep>,
}

/// What to do about missing directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Error,
}

impl SafePath {
    /// Walks to the directory, one name after the other.
    pub(super) fn open(path: &Path, missing: Missing) -> Result<Self, EmbeddedError> {
        let slash = rustix::fs::open("/", LOOK, Mode::empty());
        let slash = slash.map_err(|error| failed("open", Path::new("/"))(error.into()))?;
        let mut way = Self {
            folder: (slash.into(), "/".into()).into(),
            passed: Vec::new(),
        };
        way.pass(Path::new("/"), &way.folder.metadata()?);
        // Where a link itself cannot be opened, resolve all links first; the names are walked all
        // the same.
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
                // Others may read it, as usual, but not change it.
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

    /// The directory at the end.
    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The first step that anybody but root and this user can change. A sticky directory counts as
    /// open.
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
