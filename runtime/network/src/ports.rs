//! The port table of a namespace: who holds which address, and which ephemeral port is next.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::error::NetError;

/// The ports handed out for port 0 and to connects without a bind (Linux's default range).
pub(crate) const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// Holders by port and address. An unspecified address overlaps all others of its family and port; two
/// different addresses of the pod do not overlap each other. The families are apart, as with `IPV6_V6ONLY`.
pub(crate) struct PortTable<T> {
    ports: HashMap<u16, Vec<(IpAddr, T)>>,
    /// Where the search for an ephemeral port goes on.
    next: u16,
    ephemeral_in_use: usize,
}

impl<T> PortTable<T> {
    /// An empty table whose first ephemeral port is chosen by `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let range = u64::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        let next = EPHEMERAL.start() + u16::try_from(seed % range).expect("below the range");
        Self {
            ports: HashMap::new(),
            next,
            ephemeral_in_use: 0,
        }
    }

    /// Takes `address`, or for port 0 the next free ephemeral port of its IP.
    pub(crate) fn claim(&mut self, address: SocketAddr, holder: T) -> Result<SocketAddr, NetError> {
        let port = match address.port() {
            0 => self.next_ephemeral(address.ip())?,
            port if self.is_taken(address.ip(), port) => {
                return Err(NetError::AddressInUse(address));
            }
            port => port,
        };
        let holders = self.ports.entry(port).or_default();
        if holders.is_empty() && EPHEMERAL.contains(&port) {
            self.ephemeral_in_use += 1;
        }
        holders.push((address.ip(), holder));
        Ok(SocketAddr::new(address.ip(), port))
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: SocketAddr) {
        let Some(holders) = self.ports.get_mut(&address.port()) else {
            return;
        };
        holders.retain(|(ip, _)| *ip != address.ip());
        if holders.is_empty() {
            self.ports.remove(&address.port());
            if EPHEMERAL.contains(&address.port()) {
                self.ephemeral_in_use -= 1;
            }
        }
    }

    /// The holder that a packet for `destination` belongs to: the exact address before the
    /// unspecified one.
    pub(crate) fn find(&self, destination: SocketAddr) -> Option<&T> {
        let holders = self.ports.get(&destination.port())?;
        let exact = holders.iter().find(|(ip, _)| *ip == destination.ip());
        exact
            .or_else(|| {
                holders
                    .iter()
                    .find(|(ip, _)| ip.is_unspecified() && overlap(*ip, destination.ip()))
            })
            .map(|(_, held)| held)
    }

    /// The holder of exactly this address.
    pub(crate) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut T> {
        let holders = self.ports.get_mut(&address.port())?;
        holders
            .iter_mut()
            .find(|(ip, _)| *ip == address.ip())
            .map(|(_, held)| held)
    }

    /// All holders and their addresses, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &T)> {
        self.ports.iter().flat_map(|(port, holders)| {
            holders
                .iter()
                .map(|(ip, held)| (SocketAddr::new(*ip, *port), held))
        })
    }

    fn is_taken(&self, ip: IpAddr, port: u16) -> bool {
        let holders = self.ports.get(&port);
        holders.is_some_and(|holders| holders.iter().any(|(other, _)| overlap(*other, ip)))
    }

    /// An ephemeral port that nobody holds under any address: cheaper to find than one that is
    /// free under `ip` only, and there are enough.
    fn next_ephemeral(&mut self, ip: IpAddr) -> Result<u16, NetError> {
        debug_assert_ne!(ip, IpAddr::V4(Ipv4Addr::BROADCAST));
        if self.ephemeral_in_use >= EPHEMERAL.len() {
            return Err(NetError::PortsExhausted);
        }
        loop {
            let port = self.next;
            self.next = if port == *EPHEMERAL.end() {
                *EPHEMERAL.start()
            } else {
                port + 1
            };
            if !self.ports.contains_key(&port) {
                return Ok(port);
            }
        }
    }
}

fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let any = one.is_unspecified() || other.is_unspecified();
    one == other || (any && one.is_ipv4() == other.is_ipv4())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(choice: u8) -> IpAddr {
        match choice {
            0 => Ipv4Addr::UNSPECIFIED.into(),
            1 => Ipv4Addr::LOCALHOST.into(),
            3 => Ipv6Addr::UNSPECIFIED.into(),
            4 => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::new(10, 240, 0, 7).into(),
        }
    }

    fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
        let any = a.ip().is_unspecified() || b.ip().is_unspecified();
        let family = a.is_ipv4() == b.is_ipv4();
        a.port() == b.port() && family && (a.ip() == b.ip() || any)
    }

    proptest! {
        #[test]
        fn no_two_holders_overlap(
            seed in any::<u64>(),
            steps in prop::collection::vec((0u8..5, prop_oneof![Just(0u16), 80u16..84, 40000u16..40004], any::<bool>()), 1..200),
        ) {
            let mut table = PortTable::new(seed);
            let mut model: Vec<SocketAddr> = Vec::new();
            for (choice, port, release) in steps {
                if release && !model.is_empty() {
                    let address = model.swap_remove(usize::from(choice) % model.len());
                    table.release(address);
                    continue;
                }
                let wanted = SocketAddr::new(ip(choice), port);
                let free = port == 0 || !model.iter().any(|held| overlap(*held, wanted));
                match table.claim(wanted, ()) {
                    Ok(got) => {
                        prop_assert!(free);
                        prop_assert!(!model.iter().any(|held| overlap(*held, got)));
                        prop_assert!(port == got.port() || EPHEMERAL.contains(&got.port()));
                        model.push(got);
                    }
                    Err(error) => {
                        prop_assert!(!free);
                        prop_assert_eq!(error, NetError::AddressInUse(wanted));
                    }
                }
            }
        }
    }

    #[test]
    fn every_ephemeral_port_is_handed_out_once_and_then_none() {
        let mut table = PortTable::new(12345);
        let any = SocketAddr::new(ip(0), 0);
        let ports: HashSet<u16> = EPHEMERAL
            .map(|_| table.claim(any, ()).expect("a free port").port())
            .collect();
        assert_eq!(ports.len(), EPHEMERAL.len());
        assert_eq!(table.claim(any, ()), Err(NetError::PortsExhausted));
        table.release(SocketAddr::new(ip(0), 50000));
        assert_eq!(
            table.claim(any, ()).expect("the one that came back").port(),
            50000
        );
    }

    #[test]
    fn the_exact_address_is_found_before_the_unspecified_one() {
        let mut table = PortTable::new(0);
        table.claim(SocketAddr::new(ip(1), 80), "loopback").unwrap();
        table.claim(SocketAddr::new(ip(2), 80), "pod").unwrap();
        table.claim(SocketAddr::new(ip(0), 81), "any").unwrap();
        assert_eq!(table.find(SocketAddr::new(ip(1), 80)), Some(&"loopback"));
        assert_eq!(table.find(SocketAddr::new(ip(2), 80)), Some(&"pod"));
        assert_eq!(table.find(SocketAddr::new(ip(2), 81)), Some(&"any"));
        assert_eq!(table.find(SocketAddr::new(ip(2), 82)), None);
        assert_eq!(table.find(SocketAddr::new(ip(4), 81)), None);
        table
            .claim(SocketAddr::new(ip(3), 81), "any of v6")
            .unwrap();
        assert_eq!(table.find(SocketAddr::new(ip(2), 81)), Some(&"any"));
        assert_eq!(table.find(SocketAddr::new(ip(4), 81)), Some(&"any of v6"));
    }
}
