//! The functions of `wasi_snapshot_preview1` that take descriptors.

use wasmtime::{AsContextMut, Caller, Extern, Linker, Module, Result};
use wasmtime_wasi::p1::wasi_snapshot_preview1 as base;
use wiggle::GuestMemory;

use super::errno::{Errno, code};
use super::fds::Entry;
use super::io;
use super::memory::Memory;
use super::poll::{Arrays, poll};
use super::{FdHost, FdView, wasmedge};
use crate::link::random::PIECE;
use crate::weight::end_slice;

pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// The guest's memory and descriptors, prepared as wasmtime-wasi's generated code would.
pub(super) fn parts<'a, T: FdHost + 'static>(
    caller: &'a mut Caller<'_, T>,
) -> Result<(Memory<'a>, FdView<'a>)> {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let memory = match caller.data_mut().fds().fds.memory {
        Some(memory) => memory,
        None => {
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                wasmtime::bail!("the module exports no memory of its own");
            };
            caller.data_mut().fds().fds.memory = Some(memory);
            memory
        }
    };
    let (memory, state) = memory.data_and_store_mut(caller);
    let view = state.fds();
    base::WasiSnapshotPreview1::set_hostcall_fuel(view.wasi, fuel);
    Ok((Memory(memory), view))
}

/// Passes calls on with wasmtime-wasi's number in place of the guest's; a socket gets the errno
/// after `else`.
macro_rules! forward {
    ($linker:ident; $($name:ident($($arg:ident: $type:ty),*) else $errno:ident;)*) => { $(
        $linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, T>, (fd, $($arg,)*): (i32, $($type,)*)| {
                Box::new(async move {
                    let (memory, view) = parts(&mut caller)?;
                    let fd = match view.fds.wasi(fd.cast_unsigned(), Errno::$errno) {
                        Ok(fd) => fd.cast_signed(),
                        Err(errno) => return Ok(errno.code()),
                    };
                    let mut memory = GuestMemory::Unshared(memory.0);
                    base::$name(view.wasi, &mut memory, fd, $($arg),*).await
                })
            },
        )?;
    )* };
}

/// As [`forward`], for functions that wasmtime-wasi answers at once.
macro_rules! forward_sync {
    ($linker:ident; $($name:ident($($arg:ident: $type:ty),*) else $errno:ident;)*) => { $(
        $linker.func_wrap(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, T>, fd: i32, $($arg: $type),*| -> Result<i32> {
                let (memory, view) = parts(&mut caller)?;
                let fd = match view.fds.wasi(fd.cast_unsigned(), Errno::$errno) {
                    Ok(fd) => fd.cast_signed(),
                    Err(errno) => return Ok(errno.code()),
                };
                base::$name(view.wasi, &mut GuestMemory::Unshared(memory.0), fd, $($arg),*)
            },
        )?;
    )* };
}

/// As [`forward`], but sockets are served by the expression after `socket`.
macro_rules! serve {
    ($linker:ident; $name:ident($fd:ident, $($arg:ident),*), |$memory:ident, $fds:ident| $socket:expr) => {
        $linker.func_wrap_async(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, T>, ($fd, $($arg,)*): (i32, $(serve!(@i32 $arg),)*)| {
                Box::new(async move {
                    let (mut memory, view) = parts(&mut caller)?;
                    let fd = $fd.cast_unsigned();
                    if view.fds.is_socket(fd) {
                        let ($memory, $fds, $fd) = (&mut memory, view.fds, fd);
                        $(let $arg = $arg.cast_unsigned();)*
                        return Ok(code($socket));
                    }
                    let fd = match view.fds.wasi(fd, Errno::BADF) {
                        Ok(fd) => fd.cast_signed(),
                        Err(errno) => return Ok(errno.code()),
                    };
                    let mut memory = GuestMemory::Unshared(memory.0);
                    serve!(@call $name view, memory, fd, $($arg),*)
                })
            },
        )?;
    };
    (@i32 $arg:ident) => { i32 };
    (@call fd_fdstat_set_flags $view:ident, $($rest:tt)*) => { serve!(@sync fd_fdstat_set_flags $view, $($rest)*) };
    (@call fd_prestat_get $view:ident, $($rest:tt)*) => { serve!(@sync fd_prestat_get $view, $($rest)*) };
    (@call $name:ident $view:ident, $memory:ident, $fd:ident, $($arg:ident),*) => {
        base::$name($view.wasi, &mut $memory, $fd, $($arg),*).await
    };
    (@sync $name:ident $view:ident, $memory:ident, $fd:ident, $($arg:ident),*) => {
        base::$name($view.wasi, &mut $memory, $fd, $($arg),*)
    };
}

/// Adds all of `wasi_snapshot_preview1`, with descriptors looked up in the guest's own table, and
/// WasmEdge's extension in the form that `module` imports.
pub(crate) fn add_to_linker<T: FdHost + 'static>(
    linker: &mut Linker<T>,
    module: &Module,
) -> Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut T| state.fds().wasi)?;
    linker.allow_shadowing(true);
    add_forwarded(linker)?;
    add_served(linker)?;
    add_tables(linker)?;
    add_sockets(linker)?;
    wasmedge::add_to_linker(linker, module)
}

fn add_forwarded<T: FdHost + 'static>(linker: &mut Linker<T>) -> Result<()> {
    forward! { linker;
        fd_advise(offset: i64, length: i64, advice: i32) else SPIPE;
        fd_datasync() else INVAL;
        fd_filestat_set_size(size: i64) else INVAL;
        fd_filestat_set_times(accessed: i64, modified: i64, flags: i32) else INVAL;
        fd_pread(buffers: i32, count: i32, offset: i64, out: i32) else SPIPE;
        fd_pwrite(buffers: i32, count: i32, offset: i64, out: i32) else SPIPE;
        fd_readdir(buffer: i32, length: i32, cookie: i64, out: i32) else NOTDIR;
        fd_seek(offset: i64, whence: i32, out: i32) else SPIPE;
        fd_sync() else INVAL;
        path_create_directory(path: i32, length: i32) else NOTDIR;
        path_filestat_get(flags: i32, path: i32, length: i32, out: i32) else NOTDIR;
        path_filestat_set_times(
            lookup: i32, path: i32, length: i32, accessed: i64, modified: i64, flags: i32
        ) else NOTDIR;
        path_readlink(path: i32, length: i32, buffer: i32, room: i32, out: i32) else NOTDIR;
        path_remove_directory(path: i32, length: i32) else NOTDIR;
        path_unlink_file(path: i32, length: i32) else NOTDIR;
    }
    forward_sync! { linker;
        fd_allocate(offset: i64, length: i64) else SPIPE;
        fd_fdstat_set_rights(own: i64, inheriting: i64) else SUCCESS;
        fd_prestat_dir_name(path: i32, length: i32) else NOTDIR;
        fd_tell(out: i32) else SPIPE;
    }
    Ok(())
}

fn add_served<T: FdHost + 'static>(linker: &mut Linker<T>) -> Result<()> {
    serve!(linker; fd_read(fd, buffers, count, out), |memory, fds| {
        io::receive(memory, fds, fd, (buffers, count), 0, out).await
    });
    serve!(linker; fd_write(fd, buffers, count, out), |memory, fds| {
        io::send(memory, fds, fd, (buffers, count), out).await
    });
    serve!(linker; fd_fdstat_get(fd, out), |memory, fds| io::fdstat(memory, fds, fd, out));
    serve!(linker; fd_fdstat_set_flags(fd, flags), |_memory, fds| io::set_flags(fds, fd, flags));
    serve!(linker; fd_filestat_get(fd, out), |memory, fds| io::filestat(memory, fds, fd, out));
    serve!(linker; fd_prestat_get(fd, out), |memory, fds| io::prestat(memory, fds, fd, out));
    linker.func_wrap_async(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, T>, (subscriptions, events, count, out): (i32, i32, i32, i32)| {
            Box::new(async move {
                let (mut memory, view) = parts(&mut caller)?;
                let arrays = Arrays {
                    subscriptions: subscriptions.cast_unsigned(),
                    events: events.cast_unsigned(),
                    count: count.cast_unsigned(),
                    out: out.cast_unsigned(),
                };
                poll(&mut memory, view.wasi, view.fds, arrays).await
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "random_get",
        |mut caller: Caller<'_, T>, (buffer, length): (i32, i32)| {
            Box::new(async move { fill_randomly(&mut caller, buffer, length).await })
        },
    )?;
    Ok(())
}

/// As much as is asked for, in pieces, between which others have their turn.
async fn fill_randomly<T: FdHost + 'static>(
    caller: &mut Caller<'_, T>,
    buffer: i32,
    length: i32,
) -> Result<i32> {
    let (mut buffer, mut missing) = (buffer.cast_unsigned(), length.cast_unsigned());
    loop {
        let (mut memory, view) = parts(caller)?;
        if let Err(errno) = memory.get_mut(buffer, missing) {
            return Ok(errno.code());
        }
        let piece = missing.min(PIECE);
        let mut guest = GuestMemory::Unshared(memory.0);
        let (at, length) = (buffer.cast_signed(), piece.cast_signed());
        let filled = base::random_get(view.wasi, &mut guest, at, length)?;
        missing -= piece;
        if missing == 0 || filled != Errno::SUCCESS.code() {
            return Ok(filled);
        }
        buffer += piece;
        end_slice().await;
    }
}

/// Functions that change which descriptors there are, or take two.
fn add_tables<T: FdHost + 'static>(linker: &mut Linker<T>) -> Result<()> {
    linker.func_wrap_async(
        MODULE,
        "fd_close",
        |mut caller: Caller<'_, T>, (fd,): (i32,)| {
            Box::new(async move {
                let (memory, view) = parts(&mut caller)?;
                close(memory, view, fd.cast_unsigned()).await
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "fd_renumber",
        |mut caller: Caller<'_, T>, (from, to): (i32, i32)| {
            Box::new(async move {
                let (memory, view) = parts(&mut caller)?;
                let (from, to) = (from.cast_unsigned(), to.cast_unsigned());
                if view.fds.get(from).is_none() || view.fds.get(to).is_none() {
                    return Ok(Errno::BADF.code());
                }
                if from == to {
                    return Ok(Errno::SUCCESS.code());
                }
                let FdView { wasi, fds } = view;
                let closed = close(
                    memory,
                    FdView {
                        wasi,
                        fds: &mut *fds,
                    },
                    to,
                )
                .await?;
                if closed == Errno::SUCCESS.code() {
                    fds.move_to(from, to);
                }
                Ok(closed)
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "path_open",
        |mut caller: Caller<'_, T>,
         (fd, lookup, path, length, open, own, inheriting, flags, out): (
            i32,
            i32,
            i32,
            i32,
            i32,
            i64,
            i64,
            i32,
            i32,
        )| {
            Box::new(async move {
                let (mut memory, view) = parts(&mut caller)?;
                let checked = view
                    .fds
                    .wasi(fd.cast_unsigned(), Errno::NOTDIR)
                    .and_then(|fd| memory.get_mut(out.cast_unsigned(), 4).map(|_| fd))
                    .and_then(|fd| view.fds.may_open().map(|()| fd));
                let fd = match checked {
                    Ok(fd) => fd.cast_signed(),
                    Err(errno) => return Ok(errno.code()),
                };
                let mut guest = GuestMemory::Unshared(&mut *memory.0);
                let opened = base::path_open(
                    view.wasi, &mut guest, fd, lookup, path, length, open, own, inheriting, flags,
                    out,
                )
                .await?;
                if opened != Errno::SUCCESS.code() {
                    return Ok(opened);
                }
                let out = out.cast_unsigned();
                let number = memory
                    .read_u32(out)
                    .and_then(|fd| view.fds.insert(Entry::Wasi(fd)));
                Ok(code(
                    number.and_then(|fd| memory.write(out, &fd.to_le_bytes())),
                ))
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "path_link",
        |mut caller: Caller<'_, T>,
         (fd, flags, path, length, to_fd, to_path, to_length): (
            i32,
            i32,
            i32,
            i32,
            i32,
            i32,
            i32,
        )| {
            Box::new(async move {
                let (memory, view) = parts(&mut caller)?;
                let (fd, to_fd) = match two_folders(&view, fd, to_fd) {
                    Ok(fds) => fds,
                    Err(errno) => return Ok(errno.code()),
                };
                let mut guest = GuestMemory::Unshared(memory.0);
                base::path_link(
                    view.wasi, &mut guest, fd, flags, path, length, to_fd, to_path, to_length,
                )
                .await
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "path_rename",
        |mut caller: Caller<'_, T>,
         (fd, path, length, to_fd, to_path, to_length): (i32, i32, i32, i32, i32, i32)| {
            Box::new(async move {
                let (memory, view) = parts(&mut caller)?;
                let (fd, to_fd) = match two_folders(&view, fd, to_fd) {
                    Ok(fds) => fds,
                    Err(errno) => return Ok(errno.code()),
                };
                let mut guest = GuestMemory::Unshared(memory.0);
                base::path_rename(
                    view.wasi, &mut guest, fd, path, length, to_fd, to_path, to_length,
                )
                .await
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "path_symlink",
        |mut caller: Caller<'_, T>,
         (target, target_length, fd, path, length): (i32, i32, i32, i32, i32)| {
            Box::new(async move {
                let (memory, view) = parts(&mut caller)?;
                let fd = match view.fds.wasi(fd.cast_unsigned(), Errno::NOTDIR) {
                    Ok(fd) => fd.cast_signed(),
                    Err(errno) => return Ok(errno.code()),
                };
                let mut guest = GuestMemory::Unshared(memory.0);
                base::path_symlink(
                    view.wasi,
                    &mut guest,
                    target,
                    target_length,
                    fd,
                    path,
                    length,
                )
                .await
            })
        },
    )?;
    Ok(())
}

fn two_folders(
    view: &FdView<'_>,
    first: i32,
    second: i32,
) -> std::result::Result<(i32, i32), Errno> {
    let first = view.fds.wasi(first.cast_unsigned(), Errno::NOTDIR)?;
    let second = view.fds.wasi(second.cast_unsigned(), Errno::NOTDIR)?;
    Ok((first.cast_signed(), second.cast_signed()))
}

/// `fd_close`. A socket closes with its last handle, which is the one in the table.
async fn close(memory: Memory<'_>, view: FdView<'_>, fd: u32) -> Result<i32> {
    let closed = match view.fds.get(fd) {
        None => return Ok(Errno::BADF.code()),
        Some(Entry::Socket(_)) => Errno::SUCCESS.code(),
        Some(Entry::Wasi(number)) => {
            let number = number.cast_signed();
            base::fd_close(view.wasi, &mut GuestMemory::Unshared(memory.0), number).await?
        }
    };
    if closed == Errno::SUCCESS.code() {
        view.fds.remove(fd);
    }
    Ok(closed)
}

fn add_sockets<T: FdHost + 'static>(linker: &mut Linker<T>) -> Result<()> {
    linker.func_wrap_async(
        MODULE,
        "sock_accept",
        |mut caller: Caller<'_, T>, (fd, flags, out): (i32, i32, i32)| {
            Box::new(async move {
                let (mut memory, view) = parts(&mut caller)?;
                let (fd, flags) = (fd.cast_unsigned(), flags.cast_unsigned());
                let done = io::accept(&mut memory, view.fds, fd, flags, out.cast_unsigned()).await;
                Ok(code(done)) as Result<i32>
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "sock_recv",
        |mut caller: Caller<'_, T>,
         (fd, buffers, count, flags, out, out_flags): (i32, i32, i32, i32, i32, i32)| {
            Box::new(async move {
                let (mut memory, view) = parts(&mut caller)?;
                let buffers = (buffers.cast_unsigned(), count.cast_unsigned());
                let (fd, flags) = (fd.cast_unsigned(), flags.cast_unsigned());
                let outs = (out.cast_unsigned(), out_flags.cast_unsigned());
                let done = io::receive_told(&mut memory, view.fds, fd, buffers, flags, outs).await;
                Ok(code(done)) as Result<i32>
            })
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "sock_send",
        |mut caller: Caller<'_, T>, (fd, buffers, count, flags, out): (i32, i32, i32, i32, i32)| {
            Box::new(async move {
                let (mut memory, view) = parts(&mut caller)?;
                if flags != 0 {
                    return Ok(Errno::INVAL.code());
                }
                let buffers = (buffers.cast_unsigned(), count.cast_unsigned());
                let (fd, out) = (fd.cast_unsigned(), out.cast_unsigned());
                let done = io::send(&mut memory, view.fds, fd, buffers, out).await;
                Ok(code(done)) as Result<i32>
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "sock_shutdown",
        |mut caller: Caller<'_, T>, fd: i32, how: i32| -> Result<i32> {
            let (_, view) = parts(&mut caller)?;
            Ok(code(io::shutdown(
                view.fds,
                fd.cast_unsigned(),
                how.cast_unsigned(),
            )))
        },
    )?;
    Ok(())
}
