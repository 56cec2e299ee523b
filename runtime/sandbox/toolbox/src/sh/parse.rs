//! From a script's text to its tree.

use std::fmt;

/// Levels of brackets and compounds in each other.
const DEEPEST: usize = 50;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as it stands; unquoted text may be a pattern of file names.
    Text { text: String, quoted: bool },
    /// `$name` or `${name op word}`.
    Param {
        name: String,
        op: String,
        word: Word,
        quoted: bool,
    },
    /// `$(script)`.
    Command { script: String, quoted: bool },
    /// `$((expression))`.
    Arith(Word),
}

pub type Word = Vec<Part>;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Read(Word),
    Write(Word),
    Append(Word),
    /// To where another descriptor leads: `2>&1`.
    Same(u8),
    /// A here-document or here-string.
    Here(Word),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub fd: u8,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Simple {
        assigns: Vec<(String, Word)>,
        words: Vec<Word>,
        redirects: Vec<Redirect>,
    },
    Compound(Box<Compound>, Vec<Redirect>),
    Pipeline {
        negated: bool,
        stages: Vec<Node>,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    List(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Compound {
    Group(Node),
    Subshell(Node),
    If {
        arms: Vec<(Node, Node)>,
        otherwise: Option<Node>,
    },
    While {
        until: bool,
        condition: Node,
        body: Node,
    },
    For {
        name: String,
        words: Option<Vec<Word>>,
        body: Node,
    },
    Case {
        word: Word,
        arms: Vec<(Vec<Word>, Node)>,
    },
}

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
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        depth: 0,
        heres: Vec::new(),
    };
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
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        depth: 0,
        heres: Vec::new(),
    };
    let mut word = Vec::new();
    while parser.peek().is_some() {
        parser.quoted_piece(&mut word, &['$', '`', '\\'])?;
    }
    Ok(word)
}

struct Parser {
    text: Vec<char>,
    at: usize,
    depth: usize,
    /// Here-documents whose text begins behind this line: end word, whether it is taken literally, tabs cut.
    heres: Vec<(String, bool, bool)>,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn starts(&self, what: &str) -> bool {
        let mut at = self.at;
        what.chars().all(|c| {
            at += 1;
            self.text.get(at - 1) == Some(&c)
        })
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.starts(what);
        if found {
            self.at += what.chars().count();
        }
        found
    }

    /// Spaces, comments and escaped line ends.
    fn blanks(&mut self) {
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

    fn lines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// The word at this place if it is one without quotes and expansions: a reserved word, maybe.
    fn bare_word(&mut self) -> String {
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

    fn reserved(&mut self, word: &str) -> bool {
        let found = self.bare_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Parsed<()> {
        self.lines();
        if self.reserved(word) {
            return Ok(());
        }
        match self.peek() {
            None => Err(ParseError::Incomplete),
            Some(c) => bad(format!("{word} is missing before {c}")),
        }
    }

    /// Commands up to one of the reserved words, a closing bracket or the end.
    fn list(&mut self, ends: &[&str]) -> Parsed<Node> {
        let mut nodes = Vec::new();
        loop {
            self.lines();
            let word = self.bare_word();
            if self.peek().is_none()
                || self.peek() == Some(')')
                || self.starts(";;")
                || ends.contains(&word.as_str())
            {
                return Ok(Node::List(nodes));
            }
            nodes.push(self.and_or()?);
            self.blanks();
            if !self.heres.is_empty() && self.peek() == Some('\n') {
                self.at += 1;
                let node = nodes.last_mut().expect("one was pushed");
                self.here_documents(node)?;
            } else if !self.heres.is_empty() && self.peek().is_none() {
                return Err(ParseError::Incomplete);
            } else if self.starts(";;") {
                return Ok(Node::List(nodes));
            } else if matches!(self.peek(), Some(';' | '\n')) {
                self.at += 1;
            } else if self.peek() == Some('&') {
                return bad("there are no background jobs in the toolbox's shell (`&`)");
            }
        }
    }

    fn and_or(&mut self) -> Parsed<Node> {
        let mut node = self.pipeline()?;
        loop {
            self.blanks();
            let and = self.take("&&");
            if !and && !self.take("||") {
                return Ok(node);
            }
            self.lines();
            let next = Box::new(self.pipeline()?);
            node = if and {
                Node::And(Box::new(node), next)
            } else {
                Node::Or(Box::new(node), next)
            };
        }
    }

    fn pipeline(&mut self) -> Parsed<Node> {
        let mut negated = false;
        while self.reserved("!") {
            negated = !negated;
        }
        let mut stages = vec![self.command()?];
        loop {
            self.blanks();
            if self.starts("||") || !self.take("|") {
                break;
            }
            self.lines();
            stages.push(self.command()?);
        }
        if stages.len() == 1 && !negated {
            return Ok(stages.remove(0));
        }
        Ok(Node::Pipeline { negated, stages })
    }

    fn command(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return bad("too many commands in each other");
        }
        self.blanks();
        let word = self.bare_word();
        let compound = match word.as_str() {
            "if" => Some(self.if_command()?),
            "while" | "until" => {
                self.at += word.len();
                let condition = self.list(&["do"])?;
                let body = self.do_done()?;
                Some(Compound::While {
                    until: word == "until",
                    condition,
                    body,
                })
            }
            "for" => Some(self.for_command()?),
            "case" => Some(self.case_command()?),
            "{" => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.expect("}")?;
                Some(Compound::Group(list))
            }
            "then" | "else" | "elif" | "fi" | "do" | "done" | "esac" | "}" => {
                return bad(format!("unexpected {word}"));
            }
            "function" => return bad("there are no functions in the toolbox's shell"),
            _ if self.peek() == Some('(') => {
                self.at += 1;
                let list = self.list(&[])?;
                self.closing_bracket()?;
                Some(Compound::Subshell(list))
            }
            _ => None,
        };
        let node = match compound {
            None => self.simple()?,
            Some(compound) => {
                let mut redirects = Vec::new();
                while let Some(redirect) = self.redirect()? {
                    redirects.push(redirect);
                }
                Node::Compound(Box::new(compound), redirects)
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn closing_bracket(&mut self) -> Parsed<()> {
        self.lines();
        if self.take(")") {
            return Ok(());
        }
        match self.peek() {
            None => Err(ParseError::Incomplete),
            Some(c) => bad(format!(") is missing before {c}")),
        }
    }

    fn do_done(&mut self) -> Parsed<Node> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn if_command(&mut self) -> Parsed<Compound> {
        self.at += 2;
        let mut arms = Vec::new();
        let mut otherwise = None;
        loop {
            let condition = self.list(&["then"])?;
            self.expect("then")?;
            arms.push((condition, self.list(&["elif", "else", "fi"])?));
            if self.reserved("elif") {
                continue;
            }
            if self.reserved("else") {
                otherwise = Some(self.list(&["fi"])?);
            }
            self.expect("fi")?;
            return Ok(Compound::If { arms, otherwise });
        }
    }

    fn for_command(&mut self) -> Parsed<Compound> {
        self.at += 3;
        let name = self.bare_word();
        if !is_name(&name) {
            return if self.peek().is_none() {
                Err(ParseError::Incomplete)
            } else {
                bad(format!("for {name}: not a name"))
            };
        }
        self.at += name.len();
        self.lines();
        let mut words = None;
        if self.reserved("in") {
            let mut list = Vec::new();
            loop {
                self.blanks();
                match self.peek() {
                    None => return Err(ParseError::Incomplete),
                    Some(';' | '\n') => break,
                    _ => list.push(self.word()?),
                }
            }
            words = Some(list);
        }
        self.blanks();
        self.take(";");
        let body = self.do_done()?;
        Ok(Compound::For { name, words, body })
    }

    fn case_command(&mut self) -> Parsed<Compound> {
        self.at += 4;
        self.blanks();
        let word = self.word()?;
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.lines();
            if self.reserved("esac") {
                return Ok(Compound::Case { word, arms });
            }
            self.take("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?);
                self.blanks();
                if !self.take("|") {
                    break;
                }
            }
            self.closing_bracket()?;
            let body = self.list(&["esac"])?;
            arms.push((patterns, body));
            self.lines();
            self.take(";;");
        }
    }

    fn simple(&mut self) -> Parsed<Node> {
        let (mut assigns, mut words, mut redirects) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.blanks();
            if let Some(redirect) = self.redirect()? {
                redirects.push(redirect);
                continue;
            }
            match self.peek() {
                None | Some('\n' | ';' | '|' | '&' | ')') => break,
                Some('(') if words.len() == 1 => {
                    return bad("there are no functions in the toolbox's shell");
                }
                Some(c @ '(') => return bad(format!("unexpected {c}")),
                _ => {}
            }
            let rest = &self.text[self.at..];
            let length = rest
                .iter()
                .position(|c| !(c.is_ascii_alphanumeric() || *c == '_'))
                .unwrap_or(rest.len());
            let name: String = rest[..length].iter().collect();
            if words.is_empty() && is_name(&name) && rest.get(length) == Some(&'=') {
                self.at += length + 1;
                let value = if self.peek().is_none_or(is_end) {
                    Vec::new()
                } else {
                    self.word()?
                };
                assigns.push((name, value));
            } else {
                words.push(self.word()?);
            }
        }
        if assigns.is_empty() && words.is_empty() && redirects.is_empty() {
            return match self.peek() {
                None => Err(ParseError::Incomplete),
                Some(c) => bad(format!("unexpected {c}")),
            };
        }
        Ok(Node::Simple {
            assigns,
            words,
            redirects,
        })
    }

    fn redirect(&mut self) -> Parsed<Option<Redirect>> {
        self.blanks();
        let start = self.at;
        let digit = self.peek().and_then(|c| c.to_digit(10));
        if digit.is_some() {
            self.at += 1;
        }
        let both = digit.is_none() && (self.starts("&>") && self.take("&"));
        let (fd, kind) = if self.take("<<<") {
            (0, "<<<")
        } else if self.take("<<") {
            (0, "<<")
        } else if self.take("<") {
            (0, "<")
        } else if self.take(">>") {
            (1, ">>")
        } else if self.take(">&") {
            (1, ">&")
        } else if self.take(">|") || self.take(">") {
            (1, ">")
        } else {
            self.at = start;
            return Ok(None);
        };
        let fd = digit.map_or(fd, |digit| digit as u8);
        if fd > 2 {
            return bad("only descriptors 0, 1 and 2 can be redirected");
        }
        self.blanks();
        if kind == "<<" {
            let cut = self.take("-");
            let end = self.word()?;
            let literal = end
                .iter()
                .any(|part| matches!(part, Part::Text { quoted: true, .. }));
            let end: String = end
                .iter()
                .map(|part| {
                    if let Part::Text { text, .. } = part {
                        text.as_str()
                    } else {
                        ""
                    }
                })
                .collect();
            self.heres.push((end, literal, cut));
            return Ok(Some(Redirect {
                fd,
                target: Target::Here(vec![PENDING]),
            }));
        }
        if self.peek().is_none_or(is_end) {
            return if self.peek().is_none() {
                Err(ParseError::Incomplete)
            } else {
                bad("a redirection without a target")
            };
        }
        let word = self.word()?;
        let target = match kind {
            "<" => Target::Read(word),
            ">>" => Target::Append(word),
            "<<<" => {
                let end = Part::Text {
                    text: "\n".to_owned(),
                    quoted: true,
                };
                Target::Here(word.into_iter().chain([end]).collect())
            }
            ">&" => match &word[..] {
                [Part::Text { text, .. }] if text.parse::<u8>().is_ok_and(|fd| fd <= 2) => {
                    Target::Same(text.parse().unwrap_or(1))
                }
                _ => return bad("only >&1 and >&2 are known"),
            },
            _ => Target::Write(word),
        };
        if both {
            return bad("&> is not known; write > FILE 2>&1");
        }
        Ok(Some(Redirect { fd, target }))
    }

    /// Reads the here-documents that the line before asked for, and puts them where they belong.
    fn here_documents(&mut self, node: &mut Node) -> Parsed<()> {
        for (end, literal, cut) in std::mem::take(&mut self.heres) {
            let mut text = String::new();
            loop {
                if self.peek().is_none() {
                    return Err(ParseError::Incomplete);
                }
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
                let line: String = rest[..length].iter().collect();
                self.at = (self.at + length + 1).min(self.text.len());
                let line = if cut {
                    line.trim_start_matches('\t')
                } else {
                    line.as_str()
                };
                if line == end {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let word = if literal {
                vec![Part::Text { text, quoted: true }]
            } else {
                expandable(&text)?
            };
            if !fill(node, &mut Some(word)) {
                return bad("a here-document has no place");
            }
        }
        Ok(())
    }

    /// One word, up to a blank or an operator.
    fn word(&mut self) -> Parsed<Word> {
        let mut word = Vec::new();
        while let Some(c) = self.peek().filter(|c| !is_end(*c)) {
            match c {
                '\'' => {
                    self.at += 1;
                    let rest = &self.text[self.at..];
                    let end = rest
                        .iter()
                        .position(|c| *c == '\'')
                        .ok_or(ParseError::Incomplete)?;
                    let text = rest[..end].iter().collect();
                    self.at += end + 1;
                    word.push(Part::Text { text, quoted: true });
                }
                '"' => {
                    self.at += 1;
                    let before = word.len();
                    loop {
                        match self.peek() {
                            None => return Err(ParseError::Incomplete),
                            Some('"') => break,
                            Some(_) => self.quoted_piece(&mut word, &['$', '`', '\\', '"'])?,
                        }
                    }
                    self.at += 1;
                    if word.len() == before {
                        word.push(Part::Text {
                            text: String::new(),
                            quoted: true,
                        });
                    }
                }
                '\\' => {
                    let Some(next) = self.text.get(self.at + 1).copied() else {
                        return Err(ParseError::Incomplete);
                    };
                    self.at += 2;
                    if next != '\n' {
                        word.push(Part::Text {
                            text: next.to_string(),
                            quoted: true,
                        });
                    }
                }
                '$' | '`' => {
                    let part = self.dollar(false)?;
                    word.push(part);
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let end = rest
                        .iter()
                        .position(|c| is_end(*c) || "'\"\\$`".contains(*c))
                        .unwrap_or(rest.len());
                    word.push(Part::Text {
                        text: rest[..end].iter().collect(),
                        quoted: false,
                    });
                    self.at += end;
                }
            }
        }
        if word.is_empty() {
            return match self.peek() {
                None => Err(ParseError::Incomplete),
                Some(c) => bad(format!("unexpected {c}")),
            };
        }
        Ok(word)
    }

    /// Something within double quotes: text up to a special character, or an expansion.
    fn quoted_piece(&mut self, word: &mut Word, special: &[char]) -> Parsed<()> {
        match self.peek() {
            Some('$' | '`') => {
                let part = self.dollar(true)?;
                word.push(part);
            }
            Some('\\') => {
                let next = self.text.get(self.at + 1).copied();
                self.at += 2.min(self.text.len() - self.at);
                let text = match next {
                    Some('\n') => String::new(),
                    Some(c) if special.contains(&c) => c.to_string(),
                    Some(c) => format!("\\{c}"),
                    None => "\\".to_owned(),
                };
                word.push(Part::Text { text, quoted: true });
            }
            _ => {
                let rest = &self.text[self.at..];
                let end = rest
                    .iter()
                    .position(|c| special.contains(c))
                    .unwrap_or(rest.len());
                word.push(Part::Text {
                    text: rest[..end].iter().collect(),
                    quoted: true,
                });
                self.at += end;
            }
        }
        Ok(())
    }

    fn dollar(&mut self, quoted: bool) -> Parsed<Part> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return bad("too many expansions in each other");
        }
        let part = self.expansion(quoted);
        self.depth -= 1;
        part
    }

    fn expansion(&mut self, quoted: bool) -> Parsed<Part> {
        if self.take("`") {
            let rest = &self.text[self.at..];
            let end = rest
                .iter()
                .position(|c| *c == '`')
                .ok_or(ParseError::Incomplete)?;
            let script = rest[..end].iter().collect();
            self.at += end + 1;
            return Ok(Part::Command { script, quoted });
        }
        self.at += 1;
        if self.take("((") {
            let inner = self.balanced('(', ')')?;
            if !self.take(")") {
                return bad(")) is missing");
            }
            return Ok(Part::Arith(expandable(&inner)?));
        }
        if self.take("(") {
            let script = self.balanced('(', ')')?;
            return Ok(Part::Command { script, quoted });
        }
        if self.take("{") {
            let inner = self.balanced('{', '}')?;
            return braced(&inner, quoted);
        }
        let name = match self.peek() {
            Some(c) if "?#@*$!-".contains(c) || c.is_ascii_digit() => {
                self.at += 1;
                c.to_string()
            }
            _ => {
                let rest = &self.text[self.at..];
                let length = rest
                    .iter()
                    .position(|c| !(c.is_ascii_alphanumeric() || *c == '_'))
                    .unwrap_or(rest.len());
                self.at += length;
                rest[..length].iter().collect()
            }
        };
        if name.is_empty() {
            return Ok(Part::Text {
                text: "$".to_owned(),
                quoted: true,
            });
        }
        Ok(Part::Param {
            name,
            op: String::new(),
            word: Vec::new(),
            quoted,
        })
    }

    /// The text up to the bracket that closes the one just taken; quotes and inner brackets are stepped over.
    fn balanced(&mut self, open: char, close: char) -> Parsed<String> {
        let start = self.at;
        let (mut level, mut quote) = (1, None);
        while let Some(c) = self.peek() {
            self.at += 1;
            match (quote, c) {
                (Some('\''), '\'') | (Some('"'), '"') => quote = None,
                (Some('\''), _) => {}
                (_, '\\') => self.at += 1,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, c) if c == open => level += 1,
                (None, c) if c == close => {
                    level -= 1;
                    if level == 0 {
                        return Ok(self.text[start..self.at - 1].iter().collect());
                    }
                }
                _ => {}
            }
        }
        Err(ParseError::Incomplete)
    }
}

/// Stands where a here-document's text will be.
const PENDING: Part = Part::Arith(Vec::new());

/// Puts `word` into the first waiting place; true when there was one.
fn fill(node: &mut Node, word: &mut Option<Word>) -> bool {
    let redirects = |redirects: &mut Vec<Redirect>, word: &mut Option<Word>| {
        for redirect in redirects {
            if let Target::Here(text) = &mut redirect.target
                && *text == [PENDING]
            {
                *text = word.take().unwrap_or_default();
                return true;
            }
        }
        false
    };
    match node {
        Node::Simple { redirects: own, .. } => redirects(own, word),
        Node::Compound(compound, own) => {
            let inner = match &mut **compound {
                Compound::Group(list) | Compound::Subshell(list) => fill(list, word),
                Compound::If { arms, otherwise } => {
                    arms.iter_mut()
                        .any(|(condition, body)| fill(condition, word) || fill(body, word))
                        || otherwise.as_mut().is_some_and(|list| fill(list, word))
                }
                Compound::While {
                    condition, body, ..
                } => fill(condition, word) || fill(body, word),
                Compound::For { body, .. } => fill(body, word),
                Compound::Case { arms, .. } => arms.iter_mut().any(|(_, body)| fill(body, word)),
            };
            inner || redirects(own, word)
        }
        Node::Pipeline { stages, .. } => stages.iter_mut().any(|stage| fill(stage, word)),
        Node::And(a, b) | Node::Or(a, b) => fill(a, word) || fill(b, word),
        Node::List(nodes) => nodes.iter_mut().any(|node| fill(node, word)),
    }
}

/// `name`, `#name`, `name:-word` and its like.
fn braced(inner: &str, quoted: bool) -> Parsed<Part> {
    let wrong = || ParseError::Bad(format!("${{{inner}}} is not known"));
    if let Some(name) = inner.strip_prefix('#').filter(|name| !name.is_empty()) {
        return Ok(Part::Param {
            name: name.to_owned(),
            op: "#len".to_owned(),
            word: Vec::new(),
            quoted,
        });
    }
    let special = inner.chars().next().filter(|c| "?#@*$!-".contains(*c));
    let length = match special {
        Some(c) => c.len_utf8(),
        None => inner
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(inner.len()),
    };
    let (name, rest) = inner.split_at(length);
    if name.is_empty() {
        return Err(wrong());
    }
    let ops = [
        ":-", ":=", ":?", ":+", "##", "%%", "-", "=", "?", "+", "#", "%",
    ];
    let Some(op) = ops.into_iter().find(|op| rest.starts_with(op)) else {
        return if rest.is_empty() {
            Ok(Part::Param {
                name: name.to_owned(),
                op: String::new(),
                word: Vec::new(),
                quoted,
            })
        } else {
            Err(wrong())
        };
    };
    let text = &rest[op.len()..];
    let mut word = Vec::new();
    if !text.is_empty() {
        let mut parser = Parser {
            text: text.chars().collect(),
            at: 0,
            depth: 0,
            heres: Vec::new(),
        };
        while let Some(c) = parser.peek() {
            // Blanks and operators are text in here.
            if is_end(c) {
                parser.at += 1;
                word.push(Part::Text {
                    text: c.to_string(),
                    quoted: true,
                });
            } else {
                word.extend(parser.word()?);
            }
        }
    }
    Ok(Part::Param {
        name: name.to_owned(),
        op: op.to_owned(),
        word,
        quoted,
    })
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
