//! The interfaces of WASI 0.3. Only released versions: what wasmtime marks as unstable is not there.

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p3::bindings::filesystem::preopens;
use wasmtime_wasi::random::WasiRandom;

pub(super) use wasmtime_wasi::p3::bindings::CommandPre;
pub(super) use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::{ComponentState, Folders, FoldersView, folders};
use crate::sockets::p3 as sockets;

/// Adds everything but the sockets of the host.
pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p3::bindings::{filesystem, random};
    type S = ComponentState;

    wasmtime_wasi::p3::cli::add_to_linker(linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(linker)?;
    filesystem::types::add_to_linker::<S, WasiFilesystem>(linker, S::filesystem)?;
    filesystem::preopens::add_to_linker::<S, Folders>(linker, folders)?;
    random::random::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure_seed::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    sockets::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}

impl preopens::Host for FoldersView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.open()
    }
}
