//! The list of scenarios that are known to differ from upstream.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::compare::Difference;
use crate::scenario::folder;

const HEADER: &str = "\
# Scenarios whose answers are known to differ from upstream's; docs/oracle.md says why. The list only gets shorter.
# Made by: CORACLE_ORACLE_BLESS=1 cargo test -p coracle-server --test oracle
";

/// Names of scenarios, sorted.
pub(crate) struct Expectations {
    names: BTreeSet<String>,
}

impl Expectations {
    /// Reads the list; none there is an empty one.
    pub(crate) fn load() -> Self {
        let text = std::fs::read_to_string(path()).unwrap_or_default();
        let lines = text.lines().map(str::trim);
        let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            names: names.map(str::to_owned).collect(),
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The listed scenarios of `area` that are not among its `failures`, because they pass or are no more.
    pub(crate) fn stale(&self, area: &str, failures: &[(String, Vec<Difference>)]) -> Vec<&str> {
        let of_area = self.names.iter().filter(|name| is_in(name, area));
        of_area
            .filter(|name| failures.iter().all(|(failed, _)| failed != *name))
            .map(String::as_str)
            .collect()
    }

    /// Writes the list anew with what differed in these areas; areas that did not run stay as they are.
    pub(crate) fn bless<'a>(&self, ran: impl Iterator<Item = (&'a str, &'a [String])>) {
        let mut names = self.names.clone();
        for (area, failed) in ran {
            names.retain(|name| !is_in(name, area));
            names.extend(failed.iter().cloned());
        }
        let mut text = HEADER.to_owned();
        for name in &names {
            text += name;
            text.push('\n');
        }
        let path = path();
        std::fs::write(&path, text)
            .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
        println!("{} scenarios are on the list", names.len());
    }
}

fn is_in(name: &str, area: &str) -> bool {
    name.split('/').next() == Some(area)
}

fn path() -> PathBuf {
    folder().join("expected-failures.txt")
}
