//! Finds the newest PostgreSQL on the machine, or the one that fits an existing cluster.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::account::{self, Account, is_roots};
use super::error::EmbeddedError;
use crate::error::fault::OLDEST;

/// Where packages install: a folder, how the names of the versions in it begin, and the rest of the
/// path.
const USUAL: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),         // Debian
    ("/usr", "pgsql-", "bin"),                  // Fedora, packages of PostgreSQL's own
    ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew
    ("/usr/local/opt", "postgresql", "bin"),    // Homebrew on older Macs
];

/// One installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Programs {
    major: u32,
    minor: u32,
    folder: PathBuf,
}

impl Programs {
    /// The newest in those folders, or the one with the version of the cluster in `data`.
    pub(super) fn find(
        folders: &[PathBuf],
        version: Option<u32>,
        data: &Path,
        account: Account,
    ) -> Result<Self, EmbeddedError> {
        Self::choose(Self::installed(folders, account), version, data)
    }

    fn choose(all: Vec<Self>, version: Option<u32>, data: &Path) -> Result<Self, EmbeddedError> {
        let installed: BTreeSet<u32> = all.iter().map(|programs| programs.major).collect();
        let installed = installed.into_iter().collect();
        let fits = |programs: &Self| {
            version.map_or(programs.major >= OLDEST, |version| {
                programs.major == version
            })
        };
        all.into_iter()
            .filter(fits)
            .max()
            .ok_or_else(|| match version {
                Some(version) => EmbeddedError::OtherVersion {
                    directory: data.to_owned(),
                    version,
                    installed,
                },
                None => EmbeddedError::NoPrograms { installed },
            })
    }

    /// The path of one of the programs.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }

    fn installed(folders: &[PathBuf], account: Account) -> Vec<Self> {
        // A link in `PATH` leads to the folder that has the other programs too.
        let linked = |folder: &PathBuf| {
            Some(
                fs::canonicalize(folder.join("postgres"))
                    .ok()?
                    .parent()?
                    .to_owned(),
            )
        };
        let folders: BTreeSet<PathBuf> = folders
            .iter()
            .filter(|folder| folder.is_absolute())
            .filter_map(linked)
            .collect();
        folders
            .into_iter()
            .filter(|folder| folder.join("initdb").is_file())
            .filter(|folder| !account.is_other() || Self::are_roots(folder))
            .filter_map(|folder| Self::of(folder, account))
            .collect()
    }

    /// Root runs nothing that others can change, not even as another user.
    fn are_roots(folder: &Path) -> bool {
        let are = ["postgres", "initdb"].map(|name| folder.join(name));
        let are = are.iter().all(|program| is_roots(program));
        if !are {
            tracing::warn!(folder = %folder.display(), "root does not run the PostgreSQL there: others than root can change it");
        }
        are
    }

    fn of(folder: PathBuf, account: Account) -> Option<Self> {
        let output = account
            .command(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let (major, minor) = parse_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self {
            major,
            minor,
            folder,
        })
    }
}

/// All folders in which to look.
pub(super) fn folders(account: Account) -> Vec<PathBuf> {
    let mut folders = account::folders();
    folders.extend(["/usr/bin".into(), "/usr/local/bin".into()]);
    if let Ok(output) = account.command("pg_config").arg("--bindir").output() {
        folders.push(OsString::from_vec(output.stdout.trim_ascii().to_vec()).into());
    }
    for (parent, prefix, rest) in USUAL {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let versions =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        folders.extend(versions.map(|entry| entry.path().join(rest)));
    }
    folders
}

/// Reads `postgres (PostgreSQL) 17.2 (Debian …)`. `18beta1` counts as 18.0.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(2)?.split('.').map(|part| {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..digits].parse().ok()
    });
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn programs(major: u32, minor: u32) -> Programs {
        Programs {
            major,
            minor,
            folder: format!("/programs/{major}.{minor}").into(),
        }
    }

    #[test]
    fn the_newest_programs_are_chosen() {
        let all = vec![
            programs(9, 6),
            programs(16, 2),
            programs(17, 1),
            programs(17, 0),
        ];
        assert_eq!(
            Programs::choose(all, None, Path::new("/data")).unwrap(),
            programs(17, 1)
        );
    }

    #[test]
    fn an_existing_cluster_is_served_by_its_own_version() {
        let all = vec![programs(15, 1), programs(15, 4), programs(17, 1)];
        assert_eq!(
            Programs::choose(all, Some(15), Path::new("/data")).unwrap(),
            programs(15, 4)
        );
    }

    #[test]
    fn a_missing_version_is_named_beside_those_that_are_installed() {
        let all = vec![programs(15, 1), programs(15, 4), programs(17, 1)];
        let said = Programs::choose(all, Some(16), Path::new("/data"))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("/data") && said.contains("PostgreSQL 16"),
            "{said}"
        );
        assert!(said.contains("(only 15, 17)"), "{said}");
    }

    #[test]
    fn without_programs_the_packages_to_install_are_named() {
        let empty = tempfile::tempdir().unwrap();
        let said = Programs::find(
            &[empty.path().into()],
            None,
            Path::new("/data"),
            Account::any(),
        )
        .unwrap_err()
        .to_string();
        for way in [
            "apt-get install postgresql",
            "dnf install postgresql-server",
            "brew install postgresql",
            "DATABASE_URL",
        ] {
            assert!(said.contains(way), "{said}");
        }
    }

    #[test]
    fn programs_that_are_too_old_are_as_good_as_none() {
        let said = Programs::choose(vec![programs(9, 6)], None, Path::new("/data"))
            .unwrap_err()
            .to_string();
        assert!(
            said.starts_with("no PostgreSQL 14 or newer is installed (only 9)"),
            "{said}"
        );
    }

    #[test]
    fn a_link_leads_to_the_folder_of_all_programs() {
        let found = Programs::find(
            &folders(Account::any()),
            None,
            Path::new("/data"),
            Account::any(),
        )
        .unwrap();
        let links = tempfile::tempdir().unwrap();
        symlink(found.path("postgres"), links.path().join("postgres")).unwrap();
        assert_eq!(
            Programs::find(
                &[links.path().into()],
                None,
                Path::new("/data"),
                Account::any()
            )
            .unwrap(),
            found
        );
    }

    #[test]
    fn versions_are_read_as_postgresql_prints_them() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(
            parse_version("postgres (PostgreSQL) 18beta1\n"),
            Some((18, 0))
        );
        assert_eq!(parse_version("another program\n"), None);
    }
}
