//! Types of expressions.

use std::fmt;
use std::sync::Arc;

use super::ObjectType;

/// The type of an expression, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Nothing is known: fits everywhere.
    Unknown,
    /// Upstream, too, looks at it only when the expression runs.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// 64 bits with a sign.
    Int,
    /// 64 bits without.
    Uint,
    /// A floating point number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A length of time.
    Duration,
    /// A list of one type.
    List(Box<Type>),
    /// A map from one type to another.
    Map(Box<Type>, Box<Type>),
    /// An object with known fields.
    Object(Arc<ObjectType>),
    /// A named type whose fields are not known, or a type without any.
    Named(String),
}

impl Type {
    /// A list of `item`.
    pub fn list(item: Type) -> Self {
        Self::List(Box::new(item))
    }

    /// A map from strings to `value`.
    pub fn map(value: Type) -> Self {
        Self::Map(Box::new(Self::String), Box::new(value))
    }

    /// Whether nothing can be said against a value of this type.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Unknown | Self::Dyn)
    }

    /// Whether values of the two may stand for one another.
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (a, b) if a.is_open() || b.is_open() || a == b => true,
            (Self::List(a), Self::List(b)) => a.fits(b),
            (Self::Map(a, x), Self::Map(b, y)) => a.fits(b) && x.fits(y),
            (Self::Object(a), Self::Object(b)) => a.name() == b.name(),
            // What has structure may be absent.
            (Self::Null, with) | (with, Self::Null) => !matches!(
                with,
                Self::Bool
                    | Self::Int
                    | Self::Uint
                    | Self::Double
                    | Self::String
                    | Self::Bytes
                    | Self::List(_)
                    | Self::Map(..)
            ),
            _ => false,
        }
    }

    /// The type of what may be either.
    pub(super) fn joined(self, other: &Self) -> Self {
        match (self, other) {
            (a, b) if a == *b => a,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            // A list of nothing becomes what it is joined with.
            (Self::List(a), Self::List(b)) if *a == Self::Unknown => Self::List(b.clone()),
            (Self::List(a), Self::List(b)) if **b == Self::Unknown => Self::List(a),
            (Self::List(a), Self::List(b)) => Self::list(a.joined(b)),
            (Self::Null, b) if !b.is_open() => b.clone(),
            (a, Self::Null) if !a.is_open() => a,
            _ => Self::Dyn,
        }
    }
}

/// As messages name it.
impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown | Self::Dyn => out.write_str("dyn"),
            Self::Null => out.write_str("null"),
            Self::Bool => out.write_str("bool"),
            Self::Int => out.write_str("int"),
            Self::Uint => out.write_str("uint"),
            Self::Double => out.write_str("double"),
            Self::String => out.write_str("string"),
            Self::Bytes => out.write_str("bytes"),
            Self::Timestamp => out.write_str("timestamp"),
            Self::Duration => out.write_str("duration"),
            Self::List(item) => write!(out, "list({item})"),
            Self::Map(key, value) => write!(out, "map({key}, {value})"),
            Self::Object(object) => out.write_str(object.name()),
            Self::Named(name) => out.write_str(name),
        }
    }
}
