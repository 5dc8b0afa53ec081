//! Keeps the server running while the gateway lives, and stops it however the gateway ends.
//!
//! A shell between the two does that. `PR_SET_PDEATHSIG` would not: it fires when the *thread* that
//! started the server ends, it needs `unsafe`, and only Linux has it. A pipe closes exactly when
//! the gateway is gone.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::data_dir::{DataDir, PORT};
use super::error::{EmbeddedError, failed};
use super::folder::Folder;
use super::programs::Programs;

/// Runs the server until it ends, or until standard input closes: then the gateway is gone.
///
/// The arguments are the server's command line. Standard error is the log. Standard output is the
/// lock of the data directory: the shell and the server keep it open. The watcher does not, since
/// it could otherwise hold the lock after they have ended. The interrupt is repeated because the
/// server may not listen yet when the first one comes. The last signal ends a server that does not
/// finish its checkpoint; the next start recovers that.
const SCRIPT: &str = r#"
umask 077
unset PWD OLDPWD SHLVL
trap '' HUP INT TERM
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    while read -r _ <&3; do :; done
    for signal in INT INT INT INT INT QUIT; do
        kill -s "$signal" "$server" || exit
        sleep 1
    done
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill -s KILL "$watcher"
exit "$status"
"#;

/// The settings of every server. The first three are PostgreSQL's defaults, but the gateway
/// promises them.
const SETTINGS: [&str; 11] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=100",
    "logging_collector=off",
    "log_destination=stderr",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
];

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A server that has run this long did not fail at its start.
const STEADY: Duration = Duration::from_mins(1);

/// A supervised server. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Server {
    launch: Arc<Launch>,
    shared: Arc<Shared>,
    _owner: File,
}

impl Server {
    /// Starts the server, without waiting until it is ready. Until [`Self::keep_running`] is
    /// called, it is not restarted.
    pub(super) fn start(
        directory: DataDir,
        owner: File,
        programs: &Programs,
        socket: Arc<Folder>,
        settings: Vec<String>,
        lock: File,
    ) -> Result<Self, EmbeddedError> {
        directory.rotate_log()?;
        let command = command_line(&directory, programs, socket.path(), settings);
        let launch = Arc::new(Launch {
            directory,
            socket,
            command,
        });
        let shared = Arc::new(Shared::default());
        let server = Self {
            launch,
            shared,
            _owner: owner,
        };
        let shell = server.shared.hold(server.launch.spawn(lock)?);
        let (launch, shared) = (Arc::clone(&server.launch), Arc::clone(&server.shared));
        let thread = thread::Builder::new().name("postgres".to_owned());
        let spawned = thread.spawn(move || supervise(&launch, &shared, shell));
        spawned.map_err(failed("start a thread for", server.launch.directory.path()))?;
        Ok(server)
    }

    /// Fails if the server has ended.
    pub(super) fn check(&self) -> Result<(), EmbeddedError> {
        if self.shared.lock().phase != Phase::Ended {
            return Ok(());
        }
        let directory = &self.launch.directory;
        let (log, tail) = (directory.log_file(), directory.log_tail()?);
        Err(EmbeddedError::NotStarted { log, tail })
    }

    /// From now on the server is restarted whenever it ends by itself. Fails if it has ended
    /// already.
    pub(super) fn keep_running(&self) -> Result<(), EmbeddedError> {
        self.shared.started();
        self.check()
    }

    /// Stops the server, and waits until none of its processes is left.
    pub(super) fn stop(self) -> Result<(), EmbeddedError> {
        self.shared.close();
        self.launch.directory.wait_for_server_lock().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What is needed to start the server, again and again.
#[derive(Debug)]
struct Launch {
    directory: DataDir,
    socket: Arc<Folder>,
    command: Vec<OsString>,
}

impl Launch {
    fn spawn(&self, lock: File) -> Result<Child, EmbeddedError> {
        self.directory.remove_stale(&self.socket, &lock)?;
        let mut shell = self.directory.account().command("/bin/sh");
        shell
            .args(["-c", SCRIPT, "gateway-postgres"])
            .args(&self.command);
        shell
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(self.directory.log()?);
        shell.spawn().map_err(failed("run", Path::new("/bin/sh")))
    }

    /// None while processes of the last server are left.
    fn spawn_again(&self) -> Result<Option<Child>, EmbeddedError> {
        self.directory
            .try_lock_server()?
            .map(|lock| self.spawn(lock))
            .transpose()
    }
}

/// What the supervising thread and the owner of the server tell each other. The thread blocks on
/// the shell's end, so it is not a task; a condition variable wakes it from its pause when the
/// owner stops the server.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The server lives as long as this is open.
    pipe: Option<ChildStdin>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Running,
    Ended,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the pipe open until [`Self::close`].
    fn hold(&self, mut shell: Child) -> Child {
        let mut state = self.lock();
        state.pipe = shell.stdin.take().filter(|_| state.phase != Phase::Ended);
        shell
    }

    fn started(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Starting {
            state.phase = Phase::Running;
        }
    }

    fn close(&self) {
        *self.lock() = State {
            phase: Phase::Ended,
            pipe: None,
        };
        self.changed.notify_all();
    }

    /// Returns false if the server is to stay stopped.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), pause, |state| state.phase == Phase::Running);
        waited.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Running
    }

    /// Returns true if the server is to be restarted. Closes the pipe, so that nothing of the shell
    /// is left.
    fn ended(&self) -> bool {
        let mut state = self.lock();
        state.pipe = None;
        if state.phase == Phase::Starting {
            state.phase = Phase::Ended;
        }
        state.phase == Phase::Running
    }
}

fn supervise(launch: &Launch, shared: &Shared, mut shell: Child) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let status = shell.wait();
        if !shared.ended() {
            return;
        }
        tracing::warn!(?status, log = %launch.directory.log_file().display(), "PostgreSQL ended unexpectedly, restarting it");
        if began.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        let mut wait = pause;
        pause = LONGEST_PAUSE.min(pause * 2);
        shell = loop {
            if !shared.pause(wait) {
                return;
            }
            match launch.spawn_again() {
                Ok(Some(shell)) => break shared.hold(shell),
                // Processes of the last server are left for a moment.
                Ok(None) => wait = FIRST_PAUSE,
                Err(error) => {
                    wait = LONGEST_PAUSE;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot restart PostgreSQL"
                    );
                }
            }
        };
    }
}

fn command_line(
    directory: &DataDir,
    programs: &Programs,
    socket: &Path,
    settings: Vec<String>,
) -> Vec<OsString> {
    // The setting is a list, in which a quoted name may contain anything.
    let socket = socket.to_string_lossy().replace('"', "\"\"");
    let mut command: Vec<OsString> = vec![
        programs.path("postgres").into(),
        "-D".into(),
        directory.cluster().into(),
    ];
    let own = [
        format!("port={PORT}"),
        format!("unix_socket_directories=\"{socket}\""),
    ];
    for setting in SETTINGS
        .iter()
        .map(ToString::to_string)
        .chain(own)
        .chain(settings)
    {
        command.extend(["-c".into(), setting.into()]);
    }
    command
}
