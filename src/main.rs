//! `coracle`: flags, wiring, shutdown.

use std::process::ExitCode;

use clap::Parser;
use coracle::cli::{Cli, Command};

fn main() -> ExitCode {
    coracle::allocator::give_back_freed_memory();
    let cli = Cli::parse();
    // One crypto provider for every crate of the process; nothing else may install one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match cli.command {
        Command::Up(args) => coracle::up::run(*args),
        Command::Image(command) => coracle::image::run(command),
        Command::Net(args) => coracle::net::run(args),
        Command::Pki(command) => coracle::pki::command::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
