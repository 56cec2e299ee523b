//! What the fake runtime holds, and how its runs begin and end.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_clock::Clock;
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, watch};

use super::Call;
use super::process::Handler;
use super::script::{Script, Serving};
use crate::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, ExecError, ImageFs, ImageRef,
    ImageStep, PodSandboxConfig, PodSandboxNetwork, RuntimeEvent, SandboxId,
};

/// What all clones of a runtime share.
pub(super) struct Inner {
    pub(super) clock: Clock,
    pub(super) state: Mutex<State>,
    pub(super) events: broadcast::Sender<RuntimeEvent>,
}

/// Scripts, sandboxes, images, and what was asked for.
#[derive(Default)]
pub(super) struct State {
    pub(super) scripts: HashMap<String, Script>,
    pub(super) sandboxes: BTreeMap<SandboxId, Sandbox>,
    pub(super) images: BTreeMap<String, ImageRef>,
    pub(super) image_fs: Option<ImageFs>,
    pub(super) networks: BTreeMap<SandboxId, PodSandboxNetwork>,
    pub(super) charged: HashMap<SandboxId, u64>,
    pub(super) image_folders: HashMap<String, PathBuf>,
    pub(super) calls: Vec<Call>,
    pub(super) exec: Option<Handler>,
    pub(super) attach: Option<Handler>,
    pub(super) serve: Option<Server>,
    pub(super) resize_error: Option<String>,
}

/// Serves one connection to a port.
pub(super) type Server = Arc<dyn Fn(u16, DuplexStream) + Send + Sync>;

/// One pod.
pub(super) struct Sandbox {
    pub(super) config: PodSandboxConfig,
    pub(super) containers: Vec<Container>,
}

/// The latest run of one container.
pub(super) struct Container {
    pub(super) config: ContainerConfig,
    pub(super) status: ContainerStatus,
    pub(super) script: Script,
    /// True once the run has ended.
    pub(super) ended: watch::Sender<bool>,
}

/// Lets one run do what its script says.
pub(super) async fn play(inner: Arc<Inner>, id: ContainerId, run: u32, script: Script) {
    let serve = async {
        match script.serving {
            Serving::After(delay) => {
                tokio::time::sleep(delay).await;
                inner.serve(&id, run);
            }
            Serving::AtOnce | Serving::Never => {}
        }
    };
    let exit = async {
        if let Some(exit) = &script.exit {
            tokio::time::sleep(exit.after).await;
            inner.end(&id, Some(run), exit.code, &exit.reason, &exit.message);
        }
    };
    tokio::join!(serve, exit);
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a run; with `run`, only if it is still that one. False when nothing ran.
    pub(super) fn end(
        &self,
        id: &ContainerId,
        run: Option<u32>,
        code: i32,
        reason: &str,
        message: &str,
    ) -> bool {
        let mut state = self.state();
        let Some(container) = state.container_mut(id) else {
            return false;
        };
        if run.is_some_and(|run| run != container.status.restart_count) {
            return false;
        }
        let ContainerState::Running { started_at, .. } = container.status.state else {
            return false;
        };
        container.status.state = ContainerState::Exited {
            started_at,
            finished_at: self.clock.now(),
            exit_code: code,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        container.ended.send_replace(true);
        self.announce(&container.status);
        true
    }

    fn serve(&self, id: &ContainerId, run: u32) {
        let mut state = self.state();
        let Some(container) = state.container_mut(id) else {
            return;
        };
        if let ContainerState::Running { serving, .. } = &mut container.status.state
            && container.status.restart_count == run
        {
            *serving = true;
            self.announce(&container.status);
        }
    }

    /// Nobody may be listening.
    pub(super) fn announce(&self, status: &ContainerStatus) {
        let _ = self.events.send(RuntimeEvent::Container(status.clone()));
    }

    pub(super) fn progress(&self, image: &str, step: ImageStep) {
        let _ = self.events.send(RuntimeEvent::ImageProgress {
            image: image.to_owned(),
            step,
        });
    }
}

impl State {
    /// Becomes true as the container's run ends.
    pub(super) fn running(&self, id: &ContainerId) -> Result<watch::Receiver<bool>, ExecError> {
        match self.container(id) {
            Some(container) if container.is_running() => Ok(container.ended.subscribe()),
            Some(_) => Err(ExecError::NotRunning(id.clone())),
            None => Err(ExecError::NotFound(id.clone())),
        }
    }

    pub(super) fn container(&self, id: &ContainerId) -> Option<&Container> {
        self.sandboxes
            .get(&id.sandbox)?
            .containers
            .iter()
            .find(|c| c.config.id == *id)
    }

    pub(super) fn container_mut(&mut self, id: &ContainerId) -> Option<&mut Container> {
        let sandbox = self.sandboxes.get_mut(&id.sandbox)?;
        sandbox.containers.iter_mut().find(|c| c.config.id == *id)
    }
}

impl Container {
    pub(super) fn started(config: ContainerConfig, script: Script, clock: &Clock) -> Self {
        let serving = matches!(script.serving, Serving::AtOnce);
        let status = ContainerStatus {
            id: config.id.clone(),
            restart_count: config.restart_count,
            image: config.image.clone(),
            state: ContainerState::Running {
                started_at: clock.now(),
                serving,
            },
        };
        Self {
            config,
            status,
            script,
            ended: watch::Sender::new(false),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.status.state, ContainerState::Running { .. })
    }

    pub(super) fn is_serving(&self) -> bool {
        matches!(
            self.status.state,
            ContainerState::Running { serving: true, .. }
        )
    }
}

/// A number that differs between images, so that their digests do (FNV-1a).
pub(super) fn fingerprint(image: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    image.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

pub(super) fn write_log(path: &PathBuf, lines: &[String], clock: &Clock) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{:.9} stdout F {line}", clock.now()).expect("strings take everything");
    }
    std::fs::write(path, text)
}
