//! A place in the text, and small steps from it.

use super::{ParseError, Parsed, bad, is_end};

/// A place in the text.
pub(super) struct Parser {
    pub(super) text: Vec<char>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Here-documents whose text begins behind this line: end word, whether it is taken literally, tabs cut.
    pub(super) heres: Vec<(String, bool, bool)>,
}

impl Parser {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.chars().collect(),
            at: 0,
            depth: 0,
            heres: Vec::new(),
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub(super) fn starts(&self, what: &str) -> bool {
        let mut at = self.at;
        what.chars().all(|c| {
            at += 1;
            self.text.get(at - 1) == Some(&c)
        })
    }

    pub(super) fn take(&mut self, what: &str) -> bool {
        let found = self.starts(what);
        if found {
            self.at += what.chars().count();
        }
        found
    }

    /// Spaces, comments and escaped line ends.
    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.text.get(self.at + 1) == Some(&'\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    pub(super) fn lines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// The word at this place if it is one without quotes and expansions: a reserved word, maybe.
    pub(super) fn bare_word(&mut self) -> String {
        self.blanks();
        let rest = &self.text[self.at..];
        let end = rest
            .iter()
            .position(|c| is_end(*c) || "'\"$`\\".contains(*c))
            .unwrap_or(rest.len());
        let clean = rest.get(end).is_none_or(|c| is_end(*c));
        if clean {
            rest[..end].iter().collect()
        } else {
            String::new()
        }
    }

    pub(super) fn reserved(&mut self, word: &str) -> bool {
        let found = self.bare_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Parsed<()> {
        self.lines();
        if self.reserved(word) {
            return Ok(());
        }
        match self.peek() {
            None => Err(ParseError::Incomplete),
            Some(c) => bad(format!("{word} is missing before {c}")),
        }
    }

    pub(super) fn closing_bracket(&mut self) -> Parsed<()> {
        self.lines();
        if self.take(")") {
            return Ok(());
        }
        match self.peek() {
            None => Err(ParseError::Incomplete),
            Some(c) => bad(format!(") is missing before {c}")),
        }
    }
}
