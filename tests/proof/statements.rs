//! The invariants that can be seen in the text of the statements.

use super::invariants::{Source, sources};
use crate::support::{Statement, files, read, statements as prepared};

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
