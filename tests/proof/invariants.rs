//! The invariants that can be seen in the text of the program.

use std::collections::BTreeSet;

use crate::support::{files, read, statements};

/// A source file without its tests and comments.
pub struct Source {
    /// Relative to the repository, such as `src/message/store.rs`.
    pub path: String,
    /// As it is.
    text: String,
    /// Without its tests and whole-line comments.
    pub code: String,
}

impl Source {
    pub fn is_store(&self) -> bool {
        self.path.ends_with("/store.rs") || self.path.contains("/store/")
    }

    /// Lines of the code that have one of these in them.
    fn lines_with(&self, patterns: &[&str]) -> Vec<String> {
        let lines = self
            .code
            .lines()
            .filter(|line| patterns.iter().any(|pattern| line.contains(pattern)));
        lines
            .map(|line| format!("{}: {}", self.path, line.trim()))
            .collect()
    }
}

/// Every source file under a folder of the repository.
pub fn sources(folder: &str) -> Vec<Source> {
    let paths = files(folder).into_iter();
    let paths = paths.filter(|path| path.strip_suffix(".rs").is_some());
    let all: BTreeSet<String> = files(folder).into_iter().collect();
    let paths = paths.filter(|path| !is_for_tests(path, &all));
    let sources = paths.map(|path| {
        let text = read(&path);
        let program = text.split("\n#[cfg(test)]").next().unwrap();
        let lines = program
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.collect::<Vec<_>>().join("\n");
        Source { path, text, code }
    });
    let sources: Vec<_> = sources.collect();
    assert!(sources.len() > 5, "nothing under {folder}");
    sources
}

/// Whether a file is a module of tests only.
fn is_for_tests(path: &str, all: &BTreeSet<String>) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap();
    let declares = format!("#[cfg(test)]\nmod {};", name.strip_suffix(".rs").unwrap());
    let parent = format!("{folder}/mod.rs");
    all.contains(&parent) && read(&parent).contains(&declares)
}

/// Asserts that these are only in the files that `may` have them, and that those do.
#[track_caller]
fn assert_only(patterns: &[&str], may: impl Fn(&Source) -> bool) {
    let (allowed, others): (Vec<_>, Vec<_>) =
        sources("src").into_iter().partition(|source| may(source));
    let found: Vec<_> = others
        .iter()
        .flat_map(|source| source.lines_with(patterns))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    // Else the pattern has gone out of date, and this test with it.
    assert!(
        allowed.is_empty()
            || allowed
                .iter()
                .any(|source| !source.lines_with(patterns).is_empty())
    );
}

#[test]
fn sql_is_in_store_files_only() {
    let calls = [
        "sqlx::query",
        "query!(",
        "query_as!(",
        "query_scalar!(",
        "raw_sql(",
        "QueryBuilder",
    ];
    assert_only(&calls, Source::is_store);
    assert_only(
        &[
            ".execute(",
            ".fetch_one(",
            ".fetch_all(",
            ".fetch_optional(",
            ".fetch(",
        ],
        Source::is_store,
    );
}

#[test]
fn nothing_begins_a_transaction() {
    let calls = [
        ".begin()",
        ".begin_with(",
        ".try_begin()",
        "Transaction",
        ".transaction(",
    ];
    // But migrations, which are many statements.
    assert_only(&calls, |source| source.path == "src/database/apply.rs");
    assert_only(&["\"begin", "\"start transaction", "for share"], |_| false);
    // But for what the gateway's burst is compared with.
    assert_only(&["begin\",", "commit\","], |source| {
        source.path == "src/cli/simulate/baseline/store.rs"
    });
}

#[test]
fn only_the_settling_statements_write_sent_or_failed() {
    assert_only(&["'SENT'", "'FAILED'"], |source| {
        ["src/delivery/store.rs", "src/delivery/store/outcomes.rs"].contains(&&*source.path)
    });
    // And what forgets a customer, and what has come about a message, but those write no status.
    assert_only(&["update messages"], |source| {
        [
            "src/delivery/store.rs",
            "src/delivery/store/outcomes.rs",
            "src/forget/store.rs",
            "src/amendment/store.rs",
        ]
        .contains(&&*source.path)
    });
    let of = |status: &str| -> BTreeSet<String> {
        let writes = format!("set status = '{status}'");
        let all = statements().into_iter();
        let writers = all.filter(|statement| statement.sql.contains(&writes));
        writers
            .map(|statement| statement.name().to_owned())
            .collect()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(of("SENT"), names(&["delivery::mark_sent"]));
    assert_eq!(
        of("FAILED"),
        names(&["delivery::cancel", "delivery::mark_failed"])
    );
}

#[test]
fn statuses_of_http_are_in_its_own_files_only() {
    let may =
        |source: &Source| source.path.starts_with("src/http/") || source.path.ends_with("/http.rs");
    assert_only(&["StatusCode", "http::status"], may);
}

#[test]
fn only_the_output_prints() {
    assert_only(&["println!", "print!(", "dbg!"], |_| false);
    // Lines that others have made: those of the log, and talk.
    let printers = ["src/cli/output.rs", "src/process/stderr.rs"];
    assert_only(&["stdout()", "stderr()"], |source| {
        // It asks whether the log goes to a terminal.
        printers.contains(&&*source.path) || source.path == "src/telemetry/log.rs"
    });
    assert_only(
        &[
            "stdout().lock",
            "stderr().lock",
            "(std::io::stderr(),",
            "writeln!(io",
        ],
        |source| printers.contains(&&*source.path),
    );
}

#[test]
fn nothing_outside_tests_may_panic_on_purpose() {
    let calls = [
        ".unwrap()",
        ".unwrap_err()",
        ".expect_err(",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
    ];
    assert_only(&calls, |_| false);
}

#[test]
fn whatever_is_expected_says_why_it_holds() {
    const LEAST_WORDS: usize = 3;
    let folders = ["src", "mock-meta-provider/src"];
    let mut bare = Vec::new();
    for source in folders.into_iter().flat_map(sources) {
        for after in source.code.split(".expect(").skip(1).map(str::trim_start) {
            let reason = after
                .strip_prefix('"')
                .and_then(|text| text.split_once('"'));
            let (reason, _) = reason.unwrap_or_default();
            if reason.split_whitespace().count() < LEAST_WORDS {
                let line = after.lines().next().unwrap_or_default();
                bare.push(format!("{}: .expect({line}", source.path));
            }
        }
    }
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn only_a_build_for_the_proof_by_crash_can_be_told_to_die() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_gateway")).unwrap();
    let has = |name: &str| {
        let mut places = program.windows(name.len());
        places.any(|place| place == name.as_bytes())
    };
    assert!(has("GATEWAY_DATA_DIR"));
    assert_eq!(has("GATEWAY_CRASH_AT"), cfg!(feature = "crash-points"));
}

#[test]
fn every_file_begins_with_what_it_promises() {
    for source in sources("src")
        .into_iter()
        .chain(sources("mock-meta-provider/src"))
    {
        assert!(source.text.starts_with("//! "), "{}", source.path);
    }
}

#[test]
fn every_field_of_a_request_is_validated() {
    let is_field = |line: &&str| {
        let kind = line.split_once(": ").map_or("", |(_, kind)| kind);
        kind.starts_with("Parsed<") || kind.starts_with("Option<Parsed<")
    };
    let mut found = 0;
    for source in sources("src") {
        if source.path.ends_with("/http.rs") {
            let fields = source.code.lines().filter(is_field).count();
            let validated = source
                .code
                .matches("#[validate(custom(function = parsed))]");
            assert_eq!(validated.count(), fields, "{}", source.path);
            found += fields;
        } else if source.code.contains("impl Validate for ") {
            for field in source.code.lines().filter(is_field) {
                let name = field.trim().split(':').next().unwrap();
                let looked_at = [
                    format!("parsed(&self.{name})"),
                    format!("optional(self.{name}.as_ref())"),
                ];
                let is_looked_at = looked_at.iter().any(|call| source.code.contains(call));
                assert!(is_looked_at, "{}: {name}", source.path);
                found += 1;
            }
        }
    }
    assert!(found >= 25, "{found}");
}
