//! The set of node ports that are taken.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use coracle_clock::Clock;

/// Why a port is not handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PortRefusal {
    #[error("provided port is already allocated")]
    Taken,
    #[error("provided port is not in the valid range. The range of valid ports is {}-{}", .0.start(), .0.end())]
    OutOfRange(RangeInclusive<u16>),
}

/// Which ports of a range are taken.
pub(super) struct NodePorts {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
}

impl NodePorts {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self, port: u16) -> Result<(), PortRefusal> {
        if !self.range.contains(&port) {
            return Err(PortRefusal::OutOfRange(self.range.clone()));
        }
        if self.taken.insert(port) {
            Ok(())
        } else {
            Err(PortRefusal::Taken)
        }
    }

    /// A free port: a random one of the upper band, else any; the lower band is left to be asked for by number
    /// (KEP-3668).
    pub(super) fn take_any(&mut self, clock: &Clock) -> Option<u16> {
        let (low, high) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let size = high.checked_sub(low)? + 1;
        let band = (size / 32).clamp(16, 128).min(size / 2);
        let span = size - band;
        let start = clock.random_below(u64::from(span)) as u32;
        let upper = (0..span).map(|step| low + band + (start + step) % span);
        let lower = (0..band).map(|step| low + step);
        let found = upper
            .chain(lower)
            .map(|port| port as u16)
            .find(|port| !self.taken.contains(port))?;
        self.taken.insert(found);
        Some(found)
    }

    pub(super) fn taken(&self) -> &BTreeSet<u16> {
        &self.taken
    }

    pub(super) fn range(&self) -> &RangeInclusive<u16> {
        &self.range
    }

    pub(super) fn release_all(&mut self, ports: &[u16]) {
        for port in ports {
            self.taken.remove(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lower_band_is_used_last_and_the_range_completely() {
        let mut ports = NodePorts::new(30_000..=30_099);
        let clock = Clock::fake(1);
        let drawn: Vec<u16> = std::iter::from_fn(|| ports.take_any(&clock)).collect();
        assert_eq!(drawn.len(), 100);
        assert!(drawn[..84].iter().all(|port| *port >= 30_016));
        assert_eq!(ports.take(30_050), Err(PortRefusal::Taken));
        assert_eq!(
            ports.take(80),
            Err(PortRefusal::OutOfRange(30_000..=30_099))
        );
    }
}
