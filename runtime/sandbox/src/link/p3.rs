//! The interfaces of WASI 0.3. Only released versions: what wasmtime marks as unstable is not there.

use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p3::bindings::filesystem::preopens;
use wasmtime_wasi::p3::bindings::filesystem::types::{self, Host as _, HostDescriptorWithStore};
use wasmtime_wasi::random::WasiRandom;

pub(super) use wasmtime_wasi::p3::bindings::CommandPre;
pub(super) use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::files::{OPEN, keep};
use super::{ComponentState, Folders, FoldersView, folders};
use crate::sockets::p3 as sockets;

/// The version that wasmtime's bindings register.
const TYPES: &str = "wasi:filesystem/types@0.3.0";

/// Adds everything but the sockets of the host.
pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p3::bindings::{filesystem, random};
    type S = ComponentState;

    wasmtime_wasi::p3::cli::add_to_linker(linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(linker)?;
    add_files(linker)?;
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

type Opened = (Result<Resource<Descriptor>, types::ErrorCode>,);
type Arguments = (
    Resource<Descriptor>,
    types::PathFlags,
    String,
    types::OpenFlags,
    types::DescriptorFlags,
);

/// Adds `wasi:filesystem/types`, with [`files`](super::files)' rule.
fn add_files(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, WasiFilesystem>(linker, ComponentState::filesystem)?;
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap_concurrent(
        OPEN,
        |accessor: &Accessor<ComponentState>, arguments: Arguments| {
            Box::pin(open(accessor, arguments))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn open(
    accessor: &Accessor<ComponentState>,
    (folder, how, path, create, flags): Arguments,
) -> wasmtime::Result<Opened> {
    let files = accessor.with_getter::<WasiFilesystem>(ComponentState::filesystem);
    let opened = WasiFilesystem::open_at(&files, folder, how, path, create, flags).await;
    files.with(|mut files| {
        let mut files = files.get();
        let kept = match opened {
            Ok(opened) => keep(files.table, opened)?.ok_or(types::ErrorCode::InsufficientMemory),
            Err(error) => Err(files.convert_error_code(error)?),
        };
        Ok((kept,))
    })
}
