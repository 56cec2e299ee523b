//! What a terminal does between a person's keys and a program that reads lines.
//!
//! WASI has no way to ask for raw keys, so this is the only mode: lines are edited here, echoed, and
//! handed to the guest whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use super::pipe::Pipe;

/// Longest line, as of Linux' terminals; further characters are refused with a bell.
const MAX_LINE: usize = 4096;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const CTRL_W: u8 = 23;
const ESCAPE: u8 = 27;
const DELETE: u8 = 127;

/// A line in the making.
#[derive(Default)]
pub(crate) struct LineEditor {
    line: Vec<u8>,
    escape: Escape,
    /// The last key was a CR: a LF after it is the same key.
    after_return: bool,
}

/// How far into the bytes of a key such as an arrow.
#[derive(Clone, Copy, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    Started,
    Parameters,
}

/// What one key leads to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Effect {
    /// Shown to the person.
    pub(crate) echo: Vec<u8>,
    /// Given to the program.
    pub(crate) input: Vec<u8>,
    /// The program's input has ended.
    pub(crate) end: bool,
    /// The program is to end.
    pub(crate) interrupt: bool,
}

impl LineEditor {
    /// Takes the next byte that was typed.
    pub(crate) fn key(&mut self, byte: u8) -> Effect {
        let mut effect = Effect::default();
        let after_return = std::mem::take(&mut self.after_return);
        match (self.escape, byte) {
            (Escape::Started, b'[' | b'O') => {
                self.escape = Escape::Parameters;
                return effect;
            }
            (Escape::Started, _) => {
                self.escape = Escape::None;
                return effect;
            }
            (Escape::Parameters, 0x40..=0x7e) => {
                self.escape = Escape::None;
                return effect;
            }
            (Escape::Parameters, _) => return effect,
            (Escape::None, _) => {}
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                effect.echo.extend_from_slice(b"\r\n");
                effect.input = std::mem::take(&mut self.line);
                effect.input.push(b'\n');
            }
            CTRL_C => {
                effect.echo.extend_from_slice(b"^C\r\n");
                // A half-typed line is given up, and the program goes on with an empty one; so a
                // shell is not lost with it.
                effect.interrupt = self.line.is_empty();
                if !effect.interrupt {
                    self.line.clear();
                    effect.input.push(b'\n');
                }
            }
            CTRL_D if self.line.is_empty() => effect.end = true,
            CTRL_D => effect.input = std::mem::take(&mut self.line),
            BACKSPACE | DELETE => self.erase(&mut effect),
            CTRL_U => {
                while !self.line.is_empty() {
                    self.erase(&mut effect);
                }
            }
            CTRL_W => {
                while self.line.last() == Some(&b' ') {
                    self.erase(&mut effect);
                }
                while self.line.last().is_some_and(|last| *last != b' ') {
                    self.erase(&mut effect);
                }
            }
            ESCAPE => self.escape = Escape::Started,
            _ if self.line.len() >= MAX_LINE => effect.echo.push(7),
            b'\t' | 0x20.. => {
                self.line.push(byte);
                effect.echo.push(byte);
            }
            _ => {}
        }
        effect
    }

    /// Takes the last character back, all bytes of it.
    fn erase(&mut self, effect: &mut Effect) {
        while let Some(byte) = self.line.pop() {
            let is_start = byte & 0xc0 != 0x80;
            if is_start {
                effect.echo.extend_from_slice(b"\x08 \x08");
                return;
            }
        }
    }
}

/// What a terminal is sent for a program's output: CR LF for every LF.
pub(super) fn with_returns(bytes: &[u8]) -> Vec<u8> {
    let mut cooked = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            cooked.push(b'\r');
        }
        cooked.push(*byte);
    }
    cooked
}

/// The session's end of a terminal's input.
pub(crate) struct TerminalWriter {
    pub(crate) editor: LineEditor,
    pub(crate) input: Arc<Pipe>,
    pub(crate) output: Arc<Pipe>,
    /// Cancelled by `^C`.
    pub(crate) interrupt: CancellationToken,
}

impl AsyncWrite for TerminalWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        for byte in bytes {
            // `^C` gets through to a program that does not read.
            if *byte != CTRL_C {
                match this.input.poll_room(context) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) if taken == 0 => {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    _ => return Poll::Ready(Ok(taken)),
                }
            }
            let effect = this.editor.key(*byte);
            // Nobody waits for an echo: it is left out where the reader is behind.
            if this.output.poll_room(context).is_ready() {
                this.output.push(&effect.echo);
            }
            this.input.push(&effect.input);
            if effect.end {
                this.input.end();
            }
            if effect.interrupt {
                this.interrupt.cancel();
            }
            taken += 1;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input.writer_left();
        Poll::Ready(Ok(()))
    }
}

impl Drop for TerminalWriter {
    fn drop(&mut self) {
        self.input.writer_left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `keys`; what is shown, what the program gets, whether it ends.
    fn typed(keys: &str) -> (String, String, bool, bool) {
        let mut editor = LineEditor::default();
        let mut all = Effect::default();
        for byte in keys.bytes() {
            let effect = editor.key(byte);
            all.echo.extend(effect.echo);
            all.input.extend(effect.input);
            all.end |= effect.end;
            all.interrupt |= effect.interrupt;
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(all.echo), text(all.input), all.end, all.interrupt)
    }

    #[test]
    fn lines_are_edited_before_the_program_sees_them() {
        for (keys, echo, input) in [
            ("ls\r", "ls\r\n", "ls\n"),
            ("ls\r\n", "ls\r\n", "ls\n"),
            ("ls\n", "ls\r\n", "ls\n"),
            ("lx\x7fs\r", "lx\x08 \x08s\r\n", "ls\n"),
            ("aü\x7f\r", "aü\x08 \x08\r\n", "a\n"),
            ("a bc\x17d\r", "a bc\x08 \x08\x08 \x08d\r\n", "a d\n"),
            ("abc\x15d\r", "abc\x08 \x08\x08 \x08\x08 \x08d\r\n", "d\n"),
            ("a\x1b[A\x1bOBb\r", "ab\r\n", "ab\n"),
            ("\x7fa\r", "a\r\n", "a\n"),
            ("half\x04", "half", "half"),
        ] {
            assert_eq!(
                typed(keys),
                (echo.to_owned(), input.to_owned(), false, false),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn control_c_gives_up_a_line_and_without_one_the_program() {
        assert_eq!(
            typed("abc\x03"),
            ("abc^C\r\n".to_owned(), "\n".to_owned(), false, false)
        );
        assert!(typed("\x03").3);
        assert!(typed("\x04").2);
        let long = "x".repeat(MAX_LINE + 5);
        assert_eq!(typed(&format!("{long}\r")).1.len(), MAX_LINE + 1);
    }
}
