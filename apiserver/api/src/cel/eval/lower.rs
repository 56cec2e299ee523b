//! From what the parser made to what is run: names become places, chains become flat, patterns are read once.

use std::sync::Arc;

use ::cel::IdedExpr;
use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, LiteralValue, SelectExpr,
};
use regex::Regex;

use super::super::functions::NAMESPACES;
use super::super::{CelError, Environment, walk};
use super::{library, texts};

/// How deep the tree may be: what a thread's stack surely holds. Upstream's parser allows 250.
const DEEPEST: usize = 128;

/// A step of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    /// A variable of the evaluation.
    Variable(Box<str>),
    /// A variable of a macro, by its place on the stack.
    Local(usize),
    /// A type that is named.
    Type(&'static str),
    Select {
        operand: Box<Node>,
        field: Box<str>,
        test: bool,
    },
    /// `operand.?field`, `operand[?index]`.
    Maybe {
        operand: Box<Node>,
        index: Box<Node>,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    NotStrictlyFalse(Box<Node>),
    If(Box<[Node; 3]>),
    /// Operators from left to right: `a + b - c`.
    Chain(Box<Node>, Vec<(Operator, Node)>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Fold(Box<Fold>),
    /// Adds one item to the list at a place.
    Append {
        accumulated: usize,
        item: Box<Node>,
    },
    /// `cel.bind(name, value, body)`.
    Bind {
        value: Box<Node>,
        body: Box<Node>,
    },
    /// `optional.optMap(name, body)`.
    OptionalMap {
        target: Box<Node>,
        body: Box<Node>,
        flat: bool,
    },
    Each(Box<Each>),
    Call {
        name: Box<str>,
        member: bool,
        arguments: Vec<Node>,
        pattern: Option<Regex>,
    },
}

/// A constant.
#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Arc<[u8]>),
}

/// An operator with a left and a right side that are both needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

/// A comprehension as the parser expands macros with one variable. Its accumulated value is at the next place of the
/// stack, the variables at those after it.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) range: Node,
    pub(super) pairs: bool,
    pub(super) initial: Node,
    pub(super) condition: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

/// A macro that the parser does not know.
#[derive(Debug)]
pub(super) struct Each {
    pub(super) kind: EachKind,
    pub(super) target: Node,
    /// Whether `filter` and `body` see two variables, else one.
    pub(super) pairs: bool,
    pub(super) filter: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EachKind {
    All,
    Exists,
    ExistsOne,
    TransformList,
    TransformMap,
    TransformMapEntry,
    SortBy,
}

/// The fields that are selected somewhere, with the variable that they are selected of.
type Selections = Vec<(Option<Box<str>>, Box<str>)>;

/// The tree that is run.
pub(super) fn lower(
    parsed: &IdedExpr,
    environment: &Environment,
) -> Result<(Node, Selections), CelError> {
    let mut lowering = Lowering {
        environment,
        scope: Vec::new(),
        selections: Vec::new(),
        depth: 0,
    };
    let root = lowering.node(parsed)?;
    Ok((root, lowering.selections))
}

struct Lowering<'e> {
    environment: &'e Environment,
    /// The names of the stack's places.
    scope: Vec<String>,
    selections: Selections,
    depth: usize,
}

type Lowered = Result<Node, CelError>;

fn refused(why: impl Into<String>) -> CelError {
    CelError::Compilation(format!("ERROR: <input>:-1:0: {}", why.into()))
}

impl Lowering<'_> {
    fn node(&mut self, expr: &IdedExpr) -> Lowered {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(refused(format!(
                "expression nests too deep to be run: limit {DEEPEST}"
            )));
        }
        let node = self.of(&expr.expr);
        self.depth -= 1;
        node
    }

    fn boxed(&mut self, expr: &IdedExpr) -> Result<Box<Node>, CelError> {
        self.node(expr).map(Box::new)
    }

    fn of(&mut self, expr: &Expr) -> Lowered {
        match expr {
            Expr::Unspecified => Err(refused("an expression without content")),
            Expr::Literal(literal) => Ok(Node::Literal(constant(literal))),
            Expr::Ident(name) => self
                .named(name)
                .ok_or_else(|| refused(format!("undeclared reference to '{name}'"))),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let optional = |index: usize| list.optional_indices.contains(&index);
                let elements = list.elements.iter().enumerate();
                let items =
                    elements.map(|(index, element)| Ok((self.node(element)?, optional(index))));
                items.collect::<Result<_, CelError>>().map(Node::List)
            }
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(made) => Err(refused(format!(
                "an object of type '{}' cannot be made here",
                made.type_name
            ))),
            Expr::Comprehension(comprehension) => self.fold(comprehension),
        }
    }

    /// The innermost thing of that name.
    fn named(&self, name: &str) -> Option<Node> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(place) = self.scope.iter().rposition(|known| known == name) {
            return Some(Node::Local(place));
        }
        if self.environment.variable(name).is_some() {
            return Some(Node::Variable(name.into()));
        }
        walk::type_name(name).map(Node::Type)
    }

    fn select(&mut self, select: &SelectExpr) -> Lowered {
        if !select.test
            && let Some(name) = walk::qualified(&select.operand.expr, &select.field)
            && let Some(node) = self.named(&name)
        {
            return Ok(node);
        }
        self.selected(&select.operand.expr, &select.field);
        Ok(Node::Select {
            operand: self.boxed(&select.operand)?,
            field: select.field.as_str().into(),
            test: select.test,
        })
    }

    fn selected(&mut self, operand: &Expr, field: &str) {
        let of = match operand {
            Expr::Ident(name) => Some(name.as_str().into()),
            _ => None,
        };
        self.selections.push((of, field.into()));
    }

    fn map(&mut self, entries: &[IdedEntryExpr]) -> Lowered {
        let mut lowered = Vec::new();
        for entry in entries {
            if let EntryExpr::MapEntry(entry) = &entry.expr {
                let (key, value) = (self.node(&entry.key)?, self.node(&entry.value)?);
                lowered.push((key, value, entry.optional));
            }
        }
        Ok(Node::Map(lowered))
    }

    fn fold(&mut self, comprehension: &ComprehensionExpr) -> Lowered {
        let range = self.node(&comprehension.iter_range)?;
        let initial = self.node(&comprehension.accu_init)?;
        let before = self.scope.len();
        self.scope.push(comprehension.accu_var.clone());
        self.scope.push(comprehension.iter_var.clone());
        self.scope.extend(comprehension.iter_var2.clone());
        let condition = self.node(&comprehension.loop_cond)?;
        let step = self.node(&comprehension.loop_step)?;
        self.scope.truncate(before + 1);
        let result = self.node(&comprehension.result)?;
        self.scope.truncate(before);
        Ok(Node::Fold(Box::new(Fold {
            range,
            pairs: comprehension.iter_var2.is_some(),
            initial,
            condition,
            step,
            result,
        })))
    }

    fn call(&mut self, call: &CallExpr) -> Lowered {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            ("_&&_", _) => self.logical(call, "_&&_").map(Node::And),
            ("_||_", _) => self.logical(call, "_||_").map(Node::Or),
            ("!_", [operand]) => self.boxed(operand).map(Node::Not),
            ("-_", [operand]) => self.boxed(operand).map(Node::Negate),
            ("@not_strictly_false", [operand]) => self.boxed(operand).map(Node::NotStrictlyFalse),
            ("_?_:_", [condition, yes, no]) => {
                let branches = [self.node(condition)?, self.node(yes)?, self.node(no)?];
                Ok(Node::If(Box::new(branches)))
            }
            ("_[_]", [operand, index]) => Ok(Node::Index {
                operand: self.boxed(operand)?,
                index: self.boxed(index)?,
            }),
            ("_?._" | "_[?_]", [operand, index]) => {
                if let (Expr::Literal(LiteralValue::String(field)), "_?._") = (&index.expr, name) {
                    self.selected(&operand.expr, field.inner());
                }
                Ok(Node::Maybe {
                    operand: self.boxed(operand)?,
                    index: self.boxed(index)?,
                })
            }
            (name, [_, _]) if operator(name).is_some() => self.chain(call),
            _ => self.function(call),
        }
    }

    /// The operands of a chain of one operator, flat.
    fn logical(&mut self, call: &CallExpr, name: &str) -> Result<Vec<Node>, CelError> {
        let mut waiting: Vec<&IdedExpr> = call.args.iter().rev().collect();
        let mut operands = Vec::new();
        while let Some(expr) = waiting.pop() {
            match &expr.expr {
                Expr::Call(inner) if inner.func_name == name => {
                    waiting.extend(inner.args.iter().rev());
                }
                _ => operands.push(self.node(expr)?),
            }
        }
        Ok(operands)
    }

    /// `((a + b) - c) < d`, flat.
    fn chain(&mut self, call: &CallExpr) -> Lowered {
        let mut rest = Vec::new();
        let mut call = call;
        let first = loop {
            let (Some(operator), [left, right]) = (operator(&call.func_name), &call.args[..])
            else {
                return Err(refused("an operator without two operands"));
            };
            if let Some(item) = self.appended(operator, left, right) {
                rest.reverse();
                break Node::Append {
                    accumulated: item.0,
                    item: self.boxed(item.1)?,
                };
            }
            rest.push((operator, self.node(right)?));
            match &left.expr {
                Expr::Call(inner)
                    if self::operator(&inner.func_name).is_some() && inner.args.len() == 2 =>
                {
                    call = inner;
                }
                _ => {
                    rest.reverse();
                    break self.node(left)?;
                }
            }
        };
        Ok(match rest.is_empty() {
            true => first,
            false => Node::Chain(Box::new(first), rest),
        })
    }

    /// `@result + [item]`, as the parser expands `map` and `filter`.
    fn appended<'x>(
        &self,
        operator: Operator,
        left: &IdedExpr,
        right: &'x IdedExpr,
    ) -> Option<(usize, &'x IdedExpr)> {
        let (Operator::Add, Expr::Ident(name), Expr::List(list)) =
            (operator, &left.expr, &right.expr)
        else {
            return None;
        };
        // No name that can be written begins like this.
        if !name.starts_with('@') || !list.optional_indices.is_empty() {
            return None;
        }
        match (self.named(name)?, &list.elements[..]) {
            (Node::Local(place), [item]) => Some((place, item)),
            _ => None,
        }
    }

    fn function(&mut self, call: &CallExpr) -> Lowered {
        let mut name = call.func_name.clone();
        let mut target = call.target.as_deref();
        if let Some(IdedExpr {
            expr: Expr::Ident(namespace),
            ..
        }) = target
            && NAMESPACES.contains(&namespace.as_str())
            && self.named(namespace).is_none()
        {
            name = format!("{namespace}.{name}");
            target = None;
        }
        if let Some(node) = self.expanded(&name, target, &call.args)? {
            return Ok(node);
        }
        if !library::knows(&name) {
            return Err(refused(format!("function '{name}' cannot be run here")));
        }
        let arguments = target.into_iter().chain(&call.args);
        let arguments = arguments.map(|argument| self.node(argument));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        let pattern = match (name.as_str(), arguments.get(1)) {
            ("matches" | "find" | "findAll", Some(Node::Literal(Literal::String(text)))) => {
                Some(texts::pattern(text).map_err(|why| refused(why.to_string()))?)
            }
            _ => None,
        };
        Ok(Node::Call {
            name: name.into(),
            member: target.is_some(),
            arguments,
            pattern,
        })
    }

    /// Macros that the parser does not know.
    fn expanded(
        &mut self,
        name: &str,
        target: Option<&IdedExpr>,
        arguments: &[IdedExpr],
    ) -> Result<Option<Node>, CelError> {
        let word = |at: usize| match arguments.get(at).map(|argument| &argument.expr) {
            Some(Expr::Ident(name)) => Some(name.clone()),
            _ => None,
        };
        let before = self.scope.len();
        let node = match (name, target, arguments) {
            ("cel.bind", None, [_, value, body]) => {
                let value = self.boxed(value)?;
                self.scope.extend(word(0));
                let body = self.boxed(body)?;
                Node::Bind { value, body }
            }
            ("optMap" | "optFlatMap", Some(target), [_, body]) => {
                let target = self.boxed(target)?;
                self.scope.extend(word(0));
                let (body, flat) = (self.boxed(body)?, name == "optFlatMap");
                Node::OptionalMap { target, body, flat }
            }
            ("sortBy", Some(target), [_, body]) => {
                let target = self.node(target)?;
                self.scope.extend(word(0));
                let body = self.node(body)?;
                let (kind, pairs, filter) = (EachKind::SortBy, false, None);
                Node::Each(Box::new(Each {
                    kind,
                    target,
                    pairs,
                    filter,
                    body,
                }))
            }
            (_, Some(target), [_, _, rest @ ..]) if each(name).is_some() => {
                let (filter, body) = match rest {
                    [body] => (None, body),
                    [filter, body] if name.starts_with("transform") => (Some(filter), body),
                    _ => return Ok(None),
                };
                let target = self.node(target)?;
                self.scope.extend(word(0));
                self.scope.extend(word(1));
                let filter = filter.map(|filter| self.node(filter)).transpose()?;
                let (body, kind) = (self.node(body)?, each(name).unwrap_or(EachKind::All));
                let pairs = true;
                Node::Each(Box::new(Each {
                    kind,
                    target,
                    pairs,
                    filter,
                    body,
                }))
            }
            _ => return Ok(None),
        };
        let declared = self.scope.len() - before;
        self.scope.truncate(before);
        let wanted = if matches!(&node, Node::Each(each) if each.pairs) {
            2
        } else {
            1
        };
        match declared == wanted {
            true => Ok(Some(node)),
            false => Err(refused("argument must be a simple name")),
        }
    }
}

fn each(name: &str) -> Option<EachKind> {
    Some(match name {
        "all" => EachKind::All,
        "exists" => EachKind::Exists,
        "existsOne" | "exists_one" => EachKind::ExistsOne,
        "transformList" => EachKind::TransformList,
        "transformMap" => EachKind::TransformMap,
        "transformMapEntry" => EachKind::TransformMapEntry,
        _ => return None,
    })
}

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "_+_" => Operator::Add,
        "_-_" => Operator::Subtract,
        "_*_" => Operator::Multiply,
        "_/_" => Operator::Divide,
        "_%_" => Operator::Remainder,
        "_==_" => Operator::Equal,
        "_!=_" => Operator::NotEqual,
        "_<_" => Operator::Less,
        "_<=_" => Operator::LessEqual,
        "_>_" => Operator::Greater,
        "_>=_" => Operator::GreaterEqual,
        "@in" => Operator::In,
        _ => return None,
    })
}

fn constant(literal: &LiteralValue) -> Literal {
    match literal {
        LiteralValue::Null => Literal::Null,
        LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
        LiteralValue::Int(value) => Literal::Int(*value.inner()),
        LiteralValue::UInt(value) => Literal::Uint(*value.inner()),
        LiteralValue::Double(value) => Literal::Double(*value.inner()),
        LiteralValue::String(value) => Literal::String(value.inner().into()),
        LiteralValue::Bytes(value) => Literal::Bytes(value.inner().into()),
    }
}
