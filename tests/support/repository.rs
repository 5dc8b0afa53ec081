//! The files of the repository: its texts, and its statements as they are prepared.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The text of a file, by its path from the top.
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The paths of all files under a folder, from the top.
pub fn files(folder: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(root).unwrap();
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files
}

/// A statement of the program.
pub struct Statement {
    /// With its header, such as `-- delivery::claim`.
    pub sql: String,
    /// The types of its parameters.
    pub parameters: Vec<String>,
}

impl Statement {
    /// What its header says, such as `delivery::claim`.
    pub fn name(&self) -> &str {
        let header = self.sql.lines().next().unwrap();
        header.trim_start_matches("-- ")
    }
}

/// All of them.
pub fn statements() -> Vec<Statement> {
    let statement = |path: String| {
        let query: Value = serde_json::from_str(&read(&path)).unwrap();
        let parameters = query["describe"]["parameters"]["Left"].as_array().unwrap();
        Statement {
            sql: query["query"].as_str().unwrap().to_owned(),
            parameters: parameters.iter().map(Value::to_string).collect(),
        }
    };
    files(".sqlx").into_iter().map(statement).collect()
}

/// The SQL of the statement with this name.
pub fn statement(name: &str) -> String {
    let found = statements().into_iter().find(|found| found.name() == name);
    found.unwrap_or_else(|| panic!("no statement {name}")).sql
}
