//! Proofs of the whole: a model, a reference, random input, and the texts of program and pages.

mod containers;
mod documents;
mod fuzzing;
mod imports;
mod invariants;
mod model;
mod reference;
mod rules;
mod statements;
