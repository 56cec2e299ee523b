//! `test` and `[`.

use std::fs;

use crate::context::Cx;
use crate::failure::{Failure, Outcome};

pub fn test_command(cx: &mut Cx, args: &[String]) -> Outcome {
    evaluate(cx, args).map(|holds| u8::from(!holds))
}

pub fn bracket(cx: &mut Cx, args: &[String]) -> Outcome {
    match args.split_last() {
        Some((last, args)) if last == "]" => test_command(cx, args),
        _ => Err(Failure::usage("] is missing")),
    }
}

/// Whether the condition holds.
pub fn evaluate(cx: &mut Cx, args: &[String]) -> Result<bool, Failure> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // By the number of words, as POSIX says, so that operands that look like operators are none.
    match words[..] {
        [] => Ok(false),
        [word] => Ok(!word.is_empty()),
        ["!", word] => Ok(word.is_empty()),
        [operator, operand] if operator.starts_with('-') => unary(cx, operator, operand),
        [a, operator, b] if is_binary(operator) => binary(cx, a, operator, b),
        _ => {
            let mut parser = Parser {
                words: &words,
                at: 0,
            };
            let holds = parser.or(cx)?;
            if parser.at < words.len() {
                return Err(Failure::usage(format!("unexpected {}", words[parser.at])));
            }
            Ok(holds)
        }
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Result<&'a str, Failure> {
        let word = self
            .peek()
            .ok_or_else(|| Failure::usage("the condition ends too early"))?;
        self.at += 1;
        Ok(word)
    }

    fn or(&mut self, cx: &mut Cx) -> Result<bool, Failure> {
        let mut holds = self.and(cx)?;
        while self.peek() == Some("-o") {
            self.at += 1;
            holds |= self.and(cx)?;
        }
        Ok(holds)
    }

    fn and(&mut self, cx: &mut Cx) -> Result<bool, Failure> {
        let mut holds = self.not(cx)?;
        while self.peek() == Some("-a") {
            self.at += 1;
            holds &= self.not(cx)?;
        }
        Ok(holds)
    }

    fn not(&mut self, cx: &mut Cx) -> Result<bool, Failure> {
        let mut negated = false;
        while self.peek() == Some("!") {
            self.at += 1;
            negated = !negated;
        }
        Ok(self.primary(cx)? != negated)
    }

    fn primary(&mut self, cx: &mut Cx) -> Result<bool, Failure> {
        let word = self.next()?;
        if word == "(" {
            let holds = self.or(cx)?;
            return if self.next()? == ")" {
                Ok(holds)
            } else {
                Err(Failure::usage(") is missing"))
            };
        }
        if let Some(operator) = self.peek().filter(|word| is_binary(word)) {
            self.at += 1;
            return binary(cx, word, operator, self.next()?);
        }
        if word.len() == 2 && word.starts_with('-') && self.peek().is_some() {
            return unary(cx, word, self.next()?);
        }
        Ok(!word.is_empty())
    }
}

fn unary(cx: &mut Cx, operator: &str, operand: &str) -> Result<bool, Failure> {
    let path = cx.path(operand);
    let facts = || fs::metadata(&path);
    Ok(match operator {
        "-n" => !operand.is_empty(),
        "-z" => operand.is_empty(),
        "-e" | "-r" | "-x" => facts().is_ok(),
        "-f" => facts().is_ok_and(|facts| facts.is_file()),
        "-d" => facts().is_ok_and(|facts| facts.is_dir()),
        "-s" => facts().is_ok_and(|facts| facts.len() > 0),
        "-h" | "-L" => fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_symlink()),
        "-w" => facts().is_ok_and(|facts| {
            facts.is_dir() || fs::OpenOptions::new().write(true).open(&path).is_ok()
        }),
        "-t" => operand == "0" && cx.input.is_terminal(),
        "-b" | "-c" | "-p" | "-S" | "-u" | "-g" | "-k" => false,
        other => return Err(Failure::usage(format!("{other}: unknown condition"))),
    })
}

fn is_binary(word: &str) -> bool {
    matches!(
        word,
        "=" | "=="
            | "!="
            | "-eq"
            | "-ne"
            | "-lt"
            | "-le"
            | "-gt"
            | "-ge"
            | "-nt"
            | "-ot"
            | "<"
            | ">"
    )
}

fn binary(cx: &mut Cx, a: &str, operator: &str, b: &str) -> Result<bool, Failure> {
    let number = |text: &str| -> Result<i64, Failure> {
        text.trim()
            .parse()
            .map_err(|_| Failure::usage(format!("{text}: not a number")))
    };
    let time = |path: &str| {
        fs::metadata(cx.path(path))
            .and_then(|facts| facts.modified())
            .ok()
    };
    Ok(match operator {
        "=" | "==" => a == b,
        "!=" => a != b,
        "<" => a < b,
        ">" => a > b,
        "-nt" => time(a) > time(b),
        "-ot" => time(a) < time(b),
        "-eq" => number(a)? == number(b)?,
        "-ne" => number(a)? != number(b)?,
        "-lt" => number(a)? < number(b)?,
        "-le" => number(a)? <= number(b)?,
        "-gt" => number(a)? > number(b)?,
        _ => number(a)? >= number(b)?,
    })
}
