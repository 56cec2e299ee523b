//! `exec`: a sibling of a running container, with its files, environment, network and limits.
//!
//! ```text
//! find ─▶ Target ─▶ session::start ─▶ a task on the guests' threads
//!                        │                  │ pipes (pipe.rs), or a terminal (terminal.rs)
//!                        └── Session ◀──────┘
//!
//! it ends with:  its own end · ^C (130) · the container's run (137) · the session, dropped
//! ```
//!
//! A wasm instance cannot be entered while it runs: no thread of a second program may work in its
//! memory. So what runs here is an instance of its own. Files, pod addresses and environment are
//! shared; variables in memory are not.

mod call;
mod facts;
mod find;
mod nearest;
mod pipe;
mod session;
mod terminal;
mod toolbox;
mod view;

pub(crate) use pipe::{GuestEnd, Pipe, Reader, Writer};
pub(crate) use terminal::{LineEditor, TerminalWriter};
pub(crate) use view::open_below;

use std::sync::Arc;

use coracle_cri::{ExecError, ExecRequest, Session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::compile::Compiler;
use crate::container::Guest;
use crate::engine::GuestEngine;
use crate::pod::{Pod, Run};

/// Sessions of one pod at once, attached clients included.
pub(crate) const SESSIONS_PER_POD: usize = 16;

/// Probes and hooks of one pod at once; others wait.
pub(crate) const OWN_SESSIONS_PER_POD: usize = 16;

/// What the runtime gives.
pub(crate) struct Surroundings<'a> {
    pub(crate) compiler: &'a Compiler,
    pub(crate) engine: &'a Arc<GuestEngine>,
    pub(crate) admission: &'a Arc<Semaphore>,
}

/// A place among the pod's sessions.
pub(crate) fn place(pod: &Pod) -> Result<OwnedSemaphorePermit, ExecError> {
    pod.sessions.clone().try_acquire_owned().map_err(|_| {
        ExecError::Exhausted(format!(
            "pod {} has {SESSIONS_PER_POD} exec sessions and attached clients, the most at once; end \
             one of them",
            pod.config.pod
        ))
    })
}

/// The same for the node's own, for whoever's turn it is.
async fn own_place(pod: &Pod) -> Result<OwnedSemaphorePermit, ExecError> {
    let place = pod.own_sessions.clone().acquire_owned().await;
    place.map_err(|error| ExecError::Failed(error.to_string()))
}

/// Runs a command beside `run`, whose surroundings are those of `guest`.
pub(crate) async fn exec(
    surroundings: Surroundings<'_>,
    pod: Arc<Pod>,
    run: Arc<Run>,
    guest: Arc<Guest>,
    request: ExecRequest,
) -> Result<Session, ExecError> {
    let place = match request.waits {
        true => own_place(&pod).await?,
        false => place(&pod)?,
    };
    let instance = surroundings.admission.clone().try_acquire_owned();
    let instance = instance.map_err(|_| {
        ExecError::Exhausted(
            "this node runs as many instances as it may; the bound is the lower one of its \
             configuration and of the sysctl vm.max_map_count"
                .to_owned(),
        )
    })?;
    let command = &request.command;
    let target = find::find(surroundings.compiler, surroundings.engine, &guest, command).await?;
    session::start(pod, run, &guest, target, request.streams, (place, instance)).await
}
