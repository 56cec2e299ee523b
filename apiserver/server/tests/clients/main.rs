//! Clients that nobody here wrote, against the server alone, over TCP and TLS.
//!
//! kube-rs is linked in; its checks are tests, each on a server of its own. The Python client and `@kubernetes/client-node`
//! run a script of named checks, `client.py` and `client.mjs`, of which the first failure fails the test that is named
//! after the client. kubectl has its own suite: `tests/e2e` of the workspace.
//!
//! `.ci/clients` installs the two at the versions that it names, into `target/clients`. `CORACLE_PYTHON` and
//! `CORACLE_NODE_MODULES` lead elsewhere. A client that is missing is listed as ignored; with `CORACLE_REQUIRE_CLIENTS=1`
//! that is an error.

mod kube_rs;
mod program;
mod server;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::program::Program;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let required = std::env::var_os("CORACLE_REQUIRE_CLIENTS").is_some_and(|value| value == "1");
    let mut trials: Vec<Trial> = kube_rs::trials();
    for (name, found) in [("python", program::python()), ("node", program::node())] {
        match found {
            Ok(program) => trials.push(Trial::test(name, move || run(&program))),
            Err(reason) if required => {
                eprintln!("error: CORACLE_REQUIRE_CLIENTS=1, but {reason}");
                return ExitCode::FAILURE;
            }
            Err(reason) => {
                // A kind is printed beside the name, also of an ignored test.
                let ignored = Trial::test(name, || Ok(())).with_ignored_flag(true);
                trials.push(ignored.with_kind(reason));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(program: &Program) -> Result<(), Failed> {
    let server = server::ServedApi::start().map_err(|error| error.to_string())?;
    program.run(&server).map_err(Failed::from)
}
