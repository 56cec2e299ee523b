//! `wasi:random` of WASI 0.2: wasmtime's, with long answers made in pieces, between which others have their turn.
//!
//! wasmtime makes up to 64 MiB in one go, in which nothing interrupts the guest: it keeps its thread from all others.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::random::insecure::{self, Host as _};
use wasmtime_wasi::p2::bindings::random::insecure_seed;
use wasmtime_wasi::p2::bindings::random::random::{self, Host as _};
use wasmtime_wasi::random::{WasiRandom, WasiRandomCtx};

use super::{ComponentState, HOST_CALL};
use crate::weight::end_slice;

/// What is made without a pause, in bytes.
pub(crate) const PIECE: u32 = 256 << 10;

/// In the version that wasmtime's bindings register; components of all versions of 0.2 find them.
const SECURE: (&str, &str) = ("wasi:random/random@0.2.12", "get-random-bytes");
const INSECURE: (&str, &str) = ("wasi:random/insecure@0.2.12", "get-insecure-random-bytes");

type Generator = fn(&mut WasiRandomCtx, u64) -> wasmtime::Result<Vec<u8>>;

/// Adds the three interfaces.
pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    type S = ComponentState;
    random::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    insecure::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    insecure_seed::add_to_linker::<S, WasiRandom>(linker, |state| state.wasi.random())?;
    linker.allow_shadowing(true);
    add(linker, SECURE, |random, length| {
        random.get_random_bytes(length)
    })?;
    add(linker, INSECURE, |random, length| {
        random.get_insecure_random_bytes(length)
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add(
    linker: &mut Linker<ComponentState>,
    (interface, function): (&str, &str),
    generator: Generator,
) -> wasmtime::Result<()> {
    linker.instance(interface)?.func_wrap_async(
        function,
        move |store: StoreContextMut<'_, ComponentState>, (length,): (u64,)| {
            Box::new(async move { Ok((bytes(store, length, generator).await?,)) })
        },
    )
}

async fn bytes(
    mut store: StoreContextMut<'_, ComponentState>,
    length: u64,
    generator: Generator,
) -> wasmtime::Result<Vec<u8>> {
    if length > HOST_CALL {
        wasmtime::bail!(
            "{length} random bytes were asked for in one call, which gives {HOST_CALL}"
        );
    }
    in_pieces(length, |length| {
        generator(store.data_mut().wasi.random(), length)
    })
    .await
}

async fn in_pieces(
    length: u64,
    mut next: impl FnMut(u64) -> wasmtime::Result<Vec<u8>>,
) -> wasmtime::Result<Vec<u8>> {
    let mut piece = |missing: u64| next(missing.min(PIECE.into()));
    let mut bytes = piece(length)?;
    while (bytes.len() as u64) < length {
        end_slice().await;
        let missing = length - bytes.len() as u64;
        bytes.extend(piece(missing)?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// The lengths of the pieces, and how often the guest was put aside.
    fn made(length: u64) -> (Vec<u64>, usize) {
        let pieces = RefCell::new(Vec::new());
        let mut pauses = 0;
        let mut making = pin!(in_pieces(length, |length| {
            pieces.borrow_mut().push(length);
            Ok(vec![1; usize::try_from(length).unwrap()])
        }));
        loop {
            match making
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Pending => pauses += 1,
                Poll::Ready(bytes) => {
                    assert_eq!(bytes.unwrap().len() as u64, length);
                    break;
                }
            }
        }
        (pieces.take(), pauses)
    }

    #[test]
    fn others_have_their_turn_between_the_pieces() {
        let piece = u64::from(PIECE);
        assert_eq!(made(0), (vec![0], 0));
        assert_eq!(made(16), (vec![16], 0));
        assert_eq!(made(piece), (vec![piece], 0));
        assert_eq!(made(2 * piece + 1), (vec![piece, piece, 1], 2));
    }

    #[test]
    fn the_functions_replace_wasmtimes() {
        type S = ComponentState;
        let engine = wasmtime::Engine::default();
        let mut linker = Linker::<S>::new(&engine);
        random::add_to_linker::<S, WasiRandom>(&mut linker, |s| s.wasi.random()).unwrap();
        insecure::add_to_linker::<S, WasiRandom>(&mut linker, |s| s.wasi.random()).unwrap();
        for (interface, function) in [SECURE, INSECURE] {
            let mut instance = linker.instance(interface).unwrap();
            let again = instance.func_wrap(function, |_, (): ()| Ok(()));
            assert!(
                again.is_err(),
                "it has another name: {interface} {function}"
            );
        }
    }
}
