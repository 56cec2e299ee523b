//! A small shell: pipes, redirections, variables, quoting, `if`, `for`, `while`, `case`; no jobs and no functions.
//!
//! ```text
//! text ─ parse/ ─▶ Node ─ run.rs ─▶ exit code
//!                             │
//!          words ─ expand.rs ─┘─ builtins.rs, or the table of commands
//! ```

mod arith;
mod builtins;
mod expand;
mod parse;
mod pipeline;
mod redirect;
mod run;
mod simple;

use std::io::{Read, Write};

use parse::ParseError;
use run::{Flow, Shell};

use crate::context::Cx;
use crate::failure::{Failure, Outcome};

/// Longest script.
const LONGEST: u64 = 1 << 20;

pub fn sh(cx: &mut Cx, args: &[String]) -> Outcome {
    let mut shell = Shell::new("sh");
    let mut rest = args;
    let mut script = None;
    let mut force_prompt = false;
    while let Some((first, more)) = rest.split_first() {
        let Some(letters) = first
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty())
        else {
            break;
        };
        rest = more;
        for letter in letters.chars() {
            match letter {
                'c' => {
                    let (text, more) = rest
                        .split_first()
                        .ok_or_else(|| Failure::usage("-c needs a script"))?;
                    script = Some(text.clone());
                    rest = more;
                }
                'e' => shell.stop_on_error = true,
                'x' => shell.trace = true,
                'u' => shell.unset_is_error = true,
                'i' => force_prompt = true,
                'l' | 's' | '-' => {}
                other => return Err(Failure::usage(format!("unknown option -{other}"))),
            }
        }
    }
    if let Some(script) = script {
        if let Some((name, args)) = rest.split_first() {
            shell.name = name.clone();
            shell.args = args.to_vec();
        }
        return Ok(shell.script(cx, &script));
    }
    if let Some((file, args)) = rest.split_first() {
        let mut script = String::new();
        let opened = crate::filter::open(cx, file)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut script));
        opened.map_err(|error| Failure {
            code: 127,
            ..Failure::file(file, &error)
        })?;
        shell.name = file.clone();
        shell.args = args.to_vec();
        return Ok(shell.script(cx, &script));
    }
    let prompt = force_prompt || cx.input.is_terminal();
    Ok(lines(cx, &mut shell, prompt))
}

/// Runs what is typed, or piped in, command by command.
fn lines(cx: &mut Cx, shell: &mut Shell, prompt: bool) -> u8 {
    let mut text = String::new();
    if prompt {
        let _ = writeln!(
            cx.err,
            "This is the toolbox's shell, beside the container. `help` lists the commands."
        );
    }
    loop {
        cx.flush();
        if prompt {
            let host = cx.env.get("HOSTNAME").unwrap_or("pod");
            let sign = if text.is_empty() {
                format!("{host}:{} # ", cx.env.cwd)
            } else {
                "> ".to_owned()
            };
            let _ = write!(cx.err, "{sign}");
            let _ = cx.err.flush();
        }
        let line = cx.input.line().unwrap_or_default();
        text.push_str(&line);
        let done = match parse::script(&text) {
            Err(ParseError::Incomplete) if !line.is_empty() && (text.len() as u64) < LONGEST => {
                continue;
            }
            Err(error) => {
                if !(line.is_empty() && text.trim().is_empty()) {
                    cx.complain("sh", &error.to_string());
                    shell.last = 2;
                }
                Ok(shell.last)
            }
            Ok(node) => shell.run(cx, &node),
        };
        text.clear();
        match done {
            Err(Flow::Exit(code)) => return code,
            Err(Flow::Break(_) | Flow::Continue(_)) | Ok(_) => {}
        }
        if line.is_empty() {
            if prompt {
                let _ = writeln!(cx.err, "exit");
            }
            return shell.last;
        }
    }
}
