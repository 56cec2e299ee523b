//! Running pipelines: without processes, a stage after the other.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use super::parse::{self, Node, Redirect};
use super::run::{Flow, Ran, Shell, ended};
use crate::commands::{self, report};
use crate::context::{Cx, Input, Out};
use crate::failure::Failure;
use crate::filter::Stage;

impl Shell {
    /// Stages that only filter are fed by the one before; any other reads what was kept of it.
    pub(super) fn pipeline(&mut self, cx: &mut Cx, stages: &[Node]) -> Ran {
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
}
