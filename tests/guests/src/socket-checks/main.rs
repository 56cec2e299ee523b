//! Says what sockets do in each of many situations: a `wasi:cli/command` on `wasi:sockets` 0.2.
//!
//! | arguments | effect |
//! |---|---|
//! | `OWN` | runs all checks, on a machine or in a pod whose address is `OWN` |
//! | `OWN NAME…` | runs these |
//!
//! Each check is one line, `NAME: what was seen, and then, and then`. The same bytes run on the pod network and on the
//! kernel's, and must say the same. Ports are never printed, because nobody chooses them; addresses are, by the names
//! `any`, `loopback` and `own`.

mod bind;
mod connect;
mod net;
mod options;
mod streams;
mod udp;

use std::fmt::Display;
use std::process::ExitCode;

/// What a check has seen so far.
pub(crate) struct Seen(Vec<String>);

impl Seen {
    pub(crate) fn say(&mut self, what: impl Display) {
        self.0.push(what.to_string());
    }

    /// The error's name, or `done`.
    pub(crate) fn outcome<T, E: net::Named>(&mut self, step: &str, result: &Result<T, E>) {
        let word = result.as_ref().err().map_or("done".to_owned(), E::word);
        self.say(format_args!("{step} {word}"));
    }
}

/// An error ends the check, and shows as a part of what it saw.
pub(crate) type Checked = Result<(), net::Failure>;
pub(crate) type Check = (&'static str, fn(&mut Seen) -> Checked);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((own, names)) = args.split_first() else {
        eprintln!("the first argument is the own address");
        return ExitCode::from(2);
    };
    match own.parse() {
        Ok(own) => net::set_own(own),
        Err(e) => {
            eprintln!("{own}: {e}");
            return ExitCode::from(2);
        }
    }
    let groups = [
        bind::CHECKS,
        connect::CHECKS,
        streams::CHECKS,
        options::CHECKS,
        udp::CHECKS,
    ];
    for (name, check) in groups.into_iter().flatten() {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut seen = Seen(Vec::new());
        if let Err(failure) = check(&mut seen) {
            seen.say(failure.0);
        }
        println!("{name}: {}", seen.0.join(", "));
    }
    ExitCode::SUCCESS
}
