//! The same guests without Coracle: processes of `wasmtime`, which the system keeps apart.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::kinds::Program;

/// As nice as Linux has it.
const NICENESS: &str = "19";
/// As much as the pods may have.
const MEMORY: &str = "max-memory-size=268435456";
/// A pod whose guest has ended begins once more at once, and after that not before a usual measurement is over.
const LIVES: usize = 2;
/// Between two images of one place, about as long as it takes until a pod is replaced.
const BETWEEN_IMAGES: Duration = Duration::from_millis(100);
/// Processes that run until they are stopped.
pub(super) struct Processes {
    /// How the last one of each place ended.
    running: JoinSet<Result<ExitStatus>>,
    stop: watch::Sender<()>,
    is_endless: bool,
}

impl Processes {
    /// `count` at once, each with a folder of its own. Images that are no two alike are compiled one after the other;
    /// others have been before, as those of pods.
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
        let (stop, stopped) = watch::channel(());
        let mut running = JoinSet::new();
        for images in places {
            let folder = TempDir::new().context("failed to make a folder for a guest")?;
            let mut commands = Vec::new();
            if let Program::Made { .. } = program {
                let none = Path::new("/dev/null");
                commands.extend(images.iter().map(|image| compile(wasmtime, image, none)));
            } else {
                let compiled = folder.path().join("guest.cwasm");
                let made = compile(wasmtime, &images[0], &compiled).status().await?;
                ensure!(
                    made.success(),
                    "wasmtime failed to compile a guest ({made}): name it with --wasmtime"
                );
                let lives = if program.is_endless() { 1 } else { LIVES };
                let run = || run(wasmtime, program, &compiled, folder.path());
                commands.extend((0..lives).map(|_| run()));
            }
            running.spawn(one_after_the_other(commands, folder, stopped.clone()));
        }
        Ok(Self {
            running,
            stop,
            is_endless: program.is_endless(),
        })
    }

    /// Ends them all and waits until they have gone. Fails when some could not be started, or had ended by themselves that
    /// should not.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(ended) = self.running.try_join_next() {
            let status = ended??;
            ensure!(
                !self.is_endless,
                "a guest ended in wasmtime ({status}), which must be built with wasi-config"
            );
        }
        // All that listen hear it.
        let _ = self.stop.send(());
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Runs them until all have ended or `stopped` says so.
async fn one_after_the_other(
    commands: Vec<Command>,
    _folder: TempDir,
    mut stopped: watch::Receiver<()>,
) -> Result<ExitStatus> {
    let mut last = ExitStatus::default();
    for mut command in commands {
        let mut child = command.spawn().context("failed to run nice")?;
        tokio::select! {
            ended = child.wait() => last = ended?,
            _ = stopped.changed() => {
                child.kill().await?;
                return Ok(last);
            }
        }
        // Most fail, as they do in pods; but this is what `nice` says of what it cannot run.
        ensure!(
            !matches!(last.code(), Some(126 | 127)),
            "wasmtime cannot be run: name it with --wasmtime"
        );
        // The next image comes no sooner than to a pod.
        if timeout(BETWEEN_IMAGES, stopped.changed()).await.is_ok() {
            break;
        }
    }
    Ok(last)
}

fn run(wasmtime: &Path, program: &Program, compiled: &Path, folder: &Path) -> Command {
    // Only components ask for settings.
    let (arguments, host): (&[&str], _) = match program {
        Program::Guest(_, arguments) => (arguments, "inherit-network"),
        _ => (&[], "inherit-network,config"),
    };
    let mut command = nicely(wasmtime);
    let root = format!("{}::/", folder.display());
    command
        .args(["run", "--allow-precompiled", "-W", MEMORY, "-S", host])
        .args(["--dir", &root])
        .arg(compiled)
        .args(arguments);
    command
}

fn compile(wasmtime: &Path, image: &Path, to: &Path) -> Command {
    let mut command = nicely(wasmtime);
    command.args(["compile", "--output"]).arg(to).arg(image);
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
