//! What a command works with: its streams, its folder and its variables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Cursor, IsTerminal, Read, Write};
use std::rc::Rc;

use wasip2::cli::stderr::get_stderr;
use wasip2::cli::stdout::get_stdout;
use wasip2::io::streams::OutputStream;

use crate::tcp::stream_error;

/// Variables and the working directory; a subshell works on a copy.
#[derive(Clone, Default)]
pub struct Env {
    pub cwd: String,
    pub vars: BTreeMap<String, Var>,
}

/// A variable of the shell.
#[derive(Clone, Default)]
pub struct Var {
    pub value: String,
    pub exported: bool,
}

/// An output that several may write to.
#[derive(Clone)]
pub struct Out(Rc<RefCell<dyn Write>>);

/// Where a command reads from.
#[derive(Clone)]
pub enum Input {
    /// The process' own input.
    Stdin,
    /// What an earlier stage wrote, or a here-document.
    Bytes(Rc<RefCell<Cursor<Vec<u8>>>>),
    File(Rc<RefCell<io::BufReader<std::fs::File>>>),
}

/// The surroundings of a command.
pub struct Cx {
    pub env: Env,
    pub input: Input,
    pub out: Out,
    pub err: Out,
}

impl Cx {
    /// The surroundings that the host gave.
    pub fn of_process() -> Self {
        let vars = std::env::vars().map(|(name, value)| {
            (
                name,
                Var {
                    value,
                    exported: true,
                },
            )
        });
        let mut env = Env {
            cwd: "/".to_owned(),
            vars: vars.collect(),
        };
        if let Some(pwd) = env.get("PWD").filter(|pwd| pwd.starts_with('/')) {
            env.cwd = normal(pwd);
        }
        Self {
            env,
            input: Input::Stdin,
            out: Out::new(io::LineWriter::new(HostOutput(get_stdout()))),
            err: Out::new(HostOutput(get_stderr())),
        }
    }

    /// The absolute form of `path`, without `.` and `..`: a guest's folders know nothing outside themselves, so `..`
    /// is taken back here, before the folder that holds the path is looked for.
    pub fn path(&self, path: &str) -> String {
        self.env.path(path)
    }

    pub fn flush(&mut self) {
        // Whoever read this has gone; there is nobody to tell.
        let _ = self.out.flush();
        let _ = self.err.flush();
    }

    /// Writes `name: message` to stderr.
    pub fn complain(&mut self, name: &str, message: &str) {
        let _ = self.out.flush();
        let _ = writeln!(self.err, "{name}: {message}");
    }
}

impl Env {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|var| var.value.as_str())
    }

    pub fn set(&mut self, name: &str, value: String) {
        self.vars.entry(name.to_owned()).or_default().value = value;
    }

    /// See [`Cx::path`].
    pub fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            normal(path)
        } else {
            normal(&format!("{}/{path}", self.cwd))
        }
    }
}

impl Out {
    pub fn new(to: impl Write + 'static) -> Self {
        Self(Rc::new(RefCell::new(to)))
    }

    /// An output whose bytes can be taken by the other half.
    pub fn buffer() -> (Self, Rc<RefCell<Spool>>) {
        let spool = Rc::new(RefCell::new(Spool::default()));
        (Self(spool.clone()), spool)
    }

    /// An output that leads to a stage whose state the caller keeps.
    pub fn shared(to: Rc<RefCell<dyn Write>>) -> Self {
        Self(to)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// An output of the process. The standard library's would not tell that its reader has gone.
struct HostOutput(OutputStream);

impl Write for HostOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let room = self.0.check_write().map_err(stream_error)?;
            let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if taken > 0 {
                self.0.write(&bytes[..taken]).map_err(stream_error)?;
                return Ok(taken);
            }
            self.0.subscribe().block();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(stream_error)
    }
}

/// Bytes that wait in memory for the next stage.
#[derive(Default)]
pub struct Spool(pub Vec<u8>);

/// What a pipe into a command that is no mere filter can hold.
const SPOOL: usize = 16 << 20;

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > SPOOL {
            return Err(io::Error::other(
                "more than 16 MiB for a pipe into this command",
            ));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Input {
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(Rc::new(RefCell::new(Cursor::new(bytes))))
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdin) && io::stdin().is_terminal()
    }

    /// The next line with its end; empty at the end of the input.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        match self {
            Self::Stdin => io::stdin().lock().read_until(b'\n', &mut line)?,
            Self::Bytes(bytes) => bytes.borrow_mut().read_until(b'\n', &mut line)?,
            Self::File(file) => file.borrow_mut().read_until(b'\n', &mut line)?,
        };
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stdin => io::stdin().lock().read(buffer),
            Self::Bytes(bytes) => bytes.borrow_mut().read(buffer),
            Self::File(file) => file.borrow_mut().read(buffer),
        }
    }
}

/// An absolute path without `.`, `..` and double slashes.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
