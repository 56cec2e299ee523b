//! `$(( … ))`: whole numbers, `+ - * / %`, comparisons, `&& || !`, brackets and variables.

/// Evaluates an expression; `value` gives variables.
pub fn evaluate(text: &str, value: &dyn Fn(&str) -> String) -> Result<i64, String> {
    let mut parser = Parser {
        rest: text,
        value,
        depth: 0,
    };
    let result = parser.binary(0)?;
    parser.blanks();
    if parser.rest.is_empty() {
        Ok(result)
    } else {
        Err(format!("{text}: unexpected {}", parser.rest))
    }
}

struct Parser<'a> {
    rest: &'a str,
    value: &'a dyn Fn(&str) -> String,
    depth: u32,
}

/// Operators from the loosest to the tightest.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn binary(&mut self, level: usize) -> Result<i64, String> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            self.blanks();
            let Some(operator) = operators
                .iter()
                .find(|operator| self.rest.starts_with(**operator))
            else {
                return Ok(left);
            };
            self.rest = &self.rest[operator.len()..];
            let right = self.binary(level + 1)?;
            left = match *operator {
                "||" => i64::from(left != 0 || right != 0),
                "&&" => i64::from(left != 0 && right != 0),
                "==" => i64::from(left == right),
                "!=" => i64::from(left != right),
                "<=" => i64::from(left <= right),
                ">=" => i64::from(left >= right),
                "<" => i64::from(left < right),
                ">" => i64::from(left > right),
                "+" => left.wrapping_add(right),
                "-" => left.wrapping_sub(right),
                "*" => left.wrapping_mul(right),
                _ if right == 0 => return Err("division by zero".to_owned()),
                "/" => left.wrapping_div(right),
                _ => left.wrapping_rem(right),
            };
        }
    }

    fn unary(&mut self) -> Result<i64, String> {
        self.blanks();
        self.depth += 1;
        if self.depth > 100 {
            return Err("the expression is too deep".to_owned());
        }
        let result = if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            let inner = self.binary(0)?;
            self.blanks();
            self.rest = self.rest.strip_prefix(')').ok_or(") is missing")?;
            inner
        } else if let Some(rest) = self.rest.strip_prefix('-') {
            self.rest = rest;
            self.unary()?.wrapping_neg()
        } else if let Some(rest) = self.rest.strip_prefix('!') {
            self.rest = rest;
            i64::from(self.unary()? == 0)
        } else {
            let end = self
                .rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            match word.as_bytes().first() {
                None => {
                    return Err(format!(
                        "unexpected {}",
                        if rest.is_empty() { "end" } else { rest }
                    ));
                }
                Some(b'0'..=b'9') => number(word)?,
                Some(_) => match (self.value)(word).trim() {
                    "" => 0,
                    value => number(value)?,
                },
            }
        };
        self.depth -= 1;
        Ok(result)
    }
}

fn number(word: &str) -> Result<i64, String> {
    let (digits, negative) = match word.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (word, false),
    };
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    let value = parsed.map_err(|_| format!("{word}: not a number"))?;
    Ok(if negative { -value } else { value })
}
