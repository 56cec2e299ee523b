//! A `coracle up` of our own: on loopback, with a data directory that goes with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::kubeconfig::Access;

/// The longest that a cluster may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether a cluster is there; also how exact its start is measured.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// The program to measure, and what it is given.
pub(crate) struct Binary {
    path: PathBuf,
    /// The samples, whose wasm pods may run.
    pub(crate) samples: PathBuf,
    /// Where data directories are made.
    pub(crate) scratch: PathBuf,
    environment: Vec<(String, String)>,
}

impl Binary {
    /// Checks that everything is there.
    pub(crate) fn new(
        path: &Path,
        samples: &Path,
        scratch: Option<PathBuf>,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let path = path.canonicalize().with_context(|| {
            format!(
                "failed to find {}: build it, or name it with --coracle",
                path.display()
            )
        })?;
        let samples = samples.canonicalize().with_context(|| {
            format!(
                "failed to find {}: name the folder with --samples",
                samples.display()
            )
        })?;
        Ok(Self {
            path,
            samples,
            scratch: scratch.unwrap_or_else(std::env::temp_dir),
            environment,
        })
    }

    /// Starts `coracle up` with `flags` and waits for `/readyz`; also says how long that took.
    pub(crate) async fn up(&self, flags: &[&str], clock: &Clock) -> Result<(Cluster, Duration)> {
        let folder = tempfile::Builder::new()
            .prefix("coracle-bench-")
            .tempdir_in(&self.scratch)
            .context("failed to make a data directory")?;
        // Freed for the cluster; nobody else takes it in the few milliseconds between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = folder.path().join("data");
        let mut command = Command::new(&self.path);
        command
            .args([
                "up",
                "--no-kubeconfig",
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .arg("--data-dir")
            .arg(&data)
            .arg("--allow-images-from")
            .arg(&self.samples)
            .args(flags)
            .env("HOME", folder.path())
            .env_remove("KUBECONFIG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let start = clock.monotonic();
        let mut process = command
            .spawn()
            .with_context(|| format!("failed to run {}", self.path.display()))?;
        let kubeconfig = data.join("kubeconfig");
        let access = tokio::select! {
            access = timeout(LIMIT, ready(&kubeconfig)) => access.context("the cluster did not get ready")??,
            status = process.wait() => bail!("{} ended: {}", self.path.display(), status?),
        };
        let took = clock.monotonic() - start;
        let pid = process.id().context("the cluster ended")?;
        Ok((
            Cluster {
                process,
                pid,
                access,
                folder,
            },
            took,
        ))
    }
}

/// Waits for the kubeconfig, and then for `/readyz` to say `ok`, as a user's script would.
async fn ready(kubeconfig: &Path) -> Result<Access> {
    while !kubeconfig.exists() {
        sleep(LOOK_EVERY).await;
    }
    let access = Access::load(kubeconfig, Protocol::Http1.alpn())?;
    let mut connection = Connection::open(&access, Protocol::Http1).await?;
    loop {
        let (status, body) = connection
            .exchange(http::Method::GET, "/readyz", bytes::Bytes::new())
            .await?;
        if status.is_success() && &body[..] == b"ok" {
            return Ok(access);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A running cluster; killed when it is dropped.
pub(crate) struct Cluster {
    process: Child,
    /// Its process.
    pub(crate) pid: u32,
    /// How to reach it over HTTP/1.1.
    pub(crate) access: Access,
    folder: TempDir,
}

impl Cluster {
    /// Its kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("data").join("kubeconfig")
    }

    /// The folder on the disk that the store writes to.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it as Ctrl-C does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).context("failed to stop the cluster")?;
        }
        timeout(LIMIT, self.process.wait())
            .await
            .context("the cluster did not stop")??;
        Ok(())
    }
}
