//! Files that components open: wasmtime's, unless the process has few descriptors left for the guests that hold many.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{self, Host as _, HostDescriptor as _};

use super::ComponentState;
use crate::handles::may_hold;

/// The version that wasmtime's bindings register; components of all versions of 0.2 find it.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
pub(super) const OPEN: &str = "[method]descriptor.open-at";

type Opened = (Result<Resource<Descriptor>, types::ErrorCode>,);
type Arguments = (
    Resource<Descriptor>,
    types::PathFlags,
    String,
    types::OpenFlags,
    types::DescriptorFlags,
);

/// Adds `wasi:filesystem/types` of WASI 0.2.
pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, WasiFilesystem>(linker, ComponentState::filesystem)?;
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap_async(
        OPEN,
        |mut store: StoreContextMut<'_, ComponentState>, arguments: Arguments| {
            Box::new(async move { open(store.data_mut(), arguments).await })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn open(
    state: &mut ComponentState,
    (folder, how, path, create, flags): Arguments,
) -> wasmtime::Result<Opened> {
    let mut files = state.filesystem();
    let opened = files.open_at(folder, how, path, create, flags).await;
    let opened = match opened {
        Ok(opened) => Ok(opened),
        Err(error) => Err(files.convert_error_code(error)?),
    };
    let kept = match opened {
        Ok(opened) => keep(files.table, opened)?.ok_or(types::ErrorCode::InsufficientMemory),
        Err(error) => Err(error),
    };
    Ok((kept,))
}

/// What was opened, unless its guest may not have it. A table gives the number that was given back last, so one beyond
/// those that every guest may hold is of a guest that holds many, or did.
pub(super) fn keep(
    table: &mut ResourceTable,
    opened: Resource<Descriptor>,
) -> wasmtime::Result<Option<Resource<Descriptor>>> {
    let number = usize::try_from(opened.rep()).unwrap_or(usize::MAX);
    if may_hold(number) {
        return Ok(Some(opened));
    }
    table.delete(opened)?;
    Ok(None)
}
