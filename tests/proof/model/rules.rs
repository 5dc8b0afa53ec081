//! The rules of the engine, each of which can be taken away, and the promises that they keep.

use stateright::{Model, Property};

use super::engine::{Action, Engine, list_unreleased};
use super::state::{Delivery, Process, State, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `enqueue` commits before it is answered.
    CommitFirst,
    /// `enqueue` blocks where `outbound_seq` has moved since its snapshot.
    SeqCheck,
    /// `release` follows an `enqueue` that was blocked.
    ReleaseAfterAccept,
    /// `claim` locks what it finds due, and skips what is locked.
    RowLock,
    /// A lease is longer than a call.
    LongLease,
    /// No call begins that might outlast its lease.
    Deadline,
    /// All calls for a message have one idempotency key, and the provider delivers once for each
    /// key.
    OneKey,
    /// With `AMBIGUOUS_POLICY=hold`, what was claimed before and never settled is not sent.
    HoldDoubtful,
    /// `mark_failed` needs the current token.
    Token,
    /// `release` is a statement of its own, after `mark_sent`.
    ReleaseApart,
    /// `release` looks again at the number of what it has locked.
    PlaceCheck,
    /// `list_unreleased` finds releases that were lost.
    Sweep,
    /// `requeue` leaves alone what is leased.
    RequeueGuard,
    /// `requeue` gives what was parked a new number.
    NewPlace,
    /// `cancel` leaves alone what is leased.
    CancelGuard,
}

pub const NOT_LOST: &str = "what is acknowledged is in the queue, or sent and delivered";
pub const NOT_DOUBLED: &str = "no message is delivered twice";
pub const ONE_LEASE: &str = "a message has at most one valid lease";
pub const ONE_CALL: &str = "calls for one message do not overlap";
pub const IN_ORDER: &str = "no call is made while what was accepted before is unfinished";
pub const NOT_STUCK: &str = "what is neither sent nor parked goes on by itself";

/// What is true in every state.
///
/// `NOT_STUCK` is such a property too: where nothing but a new request or an operator can change
/// anything, all is sent or parked. stateright's `eventually` would not do: it does not look again
/// at a state that it has reached on another path, and so misses counterexamples wherever paths
/// meet. What is left to show is that there always is an end: `every_run_ends`.
pub fn promises() -> Vec<Property<Engine>> {
    vec![
        Property::always(NOT_LOST, |_, state: &State| {
            messages(state).all(|m| is_kept(state, m))
        }),
        Property::always(NOT_DOUBLED, |_, state: &State| {
            messages(state).all(|m| state.messages[m].deliveries <= 1)
        }),
        Property::always(ONE_LEASE, |_, state: &State| {
            messages(state).all(|m| valid_leases(state, m) <= 1)
        }),
        Property::always(ONE_CALL, |_, state: &State| {
            messages(state).all(|m| calls(state, m) <= 1)
        }),
        Property::always(IN_ORDER, |_, state: &State| {
            let mut queue = state.queue();
            queue.all(|(m, delivery)| calls(state, m) == 0 || is_in_front(state, delivery))
        }),
        Property::always(NOT_STUCK, |engine: &Engine, state: &State| {
            !is_at_rest(engine, state) || state.queue().all(|(_, delivery)| delivery.is_parked())
        }),
    ]
}

fn messages(state: &State) -> impl Iterator<Item = usize> + use<> {
    0..state.messages.len()
}

fn is_kept(state: &State, m: usize) -> bool {
    let message = &state.messages[m];
    let is_queued = state.deliveries[m].is_some();
    match message.status {
        None => !message.is_acknowledged,
        Some(Status::Pending | Status::Failed) => is_queued,
        Some(Status::Sent) => !is_queued && message.deliveries > 0,
    }
}

fn valid_leases(state: &State, m: usize) -> usize {
    let leases = state.processes.iter().filter_map(Process::lease);
    leases
        .filter(|lease| lease.message == m && !lease.has_ended)
        .count()
}

fn calls(state: &State, m: usize) -> usize {
    let calling = state.processes.iter().filter(|p| p.is_calling(m));
    calling.count()
}

fn is_in_front(state: &State, delivery: Delivery) -> bool {
    state
        .head()
        .is_none_or(|(_, head)| delivery.seq <= head.seq)
}

fn is_at_rest(engine: &Engine, state: &State) -> bool {
    let mut actions = Vec::new();
    engine.actions(state, &mut actions);
    actions.iter().all(|action| {
        use Action::{Cancel, EnqueueBegins, Requeue};
        matches!(action, EnqueueBegins(..) | Requeue(..) | Cancel(..))
    })
}

pub const ALL_SENT: &str = "everything is sent";
pub const PARKED: &str = "a message fails for good";
pub const TAKEN_OVER: &str = "a lease is taken over from a process that died";
pub const ABSORBED: &str = "a second call is absorbed by its key";
pub const KEPT: &str = "an acceptance is kept although its lease has been taken over";
pub const REFUSED: &str = "a failure is refused because its lease has been taken over";
pub const RELEASED: &str = "a blocked message is released";
pub const RELEASE_LOST: &str = "a release is lost with its process";
pub const MOVED: &str = "a message goes to the end of the order";

/// What is true in some state: the promises are not kept because nothing happens.
pub fn events() -> Vec<Property<Engine>> {
    vec![
        Property::sometimes(ALL_SENT, |_, state: &State| {
            let mut messages = state.messages.iter();
            messages.all(|message| message.status == Some(Status::Sent))
        }),
        Property::sometimes(PARKED, |_, state: &State| {
            state.queue().any(|(_, delivery)| delivery.is_parked())
        }),
        Property::sometimes(TAKEN_OVER, |engine: &Engine, state: &State| {
            let nobody_was_slow = state.trouble.delays == engine.trouble.delays;
            let mut queue = state.queue();
            nobody_was_slow && queue.any(|(_, d)| d.is_leased() && d.claims - d.failed_attempts > 1)
        }),
        Property::sometimes(ABSORBED, |_, state: &State| {
            messages(state).any(|m| calls(state, m) > 0 && state.messages[m].deliveries > 0)
        }),
        Property::sometimes(KEPT, |_, state: &State| {
            let is_sent = |m: usize| state.messages[m].status == Some(Status::Sent);
            messages(state).any(|m| valid_leases(state, m) > 0 && is_sent(m))
        }),
        Property::sometimes(REFUSED, |_, state: &State| {
            state
                .processes
                .iter()
                .any(|process| is_superseded(state, process))
        }),
        Property::sometimes(RELEASED, |_, state: &State| {
            state
                .processes
                .iter()
                .any(|process| is_releasing(state, process))
        }),
        Property::sometimes(RELEASE_LOST, |_, state: &State| {
            list_unreleased(state) && state.processes.iter().all(|p| *p == Process::Idle)
        }),
        Property::sometimes(MOVED, |engine: &Engine, state: &State| {
            usize::from(state.outbound_seq) > engine.messages
        }),
    ]
}

fn is_superseded(state: &State, process: &Process) -> bool {
    let Process::Failed { lease, .. } = process else {
        return false;
    };
    let token = state.deliveries[lease.message].and_then(|delivery| delivery.lease_token);
    token.is_some_and(|token| token != lease.token)
}

fn is_releasing(state: &State, process: &Process) -> bool {
    let Process::Releasing { head, .. } = process else {
        return false;
    };
    state.deliveries[*head].is_some_and(Delivery::is_blocked)
}
