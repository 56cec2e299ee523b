//! Commands that change the shell itself.

use std::io::Write;

use super::parse::is_name;
use super::run::{Flow, Shell};
use crate::commands::{self, report};
use crate::context::{Cx, Var};
use crate::failure::Failure;

impl Shell {
    /// Runs a builtin; `None` when the name is none.
    pub(super) fn builtin(&mut self, cx: &mut Cx, words: &[String]) -> Option<Result<u8, Flow>> {
        let (name, args) = words.split_first()?;
        let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u32>().ok());
        Some(match name.as_str() {
            ":" | "trap" | "wait" | "ulimit" | "umask" => Ok(0),
            "exit" | "return" => {
                // As a process' exit code would be cut.
                let code = args
                    .first()
                    .and_then(|arg| arg.parse::<i64>().ok())
                    .map(|code| (code & 0xff) as u8);
                Err(Flow::Exit(code.unwrap_or(self.last)))
            }
            "break" => Err(Flow::Break(number(0).unwrap_or(1))),
            "continue" => Err(Flow::Continue(number(0).unwrap_or(1))),
            "cd" => Ok(cd(cx, args)),
            "export" | "readonly" | "local" => Ok(export(cx, args, name == "export")),
            "unset" => {
                for name in args {
                    cx.env.vars.remove(name);
                }
                Ok(0)
            }
            "set" => {
                self.set(args);
                Ok(0)
            }
            "shift" => {
                let count = (number(0).unwrap_or(1) as usize).min(self.args.len());
                self.args.drain(..count);
                Ok(0)
            }
            "read" => Ok(read(cx, args)),
            "eval" => Ok(self.nested_here(cx, &args.join(" "))?),
            "." | "source" => {
                let Some(file) = args.first() else {
                    return Some(Ok(2));
                };
                match std::fs::read_to_string(cx.path(file)) {
                    Ok(script) => Ok(self.nested_here(cx, &script)?),
                    Err(error) => {
                        cx.complain("sh", &Failure::file(file, &error).message);
                        Ok(1)
                    }
                }
            }
            "type" => {
                let mut code = 0;
                for name in args {
                    let known = commands::find(name).is_some() || BUILTINS.contains(&name.as_str());
                    let _ = writeln!(
                        cx.out,
                        "{name} is {}",
                        if known {
                            "a command of the toolbox"
                        } else {
                            "not found"
                        }
                    );
                    code |= u8::from(!known);
                }
                Ok(code)
            }
            "command" => match args.first().map(String::as_str) {
                Some("-v" | "-V") => {
                    let mut code = 0;
                    for name in &args[1..] {
                        if commands::find(name).is_some() || BUILTINS.contains(&name.as_str()) {
                            let _ = writeln!(cx.out, "{name}");
                        } else {
                            code = 127;
                        }
                    }
                    Ok(code)
                }
                _ => self.call(cx, args),
            },
            "exec" if args.is_empty() => Ok(0),
            "exec" => match self.call(cx, args) {
                Ok(code) => Err(Flow::Exit(code)),
                flow => flow,
            },
            "time" => self.call(cx, args),
            _ => return None,
        })
    }

    /// Runs a script in this shell; its exits are this shell's.
    fn nested_here(&mut self, cx: &mut Cx, script: &str) -> Option<u8> {
        Some(self.nested(cx, script))
    }

    fn set(&mut self, args: &[String]) {
        let mut rest = args;
        while let Some((first, more)) = rest.split_first() {
            let on = first.starts_with('-');
            if first == "--" {
                self.args = more.to_vec();
                return;
            }
            let Some(letters) = first.strip_prefix(['-', '+']) else {
                self.args = rest.to_vec();
                return;
            };
            for letter in letters.chars() {
                match letter {
                    'e' => self.stop_on_error = on,
                    'x' => self.trace = on,
                    'u' => self.unset_is_error = on,
                    _ => {}
                }
            }
            // `set -o pipefail` and its like are taken and mean nothing.
            rest = if letters == "o" {
                more.get(1..).unwrap_or_default()
            } else {
                more
            };
        }
    }
}

/// Names that [`Shell::builtin`] knows.
pub(super) const BUILTINS: &[&str] = &[
    ":", ".", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "read",
    "return", "set", "shift", "source", "time", "trap", "type", "ulimit", "umask", "unset", "wait",
];

fn cd(cx: &mut Cx, args: &[String]) -> u8 {
    let to = match args.first().map(String::as_str) {
        None => cx.env.get("HOME").unwrap_or("/").to_owned(),
        Some("-") => cx.env.get("OLDPWD").unwrap_or("/").to_owned(),
        Some(to) => to.to_owned(),
    };
    let path = cx.path(&to);
    let outcome = match std::fs::metadata(&path) {
        Ok(facts) if facts.is_dir() => Ok(0),
        Ok(_) => Err(Failure::new(format!("{to}: Not a directory"))),
        Err(error) => Err(Failure::file(&to, &error)),
    };
    if outcome.is_ok() {
        let old = std::mem::replace(&mut cx.env.cwd, path.clone());
        cx.env.set("OLDPWD", old);
        cx.env.set("PWD", path);
    }
    report(cx, "cd", outcome)
}

fn export(cx: &mut Cx, args: &[String], exported: bool) -> u8 {
    if args.is_empty() || args[0] == "-p" {
        let lines: Vec<String> = cx
            .env
            .vars
            .iter()
            .filter(|(_, var)| var.exported)
            .map(|(name, var)| format!("export {name}='{}'\n", var.value))
            .collect();
        let _ = cx.out.write_all(lines.concat().as_bytes());
        return 0;
    }
    for arg in args {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        if !is_name(name) {
            cx.complain("sh", &format!("{name}: not a name"));
            return 2;
        }
        let var = cx
            .env
            .vars
            .entry(name.to_owned())
            .or_insert_with(Var::default);
        if let Some(value) = value {
            var.value = value.to_owned();
        }
        var.exported |= exported;
    }
    0
}

/// One line into variables; the last takes the rest.
fn read(cx: &mut Cx, args: &[String]) -> u8 {
    let raw = args.iter().any(|arg| arg == "-r");
    let mut names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let reply = "REPLY".to_owned();
    if names.is_empty() {
        names.push(&reply);
    }
    cx.flush();
    let line = cx.input.line().unwrap_or_default();
    let ended = line.is_empty();
    let line = line.trim_end_matches('\n');
    let line = if raw {
        line.to_owned()
    } else {
        line.replace('\\', "")
    };
    let separators = cx.env.get("IFS").unwrap_or(" \t\n").to_owned();
    let is_separator = |c: char| separators.contains(c);
    let mut rest = line.trim_matches(|c: char| is_separator(c) && c.is_whitespace());
    for (at, name) in names.iter().enumerate() {
        let value = if at + 1 == names.len() {
            rest
        } else {
            let end = rest.find(is_separator).unwrap_or(rest.len());
            let (value, more) = rest.split_at(end);
            rest = more
                .strip_prefix(is_separator)
                .unwrap_or(more)
                .trim_start_matches(|c: char| is_separator(c) && c.is_whitespace());
            value
        };
        cx.env.set(name, value.to_owned());
    }
    u8::from(ended)
}
