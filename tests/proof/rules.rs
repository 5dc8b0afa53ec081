//! The rules of SCHEMA.md: each names what keeps it, and whatever keeps one is named.

use std::collections::BTreeSet;

use crate::support::{Database, Statement, files, read, statements};

/// What is between backticks.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Each rule with what keeps it.
fn rules() -> Vec<(String, Vec<String>)> {
    let schema = read("SCHEMA.md");
    let mut rules = Vec::new();
    let mut is_in_table = false;
    for line in schema.lines() {
        if line.starts_with("| Rule |") {
            assert_eq!(line, "| Rule | Without it | Kept by |");
            is_in_table = true;
        } else if !line.starts_with('|') {
            is_in_table = false;
        } else if is_in_table && !line.starts_with("|---") {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let ["", rule, _, keepers, ""] = cells[..] else {
                panic!("not three cells: {line}");
            };
            let names = code_spans(keepers);
            let list = format!("`{}`", names.join("`, `"));
            assert_eq!(list, keepers, "what keeps a rule is a list of names");
            let names = names.into_iter().map(str::to_owned).collect();
            rules.push((rule.to_owned(), names));
        }
    }
    assert!(rules.len() > 50, "{}", rules.len());
    rules
}

/// The tests that are run, such as `delivery::backoff::the_budget_counts_settled_failures`.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let ci = read(".ci/run");
    for folder in ["src", "tests"] {
        for path in files(folder) {
            let Some(module) = path.strip_suffix(".rs") else {
                continue;
            };
            let module = module[folder.len() + 1..].trim_end_matches("/mod");
            let module = module.replace('/', "::");
            let text = read(&path);
            let mut attributes = Vec::new();
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[") {
                    attributes.push(line);
                } else if let Some((_, signature)) = line.split_once("fn ") {
                    let is_test = |a: &&str| *a == "#[test]" || a.starts_with("#[tokio::test");
                    let is_ignored = attributes.iter().any(|a| a.starts_with("#[ignore"));
                    let is_run = !is_ignored || ci.contains(&format!(" {module}:: -- --ignored"));
                    if attributes.iter().any(is_test) && is_run {
                        let name = signature.split('(').next().unwrap();
                        tests.insert(format!("{module}::{name}"));
                    }
                    attributes.clear();
                } else {
                    attributes.clear();
                }
            }
        }
    }
    assert!(tests.len() > 400, "{}", tests.len());
    tests
}

/// The rules that the models can do without, such as `Rule::Token`. Each must have a story.
fn stories() -> BTreeSet<String> {
    let of_engine = stories_in("tests/proof/model");
    let of_feed = stories_in("tests/proof/model/feed");
    let of_whatsapp = stories_in("tests/proof/model/whatsapp");
    let all = &(&of_engine | &of_feed) | &of_whatsapp;
    let count = of_engine.len() + of_feed.len() + of_whatsapp.len();
    assert_eq!(all.len(), count, "one name for two rules");
    all
}

fn stories_in(folder: &str) -> BTreeSet<String> {
    let rules = read(&format!("{folder}/rules.rs"));
    let (_, variants) = rules.split_once("pub enum Rule {\n").unwrap();
    let (variants, _) = variants.split_once("\n}\n").unwrap();
    let lines = variants.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_suffix(','));
    let stories: BTreeSet<String> = names
        .filter(|name| !name.starts_with("//"))
        .map(|name| format!("Rule::{name}"))
        .collect();
    assert!(stories.len() >= 10, "{stories:?}");
    let text = read(&format!("{folder}/stories.rs"));
    let words = text.split(|c: char| !c.is_alphanumeric() && c != ':');
    let told: BTreeSet<&str> = words.collect();
    for story in &stories {
        assert!(told.contains(&**story), "no story is about {story}");
    }
    stories
}

/// The rules that the stress program can take away, such as `no_fence`.
fn breaks() -> BTreeSet<String> {
    let text = read("tests/stress/breaks.py");
    let names = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("    \"")?.split_once("\": Break(")?;
        Some(name.to_owned())
    });
    let breaks: BTreeSet<String> = names.collect();
    assert!(breaks.len() > 10, "{breaks:?}");
    breaks
}

#[test]
fn each_rule_is_kept_by_something_that_exists() {
    let (tests, stories, breaks) = (tests(), stories(), breaks());
    let mut wrong = Vec::new();
    for (rule, keepers) in rules() {
        for name in keepers {
            let ending = format!("::{name}");
            let found = if name.starts_with("Rule::") {
                usize::from(stories.contains(&name))
            } else if name.contains("::") {
                // A module may be in another.
                let is_it = |test: &&String| **test == name || test.ends_with(&ending);
                tests.iter().filter(is_it).count()
            } else {
                usize::from(breaks.contains(&name))
            };
            if found != 1 {
                wrong.push(format!("{found} are called {name}, which keeps: {rule}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_rule_that_can_be_taken_away_is_one_of_the_schema() {
    let named: BTreeSet<String> = rules().into_iter().flat_map(|(_, names)| names).collect();
    let can_be_taken_away: BTreeSet<String> = stories().union(&breaks()).cloned().collect();
    let missing: Vec<_> = can_be_taken_away.difference(&named).collect();
    assert!(missing.is_empty(), "SCHEMA.md says nothing of {missing:#?}");
}

#[test]
fn the_queue_is_given_no_time_of_anybodys_clock() {
    let changes = [
        "insert into deliveries",
        "update deliveries",
        "update channels",
    ];
    let statements = statements();
    let mut changing = 0;
    for Statement { sql, parameters } in &statements {
        if changes.iter().any(|change| sql.contains(change)) {
            changing += 1;
            let has_time = parameters.iter().any(|name| name.contains("Time"));
            assert!(!has_time, "{sql}");
        }
    }
    assert!(changing >= 7, "{changing}");
    // Else the types are called something else by now.
    let others = statements.iter().flat_map(|sql| &sql.parameters);
    assert!(others.into_iter().any(|name| name.contains("Time")));
}

/// The condition of each state of a delivery, as `src/delivery/states.rs` has it.
fn states() -> Vec<(String, String)> {
    let text = read("src/delivery/states.rs");
    let arms = text.split(" $of:tt [").skip(1);
    let states = arms.filter_map(|arm| {
        let (name, rest) = arm.split_once(" $($rest:tt)*]")?;
        let (_, condition) = rest.split_once("@add \"")?;
        let (condition, _) = condition.split_once('"')?;
        name.chars()
            .all(char::is_alphabetic)
            .then(|| (name.to_owned(), condition.to_owned()))
    });
    states.collect()
}

#[tokio::test]
async fn a_delivery_is_in_one_state_at_any_time() {
    let states = states();
    let names: Vec<&str> = states.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["due", "leased", "waiting", "blocked", "parked"]);
    let conditions: Vec<String> = states
        .iter()
        .map(|(_, condition)| format!("coalesce(({condition})::int, 0)"))
        .collect();
    let sql = format!(
        "select count(*) from (values (now() - interval '1 s'), (now()), (now() + interval '1 s'), (null)) d(due_at)
         cross join (values (gen_random_uuid()), (null)) l(lease_token) cross join (values (0), (1), (7)) a(attempt)
         where (due_at is not null or lease_token is null) and {} <> 1",
        conditions.join(" + ")
    );
    assert_eq!(Database::new().await.count(&sql).await, 0);
}

#[test]
fn no_index_moves_when_a_message_gets_another_status() {
    let mut indexes = 0;
    for path in files("migrations") {
        for statement in read(&path).split(';') {
            let of_messages = statement.split_once(" on messages (");
            if let Some((_, columns)) = of_messages.filter(|(index, _)| index.contains("index ")) {
                indexes += 1;
                assert!(!columns.contains("status"), "{path}: {statement}");
            }
        }
    }
    assert!(indexes >= 3, "{indexes}");
}
