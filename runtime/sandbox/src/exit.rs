//! How a run of a container ended, in the words of a shell.

use coracle_clock::Timestamp;
use coracle_cri::ContainerState;
use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::handles::handle_limit;
use crate::link::HOST_CALL;
use crate::memory::{MemoryBudget, OutOfMemory};

/// Longest message, as Kubernetes' termination messages.
const MAX_MESSAGE: usize = 4096;

/// 128 + SIGABRT: what a process that aborts shows.
const TRAPPED: i32 = 134;
/// 128 + SIGKILL.
const KILLED: i32 = 137;
/// 128 + SIGTERM.
const TERMINATED: i32 = 143;
/// What containerd shows for a container that could not be started.
const NOT_STARTED: i32 = 128;

/// What wasmtime says, by an error that has no type outside of it, when a call passes too much.
const TOO_MUCH: &str = "fuel allocated for hostcalls has been exhausted";

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Exit {
    /// The guest ended with `code`.
    pub(crate) fn with_code(code: i32) -> Self {
        let code = code & 0xff;
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self {
            code,
            reason,
            message: String::new(),
        }
    }

    /// The runtime dropped the guest: within its grace, or because the grace was over.
    pub(crate) fn stopped(in_time: bool) -> Self {
        let code = if in_time { TERMINATED } else { KILLED };
        Self {
            code,
            reason: "Error",
            message: String::new(),
        }
    }

    /// The guest could not be started.
    pub(crate) fn not_started(error: &wasmtime::Error) -> Self {
        Self {
            code: NOT_STARTED,
            reason: "StartError",
            message: bounded(format!("{error:#}")),
        }
    }

    /// The guest wanted more memory than it may have.
    fn out_of_memory(refusal: &OutOfMemory) -> Self {
        Self {
            code: KILLED,
            reason: "OOMKilled",
            message: refusal.to_string(),
        }
    }

    /// The guest's call ended with `error`: an exit, a trap, or memory refused.
    pub(crate) fn from_error(error: &wasmtime::Error, memory: &MemoryBudget) -> Self {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::with_code(exit.0);
        }
        if let Some(refusal) = error.downcast_ref::<OutOfMemory>().or(memory.refusal()) {
            return Self {
                message: explained(&refusal.to_string(), memory.peak(), error),
                ..Self::out_of_memory(refusal)
            };
        }
        Self {
            code: TRAPPED,
            reason: "Error",
            message: explained(&what_trapped(error), memory.peak(), error),
        }
    }

    /// The runtime itself failed while it ran the guest.
    pub(crate) fn runtime_failure(error: &tokio::task::JoinError) -> Self {
        Self {
            code: TRAPPED,
            reason: "Error",
            message: format!("the runtime failed: {error}"),
        }
    }

    /// The state that the status shows.
    pub(crate) fn into_state(
        self,
        started_at: Timestamp,
        finished_at: Timestamp,
    ) -> ContainerState {
        ContainerState::Exited {
            started_at,
            finished_at,
            exit_code: self.code,
            reason: self.reason.to_owned(),
            message: self.message,
        }
    }
}

/// What happened, then where: the trap and the functions that led to it.
pub(crate) fn trap_message(error: &wasmtime::Error) -> String {
    bounded(with_backtrace(what_trapped(error), error))
}

/// The same for the end of a run, with the most memory that it used. That stands before the backtrace,
/// which may be long and is cut.
fn explained(what: &str, peak: u64, error: &wasmtime::Error) -> String {
    let head = format!("{what}\nmemory peak: {}", in_mebibytes(peak));
    bounded(with_backtrace(head, error))
}

fn what_trapped(error: &wasmtime::Error) -> String {
    let table = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ResourceTableError>());
    if let Some(ResourceTableError::Full) = table {
        let most = handle_limit();
        return format!(
            "the guest holds as many handles (files, sockets, streams, timers, tasks) as it may: {most}"
        );
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trap.to_string();
    }
    let cause = error.root_cause().to_string();
    match cause.contains(TOO_MUCH) {
        true => format!("the guest passed more than {HOST_CALL} bytes to the host in one call"),
        false => cause,
    }
}

fn with_backtrace(head: String, error: &wasmtime::Error) -> String {
    match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) => format!("{head}\n{backtrace}"),
        None => head,
    }
}

/// `1.5 MiB`, rounded up, so that what was used is never shown as nothing.
fn in_mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Cuts at a character's edge.
fn bounded(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = (0..=MAX_MESSAGE)
            .rev()
            .find(|end| message.is_char_boundary(*end))
            .unwrap_or(0);
        message.truncate(cut);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        let memory = MemoryBudget::node(0);
        let code = |error: wasmtime::Error| Exit::from_error(&error, &memory).code;
        assert_eq!(code(I32Exit(3).into()), 3);
        assert_eq!(code(I32Exit(-1).into()), 255);
        assert_eq!(code(I32Exit(256 + 7).into()), 7);
        assert_eq!(code(Trap::UnreachableCodeReached.into()), 134);
        assert_eq!(Exit::with_code(0).reason, "Completed");
        assert_eq!(Exit::with_code(256).reason, "Completed");
        assert_eq!(
            (Exit::stopped(true).code, Exit::stopped(false).code),
            (143, 137)
        );
    }

    #[test]
    fn a_trap_tells_the_peak_of_memory() {
        let exit = Exit::from_error(&Trap::StackOverflow.into(), &MemoryBudget::node(0));
        assert!(exit.message.ends_with("\nmemory peak: 0.0 MiB"), "{exit:?}");
        assert_eq!(
            [1, 1 << 20, 17 << 16].map(in_mebibytes),
            ["0.1 MiB", "1.0 MiB", "1.1 MiB"]
        );
    }

    #[test]
    fn messages_are_bounded() {
        let exit = Exit::not_started(&wasmtime::Error::msg("ü".repeat(4000)));
        assert!(exit.message.len() <= MAX_MESSAGE && exit.message.len() > MAX_MESSAGE - 4);
    }
}
