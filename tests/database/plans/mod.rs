//! The planner's fences, which SCHEMA.md explains ("Lists and plans"): each holds where PostgreSQL
//! knows least of its tables, and without it the same statement reads too much. So no fence is
//! missing, and none stays for nothing.

mod cases;
mod measure;
mod tables;

use std::collections::BTreeSet;

use cases::{
    BRANCHES, Case, Fence, GUESS, HIDDEN, KEYS, LOOKUP, Most, ONCE, ORDERED, PLACE, SETTING, cases,
};
use measure::all_measured;

use crate::support::{read, statements};

/// Each fence of this name holds wherever it should, and is needed.
async fn assert_fences(word: &str) {
    let measured = all_measured().await;
    let mut wrong = Vec::new();
    let mut fences = 0;
    for (number, case) in cases()
        .iter()
        .enumerate()
        .filter(|(_, case)| case.word == word)
    {
        fences += 1;
        let (Most::Rows(most) | Most::Pages(most)) = case.most;
        let of_case = measured.iter().filter(|one| one.case == number);
        let (with, without): (Vec<_>, Vec<_>) = of_case.partition(|one| one.is_fenced);
        assert!(with.len() >= case.holds.len(), "{}", case.statement);
        assert_eq!(
            without.len(),
            usize::from(case.needed.is_some()),
            "{}",
            case.statement
        );
        let dear = with
            .into_iter()
            .filter(|one| one.cost.value > most)
            .map(|one| (one, "costs too much"));
        let cheap = without
            .into_iter()
            .filter(|one| one.cost.value < 3.0 * most);
        let cheap = cheap.map(|one| (one, "costs as little without the fence"));
        for (one, what) in dear.chain(cheap) {
            let (statement, mode, tables) = (case.statement, one.mode, one.tables);
            let (cost, dearest) = (one.cost.value, &one.cost.dearest);
            wrong.push(format!(
                "{statement} {what}: {cost}, {dearest} ({mode:?}, {tables:?})"
            ));
        }
    }
    assert!(fences > 0, "no fence is called {word}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn rows_are_looked_up_one_by_one() {
    assert_fences(LOOKUP).await;
}

#[tokio::test]
async fn what_is_changed_is_found_by_its_keys() {
    assert_fences(KEYS).await;
}

#[tokio::test]
async fn a_first_row_is_read_from_the_end_of_an_index() {
    assert_fences(ORDERED).await;
}

#[tokio::test]
async fn each_part_of_a_list_is_read_from_the_end_of_its_index() {
    assert_fences(BRANCHES).await;
}

#[tokio::test]
async fn no_index_is_read_that_has_the_whole_backlog() {
    assert_fences(HIDDEN).await;
}

#[tokio::test]
async fn what_is_few_is_read_before_it_is_put_in_order() {
    assert_fences(ONCE).await;
}

#[tokio::test]
async fn a_batch_is_not_compared_with_itself() {
    assert_fences(PLACE).await;
}

#[tokio::test]
async fn a_range_that_nothing_is_known_of_is_read_from_its_begin() {
    assert_fences(GUESS).await;
}

#[tokio::test]
async fn a_connection_plans_as_its_statements_need_it() {
    assert_fences(SETTING).await;
}

/// What is between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_fence_is_marked_tried_and_explained() {
    let mut marked = BTreeSet::new();
    for statement in statements() {
        for mark in statement.sql.split("fence: ").skip(1) {
            let word = mark.split(|c: char| !c.is_alphabetic()).next().unwrap();
            marked.insert((statement.name().to_owned(), word.to_owned()));
        }
    }
    assert!(marked.len() > 25, "{marked:#?}");
    let is_text = |case: &Case| matches!(case.fence, Fence::Text(_));
    let cases = cases().into_iter().filter(is_text);
    let tried = cases.map(|case| (case.statement.to_owned(), case.word.to_owned()));
    assert_eq!(tried.collect::<BTreeSet<_>>(), marked);

    let schema = read("SCHEMA.md");
    let (_, table) = schema
        .split_once("| Statement | Fence | Without it |\n")
        .unwrap();
    let rows = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(1);
    let mut explained = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        for statement in code_spans(cells[1]) {
            explained
                .extend(code_spans(cells[2]).map(|word| (statement.to_owned(), word.to_owned())));
        }
    }
    assert_eq!(explained, marked);
    for (_, word) in marked {
        assert!(
            schema.contains(&format!("\n| `{word}`: ")),
            "what is {word}?"
        );
    }
}
