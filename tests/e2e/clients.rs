//! Other clients than kubectl, which `.ci/clients` installs into `target/clients`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Python with the package `kubernetes`; `CORACLE_PYTHON` may name another.
pub(crate) fn python() -> PathBuf {
    found("CORACLE_PYTHON", "python/bin/python")
}

/// The folder with `@kubernetes/client-node` in it; `CORACLE_NODE_MODULES` may name another.
pub(crate) fn node_modules() -> PathBuf {
    found("CORACLE_NODE_MODULES", "node_modules")
}

/// Whether both are there, and Node.js.
pub(crate) fn are_installed() -> bool {
    let succeeds = |program: OsString, arguments: &[&str]| {
        let mut command = Command::new(program);
        let quiet = command.args(arguments).stdout(Stdio::null());
        let status = quiet.stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    node_modules().join("@kubernetes/client-node").exists()
        && succeeds("node".into(), &["--version"])
        && succeeds(python().into_os_string(), &["-c", "import kubernetes"])
}

fn found(variable: &str, path: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    std::env::var_os(variable).map_or_else(|| installed.join(path), PathBuf::from)
}
