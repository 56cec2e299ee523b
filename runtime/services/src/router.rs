//! Where connects to Services lead: the endpoints to try, in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_network::{Protocol, Route, ServiceRouter};

use crate::affinity::{Affinity, Client};
use crate::index::{Found, Index};

/// How many endpoints one connection may try.
const CANDIDATES: usize = 16;

/// Answers the fabric from the index.
pub(crate) struct Router {
    index: Arc<Index>,
    clock: Clock,
    affinity: Affinity,
    /// The node in the pod network, where pods reach node ports.
    node: IpAddr,
}

impl Router {
    pub(crate) fn new(index: Arc<Index>, clock: Clock, node: IpAddr) -> Self {
        Self {
            index,
            clock,
            affinity: Affinity::default(),
            node,
        }
    }

    /// The endpoints for a connection from `client` to a TCP port of the node, in the order to be
    /// tried; none if nobody serves it.
    pub(crate) fn node_port(&self, client: IpAddr, port: u16) -> Vec<SocketAddr> {
        let found = self
            .index
            .ask(|tables| tables.at_node_port(port, Protocol::Tcp).cloned());
        found.map_or_else(Vec::new, |found| {
            self.candidates(client, &found, found.port().endpoints.any())
        })
    }

    /// Some of `endpoints`, in the order to be tried by `client`.
    pub(crate) fn candidates(
        &self,
        client: IpAddr,
        found: &Found,
        endpoints: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        if endpoints.is_empty() {
            return Vec::new();
        }
        let mut start = found.service.next_turn() % endpoints.len();
        if let Some(stay) = found.service.entry.affinity {
            let client = Client {
                address: client,
                service: found.service.entry.key.clone(),
                port: found.port().port,
                protocol: found.port().protocol,
            };
            let place = |endpoint: &SocketAddr| endpoints.binary_search(endpoint);
            let there = |held: SocketAddr| place(&held).is_ok();
            let now = self.clock.monotonic();
            let chosen = self
                .affinity
                .settle(client, now, stay, there, endpoints[start]);
            start = place(&chosen).unwrap_or(start);
        }
        from_start(endpoints, start)
    }
}

/// At most [`CANDIDATES`] of `endpoints`, beginning at `start` and going around.
fn from_start(endpoints: &[SocketAddr], start: usize) -> Vec<SocketAddr> {
    let (before, after) = endpoints.split_at(start);
    after
        .iter()
        .chain(before)
        .take(CANDIDATES)
        .copied()
        .collect()
}

impl ServiceRouter for Router {
    fn route(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Route {
        enum Answer {
            Served(Found),
            Refused,
            Elsewhere,
        }
        let at_node = to.ip() == self.node;
        let answer = self.index.ask(|tables| {
            let found = if at_node {
                tables.at_node_port(to.port(), protocol)
            } else {
                tables.at(to, protocol)
            };
            match found {
                Some(found) => Answer::Served(found.clone()),
                // As upstream's newer proxies: a Service's address refuses on its other ports.
                None if tables.has_address(to.ip()) => Answer::Refused,
                None => Answer::Elsewhere,
            }
        });
        match answer {
            Answer::Elsewhere => Route::NotAService,
            Answer::Refused => Route::Refuse,
            Answer::Served(found) => {
                let all = &found.port().endpoints;
                let endpoints = if at_node {
                    all.any()
                } else {
                    all.of_family(to.ip())
                };
                match self.candidates(from, &found, endpoints) {
                    none if none.is_empty() => Route::Refuse,
                    some => Route::Endpoints(some),
                }
            }
        }
    }
}
