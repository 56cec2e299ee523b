//! Running a tree.

use super::parse::{self, Compound, Node};
use crate::commands::glob;
use crate::context::Cx;

/// Scripts in scripts: `eval`, `$( )`, `sh -c` within.
const DEEPEST: u32 = 20;

/// A shell's own state; variables and the folder are the context's.
pub struct Shell {
    pub name: String,
    pub args: Vec<String>,
    /// The exit code of the last command.
    pub last: u8,
    pub stop_on_error: bool,
    pub trace: bool,
    pub unset_is_error: bool,
    pub(super) depth: u32,
    /// Within a condition, where a failure is an answer and ends nothing.
    in_condition: u32,
}

/// Leaving the usual order.
pub enum Flow {
    Exit(u8),
    Break(u32),
    Continue(u32),
}

pub(super) type Ran = Result<u8, Flow>;

impl Shell {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: Vec::new(),
            last: 0,
            stop_on_error: false,
            trace: false,
            unset_is_error: false,
            depth: 0,
            in_condition: 0,
        }
    }

    /// Runs a whole script to its end.
    pub fn script(&mut self, cx: &mut Cx, text: &str) -> u8 {
        let code = self.nested(cx, text);
        cx.flush();
        code
    }

    /// Runs a script whose exit ends only itself.
    pub(super) fn nested(&mut self, cx: &mut Cx, text: &str) -> u8 {
        if self.depth >= DEEPEST {
            cx.complain("sh", "too many scripts in each other");
            return 2;
        }
        self.depth += 1;
        let ran = match parse::script(text) {
            Ok(node) => self.run(cx, &node),
            Err(error) => {
                cx.complain("sh", &error.to_string());
                Ok(2)
            }
        };
        self.depth -= 1;
        match ran {
            Ok(code) | Err(Flow::Exit(code)) => code,
            Err(Flow::Break(_) | Flow::Continue(_)) => self.last,
        }
    }

    pub fn run(&mut self, cx: &mut Cx, node: &Node) -> Ran {
        let code = match node {
            Node::List(nodes) => {
                for node in nodes {
                    self.last = self.run(cx, node)?;
                }
                return Ok(self.last);
            }
            Node::And(first, second) => {
                if self.condition(cx, first)? != 0 {
                    return Ok(self.last);
                }
                return self.run(cx, second);
            }
            Node::Or(first, second) => {
                if self.condition(cx, first)? == 0 {
                    return Ok(self.last);
                }
                return self.run(cx, second);
            }
            Node::Pipeline {
                negated: true,
                stages,
            } => {
                self.in_condition += 1;
                let code = self.pipeline(cx, stages);
                self.in_condition -= 1;
                self.last = u8::from(code? == 0);
                return Ok(self.last);
            }
            Node::Pipeline { stages, .. } => self.pipeline(cx, stages)?,
            Node::Simple {
                assigns,
                words,
                redirects,
            } => {
                let words = self.words(cx, words)?;
                self.simple(cx, assigns, &words, redirects)?
            }
            Node::Compound(compound, redirects) => {
                self.redirected(cx, redirects, |shell, cx| shell.compound(cx, compound))?
            }
        };
        self.last = code;
        if code != 0 && self.stop_on_error && self.in_condition == 0 {
            return Err(Flow::Exit(code));
        }
        Ok(code)
    }

    fn condition(&mut self, cx: &mut Cx, node: &Node) -> Ran {
        self.in_condition += 1;
        let ran = self.run(cx, node);
        self.in_condition -= 1;
        ran
    }

    fn compound(&mut self, cx: &mut Cx, compound: &Compound) -> Ran {
        match compound {
            Compound::Group(list) => self.run(cx, list),
            Compound::Subshell(list) => {
                let env = cx.env.clone();
                let ran = self.run(cx, list);
                cx.env = env;
                ended(ran)
            }
            Compound::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.condition(cx, condition)? == 0 {
                        return self.run(cx, body);
                    }
                }
                otherwise.as_ref().map_or(Ok(0), |body| self.run(cx, body))
            }
            Compound::While {
                until,
                condition,
                body,
            } => {
                let mut code = 0;
                while (self.condition(cx, condition)? == 0) != *until {
                    match self.turn(cx, body)? {
                        Turn::Next(next) => code = next,
                        Turn::Leave => break,
                    }
                }
                Ok(code)
            }
            Compound::For { name, words, body } => {
                let words = match words {
                    Some(words) => self.words(cx, words)?,
                    None => self.args.clone(),
                };
                let mut code = 0;
                for word in words {
                    cx.env.set(name, word);
                    match self.turn(cx, body)? {
                        Turn::Next(next) => code = next,
                        Turn::Leave => break,
                    }
                }
                Ok(code)
            }
            Compound::Case { word, arms } => {
                let word = self.string(cx, word)?;
                for (patterns, body) in arms {
                    for pattern in patterns {
                        let pattern = self.pattern(cx, pattern)?;
                        if glob(&pattern, false).is_ok_and(|pattern| pattern.is_match(&word)) {
                            return self.run(cx, body);
                        }
                    }
                }
                Ok(0)
            }
        }
    }

    /// One round of a loop.
    fn turn(&mut self, cx: &mut Cx, body: &Node) -> Result<Turn, Flow> {
        match self.run(cx, body) {
            Ok(code) => Ok(Turn::Next(code)),
            Err(Flow::Break(levels)) if levels <= 1 => Ok(Turn::Leave),
            Err(Flow::Break(levels)) => Err(Flow::Break(levels - 1)),
            Err(Flow::Continue(levels)) if levels <= 1 => Ok(Turn::Next(0)),
            Err(Flow::Continue(levels)) => Err(Flow::Continue(levels - 1)),
            Err(exit) => Err(exit),
        }
    }
}

enum Turn {
    Next(u8),
    Leave,
}

/// What runs in a subshell or a pipe ends only itself.
pub(super) fn ended(ran: Ran) -> Ran {
    match ran {
        Err(Flow::Exit(code)) => Ok(code),
        other => other,
    }
}
