//! One `coracle up` of a script.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a start may take; compiling a guest the first time included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// Between two looks at a state.
const INTERVAL: Duration = Duration::from_millis(50);

/// A running `coracle up`, killed when dropped.
pub(crate) struct Up {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Up {
    /// Starts it and waits until it says that it is up.
    pub(crate) fn start(
        flags: &[String],
        work: &Path,
        environment: &BTreeMap<String, String>,
        stdin: Stdio,
    ) -> Result<Self, String> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_coracle"))
            .arg("up")
            .args(flags)
            .current_dir(work)
            .env("HOME", work)
            .env_remove("KUBECONFIG")
            .envs(environment)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("failed to start coracle: {error}"))?;
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        let mut up = Self { child, output };
        let started = poll(START_LIMIT, || match up.child.try_wait() {
            Ok(None) if up.output().contains("coracle is up at ") => Ok(Ok(())),
            Ok(None) => Err("it did not say that it is up".to_owned()),
            Ok(Some(status)) => Ok(Err(format!("it ended: {status}\n{}", up.output()))),
            Err(error) => Ok(Err(error.to_string())),
        })?;
        started?;
        Ok(up)
    }

    /// Everything printed so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }

    /// Waits until `text` was printed.
    pub(crate) fn wait_for(&self, text: &str) -> Result<(), String> {
        poll(crate::script::STATE_LIMIT, || {
            if self.output().contains(text) {
                Ok(())
            } else {
                Err(format!("it did not print {text:?}"))
            }
        })
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// Waits for the end; fails when it does not come in time, or with another code than `code`.
    pub(crate) fn ends_with(mut self, code: i32) -> Result<(), String> {
        let status = self.ended(STOP_LIMIT)?;
        if status.code() == Some(code) {
            Ok(())
        } else {
            Err(format!("it ended with {status}\n{}", self.output()))
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<(), String> {
        self.child.kill().map_err(|error| error.to_string())?;
        self.child
            .wait()
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn ended(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        poll(limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it did not end".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends the lines that come to `into`, on a thread of its own.
pub(crate) fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut output = into.lock().expect("no reader panics");
            output.push_str(&line);
            output.push('\n');
        }
    });
}

/// Asks until the answer is `Ok`, or `limit` is over; then the last answer is the error.
pub(crate) fn poll<T>(
    limit: Duration,
    mut ask: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let attempts = (limit.as_millis() / INTERVAL.as_millis()).max(1);
    let mut last = String::new();
    for _ in 0..attempts {
        match ask() {
            Ok(value) => return Ok(value),
            Err(error) => last = error,
        }
        std::thread::sleep(INTERVAL);
    }
    Err(format!("gave up after {limit:?}: {last}"))
}
