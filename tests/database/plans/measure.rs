//! What the statements cost.

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

use super::cases::{Case, Mode, Most, cases};
use super::tables::{Tables, stories};
use crate::support::{Database, explain, rows_of};

/// What a plan costs, and its dearest part.
pub struct Cost {
    pub value: f64,
    pub dearest: String,
}

/// A statement that was carried out.
pub struct Measured {
    /// The number of its case.
    pub case: usize,
    pub mode: Mode,
    pub tables: Tables,
    pub is_fenced: bool,
    pub cost: Cost,
}

/// A connection, with how it plans and the setting that it lacks.
type Session = (Mode, Option<&'static str>, PgConnection);

/// A prepared statement: of which case, with its fence or without, on which connection, and for
/// which tables.
struct Prepared {
    case: usize,
    is_fenced: bool,
    session: usize,
    tables: Vec<Tables>,
}

impl Prepared {
    fn call(&self, case: &Case) -> String {
        let arguments = match &*case.arguments {
            "" => String::new(),
            some => format!("({some})"),
        };
        format!("execute {}{arguments}", self.name())
    }

    fn name(&self) -> String {
        format!(
            "{}_{}",
            if self.is_fenced { "with" } else { "without" },
            self.case
        )
    }
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await {
        panic!("{error}: {}", sql.chars().take(300).collect::<String>());
    }
}

/// The number of the connection that plans so.
async fn session(
    sessions: &mut Vec<Session>,
    database: &Database,
    mode: Mode,
    lacks: Option<&'static str>,
) -> usize {
    let known = sessions
        .iter()
        .position(|(m, l, _)| (*m, *l) == (mode, lacks));
    if let Some(known) = known {
        return known;
    }
    let mut connection = PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    for (name, value) in mode
        .0
        .of(mode.1)
        .iter()
        .filter(|(name, _)| Some(*name) != lacks)
    {
        execute(&mut connection, &format!("set {name} = {value}")).await;
    }
    sessions.push((mode, lacks, connection));
    sessions.len() - 1
}

/// Prepares and plans what is to be measured.
async fn prepare(
    cases: &[Case],
    database: &Database,
    story: &[(Tables, String)],
) -> (Vec<Session>, Vec<Prepared>) {
    let (mut sessions, mut all) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        for (mode, is_fenced) in case
            .modes
            .iter()
            .flat_map(|mode| [(*mode, true), (*mode, false)])
        {
            let tables = story.iter().map(|(tables, _)| *tables);
            let tables: Vec<Tables> = tables
                .filter(|tables| case.is_measured(mode, *tables, is_fenced))
                .collect();
            if tables.is_empty() {
                continue;
            }
            let (text, lacks) = case.text(is_fenced);
            let prepared = Prepared {
                case: number,
                is_fenced,
                session: session(&mut sessions, database, mode, lacks).await,
                tables,
            };
            let connection = &mut sessions[prepared.session].2;
            execute(
                connection,
                &format!("prepare {} as {text}", prepared.name()),
            )
            .await;
            // PostgreSQL's own choice is to plan a statement once when it was planned five times.
            let times = if lacks.is_some() { 6 } else { 1 };
            let explain = format!("begin; explain {}; rollback;", prepared.call(case));
            execute(connection, &explain.repeat(times)).await;
            all.push(prepared);
        }
    }
    (sessions, all)
}

/// Carries a statement out, takes back what it did, and says what it cost.
async fn cost(connection: &mut PgConnection, call: &str, most: Most) -> Cost {
    execute(connection, "begin").await;
    let nodes = explain(connection, call).await;
    execute(connection, "rollback").await;
    let number = |node: &Value, name: &str| node[name].as_f64().unwrap_or(0.0);
    let rows = |node: &Value| {
        let compared = number(node, "Rows Removed by Join Filter") * number(node, "Actual Loops");
        rows_of(node) + compared
    };
    let dearest = nodes.iter().max_by(|a, b| rows(a).total_cmp(&rows(b)));
    let dearest = dearest.unwrap();
    let value = match most {
        Most::Rows(_) => rows(dearest),
        Most::Pages(_) => ["Shared Hit Blocks", "Shared Read Blocks"]
            .map(|kind| number(&nodes[0], kind))
            .iter()
            .sum(),
    };
    let names = ["Node Type", "Relation Name", "Index Name", "CTE Name"];
    let names = names.iter().filter_map(|name| dearest[name].as_str());
    Cost {
        value,
        dearest: names.collect::<Vec<_>>().join(" "),
    }
}

/// What each statement costs in a database of its own that comes to be so.
async fn measure(before: String, story: Vec<(Tables, String)>) -> Vec<Measured> {
    let database = Database::migrated().await;
    let mut owner = PgConnection::connect_with(&database.options())
        .await
        .unwrap();
    for table in [
        "conversations",
        "messages",
        "webhook_events",
        "deliveries",
        "channels",
        "receipts",
        "aliases",
        "amendments",
    ] {
        // PostgreSQL knows what this test lets it know.
        execute(
            &mut owner,
            &format!("alter table {table} set (autovacuum_enabled = false)"),
        )
        .await;
    }
    execute(&mut owner, &before).await;
    let cases = cases();
    let (mut sessions, all) = prepare(&cases, &database, &story).await;
    let mut measured = Vec::new();
    for (tables, change) in story {
        execute(&mut owner, &change).await;
        for prepared in all
            .iter()
            .filter(|prepared| prepared.tables.contains(&tables))
        {
            let case = &cases[prepared.case];
            let (mode, _, connection) = &mut sessions[prepared.session];
            measured.push(Measured {
                case: prepared.case,
                mode: *mode,
                tables,
                is_fenced: prepared.is_fenced,
                cost: cost(connection, &prepared.call(case), case.most).await,
            });
        }
    }
    measured
}

/// All that is measured, once for all tests.
pub async fn all_measured() -> &'static [Measured] {
    static ALL: OnceCell<Vec<Measured>> = OnceCell::const_new();
    let all = async || {
        let stories = stories().map(|(before, story)| measure(before, story));
        join_all(stories).await.into_iter().flatten().collect()
    };
    ALL.get_or_init(all).await
}
