//! How a run of a container ended, in the words of a shell.

use coracle_clock::Timestamp;
use coracle_cri::ContainerState;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

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
    pub(crate) fn out_of_memory(refusal: &OutOfMemory) -> Self {
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
            return Self::out_of_memory(refusal);
        }
        Self {
            code: TRAPPED,
            reason: "Error",
            message: trap_message(error),
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
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    let message = match error.downcast_ref::<WasmBacktrace>() {
        Some(backtrace) => format!("{what}\n{backtrace}"),
        None => what,
    };
    bounded(message)
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
    fn messages_are_bounded() {
        let exit = Exit::not_started(&wasmtime::Error::msg("ü".repeat(4000)));
        assert!(exit.message.len() <= MAX_MESSAGE && exit.message.len() > MAX_MESSAGE - 4);
    }
}
