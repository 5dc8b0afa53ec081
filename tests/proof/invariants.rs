//! The invariants that can be seen in the text of the program.

use std::collections::BTreeSet;

use crate::support::{Statement, files, read, statements as prepared};

/// A source file without its tests and comments.
struct Source {
    /// Relative to the repository, such as `src/message/store.rs`.
    path: String,
    /// As it is.
    text: String,
    /// Without its tests and whole-line comments.
    code: String,
}

impl Source {
    fn is_store(&self) -> bool {
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
fn sources(folder: &str) -> Vec<Source> {
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
        let all = prepared().into_iter();
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
fn whatever_changes_what_the_api_shows_says_so() {
    let all = prepared().into_iter();
    let mut texts: Vec<(String, String)> = all
        .map(|statement| (statement.name().to_owned(), statement.sql))
        .collect();
    let scripts = files("seeds").into_iter();
    let scripts = scripts.filter(|path| path.strip_suffix(".sql").is_some());
    texts.extend(scripts.map(|path| (path.clone(), read(&path))));
    let writes = |sql: &str| {
        ["conversations", "messages", "receipts"]
            .iter()
            .any(|table| {
                // A receipt that is deleted is none of a message.
                let deletes = ["delete from"].into_iter().filter(|_| *table != "receipts");
                ["insert into", "update"]
                    .into_iter()
                    .chain(deletes)
                    .any(|verb| {
                        let mut places = sql
                            .match_indices(&format!("{verb} {table}"))
                            .map(|(at, found)| at + found.len())
                            .collect::<Vec<_>>()
                            .into_iter();
                        places.any(|end| {
                            !sql[end..]
                                .starts_with(|next: char| next == '_' || next.is_alphanumeric())
                        })
                    })
            })
    };
    let mut telling = 0;
    for (name, sql) in texts {
        let told = sql.matches("insert into changes").count();
        assert_eq!(told, usize::from(writes(&sql)), "{name}");
        telling += told;
    }
    assert!(telling >= 12, "{telling}");
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

/// What begins a statement; a `fn` begins the function that the next ones stand in.
const BEGINNINGS: [&str; 13] = [
    "fn ",
    "query!(",
    "query_as!(",
    "query_scalar!(",
    "query_conversations!(",
    "query_list!(",
    "query_messages!(",
    "query_claimed!(",
    "query_settled!(",
    "query_states!(",
    "query(",
    "query_scalar(",
    "raw_sql(",
];

/// Each call with a statement: the function that it stands in, and what follows the call's name.
fn calls(source: &Source) -> Vec<(&str, &str)> {
    // What the macros of a file complete is looked at where they are used.
    let mut parts = source.code.split("macro_rules!");
    let first = parts.next();
    let behind = parts.filter_map(|part| Some(part.split_once("\n}\n")?.1));
    first.into_iter().chain(behind).flat_map(calls_in).collect()
}

fn calls_in(mut rest: &str) -> Vec<(&str, &str)> {
    let mut calls = Vec::new();
    let mut function = "";
    let next = |text: &str| {
        let found = BEGINNINGS
            .iter()
            .filter_map(|name| Some((text.find(name)?, *name)));
        found.min()
    };
    while let Some((at, name)) = next(rest) {
        rest = &rest[at + name.len()..];
        if name == "fn " {
            function = rest.split(['(', '<']).next().unwrap();
        } else {
            calls.push((function, rest));
        }
    }
    calls
}

/// Each statement that is written out, with the function that it stands in.
fn statements(source: &Source) -> Vec<(&str, &str)> {
    let literals = calls(source).into_iter().filter_map(|(function, call)| {
        let (before, literal) = call.split_once('"')?;
        // A script that a variable holds comes from elsewhere.
        let is_written_out = !before.contains(')');
        let end = if before.ends_with('#') { "\"#" } else { "\"" };
        is_written_out.then(|| (function, literal.split(end).next().unwrap()))
    });
    literals.collect()
}

#[test]
fn every_statement_says_where_it_stands() {
    let mut found = 0;
    for source in sources("src").iter().filter(|source| source.is_store()) {
        let mut folders = source.path.split('/').rev().skip(1);
        let module = folders.find(|folder| *folder != "store").unwrap();
        for (function, sql) in statements(source) {
            found += 1;
            let header = format!("-- {module}::{function}\n");
            assert!(
                sql.starts_with(&header),
                "{} in {function}: {}",
                source.path,
                sql.lines().next().unwrap()
            );
        }
    }
    assert!(found >= 25, "{found}");
}

/// What is written like a function's call, but is a part of the language; and the functions whose
/// arguments are exactly what these statements give them, so that PostgreSQL's own comes first.
const CALLED_BY_NAME: [&str; 33] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "check",
    "coalesce",
    "else",
    "exists",
    "extract",
    "filter",
    "from",
    "greatest",
    "in",
    "lateral",
    "least",
    "materialized",
    "nullif",
    "or",
    "over",
    "select",
    "using",
    "values",
    "when",
    "where",
    "then",
    // Functions.
    "current_database",
    "current_setting",
    "floor",
    "left",
    "now",
    "pg_is_in_recovery",
    "row_number",
];

/// What a statement sets, of each column that it sets.
fn assignments(sql: &str) -> Vec<String> {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap());
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let code = words.join(" ");
    let mut assignments = Vec::new();
    for part in code.split(" set ").skip(1) {
        let ends = [" from ", " where ", " returning "].iter();
        let end = ends.filter_map(|word| part.find(word)).min();
        let mut depth = 0;
        let mut assignment = String::new();
        for character in part[..end.unwrap_or(part.len())].chars().chain([',']) {
            match character {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if character == ',' && depth == 0 {
                let (_, value) = assignment.split_once(" = ").unwrap();
                assignments.push(value.trim().to_owned());
                assignment.clear();
            } else {
                assignment.push(character);
            }
        }
    }
    assignments
}

#[test]
fn an_update_that_sets_a_time_made_of_a_column_finds_it_in_a_select() {
    let mut set = Vec::new();
    for statement in prepared() {
        set.extend(assignments(&statement.sql));
    }
    assert!(set.len() > 40, "{}", set.len());
    // Databases that send a statement to other machines cannot run these there.
    let refused = |value: &&String| {
        let is_time = |word: &str| word.ends_with("_at") || word.ends_with("until");
        let of_now = value.strip_prefix("now() + pg_catalog.make_interval(secs => $");
        let is_plain = *value == "now()" || of_now.is_some_and(|rest| rest.len() < 4);
        let computes = value.contains(" + ") || value.contains(" - ");
        !is_plain
            && (value.contains("now()")
                || value.contains("interval")
                || computes && value.split([' ', '(', ')']).any(is_time))
    };
    let refused: Vec<_> = set.iter().filter(refused).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn no_statement_calls_a_function_that_another_role_could_match_better() {
    let mut scripts = Vec::new();
    for path in [files("seeds"), files("migrations")].concat() {
        let script = read(&path);
        scripts.push((path, script));
    }
    // As they are prepared, with what the macros add.
    for statement in prepared() {
        scripts.push((statement.name().to_owned(), statement.sql));
    }
    for source in sources("src").iter().filter(|source| source.is_store()) {
        for (function, sql) in statements(source) {
            scripts.push((format!("{}: {function}", source.path), sql.to_owned()));
        }
    }
    assert!(scripts.len() > 60, "{}", scripts.len());
    let mut found = Vec::new();
    for (place, sql) in &scripts {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap());
        let code = lines.collect::<Vec<_>>().join("\n");
        // Every second part is within quotes.
        let code: String = code.split('\'').step_by(2).collect::<Vec<_>>().join("''");
        for (at, _) in code.match_indices('(') {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let before = &code[..at];
            let name = &before[before.trim_end_matches(is_part).len()..];
            let arguments = code[at + 1..].split(')').next().unwrap();
            let is_safe = match name {
                // Also a type's length.
                "" | "bit" | "length" => true,
                "count" => arguments == "*",
                // PostgreSQL itself writes several of these out as its own.
                "unnest" => arguments.contains(','),
                // Their arguments are a time or a text, exactly.
                "max" | "min" => !place.contains("seeds") || !arguments.contains("::"),
                name => name.starts_with("pg_catalog.") || CALLED_BY_NAME.contains(&name),
            };
            let declares = [
                "insert into ",
                "table ",
                "index ",
                "references ",
                "as ",
                "on ",
            ];
            let is_declared = declares.iter().any(|word| {
                let before = before[..before.len() - name.len()].trim_end_matches(' ');
                before.ends_with(word.trim_end())
            });
            if !is_safe && !is_declared && !is_alias(&code, name) {
                found.push(format!("{place}: {name}({arguments})"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Whether this is the name of a common table expression.
fn is_alias(code: &str, name: &str) -> bool {
    code.contains(&format!("with {name} (")) || code.contains(&format!("), {name} ("))
}

#[test]
fn the_check_of_a_connection_knows_every_table() {
    for path in files("migrations") {
        let sql = read(&path);
        for made in sql.split("create table ").skip(1) {
            let name = made.split([' ', '(']).next().unwrap();
            assert!(gateway::database::TABLES.contains(&name), "{name}");
        }
    }
}

/// Behind a pooler that begins to mix up sessions, a statement may meet another's parameters. Where
/// those are of other types, or more or less of them, it is an error, and nothing is changed.
#[test]
fn what_a_get_runs_has_other_parameters_than_whatever_changes_something() {
    let statements = prepared();
    let changes = |statement: &&Statement| {
        let writes = ["insert into ", "update ", "delete from "];
        writes.iter().any(|write| statement.sql.contains(write))
    };
    let (changing, reading): (Vec<_>, Vec<_>) = statements.iter().partition(changes);
    assert!(changing.len() > 10 && reading.len() > 10);
    let mut found = Vec::new();
    for reading in reading {
        let name = reading.name();
        // Only commands run the others.
        let is_of_a_get = ["conversation::", "message::", "session::"]
            .iter()
            .any(|module| name.starts_with(module))
            && name != "message::list_by_id";
        for changing in &changing {
            if is_of_a_get && reading.parameters == changing.parameters {
                let (other, parameters) = (changing.name(), &reading.parameters);
                found.push(format!("{name} and {other}: {parameters:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
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
