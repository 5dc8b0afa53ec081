//! Why each rule is there: what happens without it. `ONE`, `TWO` and `THREE` are transactions, whose
//! ids are those numbers where nothing else is said.

use stateright::{Checker, Model};

use super::engine::{Action::*, Feed};
use super::rules::*;
use super::state::Trouble;
use super::{NO_TROUBLE, feed};
use crate::proof::model::proof::assert_broken;

const A_CRASH: Trouble = Trouble {
    crashes: 1,
    ..NO_TROUBLE
};
const A_DISCONNECT: Trouble = Trouble {
    disconnects: 1,
    ..NO_TROUBLE
};
const A_DELETION: Trouble = Trouble {
    deletions: 1,
    ..NO_TROUBLE
};
const ONE: usize = 0;
const TWO: usize = 1;
const THREE: usize = 2;

#[test]
fn a_position_from_the_snapshot_misses_an_id_that_is_given_out_again() {
    let trouble = Trouble {
        aborts: 1,
        ..A_CRASH
    };
    let story = [
        Begin(ONE),
        Abort(ONE),
        Connect, // and sees 2 as the next id
        Crash(1),
        Begin(TWO), // as 1
        Commit(TWO),
    ];
    assert_broken(&[Rule::FromRows], feed(2, 0, trouble), NOT_MISSED, &story);
}

#[test]
fn a_cursor_without_what_is_pending_misses_what_commits_late() {
    let story = [Begin(ONE), Begin(TWO), Commit(TWO), Connect, Commit(ONE)];
    assert_broken(&[Rule::Pending], feed(2, 0, NO_TROUBLE), NOT_MISSED, &story);
}

#[test]
fn running_transactions_from_a_later_snapshot_miss_what_commits_in_between() {
    let story = [
        Connect,
        Begin(ONE),
        Begin(TWO),
        Commit(TWO),
        Read,
        Commit(ONE),
        ListRunning, // and sees none
    ];
    let rule = &[Rule::OneSnapshot];
    assert_broken(rule, feed(2, 0, NO_TROUBLE), NOT_MISSED, &story);
}

#[test]
fn a_horizon_stalls_behind_a_foreign_transaction() {
    let foreign = TWO;
    let story = [Connect, Begin(foreign), Begin(ONE), Commit(ONE)];
    let rule = &[Rule::NoHorizon];
    let whole = feed(1, 1, NO_TROUBLE);
    assert_broken(rule, whole, NOT_STALLED, &story);
    // It would miss nothing: only wait for as long as somebody likes.
    let broken = Feed {
        without: rule,
        ..whole
    };
    let checker = broken.checker().spawn_bfs().join();
    checker.assert_no_discovery(NOT_MISSED);
}

#[test]
fn what_has_ended_and_is_pending_for_ever_is_told_twice() {
    let story = [
        Begin(ONE),
        Begin(TWO),
        Commit(TWO),
        Connect,
        Commit(ONE),
        Read,
        Read,
    ];
    assert_broken(&[Rule::OnlyRunning], feed(2, 0, NO_TROUBLE), ONCE, &story);
}

#[test]
fn a_page_that_counts_what_was_pending_misses_the_rest() {
    let story = [
        Begin(ONE),
        Begin(TWO),
        Begin(THREE),
        Commit(THREE),
        Connect,
        Commit(ONE),
        Commit(TWO),
        Read, // ONE, and TWO runs no more
    ];
    let whole = Feed {
        page: 1,
        ..feed(3, 0, NO_TROUBLE)
    };
    assert_broken(&[Rule::BesidePage], whole, NOT_MISSED, &story);
}

#[test]
fn a_token_before_the_last_event_of_a_reading_misses_the_rest() {
    let story = [
        Connect,
        Begin(ONE),
        Begin(TWO),
        Commit(ONE),
        Commit(TWO),
        ReadInPart,
        Connect,
    ];
    let rule = &[Rule::TokenLast];
    assert_broken(rule, feed(2, 0, A_DISCONNECT), NOT_MISSED, &story);
}

#[test]
fn what_is_seen_before_it_is_on_the_disk_takes_its_id_from_another() {
    let story = [
        Begin(ONE),
        Commit(ONE),
        Connect,
        Crash(1),
        Begin(TWO), // as 1
        Commit(TWO),
    ];
    assert_broken(&[Rule::FlushFirst], feed(2, 0, A_CRASH), NOT_MISSED, &story);
}

#[test]
fn an_old_token_that_is_no_reset_misses_what_was_deleted() {
    let story = [Connect, Begin(ONE), Commit(ONE), Delete(ONE)];
    assert_broken(&[Rule::Expiry], feed(1, 0, A_DELETION), NOT_MISSED, &story);
}

#[test]
fn something_pending_that_came_and_was_deleted_is_missed() {
    let story = [
        Begin(ONE),
        Begin(TWO),
        Commit(TWO),
        Connect,
        Commit(ONE),
        Delete(ONE), // below `next`
    ];
    let rule = &[Rule::PendingExpiry];
    assert_broken(rule, feed(2, 0, A_DELETION), NOT_MISSED, &story);
}

#[test]
fn a_reader_is_reset_for_ever_by_an_old_transaction_that_still_runs() {
    let story = [Begin(ONE), Begin(TWO), Commit(TWO), Delete(TWO)];
    let rule = &[Rule::UnlessRunning];
    assert_broken(rule, feed(2, 0, A_DELETION), RESET_ONCE, &story);
}

#[test]
fn a_reader_is_reset_for_ever_where_everything_is_deleted() {
    let story = [Begin(ONE), Commit(ONE), Delete(ONE)];
    let rule = &[Rule::AboveDeleted];
    assert_broken(rule, feed(1, 0, A_DELETION), RESET_ONCE, &story);
}

#[test]
fn a_token_of_another_history_misses_what_has_its_ids() {
    let trouble = Trouble {
        restores: 1,
        ..NO_TROUBLE
    };
    let story = [
        Begin(ONE),
        Commit(ONE),
        Connect,
        Restore(1),
        Begin(TWO), // as 1
        Commit(TWO),
    ];
    assert_broken(&[Rule::Epoch], feed(2, 0, trouble), NOT_MISSED, &story);
}
