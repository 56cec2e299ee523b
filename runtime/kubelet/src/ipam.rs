//! Addresses of the pods of one node.
//!
//! ```text
//! 10.240.0.0/18:  .0 network   .1 the node inside the pod network   .2 … pods …   last: broadcast
//! ```
//!
//! Addresses are handed out in order and come round again only after all others have been used, so
//! that a late packet or a stale endpoint does not reach the next pod.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Why no address was handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free address is left in the node's pod range {range}: {used} are in use; delete pods, or start the node with a shorter --node-cidr-mask-size"
)]
pub struct Exhausted {
    range: Ipv4Net,
    used: usize,
}

/// The allocator of one node's pod range.
#[derive(Clone, Debug)]
pub struct Ipam {
    range: Ipv4Net,
    used: BTreeSet<Ipv4Addr>,
    /// Where the search for the next free address begins.
    next: u32,
}

impl Ipam {
    /// The allocator of `range`, whose first address is the node's.
    pub fn new(range: Ipv4Net) -> Self {
        Self {
            range,
            used: BTreeSet::new(),
            next: first_pod(range),
        }
    }

    /// The node's own address inside the pod network.
    pub fn node_address(range: Ipv4Net) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(range.network()) + 1)
    }

    /// Takes an address that a pod had before a restart. False when it is another pod's, the node's
    /// or outside the range.
    pub fn reserve(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) if self.is_for_pods(address) => self.used.insert(address),
            _ => false,
        }
    }

    /// Takes the next free address.
    pub fn allocate(&mut self) -> Result<IpAddr, Exhausted> {
        let (first, last) = (first_pod(self.range), last_pod(self.range));
        let candidates = (self.next..=last).chain(first..self.next.min(last.saturating_add(1)));
        for candidate in candidates {
            if self.used.insert(Ipv4Addr::from(candidate)) {
                self.next = if candidate >= last {
                    first
                } else {
                    candidate + 1
                };
                return Ok(IpAddr::V4(Ipv4Addr::from(candidate)));
            }
        }
        Err(Exhausted {
            range: self.range,
            used: self.used.len(),
        })
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.used.remove(&address);
        }
    }

    fn is_for_pods(&self, address: Ipv4Addr) -> bool {
        (first_pod(self.range)..=last_pod(self.range)).contains(&u32::from(address))
    }
}

/// The address at the same place of an IPv6 range; `None` for one outside `range`, or if there is no such place.
pub(crate) fn second(range: Ipv4Net, range_v6: Ipv6Net, address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let place = u32::from(address).checked_sub(u32::from(range.network()))?;
    let second = range_v6.network().to_bits().checked_add(place.into())?;
    let second = Ipv6Addr::from_bits(second);
    (range.contains(&address) && range_v6.contains(&second)).then_some(second.into())
}

fn first_pod(range: Ipv4Net) -> u32 {
    u32::from(range.network()).saturating_add(2)
}

fn last_pod(range: Ipv4Net) -> u32 {
    u32::from(range.broadcast()).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(range: &str) -> Ipam {
        Ipam::new(range.parse().expect("a range"))
    }

    #[test]
    fn addresses_come_round_only_after_all_others() {
        let mut ipam = ipam("10.240.0.0/29");
        let first = ipam.allocate().expect("free");
        assert_eq!(first, IpAddr::from([10, 240, 0, 2]));
        ipam.release(first);
        let more: Vec<_> = (0..4).map(|_| ipam.allocate().expect("free")).collect();
        assert!(!more.contains(&first), "{more:?}");
        assert_eq!(ipam.allocate(), Ok(first));
        let error = ipam.allocate().expect_err("full").to_string();
        assert!(error.contains("10.240.0.0/29: 5 are in use"), "{error}");
    }

    #[test]
    fn a_pod_has_the_same_place_in_both_ranges() {
        let (range, range_v6) = ("10.240.0.0/18", "fd00:10:240::/64");
        let (range, range_v6) = (range.parse().expect("one"), range_v6.parse().expect("one"));
        for (four, six) in [
            ("10.240.0.1", Some("fd00:10:240::1")),
            ("10.240.1.2", Some("fd00:10:240::102")),
            ("10.240.63.254", Some("fd00:10:240::3ffe")),
            ("10.240.64.0", None),
            ("10.239.255.255", None),
            ("fd00:10:240::1", None),
        ] {
            let found = second(range, range_v6, four.parse().expect("an address"));
            let wanted = six.map(|six| six.parse::<IpAddr>().expect("an address"));
            assert_eq!(found, wanted, "{four}");
        }
        let small = "fd00::/124".parse().expect("a range");
        assert_eq!(second(range, small, [10, 240, 0, 16].into()), None);
    }

    #[test]
    fn kept_addresses_are_not_handed_out() {
        let mut ipam = ipam("10.240.0.0/29");
        assert!(ipam.reserve([10, 240, 0, 2].into()));
        assert!(!ipam.reserve([10, 240, 0, 2].into()), "taken");
        assert!(!ipam.reserve([10, 240, 0, 1].into()), "the node's");
        assert!(!ipam.reserve([10, 240, 0, 7].into()), "broadcast");
        assert!(!ipam.reserve([10, 1, 0, 3].into()), "outside");
        assert_eq!(ipam.allocate(), Ok([10, 240, 0, 3].into()));
    }

    proptest::proptest! {
        #[test]
        fn no_address_is_ever_held_twice(steps in proptest::collection::vec(0u8..8, 0..200)) {
            let mut ipam = ipam("10.240.0.0/28");
            let mut held: Vec<IpAddr> = Vec::new();
            for step in steps {
                if step < 5 {
                    match ipam.allocate() {
                        Ok(address) => {
                            proptest::prop_assert!(!held.contains(&address));
                            held.push(address);
                        }
                        Err(_) => proptest::prop_assert_eq!(held.len(), 13),
                    }
                } else if !held.is_empty() {
                    ipam.release(held.swap_remove(usize::from(step) % held.len()));
                }
            }
        }
    }
}
