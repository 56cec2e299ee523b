//! What all instances of one run share, and how the state of an instance is made from it.

use std::sync::Arc;

use coracle_cri::ContainerConfig;
use coracle_network::SocketScope;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_http::WasiHttpCtx;

use super::outgoing::{OutgoingHttp, Pool};
use crate::compile::Program;
use crate::cpu::CpuShare;
use crate::engine::GuestEngine;
use crate::exec::GuestEnd;
use crate::handles::handle_limit;
use crate::link::{ComponentState, Linked, ModuleState};
use crate::logs::{GuestOutput, LogQueue};
use crate::memory::{MemoryBudget, StoreMemory};
use crate::preopens::Preopens;
use crate::sockets::p1::{FdTable, Listeners, nonblocking};
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
    pub(crate) hostname: String,
    pub(crate) preopens: Preopens,
    pub(crate) scope: SocketScope,
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) cpu: Arc<CpuShare>,
    pub(crate) logs: Arc<LogQueue>,
    pub(crate) trust: Arc<TlsTrust>,
    /// Connections of its outgoing requests, kept for the next ones.
    pub(crate) connections: Arc<Pool>,
    pub(crate) stdio: Stdio,
    pub(crate) engine: Arc<GuestEngine>,
    /// Where instances run.
    pub(crate) threads: tokio::runtime::Handle,
    /// Bounds the instances of the node.
    pub(crate) admission: Arc<tokio::sync::Semaphore>,
}

impl Guest {
    pub(crate) fn module_state(&self, listeners: Listeners) -> wasmtime::Result<ModuleState> {
        let mut context = self.context(listeners.environment());
        self.preopens.open(&mut context)?;
        let mut wasi = context.build_p1();
        let go = matches!(self.program.world, World::Preview1 { go: true });
        let nonblocking = nonblocking(go, &self.config.annotations);
        let fds = FdTable::new(listeners, nonblocking, &mut wasi);
        let memory = StoreMemory::new(self.memory.clone());
        Ok(ModuleState { wasi, fds, memory })
    }

    pub(crate) fn component_state(&self) -> wasmtime::Result<ComponentState> {
        let mut context = self.context(Vec::new());
        // Instances that answer one request open their folders when they ask for them.
        if !matches!(self.program.linked, Linked::Http(_)) {
            self.preopens.open(&mut context)?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(handle_limit());
        Ok(ComponentState {
            wasi: context.build(),
            table,
            preopens: self.preopens.clone(),
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

    /// Nothing is inherited: what is not set here does not exist for the guest. `more` is what the
    /// runtime adds to the environment.
    fn context(&self, mut more: Vec<(String, String)>) -> WasiCtxBuilder {
        if matches!(&self.stdio, Stdio::Container(stdin) if stdin.terminal) {
            more.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let mut context = WasiCtx::builder();
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
                let (stdout, stderr) = match stdin.terminal {
                    true => GuestOutput::terminal(&self.logs),
                    false => GuestOutput::pair(&self.logs),
                };
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
