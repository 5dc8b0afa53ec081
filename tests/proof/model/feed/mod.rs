//! The reader of the live feed as a model: writers take ids and end in any order, the database
//! crashes and gives ids out again, connections break, old rows are deleted. Each promise is kept,
//! and for each rule there is a story of what breaks without it.
//!
//! `state.rs` is what there is, `engine.rs` what can happen, `rules.rs` what is promised,
//! `stories.rs` why each rule is there.
//!
//! It leaves out SQL, what is read for the ids of a row, and how one reader serves many clients: a
//! program that reads for all is one that reads for each. `tests/feed` runs the program.

mod engine;
mod rules;
mod state;
mod stories;

use super::proof::{Proof, assert_every_run_ends, assert_kept};
use engine::Feed;
use rules::*;
use state::{State, Trouble};

const NO_TROUBLE: Trouble = Trouble {
    aborts: 0,
    crashes: 0,
    disconnects: 0,
    deletions: 0,
    restores: 0,
};
const SOME_TROUBLE: Trouble = Trouble {
    aborts: 1,
    crashes: 1,
    disconnects: 1,
    deletions: 1,
    restores: 0,
};

impl Proof for Feed {
    type Rule = Rule;

    fn without(self, rules: &'static [Rule]) -> Self {
        Self {
            without: rules,
            ..self
        }
    }

    /// Which transaction is which makes no difference.
    fn sort(state: &mut State) {
        state.transactions.sort_unstable();
    }
}

fn feed(changes: usize, foreign: usize, trouble: Trouble) -> Feed {
    Feed {
        changes,
        foreign,
        page: 8,
        token: 8,
        trouble,
        without: &[],
    }
}

#[test]
fn three_changes_beside_a_foreign_transaction_keep_every_promise() {
    let events = [ALL_TOLD, TOLD_LATE, RESET, AGAIN];
    assert_kept(feed(3, 1, SOME_TROUBLE), 100_000, &events);
}

#[test]
fn two_changes_keep_every_promise_in_much_trouble() {
    let trouble = Trouble {
        aborts: 2,
        crashes: 2,
        disconnects: 2,
        deletions: 1,
        restores: 1,
    };
    assert_kept(feed(2, 1, trouble), 100_000, &[ALL_TOLD, TOLD_LATE, RESET]);
}

#[test]
fn small_pages_and_short_tokens_keep_every_promise() {
    let small = Feed {
        page: 1,
        token: 1,
        ..feed(4, 0, SOME_TROUBLE)
    };
    assert_kept(small, 50_000, &[ALL_TOLD, TOLD_LATE, RESET, REPEATED]);
}

#[test]
fn what_is_restored_from_another_history_is_told_by_a_reset() {
    let trouble = Trouble {
        restores: 1,
        ..SOME_TROUBLE
    };
    assert_kept(feed(3, 0, trouble), 50_000, &[ALL_TOLD, RESET]);
}

/// `NOT_MISSED` is about states where nothing is left to read. It always comes to one.
#[test]
fn every_run_of_the_feed_ends() {
    let seen = assert_every_run_ends(&feed(2, 1, SOME_TROUBLE));
    assert!(seen > 10_000, "only {seen} states");
}
