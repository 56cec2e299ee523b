//! What the words of a script are made of.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::collect;

/// Reads to the end on a thread of its own.
pub(crate) fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether the output contains the text, or does not, as wanted.
pub(crate) fn contains(what: &str, output: &str, text: &str, wanted: bool) -> Result<(), String> {
    if output.contains(text) == wanted {
        return Ok(());
    }
    let verb = if wanted { "lacks" } else { "contains" };
    Err(format!("{what} {verb} {text:?}:\n{output}"))
}

/// Asks `http://host:port/path` once; the answer must contain `text`.
pub(crate) fn fetch(method: &str, url: &str, body: &str, text: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("only http:// is fetched")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let answer = exchange(method, host, path, body)
        .map_err(|error| format!("failed to fetch {url}: {error}"))?;
    contains("the answer", &answer, text, true)
}

fn exchange(method: &str, host: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = body.len();
    write!(
        stream,
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Length: {length}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a `kubectl port-forward` that printed this listens first.
pub(crate) fn forwarded(output: &str) -> Result<String, String> {
    let found = output.lines().find_map(|line| {
        let (_, rest) = line.split_once("Forwarding from 127.0.0.1:")?;
        Some(format!("127.0.0.1:{}", rest.split_once(" ->")?.0))
    });
    found.ok_or_else(|| format!("it forwards nothing:\n{output}"))
}

/// Opens connections at once. Each sends so many bytes, ends its side, and must get the same back.
pub(crate) fn echoes(at: &str, connections: u8, bytes: usize) -> Result<(), String> {
    // All are open before the first sends.
    let streams: Result<Vec<_>, _> = (0..connections).map(|_| TcpStream::connect(at)).collect();
    let streams = streams.map_err(|error| format!("failed to connect to {at}: {error}"))?;
    let running = streams.into_iter().zip(0..).map(|(stream, number)| {
        std::thread::spawn(move || {
            echo(&stream, number, bytes).map_err(|error| format!("connection {number}: {error}"))
        })
    });
    let running: Vec<_> = running.collect();
    let outcomes = running
        .into_iter()
        .map(|thread| thread.join().expect("no panic"));
    outcomes.collect()
}

fn echo(mut stream: &TcpStream, number: u8, bytes: usize) -> Result<(), String> {
    let wrong = |error: std::io::Error| error.to_string();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(wrong)?;
    // No two connections, and no two places in one, look alike for long.
    let sent: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8 ^ number).collect();
    let (mut writer, payload) = (stream.try_clone().map_err(wrong)?, sent.clone());
    let writing = std::thread::spawn(move || {
        writer.write_all(&payload)?;
        writer.shutdown(std::net::Shutdown::Write)
    });
    let mut back = Vec::new();
    let read = stream.read_to_end(&mut back);
    writing.join().expect("no panic").map_err(wrong)?;
    read.map_err(wrong)?;
    match back == sent {
        true => Ok(()),
        false => Err(format!("{} of {bytes} bytes came back", back.len())),
    }
}

/// The kubectl on the PATH, then those of other versions beside it, in the order of their names.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("kubectl")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&path).find_map(|folder| folder.join("kubectl").canonicalize().ok());
    if let Some(folder) = on_path.as_deref().and_then(Path::parent) {
        let is_other = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("kubectl.1.")
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut beside: Vec<_> = entries.map(|e| e.path()).filter(is_other).collect();
        beside.sort();
        found.append(&mut beside);
    }
    found
}

/// A command that goes on; killed when dropped, with all that it has started.
pub(crate) struct Background {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Background {
    /// Starts it; its output must be piped.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        Ok(Self { child, output })
    }

    /// Everything that it has written so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A shell's pipe would go on without it.
        #[cfg(unix)]
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
