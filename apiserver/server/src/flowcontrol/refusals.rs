//! How long refused clients are told to stay away.
//!
//! Upstream: `dropped_requests_tracker.go`. A second at first; twice as long when a level went on refusing, and a second
//! less when it did not.

/// The longest, in seconds.
const LONGEST: u64 = 32;

/// What one level refused of late.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    /// Seconds in which something was refused, and how much; the last is the present one.
    seconds: Vec<(u64, u64)>,
    after: u64,
    /// When `after` grew.
    grew: Option<u64>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            seconds: Vec::new(),
            after: 1,
            grew: None,
        }
    }
}

impl Refusals {
    /// Something is refused now, in this second; the answer is how many seconds its client should stay away.
    pub(super) fn refuse(&mut self, second: u64) -> u64 {
        match self.seconds.last_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => {
                let old = |(at, _): &(u64, u64)| second.saturating_sub(*at) <= LONGEST;
                self.seconds.retain(old);
                self.adjust(second);
                self.seconds.push((second, 1));
            }
        }
        self.after
    }

    /// A second begins in which something is refused.
    fn adjust(&mut self, second: u64) {
        let recent = |(at, _): &&(u64, u64)| second.saturating_sub(*at) <= self.after;
        let refused: u64 = self.seconds.iter().filter(recent).map(|(_, n)| n).sum();
        let may_grow = self
            .grew
            .is_none_or(|grew| second.saturating_sub(grew) >= self.after);
        if may_grow && refused >= 3 * self.after {
            self.after = (self.after * 2).min(LONGEST);
            self.grew = Some(second);
        } else if refused < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stay_away_longer_while_refusals_go_on_and_shorter_once_they_end() {
        let mut refusals = Refusals::default();
        // So many in each second, and what their clients are told.
        for (second, times, after) in [
            (100, 2, 1),
            // Two a second are not many.
            (101, 9, 1),
            (102, 9, 2),
            // It grows only once those who were refused have come again.
            (103, 9, 2),
            (104, 20, 4),
            (108, 20, 8),
            // Long after, a second less each time.
            (200, 1, 7),
            (201, 1, 6),
        ] {
            let told: Vec<u64> = (0..times).map(|_| refusals.refuse(second)).collect();
            assert!(told.iter().all(|told| *told == after), "{second}: {told:?}");
        }
    }

    #[test]
    fn there_is_a_longest() {
        let mut refusals = Refusals::default();
        let mut told = 0;
        for second in 0..300 {
            for _ in 0..100 {
                told = refusals.refuse(second);
            }
        }
        assert_eq!(told, LONGEST);
        assert!(refusals.seconds.len() <= LONGEST as usize + 2);
    }
}
