//! `coracle`: flags, wiring, shutdown.

use std::process::ExitCode;

use clap::Parser;
use coracle::cli::{Cli, Command};

fn main() -> ExitCode {
    coracle::allocator::give_back_freed_memory();
    leave_out_backtraces_of_errors();
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

/// Makes errors carry no backtrace of the host unless `RUST_LIB_BACKTRACE` asks for it. Call it before the process has other
/// threads.
///
/// `RUST_BACKTRACE`, which many a shell sets for panics, asks for it too, and then every error inside wasmtime takes one under
/// a lock of the whole process: a guest that does nothing but be refused would have all others wait for it.
fn leave_out_backtraces_of_errors() {
    const WANTED: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(WANTED).is_none() {
        #[expect(unsafe_code, reason = "there is no safe way to set it")]
        // SAFETY: no other thread exists that could read the environment at the same time.
        unsafe {
            std::env::set_var(WANTED, "0");
        }
    }
}
