//! How a model is proven: every state is seen, no promise is broken in any, and each rule is needed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, Model};

/// A model that rules can be taken away from.
pub trait Proof:
    Model<
        State: Clone + Debug + Eq + Hash + Send + Sync,
        Action: Clone + Debug + PartialEq + Send + Sync,
    > + Copy
    + Send
    + Sync
    + 'static
{
    type Rule: 'static;

    fn without(self, rules: &'static [Self::Rule]) -> Self;

    /// Makes states the same that differ in nothing that matters.
    fn sort(state: &mut Self::State);
}

fn sorted<P: Proof>(state: &P::State) -> P::State {
    let mut state = state.clone();
    P::sort(&mut state);
    state
}

/// Sees every state, and that there are so many or more; in none a promise is broken, in some these
/// events happen.
#[track_caller]
pub fn assert_kept<P: Proof>(model: P, states: usize, events: &[&'static str]) {
    let checker = model.checker().symmetry_fn(sorted::<P>).spawn_dfs().join();
    for property in model.properties() {
        if !matches!(property.expectation, Expectation::Sometimes) {
            checker.assert_no_discovery(property.name);
        }
    }
    for event in events {
        checker.assert_any_discovery(event);
    }
    let seen = checker.unique_state_count();
    assert!(seen >= states, "only {seen} states");
}

/// Without the rules this story breaks the promise, and with them nothing does.
#[track_caller]
pub fn assert_broken<P: Proof>(
    rules: &'static [P::Rule],
    whole: P,
    promise: &'static str,
    story: &[P::Action],
) {
    let checker = whole.without(rules).checker().spawn_bfs().join();
    checker.assert_discovery(promise, story.to_vec());
    assert_kept(whole, story.len(), &[]);
}

/// No run leads back to where it was; how many states there are.
pub fn assert_every_run_ends<M: Model<State: Clone + Debug + Eq + Hash>>(model: &M) -> usize {
    let mut seen = HashMap::new();
    for state in model.init_states() {
        walk(model, state, &mut seen);
    }
    seen.len()
}

/// Walks on from a state to all ends. `seen` says of each state whether the walk from it is over.
fn walk<M>(model: &M, state: M::State, seen: &mut HashMap<M::State, bool>)
where
    M: Model<State: Clone + Debug + Eq + Hash>,
{
    if let Some(is_over) = seen.get(&state) {
        assert!(is_over, "a circle through {state:?}");
        return;
    }
    seen.insert(state.clone(), false);
    for next in model.next_states(&state) {
        walk(model, next, seen);
    }
    seen.insert(state, true);
}

/// The program has a statement that an action stands for.
#[track_caller]
pub fn assert_statement(program: &str, action: &impl Debug) {
    let name = statement(action);
    let is_it = |line: &str| line.contains("-- ") && line.ends_with(&format!("::{name}"));
    assert!(program.lines().any(is_it), "there is no statement {name}");
}

/// `list_unreleased` of `ListUnreleased(0)`.
fn statement(action: &impl Debug) -> String {
    let mut name = String::new();
    for letter in format!("{action:?}")
        .chars()
        .take_while(|letter| *letter != '(')
    {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
