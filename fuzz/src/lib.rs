//! The fuzz targets' functions, which live among the API's tests so that stable Rust runs them too.

#[path = "../../apiserver/api/tests/fuzz/entries/mod.rs"]
mod entries;

/// Runs the entry of one target; `name` is one of [`entries::ENTRIES`].
pub fn run(name: &str, input: &[u8]) {
    let entry = entries::ENTRIES.iter().find(|(known, _)| *known == name);
    (entry.expect("a target of that name").1)(input);
}
