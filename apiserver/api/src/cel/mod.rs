//! Expressions of the Common Expression Language, checked before they are stored.
//!
//! ```text
//! expression ─▶ parse (ANTLR grammar of the `cel` crate) ─▶ types, within an Environment ─▶ the result's type
//! ```
//!
//! [`check`] is the one way in. It reports what is no CEL, names and functions that are not there, fields that a type
//! does not have, and operators that do not take their operands, in the words of upstream's `cel-go`. It knows the
//! result types of functions but not their overloads: an argument of a wrong type is found only when the expression
//! runs. Where it cannot tell a type it says [`Type::Unknown`], which fits everywhere, so that nothing that upstream
//! accepts is refused. What is to be run becomes a [`eval::Program`].

mod environment;
pub mod eval;
mod functions;
mod operators;
mod types;
mod walk;

pub use environment::{Environment, ObjectType};
pub use types::Type;

use ::cel::IdedExpr;
use ::cel::parser::Parser;

/// Words that CEL keeps for itself.
pub(crate) const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Why an expression is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// It is no CEL, or its types do not fit; upstream's words, with the place.
    #[error("compilation failed: {0}")]
    Compilation(String),
    /// What it results in is not what is asked for.
    #[error("must evaluate to {0}")]
    Result(&'static str),
}

/// A finding at a place of the source: line and column from 1.
struct Issue {
    line: usize,
    column: usize,
    message: String,
}

/// Most characters of an expression; upstream's limit.
const MOST_CHARACTERS: usize = 100_000;
/// How deep an expression may nest; upstream's limit.
const DEEPEST: u16 = 250;
/// The parser takes some 40 KiB of stack per level where nothing is optimised, and the longest chain of operators still
/// more; so much is reserved for what is not small, and only touched as it is needed.
const STACK: usize = 256 << 20;
/// Up to so many brackets and characters an expression is checked on the caller's stack.
const SMALL: (usize, usize) = (8, 400);

/// Checks an expression within an environment, and says what it results in.
pub fn check(expression: &str, environment: &Environment) -> Result<Type, CelError> {
    analyse(expression, environment, |_| ()).map(|(found, ())| found)
}

/// Does so, and then hands what was parsed to `then`, on a stack that is large enough for it.
fn analyse<T: Send>(
    expression: &str,
    environment: &Environment,
    then: impl FnOnce(&IdedExpr) -> T + Send,
) -> Result<(Type, T), CelError> {
    let nowhere = |why: String| Err(CelError::Compilation(format!("ERROR: <input>:-1:0: {why}")));
    let size = expression.chars().count();
    if size > MOST_CHARACTERS {
        return nowhere(format!(
            "expression code point size exceeds limit: size: {size}, limit {MOST_CHARACTERS}"
        ));
    }
    let brackets = |found: &[char]| expression.matches(found).count();
    if brackets(&['(', '[', '{', '?', '!', '-']) <= SMALL.0 && size <= SMALL.1 {
        return checked(expression, environment, then);
    }
    if depth(expression) > usize::from(DEEPEST) {
        return nowhere(too_deep());
    }
    let run = || checked(expression, environment, then);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        match thread.spawn_scoped(scope, run).map(|thread| thread.join()) {
            Ok(Ok(result)) => result,
            // The parser has met something that it cannot handle.
            Ok(Err(_)) => nowhere("the expression cannot be read".to_owned()),
            Err(error) => nowhere(format!("no room to read the expression: {error}")),
        }
    })
}

fn too_deep() -> String {
    format!("expression recursion limit exceeded: {DEEPEST}")
}

/// How deep brackets nest, those in texts included: more than upstream counts, never less.
fn depth(expression: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for character in expression.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn checked<T>(
    expression: &str,
    environment: &Environment,
    then: impl FnOnce(&IdedExpr) -> T,
) -> Result<(Type, T), CelError> {
    let parser = Parser::new()
        .max_recursion_depth(DEEPEST)
        .enable_optional_syntax(true)
        .enable_ident_escape_syntax(true);
    let issues = match parser.parse_with_source_info(expression) {
        Ok((parsed, info)) => {
            let (found, issues) = walk::types(&parsed, &info, environment);
            if issues.is_empty() {
                return Ok((found, then(&parsed)));
            }
            issues
        }
        Err(errors)
            if errors
                .errors
                .iter()
                .any(|error| error.msg.contains("Recursion limit")) =>
        {
            let why = format!("ERROR: <input>:-1:0: {}", too_deep());
            return Err(CelError::Compilation(why));
        }
        Err(errors) => errors
            .errors
            .into_iter()
            .map(|error| Issue {
                line: usize::try_from(error.pos.0).unwrap_or(1),
                // Upstream has no column where there is no text.
                column: match expression.is_empty() {
                    true => 0,
                    false => usize::try_from(error.pos.1).unwrap_or(1),
                },
                message: error.msg,
            })
            .collect(),
    };
    Err(CelError::Compilation(shown(issues, expression)))
}

/// Checks an expression that has to result in one of `accepted`, which messages call `name`.
pub fn check_result(
    expression: &str,
    environment: &Environment,
    accepted: &[Type],
    name: &'static str,
) -> Result<Type, CelError> {
    let found = check(expression, environment)?;
    if found == Type::Unknown || accepted.contains(&found) {
        Ok(found)
    } else {
        Err(CelError::Result(name))
    }
}

/// Findings as upstream shows them: by place, each with its line and a mark below the column.
fn shown(mut issues: Vec<Issue>, source: &str) -> String {
    issues.sort_by_key(|issue| (issue.line, issue.column));
    let shown: Vec<String> = issues.iter().map(|issue| one(issue, source)).collect();
    shown.join("\n")
}

fn one(issue: &Issue, source: &str) -> String {
    let Issue {
        line,
        column,
        message,
    } = issue;
    let head = format!("ERROR: <input>:{line}:{column}: {message}");
    let Some(text) = source.split('\n').nth(line.saturating_sub(1)) else {
        return head;
    };
    if source.is_empty() {
        return head;
    }
    let text = text.replace('\t', " ");
    let mut characters = text.chars();
    let mut mark = String::new();
    for character in characters.by_ref().take(column.saturating_sub(1)) {
        mark.push(if character.is_ascii() { '.' } else { '．' });
    }
    let wide = characters.next().is_some_and(|next| !next.is_ascii());
    mark.push(if wide { '＾' } else { '^' });
    format!("{head}\n | {text}\n | {mark}")
}

#[cfg(test)]
mod tests;
