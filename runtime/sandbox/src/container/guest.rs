//! What all instances of one run share, and how the state of an instance is made from it.

use std::sync::Arc;

use coracle_cri::ContainerConfig;
use coracle_network::SocketScope;
use tokio::io::AsyncWrite;
use tokio_util::task::TaskTracker;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::StdoutStream;
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_http::WasiHttpCtx;

use super::outgoing::{OutgoingHttp, Pool};
use crate::compile::Program;
use crate::cpu::CpuShare;
use crate::engine::GuestEngine;
use crate::exec::GuestEnd;
use crate::handles::handle_limit;
use crate::hosts::keyvalue::Buckets;
use crate::link::random::PIECE;
use crate::link::{ComponentState, ModuleState};
use crate::logs::{GuestOutput, LogQueue};
use crate::memory::{MemoryBudget, StoreMemory};
use crate::metered::Metered;
use crate::preopens::Preopens;
use crate::sockets::p1::{FdTable, Listeners, nonblocking};
use crate::threads::GuestThreads;
use crate::tls::TlsTrust;
use crate::world::World;

/// What the standard streams are.
pub(crate) enum Stdio {
    /// Output goes to the log and to whoever is attached, who may feed this input.
    Container(GuestEnd),
    /// The streams of an exec session.
    Session {
        stdin: GuestEnd,
        stdout: GuestEnd,
        stderr: GuestEnd,
    },
}

/// A run's surroundings.
pub(crate) struct Guest {
    pub(crate) program: Arc<Program>,
    pub(crate) config: ContainerConfig,
    /// The program is ours and not the image's.
    pub(crate) is_toolbox: bool,
    pub(crate) hostname: String,
    pub(crate) preopens: Preopens,
    pub(crate) scope: SocketScope,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) cpu: Arc<CpuShare>,
    pub(crate) logs: Arc<LogQueue>,
    pub(crate) trust: Arc<TlsTrust>,
    /// Connections of its outgoing requests, kept for the next ones.
    pub(crate) connections: Arc<Pool>,
    pub(crate) buckets: Buckets,
    pub(crate) stdio: Stdio,
    pub(crate) engine: Arc<GuestEngine>,
    /// Where instances run.
    pub(crate) threads: GuestThreads,
    /// Instances that run on the threads of heavy guests.
    pub(crate) away: TaskTracker,
    /// Bounds the instances of the node.
    pub(crate) admission: Arc<tokio::sync::Semaphore>,
}

impl Guest {
    /// Runs `work` of this guest, measured and limited.
    pub(crate) fn meter<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Metered<T> {
        let heavy = self.threads.heavy.clone();
        Metered::new(Box::pin(work), self.cpu.clone(), heavy, self.away.clone())
    }

    /// Waits until all work that was dropped is gone from whatever thread it was on.
    pub(crate) async fn is_gone(&self) {
        self.away.close();
        self.away.wait().await;
    }

    pub(crate) fn module_state(&self, listeners: Listeners) -> wasmtime::Result<ModuleState> {
        let mut context = self.context(listeners.environment());
        self.preopens.open(&mut context)?;
        if let Some(working_dir) = self.relative_to() {
            self.preopens.open_working_dir(&mut context, working_dir)?;
        }
        let mut wasi = context.build_p1();
        let go = matches!(self.program.world, World::Preview1 { go: true });
        let nonblocking = nonblocking(go, &self.config.annotations);
        let fds = FdTable::new(listeners, nonblocking, self.scope.clone(), &mut wasi);
        let memory = StoreMemory::new(self.memory.clone());
        Ok(ModuleState { wasi, fds, memory })
    }

    pub(crate) fn component_state(self: &Arc<Self>) -> wasmtime::Result<ComponentState> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(handle_limit());
        Ok(ComponentState {
            guest: self.clone(),
            wasi: self.context(Vec::new()).build(),
            table,
            http: WasiHttpCtx::new(),
            outgoing: OutgoingHttp::new(
                self.scope.clone(),
                self.trust.clone(),
                self.logs.clone(),
                self.connections.clone(),
            ),
            scope: self.scope.clone(),
            memory: StoreMemory::new(self.memory.clone()),
        })
    }

    fn outputs(&self, stdin: &GuestEnd) -> (GuestOutput, GuestOutput) {
        match stdin.terminal {
            true => GuestOutput::terminal(&self.logs),
            false => GuestOutput::pair(&self.logs),
        }
    }

    /// Standard error for what a host function has to say; its lines do not mix with the guest's.
    pub(crate) fn error_output(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        match &self.stdio {
            Stdio::Container(stdin) => self.outputs(stdin).1.async_stream(),
            Stdio::Session { stderr, .. } => stderr.async_stream(),
        }
    }

    /// The variables that a component sees.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        environment(&self.config, &self.hostname, Vec::new())
    }

    /// Where relative paths begin, if its libc has to be told. Go's runtime and the toolbox go by `PWD`.
    fn relative_to(&self) -> Option<&str> {
        let knows = matches!(self.program.world, World::Preview1 { go: true }) || self.is_toolbox;
        let working_dir = self.config.working_dir.as_str();
        (!knows && !matches!(working_dir, "" | "/")).then_some(working_dir)
    }

    /// The folders of a component, opened when it asks for them.
    pub(crate) fn folders(&self) -> wasmtime::Result<Vec<(Dir, String)>> {
        let mut folders = self.preopens.open_late()?;
        if let Some(working_dir) = self.relative_to() {
            folders.extend(self.preopens.working_dir(working_dir));
        }
        Ok(folders)
    }

    /// Nothing is inherited: what is not set here does not exist for the guest. `more` is what the
    /// runtime adds to the environment.
    fn context(&self, mut more: Vec<(String, String)>) -> WasiCtxBuilder {
        if matches!(&self.stdio, Stdio::Container(stdin) if stdin.terminal) {
            more.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let mut context = WasiCtx::builder();
        // By one call within the host; WASI 0.3 has guests ask again.
        context.max_random_size(PIECE.into());
        context.args(&arguments(&self.config)).envs(&environment(
            &self.config,
            &self.hostname,
            more,
        ));
        if !self.config.working_dir.is_empty() {
            context.initial_cwd(&self.config.working_dir);
        }
        match &self.stdio {
            Stdio::Container(stdin) => {
                let (stdout, stderr) = self.outputs(stdin);
                context.stdin(stdin.clone()).stdout(stdout).stderr(stderr);
            }
            Stdio::Session {
                stdin,
                stdout,
                stderr,
            } => {
                context
                    .stdin(stdin.clone())
                    .stdout(stdout.clone())
                    .stderr(stderr.clone());
            }
        }
        context
    }
}

/// `command` and `args`; without a command the program is called as its image.
fn arguments(config: &ContainerConfig) -> Vec<String> {
    let mut arguments = config.command.clone();
    if arguments.is_empty() {
        arguments.push(program_name(&config.image.image).to_owned());
    }
    arguments.extend(config.args.iter().cloned());
    arguments
}

/// The last part of a reference, without tag and digest.
pub(crate) fn program_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    if image.starts_with("file:") {
        return last;
    }
    let end = last.find(['@', ':']).unwrap_or(last.len());
    &last[..end]
}

/// The container's environment, with the host name that every container runtime sets, and `PWD`,
/// by which guests without a notion of a working directory find theirs.
fn environment(
    config: &ContainerConfig,
    hostname: &str,
    more: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let mut environment = config.env.clone();
    let mut add = |name: &str, value: &str| {
        if environment.iter().all(|(existing, _)| existing != name) {
            environment.push((name.to_owned(), value.to_owned()));
        }
    };
    add("HOSTNAME", hostname);
    if !config.working_dir.is_empty() {
        add("PWD", &config.working_dir);
    }
    for (name, value) in &more {
        add(name, value);
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_called_as_their_image() {
        assert_eq!(program_name("file:///srv/app.v1.wasm"), "app.v1.wasm");
        assert_eq!(program_name("ghcr.io/team/app:1.2"), "app");
        assert_eq!(program_name("localhost:5000/app@sha256:00"), "app");
    }
}
