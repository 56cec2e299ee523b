//! Operators with two sides.

use std::cmp::Ordering;
use std::rc::Rc;

use super::lower::Operator;
use super::run::Budget;
use super::value::{Key, List, Map, Value};
use super::{EvalError, Outcome, numbers, time};

/// What the operator makes of its sides.
pub(super) fn binary<'a>(
    operator: Operator,
    left: Value<'a>,
    right: Value<'a>,
    budget: &mut Budget,
) -> Outcome<'a> {
    budget.spend(1)?;
    match operator {
        Operator::Equal => equal(&left, &right, budget).map(Value::Bool),
        Operator::NotEqual => equal(&left, &right, budget).map(|equal| Value::Bool(!equal)),
        Operator::In => within(&left, &right, budget).map(Value::Bool),
        Operator::Less | Operator::LessEqual | Operator::Greater | Operator::GreaterEqual => {
            compare(operator, &left, &right, budget)
        }
        Operator::Add => add(left, right, budget),
        _ if left.is_number() && right.is_number() => numbers::arithmetic(operator, &left, &right),
        Operator::Subtract => time::subtract(&left, &right),
        _ => Err(EvalError::overload()),
    }
}

pub(super) fn equal(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, EvalError> {
    left.equals(right, &mut |cost| budget.spend(cost))
}

/// Whether a list has the item, or a map the key.
pub(super) fn within(
    item: &Value<'_>,
    of: &Value<'_>,
    budget: &mut Budget,
) -> Result<bool, EvalError> {
    match of {
        Value::List(list) => {
            for there in list.iter() {
                if equal(item, &there, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(Key::of(item).is_some_and(|key| map.get(&key).is_some())),
        _ => Err(EvalError::overload()),
    }
}

fn compare<'a>(
    operator: Operator,
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Outcome<'a> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        budget.bytes(left.len().min(right.len()))?;
    }
    let both_numbers = left.is_number() && right.is_number();
    let order = match left.order(right) {
        Some(order) => order,
        // Not a number is neither less nor more.
        None if both_numbers => return Ok(Value::Bool(false)),
        None => return Err(EvalError::overload()),
    };
    Ok(Value::Bool(match operator {
        Operator::Less => order == Ordering::Less,
        Operator::LessEqual => order != Ordering::Greater,
        Operator::Greater => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn add<'a>(left: Value<'a>, right: Value<'a>, budget: &mut Budget) -> Outcome<'a> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            budget.bytes(left.len() + right.len())?;
            Ok(Value::text([left, right].concat()))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.bytes(left.len() + right.len())?;
            Ok(Value::Bytes([&left[..], &right[..]].concat().into()))
        }
        (Value::List(left), Value::List(right)) => {
            budget.spend(right.len())?;
            // Grows in place what nobody else has.
            let mut items = match left {
                List::Made(items) => match Rc::try_unwrap(items) {
                    Ok(items) => items,
                    Err(shared) => {
                        budget.spend(shared.len())?;
                        Vec::clone(&shared)
                    }
                },
                other => {
                    budget.spend(other.len())?;
                    other.iter().collect()
                }
            };
            items.extend(right.iter());
            Ok(Value::list(items))
        }
        (left, right) if left.is_number() && right.is_number() => {
            numbers::arithmetic(Operator::Add, &left, &right)
        }
        (left, right) => time::add(&left, &right),
    }
}

/// The values of a list, or nothing that can be gone over.
pub(super) fn items<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, EvalError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(EvalError::overload()),
    }
}

/// How many parts a value has.
pub(super) fn size<'a>(value: &Value<'_>, budget: &mut Budget) -> Outcome<'a> {
    let size = match value {
        Value::String(text) => {
            budget.bytes(text.as_str().len())?;
            text.as_str().chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => Map::len(map),
        _ => return Err(EvalError::overload()),
    };
    Ok(Value::Int(size as i64))
}
