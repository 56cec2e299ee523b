//! Host ports: a default that is taken moves on, an explicit one is an error.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;

/// How many ports after a default one are tried.
const ATTEMPTS: u16 = 100;

/// What a flag says of a listener that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// It is left out.
    Off,
    /// Its address.
    At(SocketAddr),
}

impl Listen {
    /// Binds what a flag says: without it the default of `choice`, and nothing if it is off.
    pub async fn bind(flag: Option<Self>, choice: Choice) -> Result<Option<TcpListener>> {
        Self::open(flag, choice, TcpListener::bind::<SocketAddr>).await
    }

    /// The same for a listener that `bind` makes.
    pub async fn open<L>(
        flag: Option<Self>,
        mut choice: Choice,
        bind: impl AsyncFn(SocketAddr) -> io::Result<L>,
    ) -> Result<Option<L>> {
        choice.explicit = match flag {
            Some(Self::Off) => return Ok(None),
            Some(Self::At(address)) => Some(address),
            None => choice.explicit,
        };
        choice.open(bind).await.map(Some)
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                "expected an address with its port, such as 127.0.0.1:8080, or off".to_owned()
            }),
        }
    }
}

/// A listener that the command line may choose.
pub struct Choice {
    /// What listens, for messages: `the API server`.
    pub what: &'static str,
    /// The flag that chooses, for messages.
    pub flag: &'static str,
    /// The port when the flag is not given, on the loopback address.
    pub default_port: u16,
    /// What the flag said.
    pub explicit: Option<SocketAddr>,
}

impl Choice {
    /// Binds the listener.
    pub async fn bind(&self) -> Result<TcpListener> {
        self.open(TcpListener::bind::<SocketAddr>).await
    }

    async fn open<L>(&self, bind: impl AsyncFn(SocketAddr) -> io::Result<L>) -> Result<L> {
        if let Some(address) = self.explicit {
            return bind(address).await.map_err(|error| match error.kind() {
                ErrorKind::AddrInUse => anyhow!(
                    "{address} is in use, so {} cannot listen there: stop what holds it, or choose another address with {}",
                    self.what,
                    self.flag
                ),
                _ => anyhow!("{} cannot listen on {address}: {error}", self.what),
            });
        }
        let last = self.default_port.saturating_add(ATTEMPTS);
        for port in self.default_port..=last {
            match bind((Ipv4Addr::LOCALHOST, port).into()).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                other => {
                    return other.with_context(|| {
                        format!("{} cannot listen on 127.0.0.1:{port}", self.what)
                    });
                }
            }
        }
        Err(anyhow!(
            "every port from {} to {last} of 127.0.0.1 is in use, so {} cannot listen: choose an address with {}",
            self.default_port,
            self.what,
            self.flag
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(default_port: u16, explicit: Option<SocketAddr>) -> Choice {
        Choice {
            what: "the API server",
            flag: "--listen",
            default_port,
            explicit,
        }
    }

    #[tokio::test]
    async fn a_listener_can_be_left_out_chosen_or_left_to_its_default() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        assert_eq!("127.0.0.1:0".parse(), Ok(Listen::At(address)));
        assert!("on".parse::<Listen>().is_err() && "8080".parse::<Listen>().is_err());
        let off = Listen::bind(Some(Listen::Off), choice(0, None)).await;
        assert!(off.expect("nothing to fail").is_none());
        let at = Listen::bind(Some(Listen::At(address)), choice(1, None)).await;
        assert!(at.expect("a free port").is_some());
    }

    #[tokio::test]
    async fn a_listener_of_another_kind_moves_on_likewise() {
        let taken = coracle_dns::HostListeners::bind((Ipv4Addr::LOCALHOST, 0).into()).await;
        let port = taken.expect("a free port").address().expect("bound").port();
        let taken = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await;
        let _taken = taken.expect("free again");
        let choice = choice(port, None);
        let moved = Listen::open(None, choice, coracle_dns::HostListeners::bind).await;
        let moved = moved.expect("the next free port").expect("not off");
        assert!(moved.address().expect("bound").port() > port);
    }

    #[tokio::test]
    async fn a_default_that_is_taken_moves_on_and_an_explicit_one_is_an_error() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = taken.local_addr().expect("bound");
        let moved = choice(address.port(), None)
            .bind()
            .await
            .expect("the next free port");
        assert!(moved.local_addr().expect("bound").port() > address.port());
        let error = choice(6443, Some(address))
            .bind()
            .await
            .expect_err("in use")
            .to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
    }
}
