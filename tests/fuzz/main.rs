//! Whatever a webhook or a provider says, nothing fails, and what is good in it is found.
//!
//! As an ordinary test, each target is given its seeds, and random changes of them. `.ci/fuzz` builds
//! this same crate for a fuzzer that sees which code an input reaches, and searches on from there.
#![cfg_attr(fuzzing, no_main)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod answers;
mod bodies;
mod bounds;
mod neighbours;
#[cfg(not(fuzzing))]
mod random;
mod reference;

/// Panics where something does not hold.
type Check = fn(&[u8]);

/// What is tried, by the name of the folder of its seeds.
const TARGETS: [(&str, Check); 3] = [
    ("bodies", bodies::check),
    ("neighbours", neighbours::check),
    ("answers", answers::check),
];

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static CHECK: std::sync::LazyLock<Check> = std::sync::LazyLock::new(|| {
        let wanted = std::env::var("FUZZ_TARGET").unwrap();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        found.unwrap_or_else(|| panic!("no target {wanted}")).1
    });
    CHECK(input);
});
