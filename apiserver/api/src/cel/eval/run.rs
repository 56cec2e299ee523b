//! The run of a tree.

use std::rc::Rc;

use indexmap::IndexMap;

use super::lower::{Each, EachKind, Fold, Literal, Node};
use super::value::{Key, List, Map, Text, Value};
use super::{EvalError, Outcome, Variables, library, lists, numbers, operate};

/// What an evaluation may still cost.
pub(super) struct Budget(u64);

impl Budget {
    /// Takes `cost` away, or ends the evaluation.
    pub(super) fn spend(&mut self, cost: usize) -> Result<(), EvalError> {
        let left = self.0.checked_sub(cost as u64);
        self.0 = left.unwrap_or(0);
        left.map(drop).ok_or(EvalError::Limit)
    }

    /// Takes the cost of going over so many bytes.
    pub(super) fn bytes(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.spend(1 + bytes / 10)
    }
}

pub(super) fn run<'a>(root: &'a Node, variables: &Variables<'a>, limit: u64) -> Outcome<'a> {
    let mut run = Run {
        variables,
        locals: Vec::new(),
        budget: Budget(limit),
    };
    run.eval(root)
}

struct Run<'v, 'a> {
    variables: &'v Variables<'a>,
    /// What macros have declared; an error stays one until somebody looks.
    locals: Vec<Outcome<'a>>,
    budget: Budget,
}

impl<'a> Run<'_, 'a> {
    // The arms are functions of their own, so that a level takes little of the stack.
    fn eval(&mut self, node: &'a Node) -> Outcome<'a> {
        self.budget.spend(1)?;
        match node {
            Node::Literal(literal) => self.constant(literal),
            Node::Variable(name) => self.variable(name),
            Node::Local(place) => self.local(*place),
            Node::Type(name) => Ok(Value::Type(name)),
            Node::Select {
                operand,
                field,
                test,
            } => self.select(operand, field, *test),
            Node::Maybe { operand, index } => self.maybe(operand, index),
            Node::Index { operand, index } => self.index(operand, index),
            Node::And(operands) => self.logical(operands, false),
            Node::Or(operands) => self.logical(operands, true),
            Node::Not(operand) => self.not(operand),
            Node::Negate(operand) => numbers::negate(self.eval(operand)?),
            Node::NotStrictlyFalse(operand) => self.not_strictly_false(operand),
            Node::If(branches) => self.choose(branches),
            Node::Chain(first, rest) => self.chain(first, rest),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Fold(fold) => self.fold(fold),
            Node::Append { accumulated, item } => self.append(*accumulated, item),
            Node::Bind { value, body } => self.bind(value, body),
            Node::OptionalMap { target, body, flat } => self.optional_map(target, body, *flat),
            Node::Each(each) => self.each(each),
            Node::Call { .. } => self.call(node),
        }
    }

    fn constant(&mut self, literal: &'a Literal) -> Outcome<'a> {
        Ok(match literal {
            Literal::Null => Value::Null,
            Literal::Bool(value) => Value::Bool(*value),
            Literal::Int(value) => Value::Int(*value),
            Literal::Uint(value) => Value::Uint(*value),
            Literal::Double(value) => Value::Double(*value),
            Literal::String(text) => Value::String(Text::Borrowed(text)),
            Literal::Bytes(bytes) => {
                self.budget.bytes(bytes.len())?;
                Value::Bytes(bytes.to_vec().into())
            }
        })
    }

    fn variable(&self, name: &str) -> Outcome<'a> {
        let found = self.variables.get(name).cloned();
        found.ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
    }

    fn local(&self, place: usize) -> Outcome<'a> {
        let found = self.locals.get(place).cloned();
        found.unwrap_or_else(|| Err(EvalError::new("a variable is not there")))
    }

    fn select(&mut self, operand: &'a Node, field: &str, test: bool) -> Outcome<'a> {
        self.budget.spend(field.len() / 10)?;
        match (self.eval(operand)?, test) {
            (Value::Map(map), true) => Ok(Value::Bool(map.field(field).is_some())),
            (Value::Map(map), false) => map
                .field(field)
                .ok_or_else(|| EvalError::new(format!("no such key: {field}"))),
            (Value::Optional(value), true) => {
                let value = value.and_then(|value| part(&value, &Value::borrowed(field)));
                Ok(Value::Bool(value.is_some()))
            }
            (Value::Optional(value), false) => {
                let value = value.and_then(|value| part(&value, &Value::text(field)));
                Ok(Value::Optional(value.map(Rc::new)))
            }
            _ => Err(EvalError::overload()),
        }
    }

    fn maybe(&mut self, operand: &'a Node, index: &'a Node) -> Outcome<'a> {
        let operand = self.eval(operand)?;
        let index = self.eval(index)?;
        let found = match &operand {
            Value::Optional(None) => None,
            Value::Optional(Some(inner)) => part(inner, &index),
            Value::Map(_) | Value::List(_) => part(&operand, &index),
            _ => return Err(EvalError::overload()),
        };
        Ok(Value::Optional(found.map(Rc::new)))
    }

    fn index(&mut self, operand: &'a Node, index: &'a Node) -> Outcome<'a> {
        let operand = self.eval(operand)?;
        let index = self.eval(index)?;
        match &operand {
            Value::Optional(value) => {
                let found = value.as_ref().and_then(|value| part(value, &index));
                Ok(Value::Optional(found.map(Rc::new)))
            }
            Value::List(list) => {
                let found = lists::position(&index).ok_or_else(EvalError::overload)?;
                let item = usize::try_from(found).ok().and_then(|at| list.get(at));
                item.ok_or_else(|| EvalError::new(format!("index out of bounds: {found}")))
            }
            Value::Map(_) => part(&operand, &index).ok_or_else(|| {
                EvalError::new(format!("no such key: {}", super::convert::shown(&index)))
            }),
            _ => Err(EvalError::overload()),
        }
    }

    /// One operand that is `decisive` decides, whatever the others are, errors included.
    fn logical(&mut self, operands: &'a [Node], decisive: bool) -> Outcome<'a> {
        let mut error = None;
        for operand in operands {
            match self.eval(operand) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => {
                    error.get_or_insert_with(EvalError::overload);
                }
                Err(found) if found.is_final() => return Err(found),
                Err(found) => {
                    error.get_or_insert(found);
                }
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn not(&mut self, operand: &'a Node) -> Outcome<'a> {
        match self.eval(operand)? {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            _ => Err(EvalError::overload()),
        }
    }

    fn not_strictly_false(&mut self, operand: &'a Node) -> Outcome<'a> {
        match self.eval(operand) {
            Ok(Value::Bool(value)) => Ok(Value::Bool(value)),
            Err(error) if error.is_final() => Err(error),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn choose(&mut self, branches: &'a [Node; 3]) -> Outcome<'a> {
        let [condition, yes, no] = branches;
        match self.eval(condition)? {
            Value::Bool(true) => self.eval(yes),
            Value::Bool(false) => self.eval(no),
            _ => Err(EvalError::overload()),
        }
    }

    fn chain(
        &mut self,
        first: &'a Node,
        rest: &'a [(super::lower::Operator, Node)],
    ) -> Outcome<'a> {
        let mut left = self.eval(first)?;
        for (operator, right) in rest {
            let right = self.eval(right)?;
            left = operate::binary(*operator, left, right, &mut self.budget)?;
        }
        Ok(left)
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Outcome<'a> {
        let mut made = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (value, false) => made.push(value),
                (Value::Optional(value), true) => made.extend(value.as_deref().cloned()),
                _ => return Err(EvalError::overload()),
            }
        }
        Ok(Value::list(made))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Outcome<'a> {
        let mut made = IndexMap::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => Value::clone(&value),
                (Value::Optional(None), true) => continue,
                _ => return Err(EvalError::overload()),
            };
            insert(&mut made, &key, value)?;
        }
        Ok(Value::Map(Map::Made(Rc::new(made))))
    }

    /// Runs `body`, and takes off the stack what it has put there.
    fn scoped(&mut self, body: impl FnOnce(&mut Self, usize) -> Outcome<'a>) -> Outcome<'a> {
        let base = self.locals.len();
        let outcome = body(self, base);
        self.locals.truncate(base);
        outcome
    }

    /// What a comprehension goes over: index and item, or key and value.
    fn pairs(&mut self, range: &Value<'a>) -> Result<Vec<(Value<'a>, Value<'a>)>, EvalError> {
        match range {
            Value::List(list) => {
                self.budget.spend(list.len() / 4)?;
                let items = list.iter().enumerate();
                Ok(items
                    .map(|(index, item)| (Value::Int(index as i64), item))
                    .collect())
            }
            Value::Map(map) => {
                self.budget.spend(map.len() / 4)?;
                Ok(map.entries())
            }
            _ => Err(EvalError::overload()),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let items = self.pairs(&range)?;
        let initial = self.eval(&fold.initial);
        let is_map = matches!(range, Value::Map(_));
        self.scoped(|run, base| {
            run.locals.push(initial);
            for (first, second) in items {
                run.budget.spend(1)?;
                run.locals.truncate(base + 1);
                match (fold.pairs, is_map) {
                    (true, _) => run.locals.extend([Ok(first), Ok(second)]),
                    (false, true) => run.locals.push(Ok(first)),
                    (false, false) => run.locals.push(Ok(second)),
                }
                if let Value::Bool(false) = run.eval(&fold.condition)? {
                    break;
                }
                let step = run.eval(&fold.step);
                if let Err(EvalError::Limit) = step {
                    return step;
                }
                if let Some(accumulated) = run.locals.get_mut(base) {
                    *accumulated = step;
                }
            }
            run.locals.truncate(base + 1);
            run.eval(&fold.result)
        })
    }

    fn append(&mut self, accumulated: usize, item: &'a Node) -> Outcome<'a> {
        let item = self.eval(item)?;
        let Some(place) = self.locals.get_mut(accumulated) else {
            return Err(EvalError::overload());
        };
        // Taken out, so that there is one list and it grows in place.
        match std::mem::replace(place, Ok(Value::Null))? {
            Value::List(List::Made(mut list)) => {
                Rc::make_mut(&mut list).push(item);
                Ok(Value::List(List::Made(list)))
            }
            _ => Err(EvalError::overload()),
        }
    }

    fn bind(&mut self, value: &'a Node, body: &'a Node) -> Outcome<'a> {
        let value = self.eval(value)?;
        self.scoped(|run, _| {
            run.locals.push(Ok(value));
            run.eval(body)
        })
    }

    fn optional_map(&mut self, target: &'a Node, body: &'a Node, flat: bool) -> Outcome<'a> {
        let value = match self.eval(target)? {
            Value::Optional(Some(value)) => Value::clone(&value),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            _ => return Err(EvalError::overload()),
        };
        let mapped = self.scoped(|run, _| {
            run.locals.push(Ok(value));
            run.eval(body)
        })?;
        match (mapped, flat) {
            (mapped, false) => Ok(Value::Optional(Some(Rc::new(mapped)))),
            (mapped @ Value::Optional(_), true) => Ok(mapped),
            _ => Err(EvalError::overload()),
        }
    }

    fn each(&mut self, each: &'a Each) -> Outcome<'a> {
        let target = self.eval(&each.target)?;
        let items = self.pairs(&target)?;
        let mut gathered = Gathered::default();
        let mut error = None;
        for (first, second) in items {
            self.budget.spend(1)?;
            let variables = match each.pairs {
                true => vec![first.clone(), second.clone()],
                false => vec![second.clone()],
            };
            if let Some(filter) = &each.filter {
                match self.with(&variables, filter)? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    _ => return Err(EvalError::overload()),
                }
            }
            let found = match (self.with(&variables, &each.body), each.kind) {
                (Err(found), EachKind::All | EachKind::Exists) if !found.is_final() => {
                    error.get_or_insert(found);
                    continue;
                }
                (found, _) => found?,
            };
            match (each.kind, found) {
                (EachKind::All, Value::Bool(false)) => return Ok(Value::Bool(false)),
                (EachKind::Exists, Value::Bool(true)) => return Ok(Value::Bool(true)),
                (EachKind::ExistsOne, Value::Bool(yes)) => gathered.count += usize::from(yes),
                (EachKind::All | EachKind::Exists, Value::Bool(_)) => {}
                (EachKind::TransformList, value) => gathered.values.push(value),
                (EachKind::SortBy, key) => gathered.keyed.push((key, second)),
                (EachKind::TransformMap, value) => insert(&mut gathered.map, &first, value)?,
                (EachKind::TransformMapEntry, Value::Map(map)) => {
                    for (key, value) in map.entries() {
                        self.budget.spend(1)?;
                        insert(&mut gathered.map, &key, value)?;
                    }
                }
                _ => return Err(EvalError::overload()),
            }
        }
        match (each.kind, error) {
            (EachKind::All | EachKind::Exists, Some(error)) => Err(error),
            (kind, _) => gathered.result(kind),
        }
    }

    /// A body with its variables.
    fn with(&mut self, variables: &[Value<'a>], body: &'a Node) -> Outcome<'a> {
        self.scoped(|run, _| {
            run.locals.extend(variables.iter().cloned().map(Ok));
            run.eval(body)
        })
    }

    fn call(&mut self, node: &'a Node) -> Outcome<'a> {
        let Node::Call {
            name,
            member,
            arguments,
            pattern,
        } = node
        else {
            return Err(EvalError::overload());
        };
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.eval(argument)?);
        }
        // The first value of the two that is there.
        library::call(name, *member, &values, pattern.as_ref(), &mut self.budget)
    }
}

#[derive(Default)]
struct Gathered<'a> {
    count: usize,
    values: Vec<Value<'a>>,
    keyed: Vec<(Value<'a>, Value<'a>)>,
    map: IndexMap<Key, Value<'a>>,
}

impl<'a> Gathered<'a> {
    fn result(self, kind: EachKind) -> Outcome<'a> {
        Ok(match kind {
            EachKind::All => Value::Bool(true),
            EachKind::Exists => Value::Bool(false),
            EachKind::ExistsOne => Value::Bool(self.count == 1),
            EachKind::TransformList => Value::list(self.values),
            EachKind::SortBy => Value::list(lists::sorted_by(self.keyed)?),
            EachKind::TransformMap | EachKind::TransformMapEntry => {
                Value::Map(Map::Made(Rc::new(self.map)))
            }
        })
    }
}

fn insert<'a>(
    map: &mut IndexMap<Key, Value<'a>>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Result<(), EvalError> {
    let key = Key::of(key).ok_or_else(|| EvalError::new("unsupported key type"))?;
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(EvalError::new("insert failed: key already exists")),
    }
}

/// The item or entry there.
fn part<'a>(of: &Value<'a>, index: &Value<'a>) -> Option<Value<'a>> {
    match of {
        Value::Map(map) => map.get(&Key::of(index)?),
        Value::List(list) => list.get(usize::try_from(lists::position(index)?).ok()?),
        _ => None,
    }
}
