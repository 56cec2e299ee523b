//! Running simple commands: assignments, then a builtin, a command of the toolbox or a script.

use std::io::Write;

use super::parse::{self, Redirect};
use super::run::{Flow, Ran, Shell};
use crate::commands::{self, report};
use crate::context::{Cx, Var};

impl Shell {
    pub(super) fn simple(
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
}
