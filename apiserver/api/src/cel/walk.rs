//! The walk over a parsed expression that finds the type of each part.

use ::cel::IdedExpr;
use ::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue,
    SelectExpr, SourceInfo,
};

use super::{Environment, Issue, Type, functions, operators};

/// Names of types, which are values too.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "dyn",
    "duration",
    "int",
    "list",
    "map",
    "net.IP",
    "net.CIDR",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.URL",
    "optional_type",
];

/// The type of the expression, and what is wrong with it.
pub(super) fn types(
    parsed: &IdedExpr,
    info: &SourceInfo,
    environment: &Environment,
) -> (Type, Vec<Issue>) {
    let mut walk = Walk {
        info,
        environment,
        scope: Vec::new(),
        issues: Vec::new(),
    };
    let found = walk.expr(parsed);
    (found, walk.issues)
}

struct Walk<'a> {
    info: &'a SourceInfo,
    environment: &'a Environment,
    /// Variables of the comprehensions around, the innermost last.
    scope: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

impl Walk<'_> {
    fn expr(&mut self, expr: &IdedExpr) -> Type {
        let id = expr.id;
        match &expr.expr {
            Expr::Unspecified => Type::Unknown,
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => self
                .named(name)
                .unwrap_or_else(|| self.undeclared(id, name)),
            Expr::Select(select) => self.select(id, select),
            Expr::Call(call) => self.call(id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(made) => {
                for entry in &made.entries {
                    if let EntryExpr::StructField(field) = &entry.expr {
                        self.expr(&field.value);
                    }
                }
                let found = self.environment.structure(&made.type_name);
                found.unwrap_or_else(|| self.undeclared(id, &made.type_name))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    /// The type of what the name stands for.
    fn named(&self, name: &str) -> Option<Type> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let inner = self.scope.iter().rev().find(|(known, _)| known == name);
        if let Some((_, found)) = inner {
            return Some(found.clone());
        }
        if let Some(found) = self.environment.variable(name) {
            return Some(found.clone());
        }
        type_name(name).map(|name| Type::Named(format!("type({name})")))
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Type {
        if !select.test
            && let Some(name) = qualified(&select.operand.expr, &select.field)
            && let Some(found) = self.named(&name)
        {
            return found;
        }
        let operand = self.expr(&select.operand);
        let found = match operand {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => *value,
            Type::Object(object) => match object.field(&select.field) {
                Some(found) => found.clone(),
                None => {
                    let why = format!("undefined field '{}'", select.field);
                    self.issue(id, why);
                    Type::Unknown
                }
            },
            Type::Unknown | Type::Named(_) => Type::Unknown,
            other => {
                let why = format!("type '{other}' does not support field selection");
                self.issue(id, why);
                Type::Unknown
            }
        };
        if select.test { Type::Bool } else { found }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Type {
        let name = &call.func_name;
        if operators::is_operator(name) {
            return self.operator(id, call);
        }
        let mut full = name.clone();
        if let Some(target) = &call.target {
            match self.namespace(&target.expr) {
                Some(namespace) => full = format!("{namespace}.{name}"),
                None => drop(self.expr(target)),
            }
        }
        // Macros that the parser does not know declare the names that they begin with.
        let before = self.scope.len();
        let declares = matches!(
            full.as_str(),
            "all"
                | "exists"
                | "existsOne"
                | "exists_one"
                | "optMap"
                | "optFlatMap"
                | "transformList"
                | "transformMap"
                | "transformMapEntry"
                | "sortBy"
                | "cel.bind"
        );
        let names = call
            .args
            .iter()
            .map_while(|argument| match &argument.expr {
                Expr::Ident(name) if declares => Some((name.clone(), Type::Unknown)),
                _ => None,
            })
            .take(call.args.len().saturating_sub(1).min(2));
        let names: Vec<(String, Type)> = names.collect();
        let skipped = names.len();
        self.scope.extend(names);
        for argument in call.args.iter().skip(skipped) {
            self.expr(argument);
        }
        self.scope.truncate(before);
        match functions::result(&full) {
            Some(found) => found,
            None => self.undeclared(id, &full),
        }
    }

    /// The part of a function's name that stands before the last dot, if it is no variable.
    fn namespace(&self, target: &Expr) -> Option<String> {
        let name = match target {
            Expr::Ident(name) => name.clone(),
            _ => return None,
        };
        let known = functions::NAMESPACES.contains(&name.as_str());
        let is_variable = self.scope.iter().any(|(known, _)| *known == name)
            || self.environment.variable(&name).is_some();
        (known && !is_variable).then_some(name)
    }

    fn operator(&mut self, id: u64, call: &CallExpr) -> Type {
        let operands = call.target.iter().map(AsRef::as_ref).chain(&call.args);
        let operands: Vec<Type> = operands.map(|operand| self.expr(operand)).collect();
        if matches!(call.func_name.as_str(), "_?._") {
            return Type::Unknown;
        }
        if let Some(found) = operators::result(&call.func_name, &operands) {
            return found;
        }
        let operands: Vec<String> = operands.iter().map(ToString::to_string).collect();
        self.issue(
            id,
            format!(
                "found no matching overload for '{}' applied to '({})'",
                call.func_name,
                operands.join(", ")
            ),
        );
        Type::Unknown
    }

    fn list(&mut self, list: &ListExpr) -> Type {
        let mut found: Option<Type> = None;
        for (index, element) in list.elements.iter().enumerate() {
            let item = match list.optional_indices.contains(&index) {
                true => {
                    self.expr(element);
                    Type::Unknown
                }
                false => self.expr(element),
            };
            found = Some(self.alike(found, item, element.id));
        }
        Type::list(found.unwrap_or(Type::Unknown))
    }

    fn map(&mut self, entries: &[IdedEntryExpr]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                continue;
            };
            let key = self.expr(&entry.key);
            keys = Some(self.alike(keys, key, entry.key.id));
            let value = match entry.optional {
                true => {
                    self.expr(&entry.value);
                    Type::Unknown
                }
                false => self.expr(&entry.value),
            };
            values = Some(self.alike(values, value, entry.value.id));
        }
        let known = |found: Option<Type>| Box::new(found.unwrap_or(Type::Unknown));
        Type::Map(known(keys), known(values))
    }

    /// Upstream takes literals only whose parts have one type.
    fn alike(&mut self, before: Option<Type>, item: Type, id: u64) -> Type {
        let Some(before) = before else {
            return item;
        };
        if !before.fits(&item) {
            self.issue(id, format!("expected type '{before}' but found '{item}'"));
            return before;
        }
        before.joined(&item)
    }

    fn comprehension(&mut self, comprehension: &ComprehensionExpr) -> Type {
        let range = self.expr(&comprehension.iter_range);
        let (first, second) = match range {
            Type::List(item) => (*item.clone(), (Type::Int, *item)),
            Type::Map(key, value) => (*key.clone(), (*key, *value)),
            Type::Dyn => (Type::Dyn, (Type::Dyn, Type::Dyn)),
            Type::Unknown | Type::Named(_) => (Type::Unknown, (Type::Unknown, Type::Unknown)),
            other => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(comprehension.iter_range.id, why);
                (Type::Unknown, (Type::Unknown, Type::Unknown))
            }
        };
        let accumulated = self.expr(&comprehension.accu_init);
        let before = self.scope.len();
        let accu = comprehension.accu_var.clone();
        self.scope.push((accu.clone(), accumulated));
        match &comprehension.iter_var2 {
            Some(name) => {
                self.scope.push((comprehension.iter_var.clone(), second.0));
                self.scope.push((name.clone(), second.1));
            }
            None => self.scope.push((comprehension.iter_var.clone(), first)),
        }
        self.expr(&comprehension.loop_cond);
        let step = self.expr(&comprehension.loop_step);
        self.scope.truncate(before);
        self.scope.push((accu, step));
        let found = self.expr(&comprehension.result);
        self.scope.truncate(before);
        found
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Type {
        self.issue(
            id,
            format!("undeclared reference to '{name}' (in container '')"),
        );
        Type::Unknown
    }

    fn issue(&mut self, id: u64, message: String) {
        let (start, _) = self.info.offset_for(id).unwrap_or_default();
        let before = self.info.source.chars().take(start as usize);
        let before: String = before.collect();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        self.issues.push(Issue {
            line,
            column,
            message,
        });
    }
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// The type of that name.
pub(super) fn type_name(name: &str) -> Option<&'static str> {
    TYPES.iter().copied().find(|known| *known == name)
}

/// `operand.field` as a name with dots, if it is one.
pub(super) fn qualified(operand: &Expr, field: &str) -> Option<String> {
    match operand {
        Expr::Ident(name) => Some(format!("{name}.{field}")),
        Expr::Select(select) if !select.test => {
            let before = qualified(&select.operand.expr, &select.field)?;
            Some(format!("{before}.{field}"))
        }
        _ => None,
    }
}
