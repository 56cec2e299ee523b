//! Third tier of the guestbook: keeps the entries, a WASI 0.1 module on a listener that it inherits.
//!
//! WASI 0.1 cannot open sockets. The runtime listens on the container's ports and hands the listeners over as file
//! descriptors from 3 up, as systemd does (`LISTEN_FDS`). One thread serves all connections by `poll_oneoff`, so a
//! silent client holds up nobody.
//!
//! The protocol is lines, and an entry is any one line:
//!
//! ```text
//! ADD <entry>    OK <id>
//! LIST           ENTRIES <n>, then n lines of <id> <entry>, the oldest first
//! PING           PONG
//! QUIT           the connection ends
//! anything else  ERR <why>
//! ```

mod connection;
mod poll;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::time::Duration;

use connection::Connection;
use poll::{Interest, wait};

/// The first descriptor after stdin, stdout and stderr.
const LISTENER: i32 = 3;
/// Connections served at once; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;
/// Entries kept; the oldest make room.
const MAX_ENTRIES: usize = 100;
/// How often silent connections are looked for.
const SWEEP: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let inherited = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse::<u32>().ok())
        .unwrap_or(0);
    if inherited == 0 {
        eprintln!("LISTEN_FDS names no listener: declare a TCP containerPort");
        return ExitCode::FAILURE;
    }
    // SAFETY: LISTEN_FDS says that this descriptor was handed over to us, and nothing else uses it.
    let listener = unsafe { TcpListener::from_raw_fd(LISTENER) };
    match serve(&listener) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot serve: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    println!("serving on the inherited listener, at most {MAX_ENTRIES} entries");
    let mut book = Book::default();
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut interests: Vec<(i32, Interest)> =
            connections.iter().map(Connection::interest).collect();
        if connections.len() < MAX_CONNECTIONS {
            interests.push((LISTENER, Interest::Read));
        }
        let pause = if connections.is_empty() {
            None
        } else {
            Some(SWEEP)
        };
        let ready = wait(&interests, pause)?;
        if ready.contains(&LISTENER) {
            accept(listener, &mut connections);
        }
        connections.retain_mut(|connection| {
            let (fd, _) = connection.interest();
            if ready.contains(&fd) {
                connection.advance(&mut book)
            } else {
                !connection.is_silent()
            }
        });
    }
}

/// Takes what waits in the listener's queue.
fn accept(listener: &TcpListener, connections: &mut Vec<Connection>) {
    while connections.len() < MAX_CONNECTIONS {
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                debug_assert_ne!(stream.as_raw_fd(), LISTENER);
                connections.push(Connection::new(stream));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) => {
                eprintln!("cannot accept: {e}");
                return;
            }
        }
    }
}

/// The entries, numbered from 1.
#[derive(Default)]
struct Book {
    added: u64,
    entries: VecDeque<(u64, String)>,
}

impl Book {
    /// The answer to one line, or `None` when the connection shall end.
    fn answer(&mut self, line: &str) -> Option<String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let answer = match command {
            "ADD" if rest.is_empty() => "ERR an entry is missing\n".to_owned(),
            "ADD" => format!("OK {}\n", self.add(rest)),
            "LIST" => self.list(),
            "PING" => "PONG\n".to_owned(),
            "QUIT" => return None,
            _ => "ERR the commands are ADD, LIST, PING and QUIT\n".to_owned(),
        };
        if command != "QUIT" {
            println!(
                "{} {}",
                printable(command),
                answer.lines().next().unwrap_or_default()
            );
        }
        Some(answer)
    }

    fn add(&mut self, entry: &str) -> u64 {
        self.added += 1;
        self.entries.push_back((self.added, entry.to_owned()));
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.added
    }

    fn list(&self) -> String {
        let mut answer = format!("ENTRIES {}\n", self.entries.len());
        for (id, entry) in &self.entries {
            answer.push_str(&format!("{id} {entry}\n"));
        }
        answer
    }
}

/// A command as it may stand in a log: short, and one line.
fn printable(command: &str) -> String {
    command
        .chars()
        .take(16)
        .filter(|c| !c.is_control())
        .collect()
}
