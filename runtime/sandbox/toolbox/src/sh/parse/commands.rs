//! Commands, and what joins them.

use super::tree::{Compound, Node};
use super::{DEEPEST, ParseError, Parsed, Parser, bad, is_end, is_name};

impl Parser {
    /// Commands up to one of the reserved words, a closing bracket or the end.
    pub(super) fn list(&mut self, ends: &[&str]) -> Parsed<Node> {
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

    pub(super) fn and_or(&mut self) -> Parsed<Node> {
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

    pub(super) fn pipeline(&mut self) -> Parsed<Node> {
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

    pub(super) fn command(&mut self) -> Parsed<Node> {
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

    pub(super) fn do_done(&mut self) -> Parsed<Node> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    pub(super) fn if_command(&mut self) -> Parsed<Compound> {
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

    pub(super) fn for_command(&mut self) -> Parsed<Compound> {
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

    pub(super) fn case_command(&mut self) -> Parsed<Compound> {
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

    pub(super) fn simple(&mut self) -> Parsed<Node> {
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
}
