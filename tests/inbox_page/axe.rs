//! axe-core, which finds what people with other senses or hands cannot use. It comes from npm when
//! the tests run, and is never part of this repository.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::chromium::is_on_path;
use crate::page::Page;
use crate::stage::artefact;

const VERSION: &str = "4.10.3";

/// What axe-core finds wrong; none where it cannot be had.
pub async fn faults(page: &Page) -> Vec<String> {
    static AXE: OnceLock<Option<String>> = OnceLock::new();
    let axe = tokio::task::spawn_blocking(|| AXE.get_or_init(get).clone());
    let Some(axe) = axe.await.unwrap() else {
        return Vec::new();
    };
    page.driver.execute(axe, Vec::new()).await.unwrap();
    let script = "const done = arguments[arguments.length - 1];
        axe.run(document, { resultTypes: ['violations'] }).then((all) => done(all.violations.flatMap(
          ({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html} ${node.failureSummary}`))),
          (error) => done([String(error)]))";
    let found = page.driver.execute_async(script, Vec::new()).await.unwrap();
    let found = found.json().as_array().unwrap().clone();
    found.iter().map(Value::to_string).collect()
}

#[allow(clippy::print_stderr)] // where a test says what it did not do
fn get() -> Option<String> {
    let folder = artefact(&format!("axe-core-{VERSION}"));
    let file: PathBuf = folder.join("node_modules/axe-core/axe.min.js");
    if !file.is_file() && !is_on_path("npm") {
        assert!(std::env::var_os("CI").is_none(), "npm is missing");
        eprintln!("SKIPPED: nothing is said of accessibility, there is no npm");
        return None;
    }
    if !file.is_file() {
        let installed = Command::new("npm")
            .args([
                "install",
                "--no-save",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
            ])
            .arg("--prefix")
            .arg(&folder)
            .arg(format!("axe-core@{VERSION}"))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&installed.stderr);
        assert!(installed.status.success(), "{words}");
    }
    Some(std::fs::read_to_string(file).unwrap())
}
