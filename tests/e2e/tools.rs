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

/// A command that goes on; killed when dropped.
pub(crate) struct Background {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Background {
    /// Starts it; its output must be piped.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
