//! What can happen, and what each reading does to what the client knows.
//!
//! A statement sees one snapshot: the rows that are committed, and the ids of the transactions that
//! are running. An id is given out when a transaction writes, so the id and the row are one step.

use stateright::{Model, Property};

use super::rules::{self, Rule};
use super::state::{Client, Connection, Id, Phase, Position, State, Transaction, Trouble};

/// How much of everything, and what is taken away.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// Transactions that write a row.
    pub changes: usize,
    /// Others: of another database on the same server, of somebody at a prompt.
    pub foreign: usize,
    /// As many rows are read at once.
    pub page: usize,
    /// A token names as many pending ids.
    pub token: usize,
    pub trouble: Trouble,
    pub without: &'static [Rule],
}

/// The number is the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// What is committed is on the disk.
    Flush,
    /// The database begins again, with this id. What it had given out to nobody whose commit is on
    /// the disk, it may give out again.
    Crash(Id),
    /// The same, and the last commit is lost.
    Restore(Id),
    Delete(usize),
    /// With its token, or for the first time.
    Connect,
    Disconnect,
    Read,
    /// The connection breaks after the first event of several.
    ReadInPart,
    ListRunning,
}

impl Model for Feed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let transaction = |number| Transaction {
            is_foreign: number >= self.changes,
            phase: Phase::New,
            is_known: false,
            told: 0,
        };
        vec![State {
            next_id: 1,
            deleted_below: 0,
            epoch: 0,
            transactions: (0..self.changes + self.foreign).map(transaction).collect(),
            client: Client {
                connection: Connection::Away,
                position: None,
            },
            trouble: self.trouble,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (t, transaction) in state.transactions.iter().enumerate() {
            possible_for(state, t, *transaction, actions);
        }
        possible_breaks(state, actions);
        match state.client.connection {
            Connection::Away => actions.push(Action::Connect),
            Connection::RowsRead => actions.push(Action::ListRunning),
            Connection::Open => {
                if has_effect(self, state) {
                    actions.push(Action::Read);
                }
                if self.rows(state).len() > 1 && state.trouble.disconnects > 0 {
                    actions.push(Action::ReadInPart);
                }
            }
        }
        if state.client.connection != Connection::Away && state.trouble.disconnects > 0 {
            actions.push(Action::Disconnect);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let state = &mut next;
        match action {
            Action::Begin(t) => begin(state, t),
            Action::Commit(t) => commit(self, state, t),
            Action::Abort(t) => {
                state.trouble.aborts -= 1;
                state.transactions[t].phase = Phase::New;
            }
            Action::Flush => flush(state),
            Action::Crash(next_id) => {
                state.trouble.crashes -= 1;
                crash(state, next_id);
            }
            Action::Restore(next_id) => restore(state, next_id),
            Action::Delete(t) => delete(state, t),
            Action::Connect => connect(self, state),
            Action::Disconnect => disconnect(self, state),
            Action::Read => read(self, state),
            Action::ReadInPart => read_in_part(self, state),
            Action::ListRunning => list_running(self, state),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = rules::promises();
        properties.extend(rules::events());
        properties
    }
}

fn possible_for(state: &State, t: usize, transaction: Transaction, actions: &mut Vec<Action>) {
    match transaction.phase {
        Phase::New => actions.push(Action::Begin(t)),
        Phase::Open(_) => {
            actions.push(Action::Commit(t));
            if state.trouble.aborts > 0 && !transaction.is_foreign {
                actions.push(Action::Abort(t));
            }
        }
        Phase::Committed { .. } => {
            if state.trouble.deletions > 0 && transaction.row().is_some() {
                actions.push(Action::Delete(t));
            }
        }
        Phase::Over => {}
    }
}

fn possible_breaks(state: &State, actions: &mut Vec<Action>) {
    let is_unflushed = |transaction: &Transaction| {
        matches!(
            transaction.phase,
            Phase::Committed {
                is_flushed: false,
                ..
            }
        )
    };
    if state.transactions.iter().any(is_unflushed) {
        actions.push(Action::Flush);
    }
    if state.trouble.crashes > 0 {
        let on_disk = state.transactions.iter().filter(|t| !is_unflushed(t));
        let highest = on_disk.copied().filter_map(Transaction::position).max();
        let first = highest.unwrap_or(0) + 1;
        actions.extend((first..=state.next_id).map(Action::Crash));
    }
    if state.trouble.restores > 0
        && let Some(last) = last_commit(state)
    {
        actions.push(Action::Restore(last));
    }
}

impl Feed {
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    /// The positions that the next read finds: at most a page of new ones, and all that were
    /// pending.
    pub fn rows(&self, state: &State) -> Vec<Id> {
        let Some(position) = &state.client.position else {
            return Vec::new();
        };
        let horizon = state.running().min().filter(|_| !self.has(Rule::NoHorizon));
        let rows = state
            .transactions
            .iter()
            .copied()
            .filter_map(Transaction::row);
        let rows = rows.filter(|row| horizon.is_none_or(|horizon| *row < horizon));
        let is_pending = |row: &Id| position.pending.contains(row);
        let (mut late, mut rows): (Vec<Id>, Vec<Id>) = rows
            .filter(|row| *row >= position.next || is_pending(row))
            .partition(is_pending);
        if !self.has(Rule::BesidePage) {
            rows.append(&mut late);
        }
        rows.sort_unstable();
        rows.truncate(self.page);
        rows.append(&mut late);
        rows
    }

    /// Where a client begins that has fetched everything.
    pub fn fresh(&self, state: &State) -> Position {
        let rows = state
            .transactions
            .iter()
            .copied()
            .filter_map(Transaction::row);
        let mut next = rows.max().unwrap_or(0) + 1;
        if self.has(Rule::AboveDeleted) {
            next = next.max(state.deleted_below);
        }
        let mut position = Position {
            epoch: state.epoch,
            next,
            pending: Vec::new(),
        };
        self.add_running(state, &mut position);
        position
    }

    /// What is running below `next` may yet come.
    fn add_running(&self, state: &State, position: &mut Position) {
        if !self.has(Rule::FromRows) {
            position.next = state.next_id;
        }
        if !self.has(Rule::Pending) {
            return;
        }
        let running = state.running().filter(|id| *id < position.next);
        position.pending.extend(running);
        position.pending.sort_unstable();
        position.pending.dedup();
    }
}

/// Whether something that the client does not know may have been deleted, or have another history.
pub fn is_expired(feed: &Feed, state: &State) -> bool {
    let position = state.client.position.as_ref();
    position.is_some_and(|position| has_expired(feed, state, position))
}

pub fn has_expired(feed: &Feed, state: &State, position: &Position) -> bool {
    let may_be_deleted = |id: &Id| {
        let is_still_running = feed.has(Rule::UnlessRunning) && state.running().any(|r| r == *id);
        *id < state.deleted_below && !is_still_running && !state.has_row(*id)
    };
    let is_of_another = feed.has(Rule::Epoch) && position.epoch != state.epoch;
    let is_old = feed.has(Rule::Expiry) && position.next < state.deleted_below;
    let pending = feed.has(Rule::PendingExpiry) && position.pending.iter().any(may_be_deleted);
    is_of_another || is_old || pending
}

// Transactions

fn begin(state: &mut State, t: usize) {
    state.transactions[t].phase = Phase::Open(state.next_id);
    state.next_id += 1;
}

fn commit(feed: &Feed, state: &mut State, t: usize) {
    let Phase::Open(position) = state.transactions[t].phase else {
        return;
    };
    state.transactions[t].phase = if state.transactions[t].is_foreign {
        Phase::Over
    } else {
        Phase::Committed {
            position,
            is_flushed: feed.has(Rule::FlushFirst),
            is_deleted: false,
        }
    };
}

fn flush(state: &mut State) {
    for transaction in &mut state.transactions {
        if let Phase::Committed { is_flushed, .. } = &mut transaction.phase {
            *is_flushed = true;
        }
    }
}

fn crash(state: &mut State, next_id: Id) {
    for transaction in &mut state.transactions {
        match transaction.phase {
            Phase::Committed {
                is_flushed: false, ..
            } => forget(transaction),
            Phase::Open(_) if transaction.is_foreign => transaction.phase = Phase::Over,
            Phase::Open(_) => transaction.phase = Phase::New,
            _ => {}
        }
    }
    state.next_id = next_id;
}

/// A change that has not happened; when it is made again, it is another.
fn forget(transaction: &mut Transaction) {
    transaction.phase = Phase::New;
    transaction.is_known = false;
    transaction.told = 0;
}

fn last_commit(state: &State) -> Option<Id> {
    let positions = state
        .transactions
        .iter()
        .copied()
        .filter_map(Transaction::position);
    positions.max().filter(|last| *last >= state.deleted_below)
}

fn restore(state: &mut State, next_id: Id) {
    state.trouble.restores -= 1;
    let is_last = |transaction: &&mut Transaction| transaction.position() == Some(next_id);
    state.transactions.iter_mut().find(is_last).map(forget);
    crash(state, next_id);
    state.epoch += 1;
}

fn delete(state: &mut State, t: usize) {
    state.trouble.deletions -= 1;
    if let Phase::Committed {
        position,
        is_deleted,
        ..
    } = &mut state.transactions[t].phase
    {
        *is_deleted = true;
        state.deleted_below = state.deleted_below.max(*position + 1);
    }
}

// The reader

fn connect(feed: &Feed, state: &mut State) {
    state.client.connection = Connection::Open;
    for transaction in &mut state.transactions {
        transaction.told = 0;
    }
    if state.client.position.is_none() {
        reset(feed, state);
    }
}

/// The client fetches everything, and goes on from here.
fn reset(feed: &Feed, state: &mut State) {
    state.client.position = Some(feed.fresh(state));
    for transaction in &mut state.transactions {
        transaction.is_known |= transaction.position().is_some();
    }
}

/// What is left is a token: it names the lowest that are pending, and ends before the others.
fn disconnect(feed: &Feed, state: &mut State) {
    state.trouble.disconnects -= 1;
    state.client.connection = Connection::Away;
    if let Some(position) = &mut state.client.position
        && position.pending.len() > feed.token
    {
        position.next = position.pending[feed.token];
        position.pending.truncate(feed.token);
    }
}

fn tell(state: &mut State, rows: &[Id]) {
    for transaction in &mut state.transactions {
        if transaction.row().is_some_and(|row| rows.contains(&row)) {
            transaction.is_known = true;
            transaction.told = 2.min(transaction.told + 1);
        }
    }
}

/// Also where it finds no row, something pending may have ended.
fn has_effect(feed: &Feed, state: &State) -> bool {
    let mut after = state.clone();
    read(feed, &mut after);
    after != *state
}

fn read(feed: &Feed, state: &mut State) {
    if is_expired(feed, state) {
        return reset(feed, state);
    }
    let rows = feed.rows(state);
    tell(state, &rows);
    state.client.position = Some(position_after(feed, state, &rows));
    if feed.has(Rule::OneSnapshot) {
        list_running(feed, state);
    } else {
        state.client.connection = Connection::RowsRead;
    }
}

/// Without what is running.
fn position_after(feed: &Feed, state: &State, rows: &[Id]) -> Position {
    let before = state.client.position.clone();
    let mut position = before.unwrap_or_else(|| feed.fresh(state));
    let last = rows.iter().max().copied().unwrap_or(0);
    position.next = position.next.max(last + 1);
    if feed.has(Rule::OnlyRunning) {
        position.pending.clear();
    }
    position
}

fn list_running(feed: &Feed, state: &mut State) {
    state.client.connection = Connection::Open;
    if let Some(mut position) = state.client.position.take() {
        feed.add_running(state, &mut position);
        state.client.position = Some(position);
    }
}

/// The token comes with the last event: without that, it is the one before.
fn read_in_part(feed: &Feed, state: &mut State) {
    let rows = feed.rows(state);
    let before = state.client.position.clone();
    tell(state, &rows[..1]);
    if feed.has(Rule::TokenLast) {
        state.client.position = before;
    } else {
        let mut position = position_after(feed, state, &rows);
        feed.add_running(state, &mut position);
        state.client.position = Some(position);
    }
    disconnect(feed, state);
}
