//! From a script's text to its tree.
//!
//! ```text
//! cursor.rs ─ where we are ─▶ commands.rs, redirects.rs, words.rs ─▶ tree.rs
//! ```

mod commands;
mod cursor;
mod redirects;
mod tree;
mod words;

use std::fmt;

use cursor::Parser;
pub use tree::{Compound, Node, Part, Redirect, Target, Word};

/// Levels of brackets and compounds in each other.
const DEEPEST: usize = 50;

#[derive(Clone, Debug, PartialEq)]
pub enum ParseError {
    /// More lines could make it whole.
    Incomplete,
    Bad(String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => f.write_str("syntax error: unexpected end of the script"),
            Self::Bad(what) => write!(f, "syntax error: {what}"),
        }
    }
}

type Parsed<T> = Result<T, ParseError>;

fn bad<T>(what: impl Into<String>) -> Parsed<T> {
    Err(ParseError::Bad(what.into()))
}

/// Parses a whole script.
pub fn script(text: &str) -> Parsed<Node> {
    let mut parser = Parser::new(text);
    let list = parser.list(&[])?;
    parser.blanks();
    match parser.peek() {
        None if parser.heres.is_empty() => Ok(list),
        None => Err(ParseError::Incomplete),
        Some(c) => bad(format!("unexpected {c}")),
    }
}

/// The parts of a text in which `$` means something and quotes do not: here-documents and arithmetic.
pub fn expandable(text: &str) -> Parsed<Word> {
    let mut parser = Parser::new(text);
    let mut word = Vec::new();
    while parser.peek().is_some() {
        parser.quoted_piece(&mut word, &['$', '`', '\\'])?;
    }
    Ok(word)
}

fn is_end(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')'
    )
}

/// Whether a text can name a variable.
pub fn is_name(text: &str) -> bool {
    text.chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
