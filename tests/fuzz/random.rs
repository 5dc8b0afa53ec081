//! The seeds, and random changes of them.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

use crate::TARGETS;

/// How many inputs of each target are made for each case that is asked for.
const INPUTS: u32 = 4;

/// What hurts.
const WORDS: [&str; 22] = [
    "null", "true", "[]", "{}", "[[", "]]", "{", "}", "[", "]", "\"", "\\", ",", ":", "\n", "\0",
    "1e999", "-1", r"\ud800", r"\u0000", "\u{FEFF}", "é",
];

/// An input, shown as text.
struct Input(Vec<u8>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A change of an input: this many bytes make place for others.
#[derive(Debug, Clone)]
struct Change {
    at: Index,
    length: usize,
    new: New,
}

#[derive(Debug, Clone)]
enum New {
    Nothing,
    Bytes(Vec<u8>),
    /// A part of this seed.
    Part(Index, Index, usize),
}

/// The seeds of a target, with their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    let files = fs::read_dir(folder.join(target)).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut seeds: Vec<_> = paths
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    seeds
}

/// A word of a seed: what stands between two quotes.
fn words(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let of_seeds = seeds.iter().flat_map(|seed| seed.split(|&it| it == b'"'));
    let hurting = WORDS.iter().map(|word| word.as_bytes());
    of_seeds
        .filter(|word| (1..40).contains(&word.len()))
        .chain(hurting)
        .map(<[u8]>::to_vec)
        .collect()
}

fn any_change(words: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let new = prop_oneof![
        2 => Just(New::Nothing),
        4 => select(words).prop_map(New::Bytes),
        1 => vec(any::<u8>(), 1..4).prop_map(New::Bytes),
        3 => (any::<Index>(), any::<Index>(), 1_usize..300)
            .prop_map(|(seed, at, length)| New::Part(seed, at, length)),
    ];
    let length = prop_oneof![3 => 0_usize..3, 2 => 0_usize..40, 1 => 0_usize..400];
    (any::<Index>(), length, new).prop_map(|(at, length, new)| Change { at, length, new })
}

fn any_input(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let changes = vec(any_change(words(&seeds)), 0..8);
    (any::<Index>(), changes).prop_map(move |(seed, changes)| {
        let mut input = seed.get(&seeds).clone();
        for Change { at, length, new } in changes {
            let at = at.index(input.len() + 1);
            let new = match new {
                New::Nothing => Vec::new(),
                New::Bytes(bytes) => bytes,
                New::Part(seed, from, length) => {
                    let seed = seed.get(&seeds);
                    let from = from.index(seed.len() + 1);
                    seed[from..seed.len().min(from + length)].to_vec()
                }
            };
            let end = input.len().min(at + length);
            input.splice(at..end, new);
        }
        Input(input)
    })
}

#[test]
fn the_seeds_of_each_target_hold() {
    for (target, check) in TARGETS {
        for (name, seed) in seeds(target) {
            let held = std::panic::catch_unwind(|| check(&seed));
            assert!(held.is_ok(), "{name}");
        }
    }
}

/// Changes the seeds of a target, as `PROPTEST_CASES` and `PROPTEST_RNG_SEED` say.
fn changed_seeds_hold(target: &str) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let seeds = seeds(target).into_iter().map(|(_, seed)| seed).collect();
    let mut config = ProptestConfig::default();
    config.cases *= INPUTS;
    let mut runner = TestRunner::new(config);
    let held = runner.run(&any_input(seeds), |Input(input)| {
        check(&input);
        Ok(())
    });
    held.unwrap_or_else(|failure| panic!("{target}: {failure}"));
}

#[test]
fn whatever_a_body_is_each_item_in_it_is_found_once() {
    changed_seeds_hold("bodies");
}

#[test]
fn whatever_stands_beside_good_items_they_are_found() {
    changed_seeds_hold("neighbours");
}

#[test]
fn whatever_a_provider_answers_no_success_is_made_up_or_missed() {
    changed_seeds_hold("answers");
}
