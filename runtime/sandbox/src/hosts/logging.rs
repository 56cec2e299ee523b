//! `wasi:logging`: lines of the container's log, with their level.
//!
//! A message goes where standard error goes, so that it is there for `kubectl logs`, for whoever is
//! attached, and for the client of an exec session. Its first line reads `WARN context: message`.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::container::Guest;
use crate::link::ComponentState;

const NAMES: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];

#[derive(ComponentType, Lift, Lower, Clone, Copy, Debug, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "guests make them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    for name in NAMES {
        linker.instance(name)?.func_wrap_async(
            "log",
            |store: StoreContextMut<'_, ComponentState>,
             (level, context, message): (Level, String, String)| {
                let guest = store.data().guest.clone();
                Box::new(async move {
                    log(&guest, &line(level, &context, &message)).await;
                    Ok(())
                })
            },
        )?;
    }
    Ok(())
}

/// Waits while the log or the client cannot take more.
async fn log(guest: &Arc<Guest>, line: &str) {
    let mut output = Box::into_pin(guest.error_output());
    // Nobody listens any more: a log call has no way to fail.
    let _ = output.write_all(line.as_bytes()).await;
}

fn line(level: Level, context: &str, message: &str) -> String {
    let level = match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
        Level::Critical => "CRITICAL",
    };
    let message = message.trim_end_matches('\n');
    match context {
        "" => format!("{level} {message}\n"),
        context => format!("{level} {context}: {message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_and_its_context() {
        for (level, context, message, expected) in [
            (Level::Warn, "db", "slow", "WARN db: slow\n"),
            (Level::Critical, "", "gone\n", "CRITICAL gone\n"),
            (Level::Info, "", "a\nb", "INFO a\nb\n"),
        ] {
            assert_eq!(line(level, context, message), expected);
        }
    }
}
