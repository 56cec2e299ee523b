//! Addresses of the pods of one node.
//!
//! ```text
//! 10.240.0.0/18:  .0 network   .1 the node inside the pod network   .2 … pods …   last: broadcast
//! fd00::/64:      ::0 network  ::1 the node                         ::2 … pods
//! ```
//!
//! Addresses are handed out in order and come round again only after all others have been used, so
//! that a late packet or a stale endpoint does not reach the next pod. On a node with both families a pod has the same
//! place in both ranges, so that one of its addresses tells the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why no address was handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free address is left in the node's pod range {range}: {used} are in use; delete pods, or start the node with a shorter --node-cidr-mask-size"
)]
pub struct Exhausted {
    range: IpNet,
    used: usize,
}

/// The place of the node in its range, and of the first pod.
const NODE: u32 = 1;
const FIRST: u32 = 2;

/// The allocator of one node's pod range.
#[derive(Clone, Debug)]
pub struct Ipam {
    range: IpNet,
    /// The last place that a pod may have.
    last: u32,
    /// Places.
    used: BTreeSet<u32>,
    /// Where the search for the next free place begins.
    next: u32,
}

impl Ipam {
    /// The allocator of `range`, whose first address is the node's. Where pods have an address in `second` as well, no
    /// place is handed out that this has not.
    pub fn new(range: IpNet, second: Option<IpNet>) -> Self {
        let last = second.map_or(u32::MAX, last_place);
        Self {
            range,
            last: last_place(range).min(last),
            used: BTreeSet::new(),
            next: FIRST,
        }
    }

    /// The node's own address inside the pod network.
    pub fn node_address(range: IpNet) -> IpAddr {
        at(range, NODE)
    }

    /// Takes an address that a pod had before a restart. False when it is another pod's, the node's
    /// or outside the range.
    pub fn reserve(&mut self, address: IpAddr) -> bool {
        let place = place(self.range, address);
        place.is_some_and(|place| (FIRST..=self.last).contains(&place) && self.used.insert(place))
    }

    /// Takes the next free address.
    pub fn allocate(&mut self) -> Result<IpAddr, Exhausted> {
        let next = self.next;
        for candidate in (next..=self.last).chain(FIRST..next.min(self.last.saturating_add(1))) {
            if self.used.insert(candidate) {
                self.next = if candidate >= self.last {
                    FIRST
                } else {
                    candidate + 1
                };
                return Ok(at(self.range, candidate));
            }
        }
        Err(Exhausted {
            range: self.range,
            used: self.used.len(),
        })
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(place) = place(self.range, address) {
            self.used.remove(&place);
        }
    }
}

/// How many pods have an address in the range: its first two are the network's and the node's, and the last one of IPv4 is
/// the broadcast.
pub fn pods_in(range: IpNet) -> u32 {
    last_place(range).saturating_sub(NODE)
}

/// The address at the same place of another range; `None` for one outside `range`, or if there is no such place.
pub(crate) fn second(range: IpNet, second: IpNet, address: IpAddr) -> Option<IpAddr> {
    let place = place(range, address)?;
    (place <= last_place(second)).then(|| at(second, place))
}

/// Only as much of a range of IPv6 is used as its places have numbers.
fn last_place(range: IpNet) -> u32 {
    let bits = range.max_prefix_len() - range.prefix_len();
    let all = 1u64.checked_shl(bits.into()).filter(|_| bits < 32);
    let all = all.and_then(|all| u32::try_from(all).ok());
    let without = if range.addr().is_ipv4() { 2 } else { 1 };
    all.map_or(u32::MAX - 1, |all| all.saturating_sub(without))
}

fn at(range: IpNet, place: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).saturating_add(place)).into(),
        IpAddr::V6(first) => {
            Ipv6Addr::from_bits(first.to_bits().saturating_add(place.into())).into()
        }
    }
}

fn place(range: IpNet, address: IpAddr) -> Option<u32> {
    if !range.contains(&address) {
        return None;
    }
    match (range.network(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => {
            u32::from(address).checked_sub(u32::from(first))
        }
        (IpAddr::V6(first), IpAddr::V6(address)) => {
            u32::try_from(address.to_bits().checked_sub(first.to_bits())?).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(range: &str) -> Ipam {
        Ipam::new(range.parse().expect("a range"), None)
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
        // Whichever is the first.
        let six = "fd00:10:240::102".parse().expect("an address");
        assert_eq!(second(range_v6, range, six), Some([10, 240, 1, 2].into()));
        let high = "fd00:10:240::1:0".parse().expect("an address");
        assert_eq!(second(range_v6, range, high), None);
    }

    #[test]
    fn a_range_of_ipv6_is_used_as_one_of_ipv4_is() {
        let range = "fd00::/126".parse().expect("a range");
        let mut small = Ipam::new(range, None);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(Ipam::node_address(range), address("fd00::1"));
        assert!(small.reserve(address("fd00::3")));
        assert!(!small.reserve(address("fd00::1")), "the node's");
        assert!(!small.reserve([10, 240, 0, 2].into()), "of no such family");
        assert_eq!(small.allocate(), Ok(address("fd00::2")));
        assert!(small.allocate().is_err());
        small.release(address("fd00::3"));
        assert_eq!(small.allocate(), Ok(address("fd00::3")));

        // No pod gets a place that the other range has not.
        let other = "10.240.0.0/29".parse().expect("a range");
        let mut both = Ipam::new("fd00::/64".parse().expect("a range"), Some(other));
        for last in 2..7 {
            assert_eq!(both.allocate(), Ok(address(&format!("fd00::{last}"))));
        }
        assert!(both.allocate().is_err());
        assert!(!both.reserve(address("fd00::7")));
    }

    #[test]
    fn ranges_of_all_sizes_have_their_numbers_of_pods() {
        for (range, pods) in [
            ("10.240.0.0/18", 16_381),
            ("10.240.0.0/30", 1),
            ("10.240.0.0/31", 0),
            ("10.240.0.0/32", 0),
            ("fd00::/120", 254),
            ("fd00::/128", 0),
            ("fd00::/96", u32::MAX - 2),
            ("fd00::/64", u32::MAX - 2),
        ] {
            assert_eq!(pods_in(range.parse().expect("a range")), pods, "{range}");
        }
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
