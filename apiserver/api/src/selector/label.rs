//! Label selectors, parsed from text or read from an object's `selector` field.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde_json::{Map, Value};

use super::{SelectorError, parser};
use crate::validation::names::{label_value, qualified_name};

/// How a requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of a set.
    In,
    /// The label is absent, or its value isn't one of a set.
    NotIn,
    /// `=`.
    Equals,
    /// `==`, the same as `=`.
    DoubleEquals,
    /// `!=`; also matches where the label is absent.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label isn't there.
    DoesNotExist,
    /// The value is an integer above the given one.
    GreaterThan,
    /// The value is an integer below the given one.
    LessThan,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirement {
    /// A requirement whose key and values fit its operator, else upstream's words for what doesn't.
    pub fn new(
        key: &str,
        operator: Operator,
        values: BTreeSet<String>,
    ) -> Result<Requirement, SelectorError> {
        let mut errors = Vec::new();
        if let Err(error) = check_key(key, "key") {
            errors.push(error);
        }
        let shown = || Value::from(values.iter().cloned().collect::<Vec<_>>());
        let one = values.len() == 1;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => errors.push(format!(
                "values: Invalid value: {}: for 'in', 'notin' operators, values set can't be empty",
                shown()
            )),
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if !one => {
                errors.push(format!("values: Invalid value: {}: exact-match compatibility requires one single value", shown()));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => errors.push(format!(
                "values: Invalid value: {}: values set must be empty for exists and does not exist",
                shown()
            )),
            Operator::GreaterThan | Operator::LessThan if !one => errors.push(format!(
                "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                shown()
            )),
            Operator::GreaterThan | Operator::LessThan => {
                for (index, value) in values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()) {
                    errors.push(format!(
                        "values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let problems = label_value(value);
            if !problems.is_empty() {
                errors.push(format!(
                    "values[{index}][{key}]: Invalid value: {value:?}: {}",
                    problems.join("; ")
                ));
            }
        }
        match errors.len() {
            0 => Ok(Requirement {
                key: key.to_owned(),
                operator,
                values,
            }),
            1 => Err(SelectorError(errors.remove(0))),
            _ => Err(SelectorError(format!("[{}]", errors.join(", ")))),
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label is compared.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What the label is compared with.
    pub fn values(&self) -> &BTreeSet<String> {
        &self.values
    }

    /// Whether a label of that value, or its absence, meets the requirement.
    pub fn matches(&self, label: Option<&str>) -> bool {
        let integers = || {
            Some((
                label?.parse::<i64>().ok()?,
                self.values.first()?.parse::<i64>().ok()?,
            ))
        };
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                label.is_some_and(|label| self.values.contains(label))
            }
            Operator::NotIn | Operator::NotEquals => {
                label.is_none_or(|label| !self.values.contains(label))
            }
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => integers().is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => integers().is_some_and(|(label, bound)| label < bound),
        }
    }
}

/// Checks a label's key; `place` is what upstream calls the key there.
pub(super) fn check_key(key: &str, place: &str) -> Result<(), String> {
    let problems = qualified_name(key);
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems
        .join("; ")
        .replace("a qualified name must", "a valid label key must");
    Err(format!("{place}: Invalid value: {key:?}: {problems}"))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Exists => return f.write_str(&self.key),
            Operator::DoesNotExist => return write!(f, "!{}", self.key),
            Operator::Equals => "=",
            Operator::DoubleEquals => "==",
            Operator::NotEquals => "!=",
            Operator::GreaterThan => ">",
            Operator::LessThan => "<",
            Operator::In => " in ",
            Operator::NotIn => " notin ",
        };
        let values = self
            .values
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",");
        match self.operator {
            Operator::In | Operator::NotIn => write!(f, "{}{operator}({values})", self.key),
            _ => write!(f, "{}{operator}{values}", self.key),
        }
    }
}

/// A conjunction of requirements on labels, sorted by key; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// The selector that matches everything.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// The selector that matches nothing; no text says so, hence it is displayed as empty.
    pub fn nothing() -> LabelSelector {
        LabelSelector {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// The selector of a plain map of labels, as Services and ReplicationControllers have it.
    pub fn from_labels(labels: &Map<String, Value>) -> LabelSelector {
        let requirements = labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: BTreeSet::from([value.as_str().unwrap_or_default().to_owned()]),
        });
        LabelSelector::sorted(requirements.collect())
    }

    /// The selector of a `LabelSelector` object; null selects nothing, an empty object everything.
    pub fn from_object(selector: &Value) -> Result<LabelSelector, SelectorError> {
        let Some(object) = selector.as_object() else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in object
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let value = BTreeSet::from([value.as_str().unwrap_or_default().to_owned()]);
            requirements.push(Requirement::new(key, Operator::Equals, value)?);
        }
        for expression in object
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = |name: &str| {
                expression
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let values = values
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        Ok(LabelSelector::sorted(requirements))
    }

    pub(super) fn sorted(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// The terms, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether labels match, given as a lookup by key.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether the labels of an object match; null stands for none.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parser::parse(text)
            .map(LabelSelector::sorted)
            .map_err(SelectorError)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}
