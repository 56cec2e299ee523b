//! Where a command reads and writes.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::rc::Rc;

use super::parse::{Redirect, Target};
use super::run::{Ran, Shell};
use crate::commands::report;
use crate::context::{Cx, Input, Out};
use crate::failure::Failure;

impl Shell {
    pub(super) fn redirected(
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

    pub(super) fn redirect(&mut self, cx: &mut Cx, redirect: &Redirect) -> Result<(), Failure> {
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
