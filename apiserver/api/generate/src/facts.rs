//! Reads the facts that no published schema carries: how Go declares a field.
//!
//! ```text
//! PodSpec.hostNetwork value          held by value: a zero is the same as none
//! v1.Role.rules !omitempty           written even when empty
//! PodSpec.example number=42 after=hostNetwork
//! ```
//!
//! A name is a definition's last parts, as many as are needed, a dot, and the field.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

/// What is known of a field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) value: Option<bool>,
    pub(crate) always: Option<bool>,
    pub(crate) words: Vec<String>,
}

/// All facts, by name.
pub(crate) struct Facts {
    lines: BTreeMap<String, (Vec<String>, bool)>,
}

pub(crate) fn read(path: &Path) -> Result<Facts> {
    let mut lines: BTreeMap<String, (Vec<String>, bool)> = BTreeMap::new();
    for line in fs::read_to_string(path)?.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (names, words) = line
            .split_once(' ')
            .with_context(|| format!("no facts in {line}"))?;
        let (definition, fields) = names
            .rsplit_once('.')
            .with_context(|| format!("no field in {line}"))?;
        for field in fields.split(',') {
            let entry = lines.entry(format!("{definition}.{field}")).or_default();
            entry.0.extend(words.split_whitespace().map(str::to_owned));
        }
    }
    Ok(Facts { lines })
}

impl Facts {
    fn words(&mut self, definition: &str, field: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut start = 0;
        loop {
            if let Some((found, used)) = self
                .lines
                .get_mut(&format!("{}.{field}", &definition[start..]))
            {
                *used = true;
                words.extend(found.iter().cloned());
            }
            match definition[start..].find('.') {
                Some(dot) => start += dot + 1,
                None => return words,
            }
        }
    }

    /// The value of a `key=value` word of a field.
    pub(crate) fn take_word(&mut self, definition: &str, field: &str, key: &str) -> Option<String> {
        let words = self.words(definition, field);
        words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
    }

    /// How Go declares a field, as far as the facts say.
    pub(crate) fn of(&mut self, definition: &str, field: &str) -> Known {
        let mut known = Known::default();
        for word in self.words(definition, field) {
            match word.as_str() {
                "value" => known.value = Some(true),
                "pointer" => known.value = Some(false),
                "!omitempty" => known.always = Some(true),
                "omitempty" => known.always = Some(false),
                word if word.starts_with("number=") || word.starts_with("after=") => {}
                _ => known.words.push(word),
            }
        }
        known
    }

    /// The names of facts that no field asked for.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(|(_, (_, used))| !used)
            .map(|(name, _)| name.as_str())
    }
}
