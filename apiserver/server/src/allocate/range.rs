//! Ranges of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use coracle_api::validation::address::{masked, parse_cidr};
use coracle_clock::Clock;

use super::families::Family;

/// A range in CIDR notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    base: IpAddr,
    prefix: u8,
}

/// A range that cannot be used for Services.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a range of 16 or more addresses, such as 10.96.0.0/16 or fd00:96::/112")]
pub struct RangeError(String);

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let (base, prefix) = parse_cidr(text).ok_or_else(bad)?;
        let fits = match base {
            IpAddr::V4(_) => (8..=28).contains(&prefix),
            IpAddr::V6(_) => (64..=124).contains(&prefix),
        };
        Self::of(base, prefix).filter(|_| fits).ok_or_else(bad)
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl AddressRange {
    /// The range of `bits` leading bits of `base`; `None` when it has no address to hand out.
    pub fn of(base: IpAddr, bits: u8) -> Option<Self> {
        let most = if base.is_ipv4() { 30 } else { 126 };
        (1..=most).contains(&bits).then(|| Self {
            base: masked(base, bits),
            prefix: bits,
        })
    }

    /// The family of its addresses.
    pub(super) fn family(&self) -> Family {
        Family::of(self.base)
    }

    /// The address at `offset`, which lies in the range.
    pub fn at(&self, offset: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) + offset as u32).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) + offset).into(),
        }
    }

    /// Number of addresses, network and broadcast included.
    fn size(&self) -> u128 {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        1 << (bits - self.prefix)
    }

    /// One past the last offset that may be handed out: IPv6 has no broadcast address.
    fn end(&self) -> u128 {
        self.size() - u128::from(self.base.is_ipv4())
    }

    /// Whether `address` may be handed out: the network and broadcast addresses may not.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let offset = number(address).wrapping_sub(number(self.base));
        Family::of(address) == self.family() && (1..self.end()).contains(&offset)
    }

    /// The offset from which addresses are drawn; those below are left to be asked for by name (KEP-3070).
    fn dynamic_offset(&self) -> u128 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }

    /// All addresses that may be handed out: a random one of the upper band first, then those after it, then the
    /// lower band.
    pub(super) fn candidates(&self, clock: &Clock) -> impl Iterator<Item = IpAddr> + '_ {
        let (low, high) = (self.dynamic_offset().max(1), self.end());
        let span = high - low;
        let bound = u64::try_from(span.max(1)).unwrap_or(u64::MAX);
        let start = u128::from(clock.random_below(bound));
        let upper = (0..span).map(move |step| low + (start + step) % span);
        let lower = (1..low).rev();
        upper.chain(lower).map(|offset| self.at(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ranges_are_cidrs() {
        let range: AddressRange = "10.96.3.4/16".parse().expect("legal");
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.at(10), address("10.96.0.10"));
        assert!(
            range.contains(range.at(1))
                && !range.contains(range.at(0))
                && !range.contains(range.at(65_535))
        );
        for foreign in ["10.97.0.1", "10.95.0.1", "::a60:1"] {
            assert!(!range.contains(address(foreign)), "{foreign}");
        }
        let range: AddressRange = "fd00:96::/112".parse().expect("legal");
        assert_eq!(range.at(1), address("fd00:96::1"));
        assert!(range.contains(range.at(65_535)) && !range.contains(range.at(0)));
        for bad in [
            "10.96.0.0",
            "x/16",
            "10.0.0.0/30",
            "10.0.0.0/2",
            "fd00::/48",
            "fd00::/126",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_range_is_offered_completely_and_no_address_twice() {
        let clock = Clock::fake(1);
        for (base, bits, count) in [
            ("10.0.0.7", 24, 254),
            ("10.0.0.7", 28, 14),
            ("10.0.0.7", 29, 6),
            ("10.0.0.7", 30, 2),
            ("fd00::7", 120, 255),
            ("fd00::7", 126, 3),
        ] {
            let range = AddressRange::of(address(base), bits).expect("a range");
            let offered: Vec<IpAddr> = range.candidates(&clock).collect();
            let distinct: HashSet<_> = offered.iter().collect();
            assert_eq!(distinct.len(), offered.len());
            assert_eq!(offered.len(), count, "{base}/{bits}");
            assert!(offered.iter().all(|address| range.contains(*address)));
        }
        assert!(AddressRange::of(address("10.0.0.7"), 31).is_none());
        // A range that nobody can walk through is drawn from all the same.
        let wide = AddressRange::of(address("fd00::"), 64).expect("a range");
        assert!(
            wide.candidates(&clock)
                .take(3)
                .all(|address| wide.contains(address))
        );
    }
}
