//! What guests may call, and the state behind it.
//!
//! Interfaces are added one by one. Whatever is not named here does not exist for a guest: nothing
//! falls back to the sockets, the environment or the folders of the host.

use std::sync::Arc;

use coracle_network::SocketScope;
use wasmtime::component::{
    HasData, InstancePre as ComponentPre, Linker as ComponentLinker, Resource, ResourceTable,
    ResourceTableError,
};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as ProxyPre2;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::compile::Code;
use crate::container::{Guest, OutgoingHttp};
use crate::cpu::CpuShare;
#[cfg(feature = "p3")]
use crate::handles::handle_limit;
use crate::hosts;
use crate::memory::StoreMemory;
use crate::sockets::p1::{self, FdHost, FdTable, FdView};
use crate::sockets::p2::{self, SocketHost, SocketsView};
use crate::weight::take_turns;
use crate::world::{Wasi, World};

mod files;
#[cfg(feature = "p3")]
mod p3;
pub(crate) mod random;
mod streams;

/// The bytes that one call of the host takes from a component and random ones that it gives, at most: nothing interrupts their
/// copying.
pub(crate) const HOST_CALL: u64 = 16 << 20;

/// A program with its imports resolved, ready to be instantiated.
pub(crate) enum Linked {
    Module(InstancePre<ModuleState>),
    Command(CommandPre<ComponentState>),
    #[cfg(feature = "p3")]
    Command3(p3::CommandPre<ComponentState>),
    Http(ProxyPre<ComponentState>),
    /// Nothing to run: its functions are called one by one.
    Functions(ComponentPre<ComponentState>),
}

impl Linked {
    /// The component, whatever its world; `None` for core modules.
    pub(crate) fn component(&self) -> Option<&ComponentPre<ComponentState>> {
        match self {
            Self::Module(_) => None,
            Self::Command(pre) => Some(pre.instance_pre()),
            #[cfg(feature = "p3")]
            Self::Command3(pre) => Some(pre.instance_pre()),
            Self::Http(ProxyPre::P2(pre)) => Some(pre.instance_pre()),
            Self::Http(ProxyPre::P3(pre)) => Some(pre.instance_pre()),
            Self::Functions(pre) => Some(pre),
        }
    }

    /// Whether it runs once from start to end. The others need no instance at rest.
    pub(crate) fn is_command(&self) -> bool {
        !matches!(self, Self::Http(_) | Self::Functions(_))
    }

    /// What it does instead of being a command, for a message.
    pub(crate) fn purpose(&self) -> &'static str {
        match self {
            Self::Http(_) => "answers http requests",
            Self::Functions(_) => "has functions to be called as 'name(arguments)'",
            _ => "runs as a command",
        }
    }
}

/// State of a WASI 0.1 guest.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) fds: FdTable,
    pub(crate) memory: StoreMemory,
}

/// State of a component.
pub(crate) struct ComponentState {
    pub(crate) guest: Arc<Guest>,
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) http: WasiHttpCtx,
    pub(crate) outgoing: OutgoingHttp,
    pub(crate) scope: SocketScope,
    pub(crate) memory: StoreMemory,
}

/// Resolves the imports of `code`; an error names the import that nobody provides.
pub(crate) fn link(engine: &Engine, world: World, code: &Code) -> wasmtime::Result<Linked> {
    match code {
        Code::Module(module) => {
            let mut linker = Linker::new(engine);
            add_preview1(&mut linker, module)?;
            Ok(Linked::Module(linker.instantiate_pre(module)?))
        }
        Code::Component(component) => {
            let mut linker = ComponentLinker::new(engine);
            add_wasi(&mut linker)?;
            p2::add_to_linker(&mut linker)?;
            hosts::add_to_linker(&mut linker)?;
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
            #[cfg(feature = "p3")]
            p3::add_to_linker(&mut linker)?;
            let pre = linker.instantiate_pre(component)?;
            Ok(match world {
                World::Http(Wasi::P2) => Linked::Http(ProxyPre::P2(ProxyPre2::new(pre)?)),
                World::Command(Wasi::P2) => Linked::Command(CommandPre::new(pre)?),
                #[cfg(feature = "p3")]
                World::Http(Wasi::P3) => Linked::Http(ProxyPre::P3(p3::ServicePre::new(pre)?)),
                #[cfg(feature = "p3")]
                World::Command(Wasi::P3) => Linked::Command3(p3::CommandPre::new(pre)?),
                #[cfg(not(feature = "p3"))]
                World::Http(Wasi::P3) | World::Command(Wasi::P3) => {
                    unreachable!("`World::detect` refuses them without the feature")
                }
                World::Functions => Linked::Functions(pre),
                World::Preview1 { .. } => unreachable!("modules are no components"),
            })
        }
    }
}

/// A store whose guest takes turns and stays within its memory.
pub(crate) fn new_store<T: HasMemory + Send + 'static>(
    engine: &Engine,
    state: T,
    cpu: &CpuShare,
) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.memory());
    // Tasks, streams and futures of WASI 0.3 are kept apart from what the host gives.
    #[cfg(feature = "p3")]
    if let Some(tasks) = store.concurrent_resource_table() {
        tasks.set_max_capacity(handle_limit());
    }
    take_turns(&mut store, cpu.weight(), cpu.clock().clone());
    store
}

/// The same for an instance of a component, whose calls of the host are [bounded](HOST_CALL).
pub(crate) fn new_component_store(guest: &Arc<Guest>) -> wasmtime::Result<Store<ComponentState>> {
    let state = guest.component_state()?;
    let mut store = new_store(&guest.engine.engine, state, &guest.cpu);
    store.set_hostcall_fuel(usize::try_from(HOST_CALL).unwrap_or(usize::MAX));
    Ok(store)
}

/// State that counts its store's memory.
pub(crate) trait HasMemory {
    fn memory(&mut self) -> &mut StoreMemory;
}

impl HasMemory for ModuleState {
    fn memory(&mut self) -> &mut StoreMemory {
        &mut self.memory
    }
}

impl HasMemory for ComponentState {
    fn memory(&mut self) -> &mut StoreMemory {
        &mut self.memory
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.outgoing,
        }
    }
}

impl FdHost for ModuleState {
    fn fds(&mut self) -> FdView<'_> {
        FdView {
            wasi: &mut self.wasi,
            fds: &mut self.fds,
        }
    }
}

impl SocketHost for ComponentState {
    fn sockets(&mut self) -> SocketsView<'_> {
        SocketsView {
            scope: &self.scope,
            table: &mut self.table,
        }
    }
}

/// Interfaces of `wasi:io` need the table and nothing else.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// The folders of a guest, opened when it asks for them, and the table that they go into.
struct Folders;

struct FoldersView<'a> {
    guest: &'a Guest,
    table: &'a mut ResourceTable,
}

fn folders(state: &mut ComponentState) -> FoldersView<'_> {
    FoldersView {
        guest: &state.guest,
        table: &mut state.table,
    }
}

impl HasData for Folders {
    type Data<'a> = FoldersView<'a>;
}

impl FoldersView<'_> {
    fn open(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let folders = self.guest.folders()?;
        let pushed = folders.into_iter().map(|(dir, name)| {
            let descriptor = self.table.push(Descriptor::Dir(dir))?;
            let descriptor = files::keep(self.table, descriptor)?;
            Ok::<_, wasmtime::Error>((descriptor.ok_or(ResourceTableError::Full)?, name))
        });
        pushed.collect()
    }
}

impl preopens::Host for FoldersView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.open()
    }
}

fn add_wasi(linker: &mut ComponentLinker<ComponentState>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem};
    use wasmtime_wasi_io::bindings::wasi::io;
    type S = ComponentState;

    io::error::add_to_linker::<S, Io>(linker, |state| &mut state.table)?;
    io::poll::add_to_linker::<S, Io>(linker, |state| &mut state.table)?;
    streams::add_to_linker::<S, Io>(linker, |state| &mut state.table)?;
    clocks::wall_clock::add_to_linker::<S, WasiClocks>(linker, S::clocks)?;
    clocks::monotonic_clock::add_to_linker::<S, WasiClocks>(linker, S::clocks)?;
    random::add_to_linker(linker)?;
    filesystem::preopens::add_to_linker::<S, Folders>(linker, folders)?;
    files::add_to_linker(linker)?;
    cli::environment::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::exit::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::stdin::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::stdout::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::stderr::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::terminal_input::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::terminal_output::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::terminal_stdin::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::terminal_stdout::add_to_linker::<S, WasiCli>(linker, S::cli)?;
    cli::terminal_stderr::add_to_linker::<S, WasiCli>(linker, S::cli)
}

fn add_preview1(linker: &mut Linker<ModuleState>, module: &Module) -> wasmtime::Result<()> {
    p1::add_to_linker(linker, module)?;
    // wasmtime's own refuses codes from 126 up; a shell shows the lowest eight bits of any.
    linker.allow_shadowing(true);
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code & 0xff).into()) },
    )?;
    Ok(())
}
