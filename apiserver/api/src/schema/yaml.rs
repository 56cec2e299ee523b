//! Reads YAML into the tree that JSON is read into, duplicate keys included.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::DuplicateKeyPolicy;

use super::nesting::{MAX_NESTING, on_deep_stack};
use super::scan::{self, Tree};

/// How deep YAML is followed where it is met. What nests more is read on a thread of its own: the parser takes much of a
/// stack for each level, and a thread that lives on would keep it.
const MOST_AT_ONCE: usize = 64;

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
    let tree = parse(text, DuplicateKeyPolicy::LastWins).map_err(|error| {
        let error = in_words_of_go(&error);
        format!("error converting YAML to JSON: yaml: {error}")
    })?;
    Ok(tree.unwrap_or(Tree::Null))
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

/// Reads the first document, if there is one.
fn parse(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Option<Tree>, String> {
    let read = |levels: usize| -> Result<Option<Tree>, String> {
        let options = serde_saphyr::options! {
            // Go's YAML reads as version 1.1 does: 0777 is octal.
            legacy_octal_numbers: true,
            duplicate_keys: duplicate_keys,
            with_snippet: false,
            budget: serde_saphyr::budget! { max_depth: levels, flow_nesting_limit: MAX_NESTING },
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    };
    match read(MOST_AT_ONCE) {
        Err(error) if is_too_deep(&error) => on_deep_stack("yaml", || read(MAX_NESTING))
            .unwrap_or_else(|error| Err(format!("no room to read what nests so deep: {error}"))),
        read => read,
    }
}

fn is_too_deep(error: &str) -> bool {
    error.contains("Depth {") || error.contains("recursion limit")
}

/// The line on which a key comes for the second time, for the first such key.
pub(super) fn duplicate_line(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let error = parse(text, DuplicateKeyPolicy::Error).err()?;
    let (_, place) = error
        .split_once("at line ")
        .filter(|_| error.contains("duplicate"))?;
    place.split(',').next().map(str::to_owned)
}

const MISPLACED: &str = "mapping values are not allowed in this context";

/// The parser's finding as Go's would have put it, where that is known.
fn in_words_of_go(error: &str) -> String {
    if is_too_deep(error) {
        return format!("exceeded max depth of {MAX_NESTING}");
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
                Tree::List(_) | Tree::Map(_) => {
                    return Err(A::Error::custom("a key must be a scalar"));
                }
            };
            entries.push((key, value));
        }
        Ok(Tree::Map(entries))
    }
}
