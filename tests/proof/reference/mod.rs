//! Whatever is asked of it, in whatever order: the inbox is what a few plain structs say.
//!
//! Random sequences of webhooks, sends, and what a provider, agents, operators and workers do, go
//! to two real gateways on one PostgreSQL, and into [`model`]; both must agree, after each step on
//! what it was about, in the end on everything that can be read.
//!
//! The cases are the same each time, so that a change fails by its own fault; `PROPTEST_RNG_SEED=n`
//! takes others, `PROPTEST_CASES=n` more. A failure shows its case, made smaller for two minutes at
//! most, and its seed.

mod comparison;
mod inbox;
mod model;
mod steps;
mod strategy;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use inbox::{Inbox, Rig};
use model::{CORNERS, CORNERS_IN_ORDER, State};
use steps::Transition;
use strategy::Cases;

const CASES: u32 = 24;
/// In each case, before a failure is made smaller.
const STEPS: RangeInclusive<usize> = 20..=40;
const SEED: RngSeed = RngSeed::Fixed(20_250_101);
const MAX_SHRINK_TIME_MS: u32 = 120_000;
const MAX_SHRINK_STEPS: u32 = 100_000;

fn config() -> Config {
    let from_environment = Config::default();
    let is_set = |name| std::env::var_os(name).is_some();
    Config {
        cases: if is_set("PROPTEST_CASES") {
            from_environment.cases
        } else {
            CASES
        },
        rng_seed: if is_set("PROPTEST_RNG_SEED") {
            from_environment.rng_seed
        } else {
            SEED
        },
        max_shrink_time: MAX_SHRINK_TIME_MS,
        max_shrink_iters: MAX_SHRINK_STEPS,
        ..from_environment
    }
}

#[test]
fn the_inbox_is_what_the_reference_says() {
    compare::<false>();
}

#[test]
fn the_inbox_is_what_the_reference_says_with_one_delivery_after_the_other() {
    compare::<true>();
}

fn compare<const ORDERED: bool>() {
    let config = config();
    let (cases, seed) = (config.cases, config.rng_seed);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::start(ORDERED));
    let reached = RefCell::new(BTreeSet::new());
    let strategy = Cases::<ORDERED>::sequential_strategy(STEPS);
    let compared = TestRunner::new(config).run(&strategy, |(state, transitions, seen)| {
        let end = runtime.block_on(play(&rig, state, &transitions, seen))?;
        reached.borrow_mut().extend(end.reached);
        Ok(())
    });
    // Else a failure prints all that the gateways have logged in all cases.
    drop(rig);
    match compared {
        Ok(()) if cases >= CASES && seed == SEED => assert_reached(ORDERED, &reached.into_inner()),
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("no cases: {reason}"),
        Err(TestError::Fail(reason, (state, transitions, _))) => panic!(
            "{reason}\nPROPTEST_RNG_SEED={seed}, participants {:?}, keys {:?}:\n  {}",
            state.participants,
            state.keys,
            transitions
                .iter()
                .map(|step| format!("{step:?}"))
                .collect::<Vec<_>>()
                .join("\n  ")
        ),
    }
}

/// One case: what the reference is after it.
async fn play(
    rig: &Rig,
    mut state: State,
    transitions: &[Transition],
    seen: Option<Arc<AtomicUsize>>,
) -> Result<State, TestCaseError> {
    let mut inbox = Inbox::empty(rig).await;
    for transition in transitions {
        // Of a case that fails, the steps after that are thrown away first.
        if let Some(seen) = &seen {
            seen.fetch_add(1, Ordering::SeqCst);
        }
        state = state.apply(transition);
        inbox.apply(&state, transition).await?;
    }
    inbox.assert_all(&state).await?;
    for transition in state.end() {
        state = state.apply(&transition);
        inbox.apply(&state, &transition).await?;
    }
    inbox.assert_all_sent(&state).await?;
    Ok(state)
}

/// Of the default cases it is known that they come to everything.
fn assert_reached(ordered: bool, reached: &BTreeSet<String>) {
    let in_order: &[&str] = if ordered { &CORNERS_IN_ORDER } else { &[] };
    let corners = CORNERS.iter().chain(in_order);
    let missed: Vec<_> = corners
        .filter(|corner| !reached.contains(**corner))
        .collect();
    assert!(
        missed.is_empty(),
        "no case has come to {missed:?}: take another seed, or change the strategy"
    );
}
