//! Arithmetic, and the functions of `math`.

use super::lower::Operator;
use super::value::Value;
use super::{EvalError, Outcome};

fn overflow(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

/// `-value`.
pub(super) fn negate<'a>(value: Value<'a>) -> Outcome<'a> {
    match value {
        Value::Int(value) => {
            let negated = value.checked_neg().map(Value::Int);
            negated.ok_or_else(|| overflow("integer"))
        }
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(EvalError::overload()),
    }
}

/// Numbers of one type with one another.
pub(super) fn arithmetic<'a>(
    operator: Operator,
    left: &Value<'_>,
    right: &Value<'_>,
) -> Outcome<'a> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            let found = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide | Operator::Remainder if *b == 0 => return Err(by_zero(operator)),
                Operator::Divide => a.checked_div(*b),
                Operator::Remainder => a.checked_rem(*b),
                _ => return Err(EvalError::overload()),
            };
            found.map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        (Value::Uint(a), Value::Uint(b)) => {
            let found = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide | Operator::Remainder if *b == 0 => return Err(by_zero(operator)),
                Operator::Divide => a.checked_div(*b),
                Operator::Remainder => a.checked_rem(*b),
                _ => return Err(EvalError::overload()),
            };
            let overflow = || overflow("unsigned integer");
            found.map(Value::Uint).ok_or_else(overflow)
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
            _ => return Err(EvalError::overload()),
        })),
        _ => Err(EvalError::overload()),
    }
}

fn by_zero(operator: Operator) -> EvalError {
    match operator {
        Operator::Divide => EvalError::new("division by zero"),
        _ => EvalError::new("modulus by zero"),
    }
}

/// `math.…`; `None` if there is no such function or it does not take these values.
pub(super) fn math<'a>(name: &str, values: &[Value<'a>]) -> Option<Outcome<'a>> {
    use std::cmp::Ordering;
    let double = |value: f64| Some(Ok(Value::Double(value)));
    let truth = |value: bool| Some(Ok(Value::Bool(value)));
    match (name, values) {
        ("greatest" | "least", [Value::List(list)]) => {
            let items: Vec<Value<'a>> = list.iter().collect();
            math(name, &items)
        }
        ("greatest" | "least", [first, rest @ ..]) => {
            let wanted = if name == "greatest" {
                Ordering::Greater
            } else {
                Ordering::Less
            };
            let mut best = first;
            for value in rest {
                if !value.is_number() {
                    return None;
                }
                if value.order(best) == Some(wanted) {
                    best = value;
                }
            }
            best.is_number().then(|| Ok(best.clone()))
        }
        ("ceil", [Value::Double(value)]) => double(value.ceil()),
        ("floor", [Value::Double(value)]) => double(value.floor()),
        ("round", [Value::Double(value)]) => double(value.round()),
        ("trunc", [Value::Double(value)]) => double(value.trunc()),
        ("abs", [Value::Double(value)]) => double(value.abs()),
        ("abs", [Value::Int(value)]) => {
            let found = value.checked_abs().map(Value::Int);
            Some(found.ok_or_else(|| overflow("integer")))
        }
        ("abs", [Value::Uint(value)]) => Some(Ok(Value::Uint(*value))),
        ("sqrt", [Value::Double(value)]) => double(value.sqrt()),
        ("sqrt", [Value::Int(value)]) => double((*value as f64).sqrt()),
        ("sign", [Value::Double(value)]) if value.is_nan() || *value == 0.0 => double(*value),
        ("sign", [Value::Double(value)]) => double(value.signum()),
        ("sign", [Value::Int(value)]) => Some(Ok(Value::Int(value.signum()))),
        ("sign", [Value::Uint(value)]) => Some(Ok(Value::Uint((*value).min(1)))),
        ("isNaN", [Value::Double(value)]) => truth(value.is_nan()),
        ("isInf", [Value::Double(value)]) => truth(value.is_infinite()),
        ("isFinite", [Value::Double(value)]) => truth(value.is_finite()),
        _ => None,
    }
}
