//! The fuzz targets' functions, which live among the API's tests so that stable Rust runs them too.

#[path = "../../apiserver/api/tests/fuzz/entries/mod.rs"]
mod entries;

use coracle_api::schema::on_deep_stack;

/// Runs the entry of one target; `name` is one of [`entries::ENTRIES`].
pub fn run(name: &str, input: &[u8]) {
    let entry = entries::ENTRIES.iter().find(|(known, _)| *known == name);
    let entry = entry.expect("a target of that name").1;
    on_deep_stack(name, || entry(input)).expect("room for a thread");
}
