//! The engine as a model. For small numbers of everything, in every order in which statements,
//! calls, crashes and the ends of leases can follow one another, each promise is kept. Take a rule
//! away, and there is a story of how a promise is broken.
//!
//! A way to learn the engine: `state.rs` is what there is, `engine.rs` what can happen, `rules.rs`
//! what is promised, `stories.rs` why each rule is there. Actions have the names of the statements
//! that they stand for (`Claim`: `-- delivery::claim`).
//!
//! It leaves out SQL, batches of more than one, the pace of calls, and the program: `stress.py`
//! runs the statements as they ship, `gateway simulate` and the other tests the program. Larger
//! bounds: `cargo test --release --test gateway model -- --ignored`.
//!
//! `feed/` is the reader of the live feed in the same way, `whatsapp/` a provider without keys.
//! `proof.rs` is how all of them are proven.

mod engine;
mod feed;
mod proof;
mod rules;
mod state;
mod stories;
mod whatsapp;

use engine::{Action, Engine};
use proof::{Proof, assert_every_run_ends, assert_kept, assert_statement};
use rules::*;
use state::{State, Trouble};

const NO_TROUBLE: Trouble = Trouble {
    crashes: 0,
    delays: 0,
    failures: 0,
    operations: 0,
};
const SOME_TROUBLE: Trouble = Trouble {
    crashes: 1,
    delays: 1,
    failures: 1,
    operations: 0,
};

impl Proof for Engine {
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

fn engine(processes: usize, messages: usize, trouble: Trouble) -> Engine {
    Engine {
        processes,
        messages,
        trouble,
        ..Engine::default()
    }
}

#[test]
fn one_message_keeps_every_promise_in_much_trouble() {
    let trouble = Trouble {
        crashes: 2,
        delays: 1,
        failures: 2,
        operations: 1,
    };
    let events = [ALL_SENT, PARKED, TAKEN_OVER, ABSORBED, KEPT, REFUSED, MOVED];
    assert_kept(engine(3, 1, trouble), 20_000, &events);
}

#[test]
fn two_messages_and_three_processes_keep_every_promise() {
    let engine = engine(3, 2, SOME_TROUBLE);
    let of_one = [ALL_SENT, PARKED, TAKEN_OVER, ABSORBED, KEPT, REFUSED];
    let of_two = [RELEASED, RELEASE_LOST];
    assert_kept(engine, 20_000, &[&of_one[..], &of_two].concat());
}

#[test]
fn three_messages_and_two_processes_keep_every_promise() {
    let engine = engine(2, 3, SOME_TROUBLE);
    assert_kept(engine, 100_000, &[ALL_SENT, RELEASED, RELEASE_LOST]);
}

#[test]
fn an_operator_breaks_no_promise() {
    let trouble = Trouble {
        operations: 2,
        ..SOME_TROUBLE
    };
    assert_kept(engine(2, 2, trouble), 50_000, &[ALL_SENT, RELEASED, MOVED]);
}

#[test]
fn without_crashes_nothing_needs_the_sweep() {
    let trouble = Trouble {
        crashes: 0,
        ..SOME_TROUBLE
    };
    let engine = Engine {
        without: &[Rule::Sweep],
        ..engine(3, 3, trouble)
    };
    assert_kept(engine, 50_000, &[ALL_SENT, PARKED, RELEASED]);
    let engine = Engine {
        messages: 2,
        trouble: Trouble {
            operations: 2,
            ..trouble
        },
        ..engine
    };
    assert_kept(engine, 50_000, &[ALL_SENT, MOVED, RELEASED]);
}

#[test]
fn what_is_held_is_delivered_once_by_a_provider_that_knows_no_keys() {
    let engine = Engine {
        holds_ambiguous: true,
        without: &[Rule::OneKey],
        ..engine(3, 2, SOME_TROUBLE)
    };
    assert_kept(engine, 10_000, &[ALL_SENT, PARKED, TAKEN_OVER, KEPT]);
}

#[test]
#[ignore = "takes a minute with --release"]
fn larger_bounds_keep_every_promise() {
    for (processes, messages, crashes, delays, failures, operations) in [
        (2, 4, 1, 1, 1, 0),
        (3, 2, 2, 2, 2, 1),
        (3, 3, 1, 1, 1, 1),
        (4, 3, 1, 1, 1, 0),
        (3, 3, 2, 2, 1, 0),
    ] {
        let trouble = Trouble {
            crashes,
            delays,
            failures,
            operations,
        };
        assert_kept(engine(processes, messages, trouble), 300_000, &[ALL_SENT]);
    }
}

/// `NOT_STUCK` is about states where nothing happens any more. It always comes to one.
#[test]
fn every_run_ends() {
    let trouble = Trouble {
        operations: 1,
        ..SOME_TROUBLE
    };
    let seen = assert_every_run_ends(&engine(2, 2, trouble));
    assert!(seen > 20_000, "only {seen} states");
}

#[test]
fn the_statements_of_the_model_are_those_of_the_program() {
    let program = [
        include_str!("../../../src/message/store/enqueue.rs"),
        include_str!("../../../src/delivery/store.rs"),
        include_str!("../../../src/delivery/store/outcomes.rs"),
    ]
    .concat();
    for action in [
        Action::Enqueue(0),
        Action::Claim(0, 0),
        Action::MarkSent(0),
        Action::MarkFailed(0),
        Action::Release(0),
        Action::ListUnreleased(0),
        Action::Requeue(0, 0),
        Action::Cancel(0, 0),
    ] {
        assert_statement(&program, &action);
    }
}
