//! One port, and a socket of it for each processor.
//!
//! Whoever sends a datagram wakes who waits for it. If that one is to run on a processor that sleeps, as the system prefers,
//! the interrupt and the way out of sleep cost several times what the rest of an answer does. So each processor has a socket and a
//! thread of its own, and the system is asked to give a datagram to the socket of the processor where it arrives: over the
//! loopback, that of who sent it, who is about to wait for the answer. A system that does not know of this spreads
//! them in another way.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// How many sockets there are at most; on processors past it, any of them is taken.
#[cfg(target_os = "linux")]
const MOST: usize = 32;

/// A socket, and the processor whose datagrams it gets, if there are several.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) socket: UdpSocket,
    processor: Option<usize>,
}

/// Binds exactly this address, which nobody else may have.
#[cfg(target_os = "linux")]
pub(crate) fn bind(address: SocketAddr) -> io::Result<Vec<Local>> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

    let first = UdpSocket::bind(address)?;
    let processors = own_processors();
    if processors.len() < 2 {
        return Ok(vec![Local {
            socket: first,
            processor: None,
        }]);
    }
    let address = first.local_addr()?;
    let mut sockets = Vec::with_capacity(processors.len());
    let mut first = Some(first);
    for processor in processors {
        let socket = match first.take() {
            // That it was bound without sharing the port has shown that the port was free.
            Some(first) => {
                sockopt::set_socket_reuseport(&first, true)?;
                first
            }
            None => {
                let family = match address {
                    SocketAddr::V4(_) => AddressFamily::INET,
                    SocketAddr::V6(_) => AddressFamily::INET6,
                };
                let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
                sockopt::set_socket_reuseport(&socket, true)?;
                rustix::net::bind(&socket, &address)?;
                socket.into()
            }
        };
        if let Ok(number) = u32::try_from(processor) {
            sockopt::set_socket_incoming_cpu(&socket, number)?;
        }
        sockets.push(Local {
            socket,
            processor: Some(processor),
        });
    }
    Ok(sockets)
}

/// Binds exactly this address, which nobody else may have.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bind(address: SocketAddr) -> io::Result<Vec<Local>> {
    let socket = UdpSocket::bind(address)?;
    Ok(vec![Local {
        socket,
        processor: None,
    }])
}

/// Where this process may run.
#[cfg(target_os = "linux")]
fn own_processors() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let set = sched_getaffinity(None);
    let all = set
        .into_iter()
        .flat_map(|set| (0..CpuSet::MAX_CPU).filter(move |at| set.is_set(*at)));
    all.take(MOST).collect()
}

impl Local {
    /// Keeps the calling thread on the processor.
    pub(crate) fn stay(&self) {
        #[cfg(target_os = "linux")]
        if let Some(processor) = self.processor {
            use rustix::thread::{CpuSet, sched_setaffinity};

            let mut set = CpuSet::new();
            set.set(processor);
            // A processor may have gone since; then it is anywhere.
            if let Err(error) = sched_setaffinity(None, &set) {
                tracing::debug!(processor, %error, "a DNS thread runs anywhere");
            }
        }
    }

    /// Has whoever waits for a datagram look, now and from then on.
    pub(crate) fn close(&self) {
        // That it has no peer is what it says when it has done so.
        #[cfg(target_os = "linux")]
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}
