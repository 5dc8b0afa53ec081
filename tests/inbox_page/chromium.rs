//! A real browser: one chromedriver for all tests, and a browser with a new profile for each page.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use thirtyfour::{ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver};

/// Runs it until standard input ends: then whoever held the other end of the pipe is gone.
const SCRIPT: &str = r#"
trap '' TERM
mkdir -p "$TMPDIR"
(trap - TERM; exec chromedriver --port=0) &
while read -r _; do :; done
kill -s TERM 0
wait
rm -rf "$TMPDIR"
kill -s KILL 0
"#;
const FLAGS: [&str; 13] = [
    "--headless=new",
    "--no-sandbox", // which a root has not
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
    "--window-size=1280,800",
    "--host-resolver-rules=MAP inbox.test 127.0.0.1",
    "--remote-debugging-pipe",
];
/// How long a script waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there is a browser. Without one nothing can be said of the page: where nobody looks on,
/// that is a failure.
pub fn is_here() -> bool {
    let is_here = is_on_path("chromedriver");
    let is_watched = std::env::var_os("CI").is_none();
    assert!(
        is_here || is_watched,
        "chromedriver and Chromium are missing (Debian: chromium chromium-driver)"
    );
    is_here
}

pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A browser with a profile of its own.
pub async fn start() -> WebDriver {
    static URL: OnceLock<String> = OnceLock::new();
    let url = tokio::task::spawn_blocking(|| URL.get_or_init(start_driver).clone());
    let mut wishes = DesiredCapabilities::chrome();
    for flag in FLAGS {
        wishes.add_arg(flag).unwrap();
    }
    wishes
        .set_browser_log_level(LoggingPrefsLogLevel::All)
        .unwrap();
    let driver = WebDriver::new(url.await.unwrap(), wishes).await.unwrap();
    driver.set_script_timeout(PATIENCE).await.unwrap();
    driver
}

/// Where it listens. It ends with this process, which holds its standard input.
fn start_driver() -> String {
    let scratch = std::env::temp_dir().join(format!("gateway-chromium-{}", std::process::id()));
    let mut driver = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .env("TMPDIR", scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.find_map(|line| {
        let line = line.unwrap();
        let (_, port) = line.split_once("started successfully on port ")?;
        Some(port.trim_end_matches('.').to_owned())
    });
    let port = port.expect("chromedriver does not start");
    std::thread::spawn(move || lines.for_each(drop));
    std::mem::forget(driver);
    format!("http://127.0.0.1:{port}")
}
