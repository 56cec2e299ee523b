//! Running a tree.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::rc::Rc;

use super::parse::{self, Compound, Node, Redirect, Target};
use crate::commands::{self, glob, report};
use crate::context::{Cx, Input, Out, Var};
use crate::failure::Failure;
use crate::filter::Stage;

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
    depth: u32,
    /// Within a condition, where a failure is an answer and ends nothing.
    in_condition: u32,
}

/// Leaving the usual order.
pub enum Flow {
    Exit(u8),
    Break(u32),
    Continue(u32),
}

type Ran = Result<u8, Flow>;

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

    /// Stages that only filter are fed by the one before; any other reads what was kept of it.
    fn pipeline(&mut self, cx: &mut Cx, stages: &[Node]) -> Ran {
        if let [one] = stages {
            return self.run(cx, one);
        }
        let saved = (cx.env.clone(), cx.input.clone(), cx.out.clone());
        let ran = self.segments(cx, stages);
        (cx.env, cx.input, cx.out) = saved;
        ran
    }

    fn segments(&mut self, cx: &mut Cx, stages: &[Node]) -> Ran {
        let final_out = cx.out.clone();
        let mut made = Vec::new();
        for stage in &stages[1..] {
            made.push(self.filter(cx, stage)?);
        }
        let mut code = 0;
        let mut at = 0;
        while at < stages.len() {
            let filters = made[at..]
                .iter()
                .take_while(|filter| filter.is_some())
                .count();
            let end = at + 1 + filters;
            let (mut out, spool) = match end == stages.len() {
                true => (final_out.clone(), None),
                false => {
                    let (out, spool) = Out::buffer();
                    (out, Some(spool))
                }
            };
            let mut chain: Vec<Rc<RefCell<Stage>>> = Vec::new();
            for (filter, redirects) in made[at..at + filters]
                .iter_mut()
                .rev()
                .filter_map(Option::take)
            {
                cx.out = out;
                let target = match self.outputs(cx, redirects) {
                    Ok(target) => target,
                    Err(failure) => return Ok(report(cx, "sh", Err(failure))),
                };
                let (input, stage) = Stage::new(filter, target);
                chain.push(stage);
                out = input;
            }
            cx.out = out;
            code = ended(self.run(cx, &stages[at]))?;
            let _ = cx.out.flush();
            for stage in chain.iter().rev() {
                let finished = stage.borrow_mut().finish().map_err(Failure::from);
                code = report(cx, "sh", finished);
            }
            if let Some(spool) = spool {
                cx.input = Input::of_bytes(std::mem::take(&mut spool.borrow_mut().0));
            }
            at = end;
        }
        let _ = final_out.clone().flush();
        Ok(code)
    }

    /// The stage as a filter with its redirections, if it is one.
    #[allow(clippy::type_complexity)]
    fn filter<'a>(
        &mut self,
        cx: &mut Cx,
        stage: &'a Node,
    ) -> Result<Option<(Box<dyn crate::filter::Filter>, &'a [Redirect])>, Flow> {
        let Node::Simple {
            assigns,
            words,
            redirects,
        } = stage
        else {
            return Ok(None);
        };
        if !assigns.is_empty() || redirects.iter().any(|redirect| redirect.fd == 0) {
            return Ok(None);
        }
        // Only words without side effects may be looked at twice.
        let fixed = words
            .iter()
            .flatten()
            .all(|part| !matches!(part, parse::Part::Command { .. }));
        if !fixed {
            return Ok(None);
        }
        let words = self.words(cx, words)?;
        let Some((name, args)) = words.split_first() else {
            return Ok(None);
        };
        let command = commands::find(crate::base_name(name)).and_then(|command| command.filter);
        // What is wrong with the arguments is told when it runs.
        Ok(command
            .and_then(|make| make(cx, args).ok().flatten())
            .map(|filter| (filter, &redirects[..])))
    }

    /// Where output goes under these redirections, none of which is an input's.
    fn outputs(&mut self, cx: &mut Cx, redirects: &[Redirect]) -> Result<Out, Failure> {
        let saved = (cx.out.clone(), cx.err.clone());
        let done = redirects
            .iter()
            .try_for_each(|redirect| self.redirect(cx, redirect));
        let (out, err) = saved;
        let target = std::mem::replace(&mut cx.out, out);
        cx.err = err;
        done.map(|()| target)
    }

    fn simple(
        &mut self,
        cx: &mut Cx,
        assigns: &[(String, parse::Word)],
        words: &[String],
        redirects: &[Redirect],
    ) -> Ran {
        let mut values = Vec::new();
        for (name, word) in assigns {
            values.push((name.clone(), self.string(cx, word)?));
        }
        if self.trace {
            let shown = values
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .chain(words.iter().cloned());
            let shown: Vec<String> = shown.collect();
            let _ = writeln!(cx.err, "+ {}", shown.join(" "));
        }
        if words.is_empty() {
            for (name, value) in values {
                cx.env.set(&name, value);
            }
            return self.redirected(cx, redirects, |shell, _| {
                Ok(if assigns.is_empty() {
                    0
                } else {
                    shell.last_of_assignment()
                })
            });
        }
        // Assignments before a command are for it alone.
        let saved: Vec<(String, Option<Var>)> = values
            .iter()
            .map(|(name, _)| (name.clone(), cx.env.vars.get(name).cloned()))
            .collect();
        for (name, value) in values {
            cx.env.vars.insert(
                name,
                Var {
                    value,
                    exported: true,
                },
            );
        }
        let ran = self.redirected(cx, redirects, |shell, cx| shell.call(cx, words));
        for (name, old) in saved {
            match old {
                Some(old) => cx.env.vars.insert(name, old),
                None => cx.env.vars.remove(&name),
            };
        }
        ran
    }

    /// `x=$(false)` fails as the command in it did; its code is the last one.
    fn last_of_assignment(&self) -> u8 {
        self.last
    }

    /// Calls a builtin or a command.
    pub(super) fn call(&mut self, cx: &mut Cx, words: &[String]) -> Ran {
        let Some((name, args)) = words.split_first() else {
            return Ok(0);
        };
        if let Some(ran) = self.builtin(cx, words) {
            return ran;
        }
        let known = commands::find(crate::base_name(name));
        let is_script = name.contains('/') && known.is_none();
        if is_script && let Ok(script) = std::fs::read_to_string(cx.path(name)) {
            if script.starts_with("#!") {
                let mut shell = Shell::new(name);
                shell.args = args.to_vec();
                shell.depth = self.depth + 1;
                let env = cx.env.clone();
                let code = shell.nested(cx, &script);
                cx.env = env;
                return Ok(code);
            }
        }
        let Some(command) = known else {
            let what = "not found in the toolbox; programs of the image run by `kubectl exec … -- NAME`, outside this shell";
            cx.complain("sh", &format!("{name}: {what}"));
            return Ok(127);
        };
        let outcome = (command.run)(cx, args);
        // Nobody reads any more: the whole stage ends, or a loop in it would go on for ever.
        if let Err(failure) = &outcome
            && failure.message.is_empty()
        {
            return Err(Flow::Exit(failure.code));
        }
        Ok(report(cx, name, outcome))
    }

    fn redirected(
        &mut self,
        cx: &mut Cx,
        redirects: &[Redirect],
        run: impl FnOnce(&mut Self, &mut Cx) -> Ran,
    ) -> Ran {
        if redirects.is_empty() {
            return run(self, cx);
        }
        let saved = (cx.input.clone(), cx.out.clone(), cx.err.clone());
        let mut done = Ok(());
        for redirect in redirects {
            done = done.and_then(|()| self.redirect(cx, redirect));
        }
        let ran = match done {
            Ok(()) => run(self, cx),
            Err(failure) => {
                (cx.out, cx.err) = (saved.1.clone(), saved.2.clone());
                Ok(report(cx, "sh", Err(failure)))
            }
        };
        cx.flush();
        (cx.input, cx.out, cx.err) = saved;
        ran
    }

    fn redirect(&mut self, cx: &mut Cx, redirect: &Redirect) -> Result<(), Failure> {
        let path = |shell: &mut Self, cx: &mut Cx, word| match shell.string(cx, word) {
            Ok(path) => Ok(path),
            Err(_) => Err(Failure::usage(
                "the target of a redirection cannot be expanded",
            )),
        };
        let out = match &redirect.target {
            Target::Read(word) => {
                let name = path(self, cx, word)?;
                let input = match name.as_str() {
                    "/dev/null" => Input::of_bytes(Vec::new()),
                    name => {
                        let file = crate::filter::open(cx, name)
                            .map_err(|error| Failure::file(name, &error))?;
                        Input::File(Rc::new(RefCell::new(io::BufReader::new(file))))
                    }
                };
                cx.input = input;
                return Ok(());
            }
            Target::Here(word) => {
                let text = path(self, cx, word)?;
                cx.input = Input::of_bytes(text.into_bytes());
                return Ok(());
            }
            Target::Same(1) => cx.out.clone(),
            Target::Same(_) => cx.err.clone(),
            Target::Write(word) | Target::Append(word) => {
                let name = path(self, cx, word)?;
                let append = matches!(redirect.target, Target::Append(_));
                match name.as_str() {
                    "/dev/null" => Out::new(io::sink()),
                    "/dev/stderr" => cx.err.clone(),
                    "/dev/stdout" => cx.out.clone(),
                    name => {
                        let mut how = OpenOptions::new();
                        how.create(true)
                            .write(true)
                            .append(append)
                            .truncate(!append);
                        let file: io::Result<File> = how.open(cx.path(name));
                        Out::new(io::LineWriter::new(
                            file.map_err(|error| Failure::file(name, &error))?,
                        ))
                    }
                }
            }
        };
        match redirect.fd {
            1 => cx.out = out,
            _ => cx.err = out,
        }
        Ok(())
    }
}

enum Turn {
    Next(u8),
    Leave,
}

/// What runs in a subshell or a pipe ends only itself.
fn ended(ran: Ran) -> Ran {
    match ran {
        Err(Flow::Exit(code)) => Ok(code),
        other => other,
    }
}
