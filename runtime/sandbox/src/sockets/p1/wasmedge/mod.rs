//! WasmEdge's socket extension: a second way for WASI 0.1 modules to have sockets, and the only one
//! to open some.
//!
//! The functions live in `wasi_snapshot_preview1`, beside WASI's own, in two generations: first those
//! whose addresses are bare bytes, then those (`…_v2`, or by the first name with other parameters)
//! whose addresses begin with their family. A module gets the form of each function that it imports,
//! as in WasmEdge: its `sock_accept` has two parameters, WASI's has three.
//!
//! What is opened here is like any other descriptor: `fd_read`, `poll_oneoff`, `sock_shutdown` and so
//! on work on it, and the pod's policies and limits hold.
//!
//! ```text
//! open ─▶ free ─bind─▶ bound ─listen─▶ listening ─accept─▶ (a connection of its own)
//!          └────────── connect ─▶ connecting ─▶ connected
//!                                      └ failed ▶ free, told by SO_ERROR
//! ```

mod address;
mod datagrams;
mod names;
mod options;
mod sockets;

use wasmtime::{Caller, Linker, Module, Result};

use super::FdHost;
use super::errno::code;
use super::io;
use super::link::{MODULE, parts};

pub(super) use datagrams::{receive, send};
pub(super) use options::Options;

/// Whether the module opens its own listening sockets, and so inherits none.
pub(crate) fn listens_by_itself(module: &Module) -> bool {
    ["sock_bind", "sock_bind_v2"]
        .iter()
        .any(|name| parameters(module, name).is_some())
}

/// How many parameters the function has that the module imports by this name.
fn parameters(module: &Module, name: &str) -> Option<usize> {
    let mut imports = module.imports();
    let import = imports.find(|import| import.module() == MODULE && import.name() == name)?;
    Some(import.ty().func()?.params().len())
}

/// Defines a function whose parameters are all numbers of 32 bits.
macro_rules! define {
    ($linker:ident, $name:expr, ($($arg:ident),*), |$memory:ident, $fds:ident| $body:expr) => {
        $linker.func_wrap_async(
            MODULE,
            $name,
            move |mut caller: Caller<'_, T>, ($($arg,)*): ($(define!(@i32 $arg),)*)| {
                Box::new(async move {
                    #[allow(unused_mut, reason = "not all of them write")]
                    let (mut memory, view) = parts(&mut caller)?;
                    let ($memory, $fds) = (&mut memory, view.fds);
                    $(let $arg = $arg.cast_unsigned();)*
                    Ok(code($body)) as Result<i32>
                })
            },
        )?;
    };
    (@i32 $arg:ident) => { i32 };
}

/// Adds the functions in the forms that `module` imports.
pub(crate) fn add_to_linker<T: FdHost + 'static>(
    linker: &mut Linker<T>,
    module: &Module,
) -> Result<()> {
    let wants = |name: &str, count: usize| parameters(module, name) == Some(count);
    for name in ["sock_open", "sock_open_v2"] {
        define!(linker, name, (family, kind, out), |memory, fds| {
            sockets::open(memory, fds, family, kind, out)
        });
    }
    for name in ["sock_bind", "sock_bind_v2"] {
        define!(linker, name, (fd, address, port), |memory, fds| {
            sockets::bind(memory, fds, fd, address, port)
        });
    }
    for name in ["sock_listen", "sock_listen_v2"] {
        define!(linker, name, (fd, backlog), |_memory, fds| {
            sockets::listen(fds, fd, backlog)
        });
    }
    for name in ["sock_connect", "sock_connect_v2"] {
        define!(linker, name, (fd, address, port), |memory, fds| {
            sockets::connect(memory, fds, fd, address, port).await
        });
    }
    if wants("sock_accept", 2) {
        define!(linker, "sock_accept", (fd, out), |memory, fds| {
            io::accept(memory, fds, fd, 0, out).await
        });
    }
    define!(linker, "sock_accept_v2", (fd, flags, out), |memory, fds| {
        io::accept(memory, fds, fd, flags, out).await
    });
    define!(
        linker,
        "sock_recv_v2",
        (fd, buffers, count, flags, out, told),
        |memory, fds| {
            io::receive_told(memory, fds, fd, (buffers, count), flags, (out, told)).await
        }
    );
    define!(
        linker,
        "sock_send_v2",
        (fd, buffers, count, _flags, out),
        |memory, fds| io::send(memory, fds, fd, (buffers, count), out).await
    );
    for name in ["sock_send_to", "sock_send_to_v2"] {
        define!(
            linker,
            name,
            (fd, buffers, count, address, port, _flags, out),
            |memory, fds| {
                datagrams::send_to(memory, fds, fd, (buffers, count), (address, port), out).await
            }
        );
    }
    add_receive_from(linker, wants("sock_recv_from", 7))?;
    add_addresses(linker, module)?;
    define!(
        linker,
        "sock_getsockopt",
        (fd, level, name, value, size),
        |memory, fds| options::get(memory, fds, fd, (level, name), (value, size))
    );
    define!(
        linker,
        "sock_setsockopt",
        (fd, level, name, value, size),
        |memory, fds| options::set(memory, fds, fd, (level, name), (value, size))
    );
    define!(
        linker,
        "sock_getaddrinfo",
        (
            node,
            node_length,
            service,
            service_length,
            hints,
            list,
            most,
            out
        ),
        |memory, fds| {
            let question = names::Question {
                node: (node, node_length),
                service: (service, service_length),
                hints,
            };
            names::resolve(memory, fds.scope(), question, (list, most, out)).await
        }
    );
    // WasmEdge's other form of poll_oneoff tells only what has changed; telling more does no harm.
    linker.alias(MODULE, "poll_oneoff", MODULE, "epoll_oneoff")?;
    Ok(())
}

/// The first generation does not tell the sender's port.
fn add_receive_from<T: FdHost + 'static>(linker: &mut Linker<T>, first: bool) -> Result<()> {
    if first {
        define!(
            linker,
            "sock_recv_from",
            (fd, buffers, count, address, flags, out, told),
            |memory, fds| {
                let to = datagrams::Sender {
                    address,
                    port: None,
                };
                datagrams::receive_from(memory, fds, fd, (buffers, count), to, flags, (out, told))
                    .await
            }
        );
    }
    let names: &[&str] = if first {
        &["sock_recv_from_v2"]
    } else {
        &["sock_recv_from", "sock_recv_from_v2"]
    };
    for name in names {
        define!(
            linker,
            name,
            (fd, buffers, count, address, flags, port, out, told),
            |memory, fds| {
                let to = datagrams::Sender {
                    address,
                    port: Some(port),
                };
                datagrams::receive_from(memory, fds, fd, (buffers, count), to, flags, (out, told))
                    .await
            }
        );
    }
    Ok(())
}

/// The first generation tells the kind of address beside it, the second within.
fn add_addresses<T: FdHost + 'static>(linker: &mut Linker<T>, module: &Module) -> Result<()> {
    for (name, second, end) in [
        (
            "sock_getlocaladdr",
            "sock_getlocaladdr_v2",
            sockets::End::Local,
        ),
        (
            "sock_getpeeraddr",
            "sock_getpeeraddr_v2",
            sockets::End::Peer,
        ),
    ] {
        define!(linker, second, (fd, address, port), |memory, fds| {
            sockets::address_of(memory, fds, fd, end, (address, None, port))
        });
        if parameters(module, name) == Some(3) {
            define!(linker, name, (fd, address, port), |memory, fds| {
                sockets::address_of(memory, fds, fd, end, (address, None, port))
            });
        } else {
            define!(linker, name, (fd, address, kind, port), |memory, fds| {
                sockets::address_of(memory, fds, fd, end, (address, Some(kind), port))
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
