//! `wasi:io/streams` of WASI 0.2: wasmtime's, with a `write` that copies at once what the guest has.
//!
//! wasmtime's bindings make a vector of a list by an iterator over its bytes, before anything is known of the stream. That
//! took a sixth to a quarter of a flood between two pods. Here the bytes are copied out of the guest's memory in one piece,
//! and not at all when the stream is not there.

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, WasmList};
use wasmtime_wasi_io::bindings::wasi::io::streams::{self, Host as _};
use wasmtime_wasi_io::streams::{DynOutputStream, StreamError};

/// The version that wasmtime's bindings register; components of all versions of 0.2 find it.
const STREAMS: &str = "wasi:io/streams@0.2.12";
const WRITE: &str = "[method]output-stream.write";

/// What the function answers: `result<_, stream-error>`.
type Written = (Result<(), streams::StreamError>,);

/// Adds the interface for stores whose state has a table.
pub(super) fn add_to_linker<T, D>(
    linker: &mut Linker<T>,
    table: fn(&mut T) -> &mut ResourceTable,
) -> wasmtime::Result<()>
where
    T: Send + 'static,
    D: for<'a> HasData<Data<'a> = &'a mut ResourceTable> + Send,
{
    streams::add_to_linker::<T, D>(linker, table)?;
    linker.allow_shadowing(true);
    linker.instance(STREAMS)?.func_wrap(
        WRITE,
        move |mut store: StoreContextMut<'_, T>,
              (stream, bytes): (Resource<DynOutputStream>, WasmList<u8>)| {
            table(store.data_mut()).get(&stream)?;
            let bytes = Bytes::copy_from_slice(bytes.as_le_slice(&store));
            written(table(store.data_mut()), &stream, bytes)
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn written(
    table: &mut ResourceTable,
    stream: &Resource<DynOutputStream>,
    bytes: Bytes,
) -> wasmtime::Result<Written> {
    let result = table.get_mut(stream)?.write(bytes);
    let result = match result {
        Ok(()) => Ok(()),
        Err(StreamError::Trap(trap)) => return Err(trap),
        Err(error) => Err(table.convert_stream_error(error)?),
    };
    Ok((result,))
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine};

    use super::*;

    struct Table;

    impl HasData for Table {
        type Data<'a> = &'a mut ResourceTable;
    }

    #[test]
    fn the_function_replaces_wasmtimes() {
        let engine = Engine::new(&Config::new()).unwrap();
        let mut linker = Linker::<ResourceTable>::new(&engine);
        streams::add_to_linker::<_, Table>(&mut linker, |table| table).unwrap();
        let mut instance = linker.instance(STREAMS).unwrap();
        let again = instance.func_wrap(WRITE, |_, (): ()| Ok(()));
        assert!(again.is_err(), "it has another name: {STREAMS} {WRITE}");
    }
}
