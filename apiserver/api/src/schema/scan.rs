//! Reads JSON into a tree that still shows duplicate keys, with syntax errors in Go's words.

use serde_json::{Map, Number, Value};

use super::nesting::MAX_NESTING;

/// A document as it was written: keys in order and as often as they came, numbers as text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// The word that Go's JSON errors have for this kind of value.
    pub(super) fn go_word(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Bool(_) => "bool",
            Tree::Number(_) => "number",
            Tree::String(_) => "string",
            Tree::List(_) => "array",
            Tree::Map(_) => "object",
        }
    }

    /// The plain value: the last of duplicate keys wins, integers stay integers.
    pub(super) fn into_value(self) -> Value {
        match self {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(value),
            Tree::Number(text) => number(&text).map_or(Value::Null, Value::Number),
            Tree::String(value) => Value::String(value),
            Tree::List(items) => items.into_iter().map(Tree::into_value).collect(),
            Tree::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, value) in entries {
                    map.insert(key, value.into_value());
                }
                Value::Object(map)
            }
        }
    }

    /// A tree of a plain value, a patched object say, which is read as its JSON would be: the error says that it nests
    /// more than `levels`.
    pub(super) fn from_value(value: Value, levels: usize) -> Result<Tree, String> {
        Ok(match value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(value),
            Value::Number(value) => Tree::Number(value.to_string()),
            Value::String(value) => Tree::String(value),
            Value::Array(_) if levels == 0 => return Err(too_deep(b'[')),
            Value::Object(_) if levels == 0 => return Err(too_deep(b'{')),
            Value::Array(items) => Tree::List(
                items
                    .into_iter()
                    .map(|item| Tree::from_value(item, levels - 1))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => Tree::Map(
                map.into_iter()
                    .map(|(key, value)| Ok((key, Tree::from_value(value, levels - 1)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }
}

/// A number as JSON holds it: a 64-bit integer where it fits and has no fraction, else a float; `None` past all floats.
pub(super) fn number(text: &str) -> Option<Number> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    Number::from_f64(text.parse::<f64>().ok()?)
}

/// Reads one JSON document; the error is what Go's decoder would say.
pub(super) fn scan(bytes: &[u8]) -> Result<Tree, String> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.space();
    let tree = scanner.value(1)?;
    scanner.space();
    match scanner.peek() {
        None => Ok(tree),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn end() -> String {
    "unexpected end of JSON input".into()
}

/// Go's message for an unexpected byte; it shows bytes above 127 as the Latin-1 character of that number.
fn invalid(byte: u8, context: &str) -> String {
    let shown = match byte {
        b'\'' => r"\'".to_owned(),
        b'"' => "\"".to_owned(),
        b'\\' => r"\\".to_owned(),
        b'\n' => r"\n".to_owned(),
        b'\r' => r"\r".to_owned(),
        b'\t' => r"\t".to_owned(),
        0x07 => r"\a".to_owned(),
        0x08 => r"\b".to_owned(),
        0x0b => r"\v".to_owned(),
        0x0c => r"\f".to_owned(),
        0x00..0x20 | 0x7f => format!(r"\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!(r"\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    format!("invalid character '{shown}' {context}")
}

fn too_deep(open: u8) -> String {
    invalid(open, "exceeded max depth")
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek().ok_or_else(end)?;
        self.at += 1;
        Ok(byte)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Tree, String> {
        let byte = self.next()?;
        match byte {
            b'{' | b'[' if depth > MAX_NESTING => Err(too_deep(byte)),
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            _ => self.scalar(byte),
        }
    }

    fn scalar(&mut self, byte: u8) -> Result<Tree, String> {
        match byte {
            b'"' => Ok(Tree::String(self.string()?)),
            b'-' | b'0'..=b'9' => self.number(byte),
            b't' => self.literal("true", Tree::Bool(true)),
            b'f' => self.literal("false", Tree::Bool(false)),
            b'n' => self.literal("null", Tree::Null),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str, tree: Tree) -> Result<Tree, String> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(invalid(byte, &context));
            }
        }
        Ok(tree)
    }

    /// A key and its colon; what follows is the beginning of its value.
    fn key(&mut self) -> Result<String, String> {
        self.space();
        match self.next()? {
            b'"' => {}
            other => return Err(invalid(other, "looking for beginning of object key string")),
        }
        let key = self.string()?;
        self.space();
        match self.next()? {
            b':' => {}
            other => return Err(invalid(other, "after object key")),
        }
        self.space();
        Ok(key)
    }

    fn map(&mut self, depth: usize) -> Result<Tree, String> {
        let mut entries = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Tree::Map(entries));
        }
        loop {
            let key = self.key()?;
            let value = self.value(depth + 1)?;
            entries.push((key, value));
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(Tree::Map(entries)),
                other => return Err(invalid(other, "after object key:value pair")),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Tree, String> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Tree::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(Tree::List(items)),
                other => return Err(invalid(other, "after array element")),
            }
        }
    }

    fn number(&mut self, first: u8) -> Result<Tree, String> {
        let start = self.at - 1;
        let mut lead = first;
        if lead == b'-' {
            lead = self.next()?;
            if !lead.is_ascii_digit() {
                return Err(invalid(lead, "in numeric literal"));
            }
        }
        if lead != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        let text = &self.bytes[start..self.at];
        Ok(Tree::Number(text.iter().copied().map(char::from).collect()))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), String> {
        let byte = self.next()?;
        if !byte.is_ascii_digit() {
            return Err(invalid(byte, context));
        }
        self.digits();
        Ok(())
    }

    /// The rest of a string after its opening quote. What isn't UTF-8 becomes U+FFFD, as in Go.
    fn string(&mut self) -> Result<String, String> {
        let mut text = Vec::new();
        loop {
            let start = self.at;
            while self
                .peek()
                .is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= 0x20)
            {
                self.at += 1;
            }
            text.extend_from_slice(&self.bytes[start..self.at]);
            match self.next()? {
                b'"' => break,
                b'\\' => self.escape(&mut text)?,
                other => return Err(invalid(other, "in string literal")),
            }
        }
        Ok(match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), String> {
        let plain = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut buffer = [0; 4];
                text.extend_from_slice(self.unicode()?.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            other => return Err(invalid(other, "in string escape code")),
        };
        text.push(plain);
        Ok(())
    }

    fn unicode(&mut self) -> Result<char, String> {
        let high = self.hex4()?;
        if let Some(character) = char::from_u32(high) {
            return Ok(character);
        }
        // Half of a surrogate pair: joined with the other half if that follows, else unreadable.
        if (0xd800..0xdc00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = self.next()?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
            value = value << 4 | digit;
        }
        Ok(value)
    }
}
