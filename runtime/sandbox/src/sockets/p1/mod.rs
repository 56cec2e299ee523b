//! Sockets of WASI 0.1 modules.
//!
//! WASI 0.1 can accept, read and write but not open sockets, for which there is [WasmEdge's
//! extension](wasmedge), and wasmtime-wasi's implementation has none at all. So every function that takes a file descriptor is defined here: a descriptor is
//! looked up in the guest's own [`FdTable`], and belongs either to a socket, which is served here,
//! or to wasmtime-wasi, which then sees its own number for it.
//!
//! Each declared TCP port is bound before the guest starts and handed over as a listening
//! descriptor from 3 up, in the way of systemd (`LISTEN_FDS`, `LISTEN_FDNAMES`); unless the module
//! imports `sock_bind`, and so listens by itself.

mod errno;
mod fds;
mod io;
mod link;
mod memory;
mod poll;
mod udp;
mod wasmedge;

use std::collections::BTreeMap;

use coracle_cri::ContainerPort;
use coracle_network::{NetError, SocketScope, TcpListener};
use wasmtime::Module;
use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) use fds::FdTable;
pub(crate) use link::add_to_linker;

/// Annotation that overrides whether inherited listeners are non-blocking.
const NONBLOCKING: &str = "coracle.dev/nonblocking-listeners";
/// Connections that may wait on an inherited listener.
const BACKLOG: usize = 128;

/// State of a store whose guest has descriptors.
pub(crate) trait FdHost: Send {
    /// What the functions of WASI 0.1 need of it.
    fn fds(&mut self) -> FdView<'_>;
}

/// The parts of a store's state that descriptors lead to.
pub(crate) struct FdView<'a> {
    /// Files, standard streams, clocks and the rest.
    pub(crate) wasi: &'a mut WasiP1Ctx,
    /// What the guest's numbers mean.
    pub(crate) fds: &'a mut FdTable,
}

/// The listeners that a module starts with.
pub(crate) struct Listeners(Vec<(String, TcpListener)>);

impl Listeners {
    /// Binds the TCP ports among `ports` in the order of the manifest; UDP cannot be inherited. None
    /// for a module that listens by itself, which wants the same ports.
    pub(crate) fn of(
        module: &Module,
        scope: &SocketScope,
        ports: &[ContainerPort],
    ) -> Result<Self, NetError> {
        if wasmedge::listens_by_itself(module) {
            return Ok(Self(Vec::new()));
        }
        Self::bind(scope, ports)
    }

    fn bind(scope: &SocketScope, ports: &[ContainerPort]) -> Result<Self, NetError> {
        let tcp = ports.iter().filter(|port| port.tcp);
        let bound = tcp.map(|port| {
            let name = match port.name.as_str() {
                "" => port.port.to_string(),
                name => name.to_owned(),
            };
            Ok((name, scope.listen_tcp_anywhere(port.port, BACKLOG)?))
        });
        Ok(Self(bound.collect::<Result<_, NetError>>()?))
    }

    /// The variables by which a guest finds its listeners; none without listeners.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        vec![
            ("LISTEN_FDS".to_owned(), self.0.len().to_string()),
            ("LISTEN_FDNAMES".to_owned(), names.join(":")),
        ]
    }
}

/// Whether inherited listeners are non-blocking. Go's runtime must have them so, else a waiting
/// accept suspends its only thread; C and Rust programs that accept plainly must not.
pub(crate) fn nonblocking(go: bool, annotations: &BTreeMap<String, String>) -> bool {
    match annotations.get(NONBLOCKING).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => go,
    }
}

#[cfg(test)]
mod caller;
#[cfg(test)]
mod tests;
