//! The grammar of label selectors, token by token as upstream reads it, so that errors are the same.

use std::collections::BTreeSet;

use super::label::{Operator, Requirement, check_key};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Word(String),
    Symbol(&'static str),
    /// A run of special characters that begins no symbol.
    Error(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::End => "",
            Token::Word(text) | Token::Error(text) => text,
            Token::Symbol(text) => text,
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Token::Symbol(found) if *found == symbol)
    }
}

/// Longer symbols first.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while !rest.is_empty() {
        let word = rest
            .find(['=', '!', '(', ')', ',', '>', '<', ' ', '\t', '\r', '\n'])
            .unwrap_or(rest.len());
        if word > 0 {
            tokens.push(Token::Word(rest[..word].to_owned()));
            rest = &rest[word..];
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            tokens.push(Token::Error(rest.to_owned()));
            rest = "";
        }
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    tokens
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

/// Reads a selector's requirements, in the order in which they are written.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser {
        tokens: tokens(text).into_iter().peekable(),
    };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::End => return Ok(requirements),
            token if token.is("!") || matches!(token, Token::Word(_)) => {}
            other => {
                return Err(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        let requirement = parser
            .requirement()
            .map_err(|error| format!("unable to parse requirement: {error}"))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            token if token.is(",") => match parser.peek() {
                token if token.is("!") || matches!(token, Token::Word(_)) => {}
                other => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        other.text()
                    ));
                }
            },
            other => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
    }
}

impl Parser {
    fn peek(&mut self) -> Token {
        self.tokens.peek().cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let absent = token.is("!");
        if absent {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        check_key(&key, "<nil>")?;
        let last = matches!(self.peek(), Token::End) || self.peek().is(",");
        let make =
            |operator, values| Requirement::new(&key, operator, values).map_err(|error| error.0);
        if absent {
            return make(Operator::DoesNotExist, BTreeSet::new());
        }
        if last {
            return make(Operator::Exists, BTreeSet::new());
        }
        let operator = match self.next() {
            Token::Word(word) if word == "in" => Operator::In,
            Token::Word(word) if word == "notin" => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        make(operator, values)
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        match self.peek() {
            token if token.is(")") => {
                self.next();
                Ok(BTreeSet::from([String::new()]))
            }
            token if token.is(",") || matches!(token, Token::Word(_)) => {
                let values = self.value_list()?;
                match self.next() {
                    token if token.is(")") => Ok(values),
                    other => Err(format!("found '{}', expected: ')'", other.text())),
                }
            }
            other => Err(format!(
                "found '{}', expected: ',', ')' or identifier",
                other.text()
            )),
        }
    }

    /// Values between commas, where nothing at all is the empty value.
    fn value_list(&mut self) -> Result<BTreeSet<String>, String> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.insert(word);
                    match self.peek() {
                        token if token.is(",") => {}
                        token if token.is(")") => return Ok(values),
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                token if token.is(",") => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    if self.peek().is(")") {
                        values.insert(String::new());
                        return Ok(values);
                    }
                    if self.peek().is(",") {
                        self.next();
                        values.insert(String::new());
                    }
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', or identifier",
                        other.text()
                    ));
                }
            }
        }
    }

    fn exact_value(&mut self) -> Result<BTreeSet<String>, String> {
        if matches!(self.peek(), Token::End) || self.peek().is(",") {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            Token::Word(word) => Ok(BTreeSet::from([word])),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }
}
