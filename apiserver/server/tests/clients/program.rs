//! A client that is a program: where it is, and how its script is run.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::server::ServedApi;

/// A script that is not done by then waits for something that does not come.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks whether it is done.
const INTERVAL: Duration = Duration::from_millis(20);

/// A script and what runs it.
pub(crate) struct Program {
    interpreter: OsString,
    script: &'static str,
    /// For the script: the folder that its packages are in.
    packages: Option<PathBuf>,
}

/// A Python that has the package `kubernetes`, or why there is none.
pub(crate) fn python() -> Result<Program, String> {
    let installed = installed("python/bin/python");
    let interpreter = std::env::var_os("CORACLE_PYTHON")
        .or(installed.exists().then(|| installed.into_os_string()))
        .unwrap_or_else(|| OsString::from("python3"));
    succeeds(Command::new(&interpreter).args(["-c", "import kubernetes"]))
        .then(|| Program {
            interpreter: interpreter.clone(),
            script: "client.py",
            packages: None,
        })
        .ok_or_else(|| {
            format!(
                "{} has no package kubernetes",
                interpreter.to_string_lossy()
            )
        })
}

/// A Node.js with the package `@kubernetes/client-node`, or why there is none.
pub(crate) fn node() -> Result<Program, String> {
    let packages = std::env::var_os("CORACLE_NODE_MODULES")
        .map_or_else(|| installed("node_modules"), PathBuf::from);
    if !succeeds(Command::new("node").arg("--version")) {
        return Err("no node is on the PATH".to_owned());
    }
    if !packages.join("@kubernetes/client-node").exists() {
        return Err("no @kubernetes/client-node is installed".to_owned());
    }
    Ok(Program {
        interpreter: OsString::from("node"),
        script: "client.mjs",
        packages: Some(packages),
    })
}

impl Program {
    /// Runs the script to its end; what it printed is the error when a check failed.
    pub(crate) fn run(&self, server: &ServedApi) -> Result<(), String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let printed = server.folder().join("printed");
        let output = File::create(&printed).map_err(|error| error.to_string())?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.interpreter);
        command
            .arg(folder.join(self.script))
            .current_dir(server.folder())
            .env("KUBECONFIG", server.kubeconfig())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        if let Some(packages) = &self.packages {
            command.env("CORACLE_NODE_MODULES", packages);
        }
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let ended = match end(&mut child) {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error,
        };
        let printed = std::fs::read_to_string(printed).unwrap_or_default();
        Err(format!("{ended}\n{printed}"))
    }
}

/// Waits for the end, and brings it about when it is late.
fn end(child: &mut Child) -> Result<ExitStatus, String> {
    for _ in 0..LIMIT.as_millis() / INTERVAL.as_millis() {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => std::thread::sleep(INTERVAL),
            Err(error) => return Err(error.to_string()),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("not done after {LIMIT:?}"))
}

/// A path in the folder that `.ci/clients` installs into.
fn installed(path: &str) -> PathBuf {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    scratch.with_file_name("clients").join(path)
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
