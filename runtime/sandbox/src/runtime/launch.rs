//! From a container's configuration to a run that can begin.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_cri::{ContainerConfig, ImageError, Mount, RuntimeError, TerminationMessage};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::Inner;
use crate::attach::standard_input;
use crate::container::{Guest, Prepared, Stdio, StopSignal, prepare};
use crate::exec::GuestEnd;
use crate::exit::Exit;
use crate::hosts::keyvalue::Buckets;
use crate::image::apply_image;
use crate::logs::{LogFile, LogQueue, LogWriter, Rotation, remove_runs_before};
use crate::pod::{Pod, Run};
use crate::preopens::{PodFiles, Preopens};
use crate::termination::Termination;

/// A run that holds everything it needs.
pub(super) struct Launched {
    prepared: Prepared,
    stdin: GuestEnd,
    logs: Arc<LogQueue>,
    writer: LogWriter,
    termination: Termination,
    _place: Option<OwnedSemaphorePermit>,
}

impl Launched {
    /// Runs to the end; then the log is complete.
    pub(super) async fn run(self, stop: StopSignal) -> Exit {
        let exit = self.prepared.run(stop).await;
        self.logs.close();
        self.logs.audience().close(&exit.message);
        self.stdin.pipe.abandon();
        self.writer.finish().await;
        self.termination.explain(exit).await
    }
}

impl Inner {
    /// Makes everything that a run of the container `config` needs.
    pub(super) async fn launch(
        &self,
        pod: &Arc<Pod>,
        run: &Arc<Run>,
        mut config: ContainerConfig,
    ) -> Result<Launched, RuntimeError> {
        let refused = |error: ImageError| RuntimeError::Start(error.to_string());
        let image = &config.image;
        let setup = self.images.setup(image, &config.command).await;
        let setup = setup.map_err(refused)?;
        let program = self
            .compiler
            .program(&setup.program, &image.image, |_| {})
            .await;
        let program = program.map_err(refused)?;
        apply_image(&setup.run, &mut config);
        // At rest the others need no instance; each request or call takes a place of its own.
        let place = match program.linked.is_command() {
            true => Some(self.admit()?),
            false => None,
        };
        let files = Files::of(pod, &config, setup.root);
        let clock = self.clock.clone();
        // At once, since each way to such a thread and back costs more than a file.
        let made = tokio::task::spawn_blocking(move || files.make(clock)).await;
        let made = made.map_err(|error| RuntimeError::Start(error.to_string()))?;
        let (preopens, termination, log) = made?;
        let buckets = Buckets::choose(&config.annotations, &preopens, &pod.keyvalue, &self.volumes);
        let logs = LogQueue::new(self.clock.clone());
        let stdin = standard_input(config.stdin, config.stdin_once, config.tty);
        let guest = Arc::new(Guest {
            program,
            is_toolbox: false,
            hostname: pod.config.hostname.clone(),
            preopens,
            scope: pod.namespace.scope(),
            memory: run.memory.clone(),
            cpu: run.cpu.clone(),
            logs: logs.clone(),
            trust: self.trust.clone(),
            connections: Arc::default(),
            buckets,
            stdio: Stdio::Container(stdin.clone()),
            engine: self.engine.clone(),
            threads: self.guests.threads(),
            away: TaskTracker::new(),
            admission: self.admission.clone(),
            config: config.clone(),
        });
        let prepared = prepare(guest.clone())?;
        // Last, as it has a task that only the end of a run lets go.
        let threads = self.guests.threads();
        let writer = LogWriter::start(log, logs.clone(), pod.log_rate.clone(), threads);
        run.set_guest(Some(guest));
        Ok(Launched {
            prepared,
            stdin,
            logs,
            writer,
            termination,
            _place: place,
        })
    }

    /// A place for an instance that lives as long as its container.
    fn admit(&self) -> Result<OwnedSemaphorePermit, RuntimeError> {
        let place = self.admission.clone().try_acquire_owned();
        place.map_err(|_| RuntimeError::Exhausted(self.places.refusal()))
    }
}

/// What a run needs on the disk.
struct Files {
    root: PathBuf,
    image: Option<PathBuf>,
    of_pod: PodFiles,
    mounts: Vec<Mount>,
    read_only_root: bool,
    log: PathBuf,
    /// The run before this one, whose log is the last that can still be asked for.
    run_before: u32,
    message: TerminationMessage,
}

impl Files {
    fn of(pod: &Pod, config: &ContainerConfig, image: Option<PathBuf>) -> Self {
        Self {
            root: pod.roots.join(&config.id.name),
            image,
            of_pod: pod.files(),
            mounts: config.mounts.clone(),
            read_only_root: config.read_only_root,
            log: log_path(&pod.config.log_directory, config),
            run_before: config.restart_count.saturating_sub(1),
            message: config.termination_message.clone(),
        }
    }

    /// Makes all of it. Blocks on the disk.
    fn make(self, clock: Clock) -> Result<(Preopens, Termination, LogFile), RuntimeError> {
        let Self {
            root,
            log,
            run_before,
            message,
            ..
        } = self;
        let file = message.path.clone();
        let failed = |what: String| {
            move |error: io::Error| RuntimeError::Start(format!("failed to {what}: {error}"))
        };
        let mut preopens = Preopens::prepare(&root, self.image, &self.of_pod, &self.mounts)?;
        if self.read_only_root {
            preopens
                .freeze_root(&root, &file)
                .map_err(failed(format!("make the folder of {file}")))?;
        }
        let termination = Termination::prepare(root, log.clone(), message)
            .map_err(failed(format!("make {file}")))?;
        if run_before > 0
            && let Some(folder) = log.parent()
            && let Err(error) = remove_runs_before(run_before, folder)
        {
            // They cost disk, and the container nothing.
            tracing::warn!(folder = %folder.display(), %error, "logs of former runs stay");
        }
        let what = format!("open the log file {}", log.display());
        let log = LogFile::open(log, Rotation::default(), clock).map_err(failed(what))?;
        Ok((preopens, termination, log))
    }
}

fn log_path(folder: &Path, config: &ContainerConfig) -> PathBuf {
    folder
        .join(&config.id.name)
        .join(format!("{}.log", config.restart_count))
}
