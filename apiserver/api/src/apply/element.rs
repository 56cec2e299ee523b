//! One step of a path: a field's name, a list item by its key or its value.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::schema::{ListType, SchemaRef, parse_json};

/// One step on the way to a field; sorted as upstream sorts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A field of a struct or a key of a map: `f:name`.
    Field(String),
    /// An item of a list of type map, by its key fields in order of their names: `k:{"name":"a"}`.
    Key(Vec<(String, Scalar)>),
    /// An item of a list of type set: `v:"a"`.
    Value(Scalar),
    /// An item by its place: `i:0`. Nothing of ours makes these; they are read and kept.
    Index(i64),
}

/// A value that serves as a key, with a total order: numbers by their amount, integers before floats of the same.
#[derive(Clone, Debug)]
pub struct Scalar(Value);

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |value: &Value| match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        };
        match (&self.0, &other.0) {
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => amount(a, b),
            (a, b) => rank(a)
                .cmp(&rank(b))
                .then_with(|| a.to_string().cmp(&b.to_string())),
        }
    }
}

/// Compares numbers. Rounding an integer to a float keeps the order, so that the exact value only decides ties.
fn amount(a: &Number, b: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or_default() + 0.0;
    let exact = |number: &Number| match (number.as_i64(), number.as_u64()) {
        (Some(signed), _) => Some(i128::from(signed)),
        (None, unsigned) => unsigned.map(i128::from),
    };
    float(a)
        .total_cmp(&float(b))
        .then_with(|| match (exact(a), exact(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        })
}

impl Element {
    /// A field's or a map key's step.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// The step to an item of a list that is not atomic; the error is upstream's.
    pub(super) fn of_item(item: &Value, list: &SchemaRef) -> Result<Self, String> {
        if list.list_type() == ListType::Set {
            return match item {
                Value::Null => Err(
                    "associative list without keys has an element that's an explicit null".into(),
                ),
                Value::Array(_) | Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                scalar => Ok(Self::Value(Scalar(scalar.clone()))),
            };
        }
        let map = match item {
            Value::Object(map) => map,
            Value::Null => {
                return Err("associative list with keys may not have a null element".into());
            }
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let mut key = Vec::with_capacity(list.list_keys().len());
        for name in list.list_keys() {
            let value = match map.get(name.as_ref()) {
                Some(value) => Some(value.clone()),
                None => default_of_key(list, name),
            };
            if let Some(value) = value {
                key.push((name.clone().into_owned(), Scalar(value)));
            }
        }
        if key.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {:?} (and doesn't have default \
                 values for any key fields)",
                list.list_keys()
            ));
        }
        key.sort_unstable();
        Ok(Self::Key(key))
    }

    /// Reads the form that `fieldsV1` has for steps.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::field(rest)),
            "k" => {
                let Ok(Value::Object(map)) = parse_json(rest.as_bytes()) else {
                    return None;
                };
                let mut key: Vec<_> = map
                    .into_iter()
                    .map(|(name, value)| (name, Scalar(value)))
                    .collect();
                key.sort_unstable();
                Some(Self::Key(key))
            }
            "v" => parse_json(rest.as_bytes())
                .ok()
                .map(|value| Self::Value(Scalar(value))),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The form that `fieldsV1` has.
    pub(super) fn to_key(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(key) => {
                let map: Map<String, Value> = key
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect();
                format!("k:{}", Value::Object(map))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// What a key field is when an item leaves it out: what Go would write, and `TCP` for ports.
fn default_of_key(list: &SchemaRef, name: &str) -> Option<Value> {
    if name == "protocol" {
        return Some("TCP".into());
    }
    let field = list.elem()?.field(name)?;
    if let Some(default) = field.schema().default() {
        return Some(default.clone());
    }
    (field.is_value() && field.is_always_written()).then(|| crate::schema::zero(&field.schema()))
}

/// As messages show it: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(key) => {
                f.write_str("[")?;
                for (at, (name, value)) in key.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value.0)?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}
