//! `attach`: a client at the streams of a container's own run.
//!
//! ```text
//! guest ── stdout, stderr ─▶ LineBuffer ─┬▶ log
//!                                        └▶ Audience ─▶ a Pipe per session ─▶ Session
//! guest ◀─ stdin ── Pipe, one per run ◀───────────────── Writer, TerminalWriter
//! ```
//!
//! A session ends with the run, with whoever holds it, with `^C` at a terminal, and when its client
//! falls too far behind. The run ends with none of them.

use std::sync::Arc;

use coracle_cri::{ContainerState, ExecError, Session, Streams};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::container::{Guest, Stdio};
use crate::exec::{GuestEnd, LineEditor, Pipe, Reader, TerminalWriter, Writer, place};
use crate::logs::{LogQueue, Stream};
use crate::pod::{Pod, Run};

/// Bytes that one output of a session may be behind: a guest never waits for a client.
const BEHIND: usize = 1 << 20;

/// 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Whoever sees what a run writes.
#[derive(Default)]
pub(crate) struct Audience {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: Vec<Arc<Seat>>,
    closed: bool,
}

/// The outputs of one session.
struct Seat {
    stdout: Arc<Pipe>,
    stderr: Arc<Pipe>,
    /// Line ends become CR LF.
    terminal: bool,
    /// Cancelled when the client did not keep up.
    lost: CancellationToken,
}

impl Audience {
    /// Shows `bytes` to every session.
    pub(crate) fn show(&self, stream: Stream, bytes: &[u8]) {
        self.state.lock().seats.retain(|seat| {
            let pipe = match stream {
                Stream::Stdout => &seat.stdout,
                Stream::Stderr => &seat.stderr,
            };
            let end = GuestEnd {
                pipe: pipe.clone(),
                terminal: seat.terminal,
            };
            let kept = end.offer(bytes, BEHIND);
            if !kept {
                seat.end();
                // Who does not read would keep what waits for as long as its connection lives.
                seat.stdout.abandon();
                seat.stderr.abandon();
                seat.lost.cancel();
            }
            kept
        });
    }

    /// Ends every session's outputs: the run has ended, for a reason that `message` tells if there is
    /// more to say than its code.
    pub(crate) fn close(&self, message: &str) {
        if !message.is_empty() {
            self.show(Stream::Stderr, format!("{message}\n").as_bytes());
        }
        let mut state = self.state.lock();
        state.closed = true;
        for seat in state.seats.drain(..) {
            seat.end();
        }
    }

    fn join(&self, seat: &Arc<Seat>) {
        let mut state = self.state.lock();
        if state.closed {
            return seat.end();
        }
        state.seats.push(seat.clone());
    }

    fn leave(&self, seat: &Arc<Seat>) {
        let mut state = self.state.lock();
        state.seats.retain(|kept| !Arc::ptr_eq(kept, seat));
    }
}

impl Seat {
    fn end(&self) {
        self.stdout.end();
        self.stderr.end();
    }
}

/// Standard input of a new run. Without `open` it is at its end; else it ends with the first client
/// that fed it if `once`, and with the run if not.
pub(crate) fn standard_input(open: bool, once: bool, terminal: bool) -> GuestEnd {
    let pipe = match (open, once) {
        (false, _) => Pipe::empty(),
        (true, true) => Pipe::new(),
        (true, false) => Pipe::kept_open(),
    };
    GuestEnd { pipe, terminal }
}

/// Takes a seat in the run's audience.
pub(crate) fn attach(
    pod: &Pod,
    run: Arc<Run>,
    guest: &Guest,
    streams: Streams,
) -> Result<Session, ExecError> {
    let Stdio::Container(input) = &guest.stdio else {
        return Err(ExecError::NotRunning(run.id()));
    };
    let place = place(pod)?;
    let output = |wanted: bool| match wanted {
        true => Pipe::new(),
        false => Pipe::discarding(),
    };
    let merged = streams.tty || input.terminal;
    let shown = streams.stdout || (merged && streams.stderr);
    let stdout = output(shown);
    let stderr = match merged {
        true => stdout.clone(),
        false => output(streams.stderr),
    };
    let seat = Arc::new(Seat {
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        terminal: input.terminal,
        lost: CancellationToken::new(),
    });
    let interrupt = CancellationToken::new();
    let fed = streams.stdin && guest.config.stdin && !input.pipe.has_ended();
    let stdin = fed.then(|| match input.terminal {
        true => Box::pin(TerminalWriter {
            editor: LineEditor::default(),
            input: input.pipe.clone(),
            output: stdout.clone(),
            interrupt: interrupt.clone(),
        }) as coracle_cri::BoxedWriter,
        false => Box::pin(Writer(input.pipe.clone())) as coracle_cri::BoxedWriter,
    });
    let read = |pipe: &Arc<Pipe>| Box::pin(Reader(pipe.clone())) as coracle_cri::BoxedReader;
    guest.logs.audience().join(&seat);
    let taken = Taken {
        seat: seat.clone(),
        logs: guest.logs.clone(),
    };
    Ok(Session {
        stdin,
        stdout: shown.then(|| read(&stdout)),
        stderr: (streams.stderr && !merged).then(|| read(&stderr)),
        // A guest could not ask for it.
        resize: streams.tty.then(|| watch::channel(None).0),
        exited: Box::pin(async move {
            let (_place, _taken) = (place, taken);
            tokio::select! {
                biased;
                () = seat.lost.cancelled() => Err(ExecError::Failed(format!(
                    "the client fell {} KiB behind the output of container {} and was detached; the \
                     container goes on, and its log has everything",
                    BEHIND >> 10,
                    run.id(),
                ))),
                () = run.ended.cancelled() => match run.status().state {
                    ContainerState::Exited { exit_code, .. } => Ok(exit_code),
                    _ => Err(ExecError::NotRunning(run.id())),
                },
                () = interrupt.cancelled() => {
                    seat.end();
                    Ok(INTERRUPTED)
                }
            }
        }),
    })
}

/// A seat that is given back when it is dropped.
struct Taken {
    seat: Arc<Seat>,
    logs: Arc<LogQueue>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.logs.audience().leave(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn who_does_not_read_is_let_go_and_others_stay() {
        let seat = |terminal| {
            Arc::new(Seat {
                stdout: Pipe::new(),
                stderr: Pipe::new(),
                terminal,
                lost: CancellationToken::new(),
            })
        };
        let audience = Audience::default();
        let (slow, quick) = (seat(false), seat(true));
        audience.join(&slow);
        audience.join(&quick);
        audience.show(Stream::Stderr, b"first\n");
        let mut reader = Reader(quick.stdout.clone());
        let mut read = 0;
        let mut buffer = vec![0; BEHIND];
        for _ in 0..3 {
            audience.show(Stream::Stdout, &vec![b'x'; BEHIND / 2]);
            read += reader.read(&mut buffer).await.unwrap();
        }
        assert_eq!(read, BEHIND / 2 * 3);
        assert!(slow.lost.is_cancelled());
        let mut late = Vec::new();
        for pipe in [&slow.stdout, &slow.stderr] {
            Reader(pipe.clone()).read_to_end(&mut late).await.unwrap();
        }
        assert_eq!(late, b"", "it keeps nothing");
        assert!(!quick.lost.is_cancelled());
        audience.close("gone");
        let mut rest = Vec::new();
        Reader(quick.stderr.clone())
            .read_to_end(&mut rest)
            .await
            .unwrap();
        assert_eq!(rest, b"first\r\ngone\r\n");
        let late = seat(false);
        audience.join(&late);
        assert!(late.stdout.has_ended());
    }
}
