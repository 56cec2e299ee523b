//! From a container's configuration to a run that can begin.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_cri::{ContainerConfig, ImageError, RuntimeError};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::Inner;
use crate::attach::standard_input;
use crate::container::{Guest, Prepared, Stdio, StopSignal, prepare};
use crate::exec::GuestEnd;
use crate::exit::Exit;
use crate::hosts::keyvalue::Buckets;
use crate::image::apply_image;
use crate::logs::{LogQueue, LogWriter, Rotation};
use crate::pod::{Pod, Run};
use crate::preopens::Preopens;
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
        let root = pod.roots.join(&config.id.name);
        let mut preopens =
            Preopens::prepare(&root, setup.root, &pod.files(), &config.mounts).await?;
        if config.read_only_root {
            let file = &config.termination_message.path;
            let frozen = preopens.freeze_root(&root, file).await;
            frozen.map_err(|error| {
                RuntimeError::Start(format!("failed to make the folder of {file}: {error}"))
            })?;
        }
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
        let path = log_path(&pod.config.log_directory, &config);
        let termination =
            Termination::prepare(root, path.clone(), config.termination_message.clone()).await;
        let termination = termination.map_err(|error| {
            let file = &config.termination_message.path;
            RuntimeError::Start(format!("failed to make {file}: {error}"))
        })?;
        // Last, as it has a task and a file that only the end of a run lets go.
        let writer = LogWriter::start(
            path.clone(),
            logs.clone(),
            Rotation::default(),
            pod.log_rate.clone(),
            self.clock.clone(),
            self.guests.threads(),
        );
        let writer = writer.await.map_err(|error| {
            RuntimeError::Start(format!(
                "failed to open the log file {}: {error}",
                path.display()
            ))
        })?;
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

fn log_path(folder: &Path, config: &ContainerConfig) -> PathBuf {
    folder
        .join(&config.id.name)
        .join(format!("{}.log", config.restart_count))
}
