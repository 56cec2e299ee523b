//! The toolbox: one program for the commands that people type first, run by `kubectl exec` in the container's sandbox.
//!
//! ```text
//! argv[0] ──▶ commands::find ──▶ run(&mut Cx, args) ──▶ exit code
//!                 ▲
//!    sh ── a | b ─┘  a stage that only filters is fed while the one before it writes (filter.rs)
//! ```
//!
//! It is a guest as any other and sees what the container sees. What WASI cannot tell – the containers of the pod, its
//! addresses and listeners – the sandbox writes into the read-only folder `/.coracle`.

mod commands;
mod context;
mod failure;
mod filter;
mod options;
mod sh;
mod tcp;

use context::Cx;

unsafe extern "C" {
    /// Made by the linker: what runs before the program.
    safe fn __wasm_call_ctors();
}

fn main() {
    // Calling it here has two effects. It runs, with a libc whose start leaves that to the linker. And the linker no
    // longer wraps every export in it: the wrapped `cabi_realloc` would call the host while the host waits for memory,
    // which traps.
    __wasm_call_ctors();
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let mut cx = Cx::of_process();
    let code = commands::run(&mut cx, base_name(&name), &args);
    cx.flush();
    exit(code);
}

/// The last part of a path: `/bin/ls` is `ls`.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

/// Ends with the exact code; `std::process::exit` would make 1 of everything but 0 in a component.
fn exit(code: u8) -> ! {
    wasip2::cli::exit::exit_with_code(code);
    unreachable!("the host ended this instance")
}
