//! Label and field selectors of one list or watch, parsed once and matched against cached entries.

use coracle_api::Resource;

use crate::cache::Entry;
use crate::request_info::Query;
use crate::status::{ApiError, Result};

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    NotExists,
    Greater,
    Less,
}

#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    key: String,
    equal: bool,
    value: String,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`.
    pub fn parse(query: &Query, resource: &Resource) -> Result<Self> {
        let labels = parse_labels(query.get("labelSelector").unwrap_or_default())?;
        let fields = parse_fields(query.get("fieldSelector").unwrap_or_default())?;
        let known = resource.strategy.selectable_fields(&Default::default());
        for field in &fields {
            let generic = matches!(field.key.as_str(), "metadata.name" | "metadata.namespace");
            if !generic && !known.iter().any(|(name, _)| *name == field.key) {
                return Err(ApiError::bad_request(format!("field label not supported: {}", field.key)));
            }
        }
        Ok(Self { labels, fields })
    }

    /// The same, for the object of one name only.
    pub fn and_name(mut self, name: &str) -> Self {
        self.fields.push(FieldRequirement { key: "metadata.name".to_owned(), equal: true, value: name.to_owned() });
        self
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether `entry` is meant.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(&entry.labels))
            && self.fields.iter().all(|field| {
                let actual = match field.key.as_str() {
                    "metadata.name" => entry.name(),
                    "metadata.namespace" => entry.namespace(),
                    key => entry.fields.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value),
                };
                (actual == field.value) == field.equal
            })
    }
}

impl Requirement {
    fn matches(&self, labels: &[(String, String)]) -> bool {
        let value = labels.iter().find(|(key, _)| *key == self.key).map(|(_, value)| value);
        let number = |text: &String| text.parse::<i64>().ok();
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::NotExists => value.is_none(),
            Operator::Greater => value.and_then(number) > self.values.first().and_then(number),
            Operator::Less => value.and_then(number).is_some_and(|v| Some(v) < self.values.first().and_then(number)),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>> {
    let mut requirements = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = top_level_comma(rest);
        let clause = rest[..end].trim();
        rest = rest[end..].trim_start_matches(',').trim_start();
        let bad = || ApiError::bad_request(format!("unable to parse requirement: {clause:?}"));
        let requirement = if let Some(key) = clause.strip_prefix('!') {
            Requirement { key: key.trim().to_owned(), operator: Operator::NotExists, values: Vec::new() }
        } else if let Some((head, list)) = clause.split_once('(') {
            let list = list.strip_suffix(')').ok_or_else(bad)?;
            let (key, word) = head.trim().rsplit_once(' ').ok_or_else(bad)?;
            let operator = match word {
                "in" => Operator::In,
                "notin" => Operator::NotIn,
                _ => return Err(bad()),
            };
            let values = list.split(',').map(|value| value.trim().to_owned()).collect();
            Requirement { key: key.trim().to_owned(), operator, values }
        } else if let Some((at, symbol, operator)) = [
            ("!=", Operator::NotIn),
            ("==", Operator::In),
            ("=", Operator::In),
            (">", Operator::Greater),
            ("<", Operator::Less),
        ]
        .into_iter()
        .find_map(|(symbol, operator)| clause.find(symbol).map(|at| (at, symbol, operator)))
        {
            let value = clause[at + symbol.len()..].trim().to_owned();
            Requirement { key: clause[..at].trim().to_owned(), operator, values: vec![value] }
        } else {
            Requirement { key: clause.to_owned(), operator: Operator::Exists, values: Vec::new() }
        };
        if requirement.key.is_empty() || requirement.key.contains(char::is_whitespace) {
            return Err(bad());
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

/// Where the first clause ends: at a comma outside parentheses.
fn top_level_comma(text: &str) -> usize {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>> {
    let clauses = text.split(',').map(str::trim).filter(|clause| !clause.is_empty());
    clauses
        .map(|clause| {
            let found = ["!=", "==", "="].into_iter().find_map(|symbol| clause.split_once(symbol).map(|pair| (symbol, pair)));
            let (symbol, (key, value)) = found.ok_or_else(|| {
                ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{clause}'"))
            })?;
            Ok(FieldRequirement { key: key.to_owned(), equal: symbol != "!=", value: value.to_owned() })
        })
        .collect()
}
