//! A registry of a script: Debian's `docker-registry`, with a password.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The user `jane` with the password `secret`, as `htpasswd -B` writes it.
const USERS: &str = "jane:$2y$05$CoracleTestRegistrySaecYlLw0yqj4/Iw0sXl6qmF49443DhgkG\n";

/// A running registry, killed when dropped.
pub(crate) struct Registry {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

/// Whether it is installed.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("docker-registry")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

impl Registry {
    /// Starts one with its files in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let folder = folder.join("registry");
        let failed = |error: std::io::Error| format!("failed to start a registry: {error}");
        std::fs::create_dir_all(&folder).map_err(failed)?;
        std::fs::write(folder.join("users"), USERS).map_err(failed)?;
        let (storage, users) = (folder.join("storage"), folder.join("users"));
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            storage.display(),
            users.display()
        );
        std::fs::write(folder.join("config.yml"), config).map_err(failed)?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
            Some(rest[..end.unwrap_or(rest.len())].to_owned())
        });
        // Whatever it says further must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut registry = Self {
            child,
            address: String::new(),
        };
        registry.address = address.ok_or("the registry did not say where it listens")?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
