//! The functions that can be run, and Kubernetes' own among them.

use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use regex::Regex;

use super::run::Budget;
use super::url::Url;
use super::value::Value;
use super::{EvalError, Outcome, convert, formats, lists, numbers, operate, semver, texts, time};
use crate::quantity::Quantity;
use crate::validation::address::{contains, masked, parse_cidr, parse_ip};

/// Besides the functions of [`numbers::math`] and [`time::part`].
const NAMES: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "base64.decode",
    "base64.encode",
    "bool",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "distinct",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "format",
    "getEscapedPath",
    "getHost",
    "getHostname",
    "getPort",
    "getQuery",
    "getScheme",
    "hasValue",
    "indexOf",
    "int",
    "ip",
    "ip.isCanonical",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "lists.range",
    "lowerAscii",
    "major",
    "masked",
    "matches",
    "max",
    "min",
    "minor",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "patch",
    "prefixLength",
    "quantity",
    "replace",
    "reverse",
    "semver",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "sign",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "unwrap",
    "unwrapOpt",
    "upperAscii",
    "url",
    "validate",
    "value",
];

const MATH: &[&str] = &[
    "abs", "ceil", "floor", "greatest", "isFinite", "isInf", "isNaN", "least", "round", "sign",
    "sqrt", "trunc",
];

/// Whether a function of that name can be run.
pub(super) fn knows(name: &str) -> bool {
    let is_math = |name: &str| MATH.contains(&name);
    NAMES.contains(&name)
        || name.strip_prefix("math.").is_some_and(is_math)
        || name.strip_prefix("format.").is_some_and(formats::knows)
        || name.starts_with("get")
}

/// Calls a function; a method's object is the first value.
pub(super) fn call<'a>(
    name: &str,
    member: bool,
    values: &[Value<'a>],
    pattern: Option<&Regex>,
    budget: &mut Budget,
) -> Outcome<'a> {
    budget.spend(1)?;
    if let Some(name) = name.strip_prefix("math.") {
        return numbers::math(name, values).unwrap_or_else(|| Err(EvalError::overload()));
    }
    if name == "size"
        && let [value] = values
    {
        return operate::size(value, budget);
    }
    let found = kubernetes(name, values, budget)
        .or_else(|| optional(name, values))
        .or_else(|| semver::call(name, values, budget))
        .or_else(|| formats::call(name, values, budget))
        .or_else(|| texts::call(name, values, pattern, budget))
        .or_else(|| lists::call(name, values, budget))
        .or_else(|| time::part(name, values))
        .or_else(|| match values {
            [value] if !member => convert::convert(name, value, budget),
            _ => None,
        });
    found.unwrap_or_else(|| Err(EvalError::overload()))
}

fn optional<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    let some = |value: &Value<'a>| Value::Optional(Some(Rc::new(value.clone())));
    Some(Ok(match (name, values) {
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [value]) => some(value),
        ("optional.ofNonZeroValue", [value]) if value.is_zero() => Value::Optional(None),
        ("optional.ofNonZeroValue", [value]) => some(value),
        ("hasValue", [Value::Optional(value)]) => Value::Bool(value.is_some()),
        ("value", [Value::Optional(Some(value))]) => Value::clone(value),
        ("value", [Value::Optional(None)]) => {
            return Some(Err(EvalError::new("optional.none() dereference")));
        }
        ("or", [Value::Optional(None), other @ Value::Optional(_)]) => other.clone(),
        ("or", [value @ Value::Optional(_), Value::Optional(_)]) => value.clone(),
        ("orValue", [Value::Optional(value), other]) => match value {
            Some(value) => Value::clone(value),
            None => other.clone(),
        },
        ("unwrap" | "unwrapOpt", [Value::List(list)]) => {
            let mut values = Vec::new();
            for item in list.iter() {
                match item {
                    Value::Optional(value) => values.extend(value.as_deref().cloned()),
                    _ => return None,
                }
            }
            Value::list(values)
        }
        _ => return None,
    }))
}

fn kubernetes<'a>(name: &str, values: &[Value<'a>], budget: &mut Budget) -> Option<Outcome<'a>> {
    let truth = |value: bool| Some(Ok(Value::Bool(value)));
    let number = |value: i64| Some(Ok(Value::Int(value)));
    let text = |value: &str| Some(Ok(Value::text(value)));
    match values {
        [Value::String(subject)] => {
            if let Err(error) = budget.bytes(subject.as_str().len()) {
                return Some(Err(error));
            }
            of_text(name, subject.as_str())
        }
        [Value::Bytes(bytes)] if name == "base64.encode" => {
            let cost = budget.bytes(bytes.len());
            Some(cost.map(|()| Value::text(STANDARD.encode(bytes))))
        }
        [Value::Int(count)] if name == "lists.range" => Some(range(*count, budget)),
        [Value::Quantity(quantity), rest @ ..] => of_quantity(name, quantity, rest),
        [Value::Ip(address)] => match name {
            "family" => number(if address.is_ipv4() { 4 } else { 6 }),
            "isUnspecified" => truth(address.is_unspecified()),
            "isLoopback" => truth(address.is_loopback()),
            "isLinkLocalMulticast" => truth(is_link_local_multicast(address)),
            "isLinkLocalUnicast" => truth(is_link_local_unicast(address)),
            "isGlobalUnicast" => truth(
                !address.is_unspecified()
                    && !address.is_loopback()
                    && !address.is_multicast()
                    && !is_link_local_unicast(address)
                    && !matches!(address, IpAddr::V4(address) if address.is_broadcast()),
            ),
            "string" => text(&address.to_string()),
            _ => None,
        },
        [Value::Cidr(address, bits)] => match name {
            "ip" => Some(Ok(Value::Ip(*address))),
            "prefixLength" => number(i64::from(*bits)),
            "masked" => Some(Ok(Value::Cidr(masked(*address, *bits), *bits))),
            _ => None,
        },
        [Value::Cidr(address, bits), other] => {
            let other = match (name, other) {
                ("containsIP", Value::String(text)) => parse_ip(text.as_str()).map(|ip| (ip, None)),
                ("containsIP", Value::Ip(address)) => Some((*address, None)),
                ("containsCIDR", Value::String(text)) => {
                    parse_cidr(text.as_str()).map(|(ip, bits)| (ip, Some(bits)))
                }
                ("containsCIDR", Value::Cidr(address, bits)) => Some((*address, Some(*bits))),
                _ => return None,
            };
            let Some((other, inner)) = other else {
                return Some(Err(EvalError::new(
                    "network address parse error during conversion from string",
                )));
            };
            let same = address.is_ipv4() == other.is_ipv4();
            let wider = inner.is_none_or(|inner| inner >= *bits);
            truth(same && wider && contains((*address, *bits), other))
        }
        [Value::Url(url)] => match name {
            "getScheme" => text(&url.scheme),
            "getHost" => text(&url.host),
            "getHostname" => text(url.hostname()),
            "getPort" => text(url.port()),
            "getEscapedPath" => text(&url.path),
            "getQuery" => Some(query(url, budget)),
            _ => None,
        },
        _ => None,
    }
}

fn of_text<'a>(name: &str, text: &str) -> Option<Outcome<'a>> {
    let truth = |value: bool| Some(Ok(Value::Bool(value)));
    let wrong = |why: &str| EvalError::new(why);
    match name {
        "quantity" => {
            let parsed = text.parse::<Quantity>().map(Value::Quantity);
            Some(parsed.map_err(|error| wrong(&error.to_string())))
        }
        "isQuantity" => truth(text.parse::<Quantity>().is_ok()),
        "ip" => {
            let parsed = parse_ip(text).map(Value::Ip);
            let why = format!("IP Address {text:?} parse error during conversion from string");
            Some(parsed.ok_or_else(|| wrong(&why)))
        }
        "isIP" => truth(parse_ip(text).is_some()),
        "ip.isCanonical" => match parse_ip(text) {
            Some(address) => truth(address.to_string() == text),
            None => Some(Err(wrong(
                "IP Address parse error during conversion from string",
            ))),
        },
        "cidr" => {
            let parsed = parse_cidr(text).map(|(address, bits)| Value::Cidr(address, bits));
            Some(
                parsed.ok_or_else(|| {
                    wrong("network address parse error during conversion from string")
                }),
            )
        }
        "isCIDR" => truth(parse_cidr(text).is_some()),
        "url" => {
            let parsed = Url::parse(text).map(|url| Value::Url(Rc::new(url)));
            let why = format!("URL parse error during conversion from string: {text:?}");
            Some(parsed.ok_or_else(|| wrong(&why)))
        }
        "isURL" => truth(Url::parse(text).is_some()),
        "base64.decode" => {
            let decoded = STANDARD
                .decode(text)
                .or_else(|_| STANDARD_NO_PAD.decode(text));
            let decoded = decoded.map(|bytes| Value::Bytes(bytes.into()));
            Some(decoded.map_err(|_| wrong("illegal base64 data")))
        }
        _ => None,
    }
}

fn of_quantity<'a>(name: &str, quantity: &Quantity, rest: &[Value<'a>]) -> Option<Outcome<'a>> {
    use std::cmp::Ordering;
    let whole = || {
        let value = quantity.value();
        (Quantity::from_value(value) == *quantity).then_some(value)
    };
    let other = match rest {
        [] => None,
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(other)] if matches!(name, "add" | "sub") => Some(Quantity::from_value(*other)),
        _ => return None,
    };
    Some(Ok(match (name, other) {
        ("isInteger", None) => Value::Bool(whole().is_some()),
        ("asInteger", None) => match whole() {
            Some(value) => Value::Int(value),
            None => return Some(Err(EvalError::new("cannot convert value to integer"))),
        },
        ("asApproximateFloat", None) => {
            // Thousandths are kept as far as they fit.
            let milli = quantity.milli_value();
            let near = milli.unsigned_abs() < 1 << 53;
            Value::Double(if near {
                milli as f64 / 1000.0
            } else {
                quantity.value() as f64
            })
        }
        ("sign", None) if quantity.is_zero() => Value::Int(0),
        ("sign", None) => Value::Int(if quantity.is_negative() { -1 } else { 1 }),
        ("isGreaterThan", Some(other)) => Value::Bool(quantity.cmp(&other) == Ordering::Greater),
        ("isLessThan", Some(other)) => Value::Bool(quantity.cmp(&other) == Ordering::Less),
        ("compareTo", Some(other)) => Value::Int(quantity.cmp(&other) as i64),
        ("add", Some(other)) => Value::Quantity(*quantity + other),
        ("sub", Some(other)) => Value::Quantity(*quantity - other),
        _ => return None,
    }))
}

fn range<'a>(count: i64, budget: &mut Budget) -> Outcome<'a> {
    let count = usize::try_from(count).unwrap_or(0);
    budget.spend(count)?;
    Ok(Value::list((0..count as i64).map(Value::Int).collect()))
}

fn query<'a>(url: &Url, budget: &mut Budget) -> Outcome<'a> {
    budget.bytes(url.query.len())?;
    let mut map = indexmap::IndexMap::new();
    for (name, values) in url.parameters() {
        budget.spend(values.len())?;
        let values = Value::list(values.into_iter().map(Value::text).collect());
        map.insert(super::value::Key::String(name.into()), values);
    }
    Ok(Value::Map(super::value::Map::Made(Rc::new(map))))
}

fn is_link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}
