//! Functions of lists and sets.

use std::cmp::Ordering;

use super::lower::Operator;
use super::operate::{binary, equal, items, within};
use super::run::Budget;
use super::value::Value;
use super::{EvalError, Outcome, time};

/// An index, which may be written as any number that is whole.
pub(super) fn position(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
        _ => None,
    }
}

/// What a function makes of a list and its arguments; `None` if it does not take them.
pub(super) fn call<'a>(
    name: &str,
    values: &[Value<'a>],
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    let (Value::List(list), arguments) = values.split_first()? else {
        return None;
    };
    if let Err(error) = budget.spend(list.len()) {
        return Some(Err(error));
    }
    let all = || list.iter().collect::<Vec<Value<'a>>>();
    let part = |from: usize, to: usize| {
        let items = (from..to).filter_map(|index| list.get(index));
        Value::list(items.collect())
    };
    let optional = |item: Option<Value<'a>>| Some(Ok(Value::Optional(item.map(Into::into))));
    match (name, arguments) {
        ("isSorted", []) => {
            let all = all();
            let pairs = all.windows(2).map(|pair| pair[0].order(&pair[1]));
            let sorted = pairs.map(|order| order.ok_or_else(EvalError::overload));
            let sorted: Result<Vec<Ordering>, _> = sorted.collect();
            Some(sorted.map(|all| Value::Bool(all.iter().all(|order| *order != Ordering::Greater))))
        }
        ("sum", []) => Some(sum(all(), budget)),
        ("min" | "max", []) => Some(extreme(name, all())),
        ("indexOf" | "lastIndexOf", [wanted]) => Some(index_of(name, all(), wanted, budget)),
        ("reverse", []) => Some(Ok(Value::list(all().into_iter().rev().collect()))),
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let bounds = (usize::try_from(*from), usize::try_from(*to));
            Some(match bounds {
                (Ok(from), Ok(to)) if from <= to && to <= list.len() => Ok(part(from, to)),
                _ => Err(EvalError::new(format!(
                    "cannot slice({from}, {to}), list is length {}",
                    list.len()
                ))),
            })
        }
        ("first", []) => optional(list.get(0)),
        ("last", []) => optional(list.len().checked_sub(1).and_then(|at| list.get(at))),
        ("flatten", []) => Some(flatten(&all(), 1, budget).map(Value::list)),
        ("flatten", [Value::Int(depth)]) => {
            // No value nests deeper than this.
            let depth = usize::try_from(*depth).unwrap_or(0).min(128);
            Some(flatten(&all(), depth, budget).map(Value::list))
        }
        ("distinct", []) => Some(distinct(all(), budget)),
        ("sort", []) => {
            let keyed = all().into_iter().map(|item| (item.clone(), item));
            Some(sorted_by(keyed.collect()).map(Value::list))
        }
        ("join", rest) => {
            let between = match rest {
                [] => "",
                [Value::String(between)] => between.as_str(),
                _ => return None,
            };
            Some(join(&all(), between, budget))
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [other]) => {
            Some(sets(name, &values[0], other, budget))
        }
        _ => None,
    }
}

/// Values in the order of their keys, which are all of one type.
pub(super) fn sorted_by<'a>(
    mut keyed: Vec<(Value<'a>, Value<'a>)>,
) -> Result<Vec<Value<'a>>, EvalError> {
    // Sorting needs an order of all with all. The kinds that have one are apart from each other, so comparing with one tells;
    // NaN alone has no place beside itself.
    if let [(first, _), _, ..] = &keyed[..] {
        let comparable = |(key, _): &(Value<'a>, _)| key.order(first).and(key.order(key));
        if keyed.iter().any(|one| comparable(one).is_none()) {
            return Err(EvalError::new("list elements must be comparable"));
        }
    }
    keyed.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or(Ordering::Equal));
    Ok(keyed.into_iter().map(|(_, value)| value).collect())
}

fn sum<'a>(all: Vec<Value<'a>>, budget: &mut Budget) -> Outcome<'a> {
    let mut items = all.into_iter();
    let Some(mut total) = items.next() else {
        return Ok(Value::Int(0));
    };
    for item in items {
        total = match (&total, &item) {
            (Value::Duration(_), _) => time::add(&total, &item)?,
            _ => binary(Operator::Add, total, item, budget)?,
        };
    }
    match total.is_number() || matches!(total, Value::Duration(_)) {
        true => Ok(total),
        false => Err(EvalError::overload()),
    }
}

fn extreme<'a>(name: &str, all: Vec<Value<'a>>) -> Outcome<'a> {
    let wanted = if name == "max" {
        Ordering::Greater
    } else {
        Ordering::Less
    };
    let mut items = all.into_iter();
    let mut best = items
        .next()
        .ok_or_else(|| EvalError::new(format!("{name} called on empty list")))?;
    for item in items {
        let order = item.order(&best).ok_or_else(EvalError::overload)?;
        if order == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn index_of<'a>(
    name: &str,
    all: Vec<Value<'a>>,
    wanted: &Value<'a>,
    budget: &mut Budget,
) -> Outcome<'a> {
    let mut found = -1;
    for (index, item) in all.iter().enumerate() {
        if equal(item, wanted, budget)? {
            found = index as i64;
            if name == "indexOf" {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn flatten<'a>(
    all: &[Value<'a>],
    depth: usize,
    budget: &mut Budget,
) -> Result<Vec<Value<'a>>, EvalError> {
    let mut flat = Vec::new();
    for item in all {
        budget.spend(1)?;
        match item {
            Value::List(list) if depth > 0 => {
                let inner: Vec<Value<'a>> = list.iter().collect();
                flat.extend(flatten(&inner, depth - 1, budget)?);
            }
            other => flat.push(other.clone()),
        }
    }
    Ok(flat)
}

fn distinct<'a>(all: Vec<Value<'a>>, budget: &mut Budget) -> Outcome<'a> {
    let mut kept: Vec<Value<'a>> = Vec::new();
    'items: for item in all {
        for known in &kept {
            if equal(known, &item, budget)? {
                continue 'items;
            }
        }
        kept.push(item);
    }
    Ok(Value::list(kept))
}

fn join<'a>(all: &[Value<'a>], between: &str, budget: &mut Budget) -> Outcome<'a> {
    let mut texts = Vec::with_capacity(all.len());
    for item in all {
        let text = item.as_str().ok_or_else(EvalError::overload)?;
        budget.bytes(text.len() + between.len())?;
        texts.push(text);
    }
    Ok(Value::text(texts.join(between)))
}

fn sets<'a>(name: &str, left: &Value<'a>, right: &Value<'a>, budget: &mut Budget) -> Outcome<'a> {
    let mut all_within = |these: &Value<'a>, those: &Value<'a>| {
        for item in items(these)?.iter() {
            if !within(&item, those, budget)? {
                return Ok(false);
            }
        }
        Ok::<bool, EvalError>(true)
    };
    Ok(Value::Bool(match name {
        "sets.contains" => all_within(right, left)?,
        "sets.equivalent" => all_within(right, left)? && all_within(left, right)?,
        _ => {
            for item in items(left)?.iter() {
                if within(&item, right, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
    }))
}
