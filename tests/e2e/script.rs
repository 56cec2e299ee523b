//! The language of the scripts, after Go's testscript.
//!
//! ```text
//! up -f guestbook            start `coracle up` with these flags and wait until it is ready
//! printed 'text'             wait until `coracle up` has printed the text
//! kubectl get pods           run a command; it must succeed …
//! ! kubectl get pod missing  … or, with !, fail
//! stdout 'text'              the last command's output contains the text; ! for "does not"
//! stderr 'text'              likewise
//! retry kubectl get pods -- 'text'   run until the output contains the text
//! set NAME kubectl get …     keep the trimmed output as $NAME
//! get http://… 'text'        fetch until the body contains the text
//! coracle image load …       run the binary itself
//! stop | kill                Ctrl-C and wait for a clean end | SIGKILL
//! -- file.yaml --            everything below such a line, up to the next, is a file
//! ```
//!
//! `$WORK` is the script's folder, `$SAMPLES` and `$GUESTS` the project's. Words are split as a shell
//! splits them, with single quotes only.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cluster::{Up, poll};

/// What a command may take before it counts as stuck.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// What a state may take to come about.
pub(crate) const STATE_LIMIT: Duration = Duration::from_secs(60);

/// Runs a script; the error tells the line and what was seen.
pub(crate) fn run(path: &Path, index: usize) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let work = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (commands, files) = split(&text);
    for (name, contents) in files {
        let file = work.path().join(name);
        std::fs::create_dir_all(file.parent().expect("below the folder")).map_err(|e| e.to_string())?;
        std::fs::write(file, contents).map_err(|error| error.to_string())?;
    }
    let mut session = Session::new(work.path(), index);
    for (number, line) in commands {
        session.line(&line).map_err(|error| {
            let up = session.up.as_ref().map(Up::output).unwrap_or_default();
            format!("{}:{number}: {line}\n{error}\n--- coracle up printed ---\n{up}", path.display())
        })?;
    }
    Ok(())
}

fn split(text: &str) -> (Vec<(usize, String)>, BTreeMap<String, String>) {
    let (mut commands, mut files) = (Vec::new(), BTreeMap::<String, String>::new());
    let mut current: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
            current = Some(name.to_owned());
            files.insert(name.to_owned(), String::new());
        } else if let Some(file) = current.as_ref().and_then(|name| files.get_mut(name)) {
            file.push_str(line);
            file.push('\n');
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            commands.push((index + 1, line.trim().to_owned()));
        }
    }
    (commands, files)
}

struct Session {
    variables: BTreeMap<String, String>,
    index: usize,
    up: Option<Up>,
    stdout: String,
    stderr: String,
}

impl Session {
    fn new(work: &Path, index: usize) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let variables = [
            ("WORK", work.to_owned()),
            ("DATA", work.join("data")),
            ("SAMPLES", project.join("samples")),
            ("GUESTS", project.join("tests/guests/wasm")),
        ];
        let variables = variables.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        Self { variables: variables.into(), index, up: None, stdout: String::new(), stderr: String::new() }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (expect_failure, line) = match line.strip_prefix("! ") {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let words = self.words(line)?;
        let rest = &words[1..];
        match words[0].as_str() {
            "up" if expect_failure => {
                let mut flags = vec!["up".to_owned()];
                flags.extend(self.up_flags(rest));
                self.command(env!("CARGO_BIN_EXE_coracle"), &flags, true)
            }
            "up" => {
                self.up = None;
                self.up = Some(Up::start(&self.up_flags(rest), self.work())?);
                Ok(())
            }
            "printed" => self.running()?.wait_for(&rest[0]),
            "stop" => self.up.take().ok_or("nothing is up")?.stop(),
            "kill" => self.up.take().ok_or("nothing is up")?.kill(),
            "stdout" => contains("stdout", &self.stdout, &rest[0], !expect_failure),
            "stderr" => contains("stderr", &self.stderr, &rest[0], !expect_failure),
            "set" => {
                self.command(&rest[1], &rest[2..], false)?;
                self.variables.insert(rest[0].clone(), self.stdout.trim().to_owned());
                Ok(())
            }
            "get" => fetch_until(&rest[0], &rest[1]),
            "retry" => {
                let end = rest.iter().position(|word| word == "--").ok_or("retry needs -- 'text'")?;
                let (command, text) = (&rest[..end], &rest[end + 1]);
                poll(STATE_LIMIT, || {
                    self.command(&command[0], &command[1..], false)?;
                    contains("stdout", &self.stdout, text, !expect_failure)
                })
            }
            "coracle" => self.command(env!("CARGO_BIN_EXE_coracle"), rest, expect_failure),
            program => self.command(program, rest, expect_failure),
        }
    }

    fn work(&self) -> &Path {
        Path::new(&self.variables["WORK"])
    }

    fn running(&self) -> Result<&Up, String> {
        self.up.as_ref().ok_or_else(|| "nothing is up".to_owned())
    }

    /// Every script has a data directory, a port and a range of node ports of its own.
    fn up_flags(&self, more: &[String]) -> Vec<String> {
        let first = 30_000 + 100 * self.index;
        let mut flags = vec![
            format!("--data-dir={}", self.variables["DATA"]),
            format!("--service-node-port-range={first}-{}", first + 99),
        ];
        if !more.iter().any(|flag| flag.starts_with("--listen")) {
            flags.push("--listen=127.0.0.1:0".to_owned());
        }
        flags.extend_from_slice(more);
        flags
    }

    fn command(&mut self, program: &str, arguments: &[String], expect_failure: bool) -> Result<(), String> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.work())
            .env("KUBECONFIG", format!("{}/kubeconfig", self.variables["DATA"]))
            .env("HOME", self.work())
            .env("EDITOR", "sed -i s/before-edit/after-edit/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("failed to run {program}: {error}"))?;
        let stdout = drain(child.stdout.take().expect("piped"));
        let stderr = drain(child.stderr.take().expect("piped"));
        let status = poll(COMMAND_LIMIT, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("the command did not end".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        if status.is_err() {
            let _ = child.kill();
        }
        self.stdout = stdout.join().expect("the reader does not panic");
        self.stderr = stderr.join().expect("the reader does not panic");
        if status?.success() == expect_failure {
            let wanted = if expect_failure { "should have failed" } else { "failed" };
            return Err(format!("the command {wanted}\nstdout: {}\nstderr: {}", self.stdout, self.stderr));
        }
        Ok(())
    }

    fn words(&self, line: &str) -> Result<Vec<String>, String> {
        let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
        for character in line.chars() {
            match character {
                '\'' => {
                    quoted = !quoted;
                    started = true;
                }
                ' ' if !quoted => {
                    if started {
                        words.push(std::mem::take(&mut word));
                    }
                    started = false;
                }
                other => {
                    word.push(other);
                    started = true;
                }
            }
        }
        if quoted {
            return Err("a quote is not closed".to_owned());
        }
        if started {
            words.push(word);
        }
        Ok(words.iter().map(|word| self.expand(word)).collect())
    }

    fn expand(&self, word: &str) -> String {
        let mut word = word.to_owned();
        // Longer names first, so that $PORT2 is not read as $PORT and a 2.
        for (name, value) in self.variables.iter().rev() {
            word = word.replace(&format!("${name}"), value);
        }
        word
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn contains(what: &str, output: &str, text: &str, wanted: bool) -> Result<(), String> {
    if output.contains(text) == wanted {
        return Ok(());
    }
    let verb = if wanted { "lacks" } else { "contains" };
    Err(format!("{what} {verb} {text:?}:\n{output}"))
}

/// Fetches `http://host:port/path` until the answer contains `text`.
fn fetch_until(url: &str, text: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// is fetched")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    poll(STATE_LIMIT, || {
        let answer = fetch(host, path).map_err(|error| format!("failed to fetch {url}: {error}"))?;
        contains("the answer", &answer, text, true)
    })
}

fn fetch(host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
