//! Expressions that are run.
//!
//! ```text
//! expression ─▶ check ─▶ Program (compiled once) ─▶ evaluate(variables, limit) ─▶ Value │ EvalError
//! ```
//!
//! The `cel` crate parses; what it parsed is lowered into a small tree of our own, because its interpreter has no bound on
//! what an expression may cost. Here every step, every item and every ten bytes of text count against a limit, as
//! upstream's cost estimate does it, so an expression ends whatever it says. Nothing here panics, blocks or looks at a clock.
//!
//! Upstream: the interpreter of `cel-go`; `k8s.io/apiserver/pkg/cel/library` for Kubernetes' own functions, and its
//! `RuntimeCELCostBudget`. Not run yet: the authorizer, `jsonpatch` and object literals, which [`Program::compile`]
//! refuses.

mod convert;
mod formats;
mod library;
mod lists;
mod lower;
mod numbers;
mod operate;
mod run;
mod semver;
mod texts;
mod time;
mod url;
mod value;

use super::{CelError, Environment, Type};
pub use value::{Key, List, Map, Text, Value};

/// What one expression may cost by default: upstream's `PerCallLimit`.
pub const COST_LIMIT: u64 = 1_000_000;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// It would cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    Limit,
    /// It went wrong, in `cel-go`'s words where they are known.
    #[error("{0}")]
    Failed(String),
}

impl EvalError {
    pub(in crate::cel::eval) fn new(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }

    pub(in crate::cel::eval) fn overload() -> Self {
        Self::new("no such overload")
    }

    /// Whether no operator may swallow it.
    fn is_final(&self) -> bool {
        matches!(self, Self::Limit)
    }
}

/// What an evaluation comes to.
type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The variables of one evaluation, by name.
#[derive(Clone, Debug, Default)]
pub struct Variables<'a>(Vec<(&'a str, Value<'a>)>);

impl<'a> Variables<'a> {
    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: impl Into<Value<'a>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.0.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, value)| value)
    }
}

/// An expression that was checked and may be run any number of times, on any thread.
#[derive(Debug)]
pub struct Program {
    source: String,
    result: Type,
    selections: Vec<(Option<Box<str>>, Box<str>)>,
    root: lower::Node,
}

impl Program {
    /// Checks an expression as [`check`](super::check) does, and prepares it. Refuses too what cannot be run: functions
    /// that are not here yet, and nesting beyond 128.
    pub fn compile(expression: &str, environment: &Environment) -> Result<Self, CelError> {
        let (result, lowered) = super::analyse(expression, environment, |parsed| {
            lower::lower(parsed, environment)
        })?;
        let (root, selections) = lowered?;
        Ok(Self {
            source: expression.to_owned(),
            result,
            selections,
            root,
        })
    }

    /// Does so for an expression that has to result in one of `accepted`, which messages call `name`.
    pub fn compile_result(
        expression: &str,
        environment: &Environment,
        accepted: &[Type],
        name: &'static str,
    ) -> Result<Self, CelError> {
        let program = Self::compile(expression, environment)?;
        if program.result == Type::Unknown || accepted.contains(&program.result) {
            Ok(program)
        } else {
            Err(CelError::Result(name))
        }
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of what it results in, as far as it is known.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Whether it selects a field of that name, of the variable `of` or (with `None`) of anything.
    pub fn selects(&self, of: Option<&str>, field: &str) -> bool {
        self.selections.iter().any(|(variable, selected)| {
            &**selected == field && (of.is_none() || variable.as_deref() == of)
        })
    }

    /// Runs it. `limit` bounds its cost, for which [`COST_LIMIT`] is usual: about so many steps, and ten times as many
    /// bytes of text. Neither the program nor the variables are changed; an error is as good a result as a value.
    pub fn evaluate<'a>(
        &'a self,
        variables: &Variables<'a>,
        limit: u64,
    ) -> Result<Value<'a>, EvalError> {
        run::run(&self.root, variables, limit)
    }
}

#[cfg(test)]
mod tests;
