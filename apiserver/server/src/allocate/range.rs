//! Ranges of addresses.

use std::net::Ipv4Addr;
use std::str::FromStr;

use coracle_clock::Clock;

/// An IPv4 range in CIDR notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    base: u32,
    prefix: u8,
}

/// A range that cannot be used for Services.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 range of 16 or more addresses, such as 10.96.0.0/16")]
pub struct RangeError(String);

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(8..=28).contains(&prefix) {
            return Err(bad());
        }
        let mask = u32::MAX << (32 - prefix);
        Ok(Self {
            base: u32::from(address) & mask,
            prefix,
        })
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl AddressRange {
    /// The range of `bits` leading bits of `base`; `None` when it has no address to hand out.
    pub fn of(base: Ipv4Addr, bits: u8) -> Option<Self> {
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        (1..=30).contains(&bits).then(|| Self {
            base: u32::from(base) & mask,
            prefix: bits,
        })
    }

    /// The address at `offset`.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset)
    }

    /// Number of addresses, network and broadcast included.
    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// Whether `address` may be handed out: the network and broadcast addresses may not.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size() - 1
    }

    /// The offset from which addresses are drawn; those below are left to be asked for by name (KEP-3070).
    fn dynamic_offset(&self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }

    /// All addresses that may be handed out: a random one of the upper band first, then those after it, then the
    /// lower band.
    pub(super) fn candidates(&self, clock: &Clock) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let (low, high) = (self.dynamic_offset().max(1), self.size() - 1);
        let span = high - low;
        let start = clock.random_below(u64::from(span.max(1))) as u32;
        let upper = (0..span).map(move |step| low + (start + step) % span);
        let lower = (1..low).rev();
        upper.chain(lower).map(|offset| self.at(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ranges_are_cidrs() {
        let range: AddressRange = "10.96.3.4/16".parse().expect("legal");
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert_eq!(range.at(10), Ipv4Addr::new(10, 96, 0, 10));
        assert!(
            range.contains(range.at(1))
                && !range.contains(range.at(0))
                && !range.contains(range.at(65_535))
        );
        assert!(
            !range.contains(Ipv4Addr::new(10, 97, 0, 1))
                && !range.contains(Ipv4Addr::new(10, 95, 0, 1))
        );
        for bad in [
            "10.96.0.0",
            "x/16",
            "10.0.0.0/30",
            "10.0.0.0/2",
            "fd00::/64",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_range_is_offered_completely_and_no_address_twice() {
        let clock = Clock::fake(1);
        for bits in [24, 28, 29, 30] {
            let range = AddressRange::of(Ipv4Addr::new(10, 0, 0, 7), bits).expect("a range");
            let offered: Vec<Ipv4Addr> = range.candidates(&clock).collect();
            let distinct: HashSet<_> = offered.iter().collect();
            assert_eq!(distinct.len(), offered.len());
            assert_eq!(offered.len() as u32, (1 << (32 - bits)) - 2);
            assert!(offered.iter().all(|address| range.contains(*address)));
        }
        assert!(AddressRange::of(Ipv4Addr::new(10, 0, 0, 7), 31).is_none());
    }
}
