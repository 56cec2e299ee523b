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
        Self { range, taken: BTreeSet::new() }
    }

    pub(super) fn take(&mut self, port: u16) -> Result<(), PortRefusal> {
        if !self.range.contains(&port) {
            return Err(PortRefusal::OutOfRange(self.range.clone()));
        }
        if self.taken.insert(port) { Ok(()) } else { Err(PortRefusal::Taken) }
    }

    /// A free port, sought from a random one on.
    pub(super) fn take_any(&mut self, clock: &Clock) -> Option<u16> {
        let (low, high) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let size = high.checked_sub(low)? + 1;
        let start = clock.random_below(u64::from(size)) as u32;
        let ports = (0..size).map(|step| (low + (start + step) % size) as u16);
        let found = ports.into_iter().find(|port| !self.taken.contains(port))?;
        self.taken.insert(found);
        Some(found)
    }

    pub(super) fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}
