//! Another user of the machine: what he prepares, swaps or links where a gateway is started is
//! refused, and gives him nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use crate::support::{Client, Finished, Program, Run, copy_program, eventually};

/// Users that every machine has, and nobody's data are.
const VICTIM: u32 = 65534;
const ATTACKER: u32 = 1;

/// These tests need several users.
#[allow(clippy::print_stderr)] // says why nothing was tried
fn are_root() -> bool {
    let are = rustix::process::geteuid().is_root();
    if !are {
        eprintln!("not tried: only root can be several users");
    }
    are
}

/// A directory with a copy of the program, which every user can run.
struct Place {
    directory: TempDir,
    program: PathBuf,
}

impl Place {
    /// In the usual temporary directory, which is sticky.
    fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("gateway-strangers-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .unwrap();
        let program = directory.path().join("gateway");
        copy_program(Path::new(env!("CARGO_BIN_EXE_gateway")), &program);
        Self { directory, program }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, subcommand: &str) -> Run {
        Program::at(&self.program, subcommand).directory(self.directory.path().to_owned())
    }

    /// Makes a directory of this user's and with this mode.
    fn folder(&self, name: &str, uid: u32, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        own(&path, uid, mode);
        path
    }

    fn file(&self, name: &str, uid: u32, mode: u32) {
        fs::write(self.path(name), "").unwrap();
        own(&self.path(name), uid, mode);
    }
}

fn own(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Owner, mode and the names of what is in it.
fn state(path: &Path) -> (u32, u32, Vec<String>) {
    let found = fs::symlink_metadata(path).unwrap();
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    (found.uid(), found.mode() & 0o7777, names)
}

#[track_caller]
fn refused(ended: &Finished, because: &str) {
    assert_eq!(ended.code, Some(1), "{because}: {ended:?}");
    assert!(ended.stderr.contains(because), "{because}: {ended:?}");
}

#[tokio::test]
async fn a_link_to_a_directory_of_roots_is_refused_and_that_is_left_as_it_was() {
    if !are_root() {
        return;
    }
    let place = Place::new();
    let target = place.folder("target", 0, 0o755);
    symlink(&target, place.path(".gateway")).unwrap();
    for subcommand in ["migrate", "seed", "serve"] {
        refused(&place.run(subcommand).finish().await, "is a link");
        assert_eq!(state(&target), (0, 0o755, vec![]));
    }
    // On the way, a link of somebody whom root need not trust.
    symlink(place.directory.path(), place.path("way")).unwrap();
    std::os::unix::fs::lchown(place.path("way"), Some(ATTACKER), None).unwrap();
    let ended = place
        .run("migrate")
        .env("GATEWAY_DATA_DIR", "way/target/data");
    refused(&ended.finish().await, "is a link of uid 1");
    assert_eq!(state(&target), (0, 0o755, vec![]));
}

/// Swaps two names again and again, as long as something runs.
async fn while_swapping<T>(one: &Path, other: &Path, work: impl Future<Output = T>) -> T {
    let stop = AtomicBool::new(false);
    let swaps = async || {
        let (one, other) = (one.to_owned(), other.to_owned());
        tokio::task::spawn_blocking(move || {
            renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).ok();
        })
        .await
        .unwrap();
    };
    let swapping = async {
        while !stop.load(Ordering::Relaxed) {
            swaps().await;
        }
    };
    let working = async {
        let done = work.await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    tokio::join!(working, swapping).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_are_swapped_all_the_time_lead_root_to_nothing_of_its_own() {
    if !are_root() {
        return;
    }
    for (by_link, is_there) in [(true, true), (false, true), (false, false)] {
        let place = Place::new();
        let here = place.folder("here", ATTACKER, 0o755);
        if is_there {
            place.folder("here/.gateway", ATTACKER, 0o755);
        }
        // Empty, as far as the gateway's look at it goes; what is in it tells which one it is.
        let mut target = place.folder("here/.other", 0, 0o750);
        place.folder("here/.other/lost+found", 0, 0o700);
        if by_link {
            let elsewhere = place.path("roots");
            fs::rename(&target, &elsewhere).unwrap();
            symlink(&elsewhere, &target).unwrap();
            target = elsewhere;
        }
        let (one, other) = (here.join(".gateway"), here.join(".other"));
        let migrations = async {
            for _ in 0..12 {
                let run = place.run("migrate").directory(here.clone());
                run.finish().await;
            }
        };
        while_swapping(&one, &other, migrations).await;
        let states: Vec<_> = if by_link {
            vec![state(&target)]
        } else {
            [one, other]
                .iter()
                .filter(|path| path.exists())
                .map(|path| state(path))
                .collect()
        };
        let untouched = (0, 0o750, vec!["lost+found".to_owned()]);
        assert!(states.contains(&untouched), "{states:?}");
    }
}

/// What it is called, why it is refused, and how it comes about.
type Case = (&'static str, &'static str, fn(&Place));

#[tokio::test]
async fn what_others_prepared_or_can_change_is_refused() {
    if !are_root() {
        return;
    }
    let cases: [Case; 10] = [
        (
            "as it was found",
            "open to other users (mode 777)",
            |place| {
                place.folder(".gateway", ATTACKER, 0o777);
                place.folder(".gateway/socket", ATTACKER, 0o777);
                place.file(".gateway/gateway.lock", ATTACKER, 0o666);
                place.file(".gateway/server.lock", ATTACKER, 0o666);
            },
        ),
        ("another's", "belongs to uid 1", |place| {
            place.folder(".gateway", ATTACKER, 0o755);
        }),
        ("empty, and his group's", "chmod 700", |place| {
            place.folder(".gateway", VICTIM, 0o770);
        }),
        ("to be entered", "mode 701", |place| {
            place.folder(".gateway", VICTIM, 0o701);
        }),
        ("socket", "socket is open to other users", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file(".gateway/gateway.lock", VICTIM, 0o600);
            place.folder(".gateway/socket", VICTIM, 0o777);
        }),
        ("socket's owner", "socket belongs to uid 1", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file(".gateway/gateway.lock", VICTIM, 0o600);
            place.folder(".gateway/socket", ATTACKER, 0o755);
        }),
        ("cluster", "cluster is open to other users", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file(".gateway/gateway.lock", VICTIM, 0o600);
            place.folder(".gateway/cluster", VICTIM, 0o750);
        }),
        ("cluster's link", "cluster is a link", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file(".gateway/gateway.lock", VICTIM, 0o600);
            place.folder("cluster", VICTIM, 0o700);
            symlink("../cluster", place.path(".gateway/cluster")).unwrap();
        }),
        ("lock's link", "gateway.lock is no plain file", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file("letter", VICTIM, 0o600);
            symlink("../letter", place.path(".gateway/gateway.lock")).unwrap();
        }),
        ("lock's owner", "server.lock is no plain file", |place| {
            place.folder(".gateway", VICTIM, 0o700);
            place.file(".gateway/gateway.lock", VICTIM, 0o600);
            place.file(".gateway/server.lock", ATTACKER, 0o666);
        }),
    ];
    for (what, because, prepare) in cases {
        let place = Place::new();
        own(place.directory.path(), VICTIM, 0o777);
        prepare(&place);
        let before = state(&place.path(".gateway"));
        let ended = place.run("serve").user(VICTIM).finish().await;
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        assert!(ended.stderr.contains(because), "{what}: {ended:?}");
        let after = state(&place.path(".gateway"));
        assert_eq!((before.0, before.1), (after.0, after.1), "{what}");
        assert!(
            !place.path(".gateway/cluster/postmaster.pid").exists(),
            "{what}"
        );
        assert!(
            !place.path(".gateway/socket/.s.PGSQL.5432").exists(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn whoever_has_one_of_his_own_is_served_with_it_anywhere() {
    if !are_root() {
        return;
    }
    let place = Place::new();
    // As bad as it gets: others can rename what is in here.
    own(place.directory.path(), ATTACKER, 0o777);
    place.folder(".gateway", VICTIM, 0o700);
    let mut gateway = place.run("serve").user(VICTIM).start();
    gateway.logged("ready").await;
    let joined = place.run("seed").user(VICTIM).finish().await;
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let (owner, mode, _) = state(&place.path(".gateway/cluster"));
    assert_eq!((owner, mode), (VICTIM, 0o700));
    // It writes no core, and nobody who is the same user looks into it.
    let gateway = place.run("serve").user(VICTIM).start();
    gateway.logged("ready").await;
    let process = PathBuf::from(format!("/proc/{}", gateway.id()));
    assert_eq!(fs::metadata(process.join("environ")).unwrap().uid(), 0);
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
}

#[tokio::test]
async fn a_gateway_that_runs_stays_with_its_own_server_when_another_takes_its_place() {
    if !are_root() {
        return;
    }
    let place = Place::new();
    own(place.directory.path(), ATTACKER, 0o777);
    let gateway = place.run("serve").user(VICTIM).start();
    gateway.logged("ready").await;
    fs::rename(place.path(".gateway"), place.path("away")).unwrap();
    place.folder(".gateway", ATTACKER, 0o755);
    place.folder(".gateway/socket", ATTACKER, 0o755);
    let theirs = place.path(".gateway/socket/.s.PGSQL.5432");
    let listener = UnixListener::bind(&theirs).unwrap();
    fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
    listener.set_nonblocking(true).unwrap();
    // More than there are connections so far.
    let client = Client::new(gateway.url());
    let reads = (0..64).map(|_| client.get("/conversations"));
    for read in futures_util::future::join_all(reads).await {
        read.expect(200);
    }
    let met = listener.accept().map_err(|error| error.kind());
    assert_eq!(met.unwrap_err(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn only_the_owners_server_is_joined() {
    if !are_root() {
        return;
    }
    let place = Place::new();
    let mut gateway = place.run("serve").start();
    gateway.logged("ready").await;
    let socket = place.path(".gateway/socket/.s.PGSQL.5432");
    fs::rename(&socket, place.path("away")).unwrap();
    // Root's, that is, while the directory is another's.
    let _stranger = UnixListener::bind(&socket).unwrap();
    let ended = place.run("migrate").finish().await;
    refused(&ended, "is run by uid 0");
    fs::rename(place.path("away"), &socket).unwrap();
    assert_eq!(place.run("migrate").finish().await.code, Some(0));
    assert_eq!(gateway.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_place_of_the_socket_that_was_cleaned_away_and_taken_is_not_joined() {
    if !are_root() {
        return;
    }
    let place = Place::new();
    let deep = "d".repeat(120);
    let run = |subcommand| place.run(subcommand).env("GATEWAY_DATA_DIR", &deep);
    let mut gateway = run("serve").start();
    gateway.logged("ready").await;
    let socket = fs::read_link(place.path(&deep).join("socket")).unwrap();
    let away = place.path("away");
    fs::rename(&socket, &away).unwrap();
    fs::create_dir(&socket).unwrap();
    own(&socket, ATTACKER, 0o755);
    refused(&run("migrate").finish().await, "belongs to uid 1");
    fs::remove_dir(&socket).unwrap();
    fs::rename(&away, &socket).unwrap();
    assert_eq!(run("migrate").finish().await.code, Some(0));
    assert_eq!(gateway.terminate().await.code(), Some(0));
    fs::remove_dir_all(&socket).unwrap();
}

#[tokio::test]
async fn root_runs_a_server_as_the_owner_of_the_data_only_where_nobody_else_can_change_the_way() {
    if !are_root() {
        return;
    }
    // Only root can change something on the way there.
    let place = Place::within(Path::new("/srv"));
    place.folder("open", 0, 0o775);
    place.folder("theirs", 2, 0o755);
    place.folder("sticky", 0, 0o1777);
    for (data, owner, refusal) in [
        ("data", ATTACKER, None),
        ("open/data", ATTACKER, Some("open can be changed by others")),
        (
            "theirs/data",
            ATTACKER,
            Some("theirs can be changed by others"),
        ),
        (
            "sticky/data",
            ATTACKER,
            Some("sticky can be changed by others"),
        ),
        ("nobodys", VICTIM, Some("belongs to uid 65534")),
        ("roots", 0, Some("`chown ")),
    ] {
        let path = place.folder(data, owner, 0o700);
        let ended = place.run("migrate").env("GATEWAY_DATA_DIR", data);
        let ended = ended.finish().await;
        if let Some(because) = refusal {
            refused(&ended, because);
            assert_eq!(state(&path), (owner, 0o700, vec![]));
        } else {
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(state(&path.join("cluster")).0, owner);
        }
    }
    // What it makes itself is not the place's owner's.
    let ended = place
        .run("migrate")
        .env("GATEWAY_DATA_DIR", "theirs/new/data");
    let ended = ended.finish().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(state(&place.path("theirs/new")).0, 0);
    let (owner, mode, _) = state(&place.path("theirs/new/data"));
    assert!(
        ![0, 2].contains(&owner) && mode == 0o700,
        "{owner} {mode:o}"
    );
}

/// The names of the variables that a process was started with.
fn environment(pid: u32) -> Vec<String> {
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = String::from_utf8(variables).unwrap();
    let mut names: Vec<String> = variables
        .split_terminator('\0')
        .map(|variable| variable.split('=').next().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn no_child_has_anything_of_the_gateways_environment() {
    let place = Place::new();
    // Stands for the real ones, which are looked for in PATH first: says what it was given.
    let programs = place.path("bin");
    fs::create_dir(&programs).unwrap();
    let said = place.path("said");
    fs::write(&said, "").unwrap();
    fs::set_permissions(&said, Permissions::from_mode(0o666)).unwrap();
    for name in ["pg_config", "postgres", "initdb", "id"] {
        let script = format!(
            "#!/bin/sh\n{{ id -u; env; }} >>'{}'\nexit 1\n",
            said.display()
        );
        fs::write(programs.join(name), script).unwrap();
        fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let gateway = place
        .run("serve")
        .env("PATH", &path)
        .env("API_KEYS", "ops:env-secret-1")
        .env("WEBHOOK_SECRET", "env-secret-2")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=env-secret-3")
        .env("PGPASSWORD", "env-secret-4")
        .env("DATABASE_URL", " ")
        .start();
    gateway.logged("ready").await;
    let postmaster = eventually("a postmaster", async || {
        let file = fs::read_to_string(place.path(".gateway/cluster/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse::<u32>().ok()
    })
    .await;
    let parent = fs::read_to_string(format!("/proc/{postmaster}/status")).unwrap();
    let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:"));
    let shell: u32 = parent.unwrap().trim().parse().unwrap();
    for (what, pid) in [("the shell", shell), ("the server", postmaster)] {
        let names = environment(pid);
        assert_eq!(names, ["LC_ALL", "PATH", "TZ"], "{what}");
        let all = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(
            !String::from_utf8_lossy(&all).contains("env-secret"),
            "{what}"
        );
    }
    let said = fs::read_to_string(&said).unwrap();
    assert!(!said.contains("env-secret"), "{said}");
    if rustix::process::geteuid().is_root() {
        // Others can change that place, since temporary directories are sticky.
        assert_eq!(said, "");
    } else {
        assert!(said.contains("LC_ALL"), "{said}");
    }
}
