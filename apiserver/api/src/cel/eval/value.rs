//! Values that expressions see and make.
//!
//! Objects are not copied: lists, maps and texts of JSON stay where they are and are read as they are asked for. What an
//! expression makes itself is counted, so that clones cost no memory.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use coracle_clock::Timestamp;
use indexmap::IndexMap;
use jiff::SignedDuration;
use serde_json::Value as Json;

use super::formats::Format;
use super::semver::Semver;
use super::url::Url;
use crate::quantity::Quantity;

/// A value. It is meant to live as long as one evaluation, on one thread.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// 64 bits with a sign.
    Int(i64),
    /// 64 bits without.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A length of time.
    Duration(SignedDuration),
    /// A type, by its name.
    Type(&'static str),
    /// A value that may be absent.
    Optional(Option<Rc<Value<'a>>>),
    /// An amount of a resource.
    Quantity(Quantity),
    /// An address.
    Ip(IpAddr),
    /// A range of addresses: an address in it and the length of its prefix.
    Cidr(IpAddr, u8),
    /// An address in the web.
    Url(Rc<Url>),
    /// A semantic version.
    Semver(Rc<Semver>),
    /// A format of text.
    Format(&'static Format),
}

/// Text of the input, or made by the expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// The input's.
    Borrowed(&'a str),
    /// The expression's.
    Made(Rc<str>),
}

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// A list of the input, or made by the expression.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// The input's.
    Json(&'a [Json]),
    /// Texts of the input.
    Texts(&'a [String]),
    /// The expression's.
    Made(Rc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Texts(items) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at an index from zero.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items) => items.get(index).map(Value::from),
            Self::Texts(items) => items.get(index).map(|text| Value::borrowed(text)),
            Self::Made(items) => items.get(index).cloned(),
        }
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// A map of the input, or made by the expression.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// The input's.
    Json(&'a serde_json::Map<String, Json>),
    /// The expression's.
    Made(Rc<IndexMap<Key, Value<'a>>>),
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a key that is text.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(map) => map.get(name).map(Value::from),
            Self::Made(map) => map.get(&Key::String(name.into())).cloned(),
        }
    }

    /// The value at a key.
    pub fn get(&self, key: &Key) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json(map), Key::String(name)) => map.get(&**name).map(Value::from),
            (Self::Json(_), _) => None,
            (Self::Made(map), key) => map.get(key).cloned(),
        }
    }

    /// All entries.
    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Json(map) => {
                let entries = map.iter();
                let entry = |(key, value): (&'a String, &'a Json)| {
                    (Value::borrowed(key), Value::from(value))
                };
                entries.map(entry).collect()
            }
            Self::Made(map) => {
                let entries = map.iter();
                entries
                    .map(|(key, value)| (key.value(), value.clone()))
                    .collect()
            }
        }
    }
}

/// What a map made by an expression is keyed by. Numbers that are equal are the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A truth value.
    Bool(bool),
    /// A number within 64 bits with a sign.
    Int(i64),
    /// A number above that.
    Uint(u64),
    /// Text.
    String(Rc<str>),
}

impl Key {
    /// The key that a value is, if it can be one.
    pub fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => i64::try_from(*value).map_or(Self::Uint(*value), Self::Int),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
                Self::Int(*value as i64)
            }
            Value::String(Text::Made(text)) => Self::String(Rc::clone(text)),
            Value::String(Text::Borrowed(text)) => Self::String((*text).into()),
            _ => return None,
        })
    }

    fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(Text::Made(Rc::clone(text))),
        }
    }
}

impl<'a> From<&'a Json> for Value<'a> {
    /// Numbers without a fraction are ints, as in objects that upstream decodes.
    fn from(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Uint(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::borrowed(text),
            Json::Array(items) => Self::List(List::Json(items)),
            Json::Object(map) => Self::Map(Map::Json(map)),
        }
    }
}

impl<'a> Value<'a> {
    /// Text of the input.
    pub fn borrowed(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    /// Text that was made.
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::String(Text::Made(text.into()))
    }

    /// A list that was made.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    /// A map that was made, from names.
    pub fn map(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let entries = entries.into_iter();
        let entries = entries.map(|(name, value)| (Key::String(name.into()), value));
        Self::Map(Map::Made(Rc::new(entries.collect())))
    }

    /// A value that may be absent.
    pub(super) fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Rc::new))
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// Whether it is what a field is when nobody sets it.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.as_str().is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Duration(value) => value.is_zero(),
            Self::Optional(value) => value.is_none(),
            _ => false,
        }
    }

    /// Whether two values are equal; values of different types are not, but numbers are compared by what they are.
    /// `spend` is told of every pair that is looked at, and ends the comparison.
    pub(super) fn equals<E>(
        &self,
        other: &Self,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<bool, E> {
        spend(1)?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => {
                spend(a.as_str().len().min(b.as_str().len()) / 10)?;
                a.as_str() == b.as_str()
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                spend(a.len().min(b.len()) / 10)?;
                a == b
            }
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for index in 0..a.len() {
                    if let (Some(a), Some(b)) = (a.get(index), b.get(index))
                        && !a.equals(&b, spend)?
                    {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, value) in a.entries() {
                    let there = Key::of(&key).and_then(|key| b.get(&key));
                    match there {
                        Some(there) if value.equals(&there, spend)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b, spend)?,
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, x), Self::Cidr(b, y)) => a == b && x == y,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.order(b) == Ordering::Equal,
            (Self::Format(a), Self::Format(b)) => a == b,
            (a, b) => numeric_order(a, b) == Some(Ordering::Equal),
        })
    }

    /// How two values are ordered; `None` if they are not.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some(a.as_str().cmp(b.as_str())),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (a, b) => numeric_order(a, b),
        }
    }

    /// Whether it is a number.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }
}

/// Numbers in the order of their amounts; `None` for what is no number.
fn numeric_order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    match (a, b, whole(a), whole(b)) {
        (_, _, Some(a), Some(b)) => Some(a.cmp(&b)),
        (Value::Double(a), Value::Double(b), ..) => a.partial_cmp(b),
        (Value::Double(a), _, _, Some(b)) => double_order(*a, b),
        (_, Value::Double(b), Some(a), _) => double_order(*b, a).map(Ordering::reverse),
        _ => None,
    }
}

fn double_order(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    // Below 2^127 a double without its fraction is a whole number exactly; further ones saturate in the right direction.
    let floor = a.floor();
    let order = (floor as i128).cmp(&b);
    Some(match order {
        Ordering::Equal if a > floor => Ordering::Greater,
        order => order,
    })
}
