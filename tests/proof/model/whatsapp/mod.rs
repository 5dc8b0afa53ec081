//! A provider that knows no idempotency keys, as a model: it takes a message each time, answers
//! are lost, and statuses come early, late or never. No message is delivered twice while statuses
//! come within the wait; in an incident, in which none come, what is in doubt is held. For each
//! rule there is a story of what breaks without it.
//!
//! `state.rs` is what there is, `engine.rs` what can happen, `steps.rs` what that does, `rules.rs`
//! what is promised, `stories.rs` why each rule is there. Leases, order and the rest of the queue
//! are in the model of the engine.
//!
//! Where statuses come in any order, an incident begins here while none is on its way: else evidence
//! can be wrong, since the status of another message has just come, and the one that matters is too
//! late. Where they come in the order in which their messages were accepted, it never is.

mod engine;
mod rules;
mod state;
mod steps;
mod stories;

use super::proof::{Proof, assert_every_run_ends, assert_kept, assert_statement};
use engine::{Action, Wire, Word};
use rules::*;
use state::{State, Trouble};

const NO_TROUBLE: Trouble = Trouble {
    crashes: 0,
    delays: 0,
    failures: 0,
    incidents: 0,
    losses: 0,
    forgeries: 0,
    operations: 0,
};
const SOME_TROUBLE: Trouble = Trouble {
    crashes: 1,
    delays: 1,
    failures: 1,
    incidents: 1,
    forgeries: 1,
    ..NO_TROUBLE
};

impl Proof for Wire {
    type Rule = Rule;

    fn without(self, rules: &'static [Rule]) -> Self {
        Self {
            without: rules,
            ..self
        }
    }

    /// Which process is which makes no difference.
    fn sort(state: &mut State) {
        state.processes.sort_unstable();
    }
}

fn wire(processes: usize, messages: usize, trouble: Trouble) -> Wire {
    Wire {
        processes,
        messages,
        is_in_order: false,
        trouble,
        without: &[],
    }
}

#[test]
fn one_message_is_not_doubled_in_much_trouble() {
    let trouble = Trouble {
        crashes: 2,
        delays: 1,
        failures: 2,
        incidents: 2,
        forgeries: 1,
        operations: 2,
        losses: 0,
    };
    let events = [
        EVERYTHING_SENT,
        SENT_BY_STATUS,
        SETTLED_EARLY,
        IS_HELD,
        HELD_IS_SETTLED,
        DOUBLED,
    ];
    assert_kept(wire(2, 1, trouble), 100_000, &events);
}

#[test]
fn two_messages_are_not_doubled_while_statuses_come_or_in_an_incident() {
    let events = [
        EVERYTHING_SENT,
        SENT_BY_STATUS,
        SETTLED_EARLY,
        SENT_AGAIN,
        IS_HELD,
        HELD_IS_SETTLED,
    ];
    assert_kept(wire(2, 2, SOME_TROUBLE), 100_000, &events);
}

#[test]
fn whenever_an_incident_begins_nothing_is_doubled_where_statuses_come_in_order() {
    let ordered = Wire {
        is_in_order: true,
        ..wire(2, 2, SOME_TROUBLE)
    };
    assert_kept(
        ordered,
        100_000,
        &[EVERYTHING_SENT, SENT_AGAIN, HELD_IS_SETTLED],
    );
}

#[test]
fn an_operator_doubles_nothing_without_saying_so() {
    let trouble = Trouble {
        crashes: 1,
        failures: 1,
        operations: 2,
        ..NO_TROUBLE
    };
    assert_kept(wire(2, 2, trouble), 30_000, &[EVERYTHING_SENT, DOUBLED]);
}

#[test]
fn a_status_that_is_lost_alone_may_double_its_message_and_breaks_no_other_promise() {
    let trouble = Trouble {
        losses: 1,
        ..SOME_TROUBLE
    };
    assert_kept(wire(1, 2, trouble), 30_000, &[EVERYTHING_SENT, DOUBLED]);
}

/// `GOES_ON` is about states where nothing happens any more. It always comes to one.
#[test]
fn every_run_of_the_wire_ends() {
    let trouble = Trouble {
        operations: 1,
        ..SOME_TROUBLE
    };
    let seen = assert_every_run_ends(&wire(1, 2, trouble));
    assert!(seen > 50_000, "only {seen} states");
}

#[test]
fn the_statements_of_the_wire_are_those_of_the_program() {
    let program = [
        include_str!("../../../../src/delivery/store.rs"),
        include_str!("../../../../src/delivery/store/outcomes.rs"),
    ]
    .concat();
    for action in [
        Action::Claim(0, 0),
        Action::Leave(0),
        Action::MarkSent(0),
        Action::MarkFailed(0),
        Action::Requeue(0, Word::None),
        Action::Cancel(0),
    ] {
        assert_statement(&program, &action);
    }
}
