//! One run of a container, from its first instance to its exit.
//!
//! ```text
//! start ─▶ running ─┬─ the guest returns, exits or traps ─▶ exited
//!                   └─ stop ─▶ draining ─ nothing in flight ─▶ dropped (143)
//!                                       └ end of grace      ─▶ dropped (137)
//! ```

mod command;
mod guest;
mod http;
mod outgoing;
#[cfg(feature = "p3")]
mod service;
mod stop;

pub(crate) use command::call as call_command;
pub(crate) use guest::{Guest, Stdio, program_name};
pub(crate) use outgoing::OutgoingHttp;
pub(crate) use stop::{StopHandle, StopSignal};

use std::sync::Arc;

use coracle_cri::{ContainerPort, RuntimeError};

use crate::exit::Exit;
use crate::link::Linked;
use crate::sockets::p1::Listeners;

/// A container that is ready to run: whatever could be refused at once has been.
pub(crate) enum Prepared {
    /// A program that runs once, with the listeners that a module inherits.
    Command(Arc<Guest>, Option<Listeners>),
    /// A component that answers requests.
    Http(http::Server),
    /// A component whose functions are called by `exec`, each in an instance of its own.
    Functions,
}

/// Takes what the guest's world needs before it runs: the port of an http component, the listeners
/// that a module inherits.
pub(crate) fn prepare(guest: Arc<Guest>) -> Result<Prepared, RuntimeError> {
    match &guest.program.linked {
        Linked::Http(_) => Ok(Prepared::Http(http::Server::bind(guest)?)),
        Linked::Functions(_) => Ok(Prepared::Functions),
        Linked::Module(pre) => {
            let listeners = Listeners::of(pre.module(), &guest.scope, &guest.config.ports);
            let listeners = listeners.map_err(|error| {
                RuntimeError::Start(format!("failed to listen on the declared ports: {error}"))
            })?;
            Ok(Prepared::Command(guest, Some(listeners)))
        }
        _ => Ok(Prepared::Command(guest, None)),
    }
}

impl Prepared {
    /// Runs to the end. Returns after every instance was dropped.
    pub(crate) async fn run(self, mut stop: StopSignal) -> Exit {
        match self {
            Self::Command(guest, listeners) => command::run(guest, listeners, stop).await,
            Self::Http(server) => server.run(stop).await,
            // Nothing runs here that a stop would have to wait for.
            Self::Functions => {
                stop.asked().await;
                Exit::stopped(true)
            }
        }
    }
}

/// The port that an http component is served on: the one named `http`, else the first, else 80.
fn http_port(ports: &[ContainerPort]) -> u16 {
    let tcp = || ports.iter().filter(|port| port.tcp);
    let chosen = tcp()
        .find(|port| port.name == "http")
        .or_else(|| tcp().next());
    chosen.map_or(80, |port| port.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_http_port_is_the_named_one_or_the_first_or_80() {
        let port = |name: &str, port, tcp| ContainerPort {
            name: name.to_owned(),
            port,
            tcp,
        };
        assert_eq!(http_port(&[]), 80);
        assert_eq!(
            http_port(&[port("udp", 1, false), port("web", 8080, true)]),
            8080
        );
        assert_eq!(
            http_port(&[port("admin", 9000, true), port("http", 8080, true)]),
            8080
        );
    }
}
