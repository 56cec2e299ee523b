//! The committed corpora: one folder for each target, one file for each input.

use std::fs;
use std::path::Path;

/// The inputs of one target with their names, in a fixed order; a target without inputs is a mistake.
pub(crate) fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default();
            let input = fs::read(&path).expect("a readable file");
            (name.to_string_lossy().into_owned(), input)
        })
        .collect();
    inputs.sort_unstable();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}
