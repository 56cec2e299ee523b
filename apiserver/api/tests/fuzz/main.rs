//! Runs every fuzz target over its corpus and over mutations of it, in seconds and on stable Rust.
//!
//! `CORACLE_LONG=1` makes it a few minutes; `fuzz/README.md` says how to run the targets with coverage.

mod corpus;
mod entries;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};

use coracle_api::schema::on_deep_stack;
use entries::{ENTRIES, Entry};
use mutate::Mutator;

/// How many mutated inputs each target gets.
fn rounds() -> u64 {
    match std::env::var_os("CORACLE_LONG") {
        Some(_) => 100_000,
        None => 1_500,
    }
}

/// Runs a target, which may be given what nests; its panic says which input it was.
fn run((name, entry): Entry, what: &str, input: &[u8]) {
    let work = || catch_unwind(AssertUnwindSafe(|| entry(input)));
    if on_deep_stack(name, work)
        .expect("room for a thread")
        .is_err()
    {
        panic!(
            "{name} fails on {what}: {:?}",
            String::from_utf8_lossy(input)
        );
    }
}

#[test]
fn every_target_holds_on_its_corpus() {
    for entry in ENTRIES {
        for (name, input) in corpus::of(entry.0) {
            run(entry, &name, &input);
        }
    }
}

#[test]
fn every_target_holds_on_mutations_of_its_corpus() {
    for entry in ENTRIES {
        let inputs: Vec<_> = corpus::of(entry.0)
            .into_iter()
            .map(|(_, input)| input)
            .collect();
        for seed in 0..rounds() {
            let input = Mutator::new(seed).mutate(&inputs);
            run(entry, &format!("the mutation of seed {seed}"), &input);
        }
    }
}
