//! Says what sockets do in each of many situations: a `wasi:cli/command` on `wasi:sockets` 0.3.
//!
//! Its one argument is the address of the machine, or of the pod. Each check is one line, `NAME: what was seen, and then,
//! and then`, as [`socket-checks`](../socket-checks/main.rs) prints them for 0.2.

mod net;
mod tcp;
mod udp;

use wasip3::cli::{environment, stdout};
use wasip3::wit_stream;

wasip3::cli::command::export!(Checks);

struct Checks;

/// What a check has seen so far.
#[derive(Default)]
pub(crate) struct Seen(Vec<String>);

impl Seen {
    pub(crate) fn say(&mut self, what: impl std::fmt::Display) {
        self.0.push(what.to_string());
    }

    /// The error's name, or `done`.
    pub(crate) fn outcome<T>(&mut self, step: &str, result: &net::Result<T>) {
        let word = result.as_ref().err().map_or("done".to_owned(), net::word);
        self.say(format_args!("{step} {word}"));
    }
}

/// Runs checks one after the other.
#[macro_export]
macro_rules! checks {
    ($($name:literal => $check:expr;)*) => { $({
        let mut seen = $crate::Seen::default();
        let check = $check;
        if let Err(failure) = check(&mut seen).await {
            seen.say(failure);
        }
        $crate::print(&format!("{}: {}", $name, seen.0.join(", "))).await;
    })* };
}

impl wasip3::exports::cli::run::Guest for Checks {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let own = arguments
            .get(1)
            .and_then(|own| own.parse().ok())
            .ok_or(())?;
        net::set_own(own);
        tcp::run().await;
        udp::run().await;
        Ok(())
    }
}

pub(crate) async fn print(text: &str) {
    let (mut lines, stream) = wit_stream::new();
    let _ = futures::join!(stdout::write_via_stream(stream).into_future(), async {
        lines.write_all(format!("{text}\n").into_bytes()).await;
        drop(lines);
    });
}
