//! The same guests without Coracle: processes of `wasmtime`, which the system keeps apart.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::kinds::Program;

/// As nice as Linux has it.
const NICENESS: &str = "19";
/// As much as the pods may have.
const MEMORY: &str = "max-memory-size=268435456";
/// A pod whose guest has ended begins once more at once, and after that when a measurement is over.
const LIVES: usize = 2;
/// Between two images of one place, about as long as it takes until a pod is replaced.
const BETWEEN_IMAGES: Duration = Duration::from_millis(100);

/// Processes that run until they are stopped.
pub(super) struct Processes {
    running: JoinSet<()>,
    /// None of them ends by itself.
    are_endless: bool,
}

impl Processes {
    /// `count` at once. What is not in `images` twice runs one after the other.
    pub(super) fn start(
        wasmtime: &Path,
        program: &Program,
        images: Vec<String>,
        count: u64,
    ) -> Result<Self> {
        let folder = Arc::new(TempDir::new().context("failed to make a folder for guests")?);
        let mut places = vec![Vec::new(); usize::try_from(count)?];
        let (used, length) = (images.into_iter(), places.len());
        for (at, image) in used.enumerate() {
            let path = image.strip_prefix("file://").unwrap_or(&image);
            places[at % length].push(PathBuf::from(path));
        }
        let mut running = JoinSet::new();
        for images in places {
            let run = || run(wasmtime, program, &images[0], folder.path());
            let commands: Vec<Command> = match program {
                Program::Made { .. } => images.iter().map(|it| compile(wasmtime, it)).collect(),
                Program::Guest(..) => (0..LIVES).map(|_| run()).collect(),
                Program::Text(_) => vec![run()],
            };
            let folder = folder.clone();
            running.spawn(async move {
                for mut command in commands {
                    // Most fail, as they do in pods.
                    if let Err(error) = command.status().await {
                        eprintln!("a process failed to start: {error}");
                    }
                    sleep(BETWEEN_IMAGES).await;
                }
                drop(folder);
            });
        }
        let are_endless = matches!(program, Program::Text(_));
        Ok(Self {
            running,
            are_endless,
        })
    }

    /// Ends them all; fails when one has ended that should not.
    pub(super) async fn stop(mut self) -> Result<()> {
        let has_ended = self.running.try_join_next().is_some();
        self.running.shutdown().await;
        ensure!(
            !(self.are_endless && has_ended),
            "a component ended in wasmtime, which must be built with wasi-config"
        );
        Ok(())
    }
}

fn run(wasmtime: &Path, program: &Program, image: &Path, folder: &Path) -> Command {
    // Only components ask for settings.
    let (arguments, host): (&[&str], _) = match program {
        Program::Guest(_, arguments) => (arguments, "inherit-network"),
        _ => (&[], "inherit-network,config"),
    };
    let mut command = nicely(wasmtime);
    let root = format!("{}::/", folder.display());
    command
        .args(["run", "-W", MEMORY, "-S", host, "--dir", &root])
        .arg(image)
        .args(arguments);
    command
}

fn compile(wasmtime: &Path, image: &Path) -> Command {
    let mut command = nicely(wasmtime);
    command
        .args(["compile", "--output", "/dev/null"])
        .arg(image);
    command
}

fn nicely(wasmtime: &Path) -> Command {
    let mut command = Command::new("nice");
    command
        .args(["-n", NICENESS])
        .arg(wasmtime)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}
