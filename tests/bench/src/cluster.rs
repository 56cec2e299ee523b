//! A server of our own, on loopback, with a data directory that goes with it: `coracle up`, or the example `serve` of
//! `coracle-server`, which is the API server alone.

use std::fs;
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

use crate::access::{Access, read};
use crate::client::{Connection, Protocol};
use crate::kubeconfig;

/// The longest that a cluster may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(60);
/// How often is looked whether a cluster is there; also how exact its start is measured.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// What the API server alone takes for an administrator.
pub(crate) const TOKEN: &str = "bench";

/// Which program to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The binary, with everything in it.
    Coracle,
    /// The example `serve`: the API server and its store, nothing else.
    Serve,
}

/// The program to measure, and what it is given.
pub(crate) struct Binary {
    program: Program,
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
        program: Program,
        path: &Path,
        samples: &Path,
        scratch: Option<PathBuf>,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let path = path.canonicalize().with_context(|| {
            format!(
                "failed to find {}: build it, or name it with --coracle or --serve",
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
            program,
            path,
            samples,
            scratch: scratch.unwrap_or_else(std::env::temp_dir),
            environment,
        })
    }

    /// Which program this is.
    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// Starts the program with `flags` on an empty data directory and waits for `/readyz`; also says how long that
    /// took.
    pub(crate) async fn up(&self, flags: &[&str], clock: &Clock) -> Result<(Cluster, Duration)> {
        let folder = tempfile::Builder::new()
            .prefix("coracle-bench-")
            .tempdir_in(&self.scratch)
            .context("failed to make a data directory")?;
        self.up_in(folder, flags, clock).await
    }

    /// The same on the data directory of an earlier cluster.
    pub(crate) async fn up_in(
        &self,
        folder: TempDir,
        flags: &[&str],
        clock: &Clock,
    ) -> Result<(Cluster, Duration)> {
        // Freed for the cluster; nobody else takes it in the few milliseconds between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(&self.path);
        let access = match self.program {
            Program::Coracle => self.prepare_coracle(&mut command, &listen, folder.path()),
            Program::Serve => prepare_serve(&mut command, &listen, folder.path())?,
        };
        command
            .args(flags)
            .env("HOME", folder.path())
            .env_remove("KUBECONFIG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        // What an earlier start said about reaching it.
        if access.path().exists() {
            fs::remove_file(access.path())?;
        }
        let start = clock.monotonic();
        let mut process = command
            .spawn()
            .with_context(|| format!("failed to run {}", self.path.display()))?;
        let access = tokio::select! {
            access = timeout(LIMIT, ready(&access)) => access.context("the cluster did not get ready")??,
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

    fn prepare_coracle(&self, command: &mut Command, listen: &str, folder: &Path) -> Way {
        let data = folder.join("data");
        command
            .args(["up", "--no-kubeconfig", "--listen", listen])
            .arg("--data-dir")
            .arg(&data)
            .arg("--allow-images-from")
            .arg(&self.samples);
        Way::Kubeconfig(data.join("kubeconfig"))
    }
}

fn prepare_serve(command: &mut Command, listen: &str, folder: &Path) -> Result<Way> {
    let (tokens, ca) = (folder.join("tokens.csv"), folder.join("ca.crt"));
    fs::write(&tokens, format!("{TOKEN},bench,bench,\"system:masters\"\n"))?;
    command
        .args(["--listen", listen])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--token-auth-file")
        .arg(tokens)
        .arg("--ca-out")
        .arg(&ca);
    Ok(Way::Authority {
        server: format!("https://{listen}"),
        ca,
    })
}

/// How a server that is starting will say how it is reached.
enum Way {
    /// By writing a kubeconfig.
    Kubeconfig(PathBuf),
    /// By writing its certificate.
    Authority { server: String, ca: PathBuf },
}

impl Way {
    fn path(&self) -> &Path {
        match self {
            Self::Kubeconfig(path) | Self::Authority { ca: path, .. } => path,
        }
    }

    fn access(&self) -> Result<Access> {
        match self {
            Self::Kubeconfig(path) => kubeconfig::load(path),
            Self::Authority { server, ca } => {
                Access::new(server, &read(ca)?, None, Some(TOKEN.to_owned()))
            }
        }
    }
}

/// Waits for the file that says how, and then for `/readyz` to say `ok`, as a user's script would.
async fn ready(way: &Way) -> Result<Access> {
    while !way.path().exists() {
        sleep(LOOK_EVERY).await;
    }
    let access = way.access()?;
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
    /// How to reach it.
    pub(crate) access: Access,
    folder: TempDir,
}

impl Cluster {
    /// The folder on the disk that the store writes to.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it as Ctrl-C does.
    pub(crate) async fn stop(self) -> Result<()> {
        self.end(Signal::INT).await.map(drop)
    }

    /// Ends it with `signal`; its data is left for another start.
    pub(crate) async fn end(mut self, signal: Signal) -> Result<TempDir> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, signal).context("failed to stop the cluster")?;
        }
        timeout(LIMIT, self.process.wait())
            .await
            .context("the cluster did not stop")??;
        Ok(self.folder)
    }
}
