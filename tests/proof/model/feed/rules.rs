//! The rules of the reader, each of which can be taken away, and the promises that they keep.

use stateright::Property;

use super::engine::{Feed, has_expired, is_expired};
use super::state::{Connection, Position, State, Transaction};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `next` comes from rows that are committed, never from the snapshot.
    FromRows,
    /// What runs below `next` is pending: a position is more than the highest that was seen.
    Pending,
    /// The running transactions are those of the snapshot that the rows come from.
    OneSnapshot,
    /// What has ended is pending no longer.
    OnlyRunning,
    /// Rows above a transaction that is still open are read.
    NoHorizon,
    /// A page is one of new rows; all that was pending is read beside it.
    BesidePage,
    /// The token comes with the last event of a reading.
    TokenLast,
    /// What is visible is on the disk (`synchronous_commit`).
    FlushFirst,
    /// A position below `deleted_below` is a reset.
    Expiry,
    /// So is one with something pending below it that is over and has no row.
    PendingExpiry,
    /// But not one whose pending transaction still runs.
    UnlessRunning,
    /// A fresh position is not below `deleted_below`.
    AboveDeleted,
    /// A position of another history is a reset.
    Epoch,
}

pub const NOT_MISSED: &str = "when all transactions have ended, a reader knows every change";
pub const NOT_STALLED: &str = "a reader that finds nothing new knows every committed change";
pub const ONCE: &str = "in one connection nothing is told twice";
pub const RESET_ONCE: &str = "a reset is not followed by another without a cause";

/// What is true in every state. That a reader always comes to an end is left to
/// `every_run_of_the_feed_ends`.
pub fn promises() -> Vec<Property<Feed>> {
    vec![
        Property::always(NOT_MISSED, |feed: &Feed, state: &State| {
            let is_over = state.running().next().is_none();
            !(is_over && finds_nothing(feed, state)) || knows_everything(state)
        }),
        Property::always(NOT_STALLED, |feed: &Feed, state: &State| {
            !finds_nothing(feed, state) || knows_everything(state)
        }),
        Property::always(ONCE, |_, state: &State| {
            state.transactions.iter().all(|t| t.told <= 1)
        }),
        Property::always(RESET_ONCE, |feed: &Feed, state: &State| {
            !has_expired(feed, state, &feed.fresh(state))
        }),
    ]
}

fn finds_nothing(feed: &Feed, state: &State) -> bool {
    state.client.connection == Connection::Open
        && !is_expired(feed, state)
        && feed.rows(state).is_empty()
}

fn knows_everything(state: &State) -> bool {
    let mut committed = state.transactions.iter().filter(|t| t.position().is_some());
    committed.all(|transaction| transaction.is_known)
}

pub const ALL_TOLD: &str = "every change is told";
pub const TOLD_LATE: &str = "a change below the reader's position is told";
pub const RESET: &str = "a reader is reset";
pub const REPEATED: &str = "a change is told again in another connection";
pub const AGAIN: &str = "an id is given out again";

/// What is true in some state: the promises are not kept because nothing happens.
pub fn events() -> Vec<Property<Feed>> {
    vec![
        Property::sometimes(ALL_TOLD, |feed: &Feed, state: &State| {
            let told = state.transactions.iter().filter(|t| t.told == 1);
            told.count() == feed.changes
        }),
        Property::sometimes(TOLD_LATE, |_, state: &State| {
            is_read(state, |transaction, position| {
                let row = transaction.row();
                !transaction.is_known && row.is_some_and(|row| row < position.next)
            })
        }),
        Property::sometimes(RESET, |feed: &Feed, state: &State| {
            state.client.connection == Connection::Open && is_expired(feed, state)
        }),
        Property::sometimes(REPEATED, |_, state: &State| {
            is_read(state, |transaction, position| {
                let row = transaction.row();
                let is_asked_for = row.is_some_and(|row| row >= position.next);
                transaction.is_known && transaction.told == 0 && is_asked_for
            })
        }),
        Property::sometimes(AGAIN, |feed: &Feed, state: &State| {
            let begun = state.transactions.iter().filter(|t| t.has_begun()).count();
            let aborts = usize::from(feed.trouble.aborts - state.trouble.aborts);
            usize::from(state.next_id - 1) < begun + aborts
        }),
    ]
}

/// Whether a connected reader has this before it.
fn is_read(state: &State, is_it: impl Fn(&Transaction, &Position) -> bool) -> bool {
    let position = state.client.position.as_ref();
    state.client.connection == Connection::Open
        && position.is_some_and(|position| state.transactions.iter().any(|t| is_it(t, position)))
}
