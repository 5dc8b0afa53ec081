//! The rules of reconciliation, each of which can be taken away, and the promises that they keep.

use stateright::{Model, Property};

use super::engine::{Action, Wire};
use super::state::{Process, State, Status};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A status settles only what it has our own signature for.
    Signed,
    /// So it does while the call is in flight.
    EarlyStatus,
    /// And whoever holds the lease, or nobody.
    AnyHolder,
    /// An attempt that nobody has settled may have been accepted.
    Interrupted,
    /// What may have been accepted waits for its status.
    DoubtWaits,
    /// And then is sent again only if statuses of others have come.
    Evidence,
    /// Of others that were accepted later.
    LaterOnly,
    /// And by calls that began later.
    CallBegan,
    /// Of what a status settles it is not known when its call began: it is no evidence.
    NoWitness,
    /// What is held stays held when evidence comes.
    HeldStays,
    /// An operator's retry leaves alone what may have been accepted, unless it is said.
    CarefulRequeue,
    /// What is canceled may have been accepted, if an attempt at it was never settled.
    CancelDoubt,
}

pub const NOT_TWICE: &str = "no message is delivered twice, unless an operator wants it";
pub const NOT_UNSENT: &str = "what is sent is delivered, and what is not is in the queue";
pub const SETTLED: &str = "what a status has come for is sent";
pub const HELD: &str = "what is held is not sent";
pub const GOES_ON: &str = "what is neither sent nor held goes on by itself";

/// What is true in every state. That every run comes to an end is left to
/// `every_run_of_the_wire_ends`.
pub fn promises() -> Vec<Property<Wire>> {
    vec![
        Property::always(NOT_TWICE, |_, state: &State| {
            let mut messages = state.messages.iter();
            // A status that never comes although others do: what that means nobody can know.
            messages.all(|m| m.deliveries <= 1 || m.is_insisted || m.is_lost)
        }),
        Property::always(NOT_UNSENT, |_, state: &State| {
            let mut messages = state.messages.iter().zip(&state.deliveries);
            messages.all(|(message, delivery)| match message.status {
                Status::Sent => delivery.is_none() && message.deliveries > 0,
                Status::Pending | Status::Failed => delivery.is_some(),
            })
        }),
        Property::always(SETTLED, |_, state: &State| {
            let mut messages = state.messages.iter();
            messages.all(|message| !message.is_told || message.status == Status::Sent)
        }),
        Property::always(HELD, |_, state: &State| {
            let mut messages = state.messages.iter().enumerate();
            messages.all(|(m, message)| !message.is_held || !state.is_called(m))
        }),
        Property::always(GOES_ON, |wire: &Wire, state: &State| {
            !is_at_rest(wire, state) || state.queue().all(|(_, delivery)| delivery.is_parked())
        }),
    ]
}

fn is_at_rest(wire: &Wire, state: &State) -> bool {
    let mut actions = Vec::new();
    wire.actions(state, &mut actions);
    actions.iter().all(|action| {
        use Action::{Cancel, Forge, IncidentBegins, IncidentEnds, Lose, Requeue};
        matches!(
            action,
            Requeue(..) | Cancel(_) | Forge(_) | Lose(_) | IncidentBegins | IncidentEnds
        )
    })
}

pub const EVERYTHING_SENT: &str = "every message is sent";
pub const SENT_BY_STATUS: &str = "a status settles what no answer has";
pub const SETTLED_EARLY: &str = "a status comes before the answer";
pub const SENT_AGAIN: &str = "what may have been accepted is sent again, since there is evidence";
pub const IS_HELD: &str = "a message is held, since there is none";
pub const HELD_IS_SETTLED: &str = "a status settles what was held";
pub const DOUBLED: &str = "a message is delivered twice";

/// What is true in some state: the promises are not kept because nothing happens.
pub fn events() -> Vec<Property<Wire>> {
    vec![
        Property::sometimes(EVERYTHING_SENT, |_, state: &State| {
            let mut messages = state.messages.iter();
            messages.all(|message| message.status == Status::Sent)
        }),
        Property::sometimes(SENT_BY_STATUS, |wire: &Wire, state: &State| {
            let nobody_lives = state.trouble.crashes < wire.trouble.crashes
                && state.processes.iter().all(|p| *p == Process::Idle);
            let mut messages = state.messages.iter();
            nobody_lives && messages.any(|m| m.is_told && m.status == Status::Sent)
        }),
        Property::sometimes(SETTLED_EARLY, |_, state: &State| {
            let is_sent = |m: usize| state.messages[m].status == Status::Sent;
            let mut processes = state.processes.iter();
            processes.any(|p| matches!(p, Process::Taken(lease) if is_sent(lease.message)))
        }),
        Property::sometimes(SENT_AGAIN, |_, state: &State| {
            let mut processes = state.processes.iter();
            processes.any(|p| matches!(p, Process::Calling(lease) if lease.evidence == Some(true)))
        }),
        Property::sometimes(IS_HELD, |wire: &Wire, state: &State| {
            let nobody_asked = state.trouble.operations == wire.trouble.operations;
            nobody_asked && state.messages.iter().any(|message| message.is_held)
        }),
        Property::sometimes(HELD_IS_SETTLED, |_, state: &State| {
            let mut messages = state.messages.iter();
            messages.any(|message| message.is_held && message.status == Status::Sent)
        }),
        Property::sometimes(DOUBLED, |_, state: &State| {
            state.messages.iter().any(|message| message.deliveries > 1)
        }),
    ]
}
