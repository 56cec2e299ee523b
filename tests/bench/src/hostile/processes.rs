//! The same guests without Coracle: processes of `wasmtime`, which the system keeps apart.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
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
/// A pod whose guest has ended begins once more at once, and after that not before a usual measurement is over.
const LIVES: usize = 2;
/// Between two images of one place, about as long as it takes until a pod is replaced.
const BETWEEN_IMAGES: Duration = Duration::from_millis(100);
/// Until guests have been compiled and run, and until processes that were ended have gone.
const SETTLES: Duration = Duration::from_secs(1);

/// Processes that run until they are stopped.
pub(super) struct Processes {
    /// How the last one of each place ended.
    running: JoinSet<Result<ExitStatus>>,
    is_endless: bool,
}

impl Processes {
    /// `count` at once, each with a folder of its own. Images that are no two alike run one after the other.
    pub(super) async fn start(
        wasmtime: &Path,
        program: &Program,
        images: Vec<String>,
        count: u64,
    ) -> Result<Self> {
        let mut places = vec![Vec::new(); usize::try_from(count)?];
        let length = places.len();
        for (at, image) in images.into_iter().enumerate() {
            let path = image.strip_prefix("file://").unwrap_or(&image);
            places[at % length].push(PathBuf::from(path));
        }
        let mut running = JoinSet::new();
        for images in places {
            let folder = TempDir::new().context("failed to make a folder for a guest")?;
            let run = || run(wasmtime, program, &images[0], folder.path());
            let commands: Vec<Command> = match program {
                Program::Made { .. } => images.iter().map(|it| compile(wasmtime, it)).collect(),
                Program::Guest(..) => (0..LIVES).map(|_| run()).collect(),
                Program::Text(_) => vec![run()],
            };
            running.spawn(one_after_the_other(commands, folder));
        }
        let mut processes = Self {
            running,
            is_endless: program.is_endless(),
        };
        if processes.is_endless {
            sleep(SETTLES).await;
            processes.look()?;
        }
        Ok(processes)
    }

    /// Ends them all. Fails when some could not be started, or have ended by themselves that should not.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.look()?;
        self.running.shutdown().await;
        sleep(SETTLES).await;
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        while let Some(ended) = self.running.try_join_next() {
            let status = ended??;
            ensure!(
                !self.is_endless,
                "a guest ended in wasmtime ({status}), which must be built with wasi-config"
            );
        }
        Ok(())
    }
}

async fn one_after_the_other(commands: Vec<Command>, _folder: TempDir) -> Result<ExitStatus> {
    let mut last = ExitStatus::default();
    for mut command in commands {
        last = command.status().await.context("failed to run nice")?;
        // Most fail, as they do in pods; but this is what `nice` says of what it cannot run.
        ensure!(
            !matches!(last.code(), Some(126 | 127)),
            "wasmtime cannot be run: name it with --wasmtime"
        );
        sleep(BETWEEN_IMAGES).await;
    }
    Ok(last)
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
