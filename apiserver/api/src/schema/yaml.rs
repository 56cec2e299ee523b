//! Reads YAML into the tree that JSON is read into, duplicate keys included.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Options};

use super::scan::{self, MAX_DEPTH, Tree};

/// How deep YAML may nest that is not JSON: the parser needs much of the stack for each level.
const MAX_YAML_DEPTH: usize = 64;

/// Reads one YAML document; an empty one is null. Most of what comes as YAML is JSON, which is read as such.
pub(super) fn read(bytes: &[u8]) -> Result<Tree, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    if text.trim_start().starts_with('{')
        && !has_halves(text)
        && let Ok(tree) = scan::scan(bytes)
    {
        return Ok(tree);
    }
    if text.chars().any(is_control) {
        return Err(
            "error converting YAML to JSON: yaml: control characters are not allowed".into(),
        );
    }
    let options: Options = serde_saphyr::options! {
        // Go's YAML reads as version 1.1 does: 0777 is octal.
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_YAML_DEPTH },
    };
    let tree: Option<Tree> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let error = in_words_of_go(&error.to_string());
            format!("error converting YAML to JSON: yaml: {error}")
        })?;
    let tree = tree.unwrap_or(Tree::Null);
    if too_deep(&tree, 1) {
        return Err(format!(
            "error converting YAML to JSON: yaml: exceeded max depth of {MAX_DEPTH}"
        ));
    }
    Ok(tree)
}

/// Whether YAML has no place for a character, not even in quotes.
fn is_control(character: char) -> bool {
    !matches!(
        character,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..
    )
}

/// Whether an escape stands for half of a character, which means something in JSON only.
fn has_halves(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let escape = byte == b'\\' && bytes.next() == Some(b'u');
        if escape
            && bytes
                .clone()
                .next()
                .is_some_and(|digit| digit | 0x20 == b'd')
        {
            return true;
        }
    }
    false
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        // Go's YAML reads as version 1.1 does: 0777 is octal.
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_YAML_DEPTH },
    }
}

/// The line on which a key comes for the second time, for the first such key.
pub(super) fn duplicate_line(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let read: Result<Option<Tree>, _> =
        serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::Error));
    let error = read.err()?.to_string();
    let (_, place) = error
        .split_once("at line ")
        .filter(|_| error.contains("duplicate"))?;
    place.split(',').next().map(str::to_owned)
}

const MISPLACED: &str = "mapping values are not allowed in this context";

/// The parser's finding as Go's would have put it, where that is known.
fn in_words_of_go(error: &str) -> String {
    if error.contains("Depth {") || error.contains("recursion limit") {
        return format!("exceeded max depth of {MAX_YAML_DEPTH}");
    }
    if error.contains("budget breached") {
        // What takes more nodes or bytes than a body can spell out was multiplied by aliases.
        return "document contains excessive aliasing".to_owned();
    }
    if error.contains("surrogate") {
        return "found invalid Unicode character escape code".to_owned();
    }
    let line = error
        .split_once("at line ")
        .and_then(|(_, rest)| rest.split(',').next());
    match line {
        Some(line) if error.starts_with("unclosed bracket") => {
            format!("line {line}: did not find expected node content")
        }
        Some(line) if error.starts_with(MISPLACED) => match line {
            "1" => MISPLACED.to_owned(),
            line => format!("line {line}: {MISPLACED}"),
        },
        _ => error.to_owned(),
    }
}

fn too_deep(tree: &Tree, depth: usize) -> bool {
    match tree {
        Tree::List(items) => {
            depth > MAX_DEPTH || items.iter().any(|item| too_deep(item, depth + 1))
        }
        Tree::Map(entries) => {
            depth > MAX_DEPTH || entries.iter().any(|(_, value)| too_deep(value, depth + 1))
        }
        _ => false,
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        let text = if value.fract() == 0.0 && value.abs() < 1e15 {
            format!("{value:.0}")
        } else {
            value.to_string()
        };
        match scan::number(&text) {
            Some(_) => Ok(Tree::Number(text)),
            None => Err(E::custom("a number that JSON cannot hold")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Tree, Tree>()? {
            let key = match key {
                Tree::String(text) | Tree::Number(text) => text,
                Tree::Bool(value) => value.to_string(),
                Tree::Null => "null".to_owned(),
                Tree::List(_) | Tree::Map(_) | Tree::Deep(_) => {
                    return Err(A::Error::custom("a key must be a scalar"));
                }
            };
            entries.push((key, value));
        }
        Ok(Tree::Map(entries))
    }
}
