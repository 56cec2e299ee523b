//! Which operands operators take, and what they result in.

use super::Type;
use super::Type::{Bool, Bytes, Double, Duration, Int, Timestamp, Uint};

/// What an operator results in; `None` if it does not take these operands.
pub(super) fn result(operator: &str, operands: &[Type]) -> Option<Type> {
    let text = Type::String;
    let sums = [
        ([Int, Int], Int),
        ([Uint, Uint], Uint),
        ([Double, Double], Double),
        ([text.clone(), text.clone()], text.clone()),
        ([Bytes, Bytes], Bytes),
        ([Duration, Duration], Duration),
        ([Timestamp, Duration], Timestamp),
        ([Duration, Timestamp], Timestamp),
    ];
    let differences = [
        ([Int, Int], Int),
        ([Uint, Uint], Uint),
        ([Double, Double], Double),
        ([Duration, Duration], Duration),
        ([Timestamp, Duration], Timestamp),
        ([Timestamp, Timestamp], Duration),
    ];
    match (operator, operands) {
        ("_+_", [a @ Type::List(_), b @ Type::List(_)]) if a.fits(b) => Some(a.clone().joined(b)),
        ("_+_", [Type::List(_), open] | [open, Type::List(_)]) if open.is_open() => {
            Some(Type::Unknown)
        }
        ("_+_", _) => overload(&sums, operands),
        ("_-_", _) => overload(&differences, operands),
        ("_*_" | "_/_", _) => overload(&differences[..3], operands),
        ("_%_", _) => overload(&differences[..2], operands),
        ("-_", [Int | Double]) => operands.first().cloned(),
        ("-_", [open]) if open.is_open() => Some(open.clone()),
        ("!_", [operand]) if operand.fits(&Bool) => Some(Bool),
        ("_&&_" | "_||_", _) => operands
            .iter()
            .all(|operand| operand.fits(&Bool))
            .then_some(Bool),
        ("_==_" | "_!=_", [a, b]) if a.fits(b) => Some(Bool),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) if comparable(a, b) => Some(Bool),
        ("@in", [item, Type::List(items)]) if item.fits(items) => Some(Bool),
        ("@in", [key, Type::Map(keys, _)]) if key.fits(keys) => Some(Bool),
        ("@in", [_, open]) if open.is_open() => Some(Bool),
        ("_[_]" | "_[?_]", [Type::List(item), index]) if index.fits(&Int) => {
            Some(indexed(operator, item))
        }
        ("_[_]" | "_[?_]", [Type::Map(key, value), index]) if index.fits(key) => {
            Some(indexed(operator, value))
        }
        ("_[_]" | "_[?_]", [open, _]) if open.is_open() => Some(indexed(operator, open)),
        ("_[_]" | "_[?_]", [Type::Named(_), _]) => Some(Type::Unknown),
        ("_?_:_", [condition, yes, no]) if condition.fits(&Bool) && yes.fits(no) => {
            Some(yes.clone().joined(no))
        }
        _ => None,
    }
}

/// Whether the text names an operator.
pub(super) fn is_operator(name: &str) -> bool {
    name == "@in"
        || name.contains('_') && !name.starts_with(|c: char| c.is_ascii_alphabetic()) && {
            // Names of functions may begin with an underscore, but no operator has letters.
            !name.contains(|c: char| c.is_ascii_alphanumeric())
        }
}

fn indexed(operator: &str, found: &Type) -> Type {
    match operator {
        "_[_]" => found.clone(),
        // An optional value.
        _ => Type::Unknown,
    }
}

/// Numbers of any kind may be compared with each other, everything else with its like.
fn comparable(a: &Type, b: &Type) -> bool {
    let is_number = |found: &Type| matches!(found, Int | Uint | Double);
    let ordered =
        |found: &Type| matches!(found, Bool | Type::String | Bytes | Timestamp | Duration);
    match (a.is_open(), b.is_open()) {
        (true, true) => true,
        (true, false) => is_number(b) || ordered(b),
        (false, true) => is_number(a) || ordered(a),
        (false, false) => is_number(a) && is_number(b) || ordered(a) && a == b,
    }
}

/// The result of the overloads that take the operands, if it is the same for all.
fn overload(overloads: &[([Type; 2], Type)], operands: &[Type]) -> Option<Type> {
    let mut results = overloads
        .iter()
        .filter(|(parameters, _)| {
            let mut pairs = parameters.iter().zip(operands);
            operands.len() == 2 && pairs.all(|(parameter, operand)| parameter.fits(operand))
        })
        .map(|(_, result)| result);
    let first = results.next()?.clone();
    if results.all(|result| *result == first) {
        return Some(first);
    }
    let unknown = operands.contains(&Type::Unknown);
    Some(if unknown { Type::Unknown } else { Type::Dyn })
}
