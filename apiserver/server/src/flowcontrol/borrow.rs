//! How priority levels lend and borrow seats: what each wanted of late, and how the server's seats are shared out.
//!
//! Upstream: `conc_alloc.go`, `updateBorrowing` in `apf_controller.go` and KEP-1040. Every ten seconds a level's limit moves
//! between what it keeps and what it may borrow, towards what it wanted.

/// How often limits move, in seconds.
pub(super) const PERIOD: f64 = 10.0;

/// How much of the smoothed demand is left after a period.
const SMOOTHING: f64 = 0.977;

/// The least that a level is taken to want, so that shares can be compared.
const LEAST_TARGET: f64 = 0.001;

/// How many seats a level wants, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    value: f64,
    /// When `value` began, in seconds.
    since: f64,
    /// When the period began.
    begun: f64,
    sum: f64,
    squares: f64,
    high: f64,
    /// The last period's.
    pub(super) last: Wanted,
}

/// What a level wanted in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) high: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
    /// Rises with the demand at once, and falls slowly.
    pub(super) smoothed: f64,
}

impl Demand {
    pub(super) fn new(now: f64) -> Self {
        Self {
            since: now,
            begun: now,
            ..Self::default()
        }
    }

    /// From now on so many seats are wanted.
    pub(super) fn set(&mut self, value: u64, now: f64) {
        self.advance(now);
        self.value = value as f64;
        self.high = self.high.max(self.value);
    }

    fn advance(&mut self, now: f64) {
        let time = (now - self.since).max(0.0);
        self.sum += self.value * time;
        self.squares += self.value * self.value * time;
        self.since = now;
    }

    /// Ends the period, which may have been several.
    pub(super) fn settle(&mut self, now: f64) -> Wanted {
        self.advance(now);
        let time = now - self.begun;
        let (average, deviation) = match time > 0.0 {
            true => {
                let average = self.sum / time;
                let variance = self.squares / time - average * average;
                (average, variance.max(0.0).sqrt())
            }
            false => (self.value, 0.0),
        };
        let envelope = (average + deviation).min(self.high);
        let left = SMOOTHING.powf((time / PERIOD).max(1.0));
        let smoothed = left * self.last.smoothed + (1.0 - left) * envelope;
        self.last = Wanted {
            high: self.high,
            average,
            deviation,
            smoothed: smoothed.max(envelope),
        };
        *self = Self {
            value: self.value,
            high: self.value,
            last: self.last,
            ..Self::new(now)
        };
        self.last
    }
}

/// What a level wants, and between which bounds it may get it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) target: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Shares out `total`: everybody gets the same proportion of what they want, within their bounds. If the lower bounds are
/// more than there is, everybody gets theirs; if the upper ones are less, likewise.
pub(super) fn share_out(total: f64, claims: &[Claim]) -> Vec<f64> {
    let at = |proportion: f64| {
        claims.iter().map(move |claim| {
            let wanted = proportion * claim.target.max(LEAST_TARGET);
            wanted.min(claim.high).max(claim.low)
        })
    };
    let sum = |proportion: f64| at(proportion).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    // Past this proportion everybody has their upper bound.
    let end = (total + 1.0) / LEAST_TARGET;
    while high < end && sum(high) < total {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        match sum(middle) < total {
            true => low = middle,
            false => high = middle,
        }
    }
    at(low).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(target: f64, low: f64, high: f64) -> Claim {
        Claim { target, low, high }
    }

    fn rounded(total: f64, claims: &[Claim]) -> Vec<i64> {
        let shares = share_out(total, claims);
        shares.iter().map(|share| share.round() as i64).collect()
    }

    #[test]
    fn seats_are_shared_in_proportion_within_bounds() {
        for (total, claims, shares) in [
            (
                30.0,
                vec![claim(10.0, 0.0, 90.0), claim(20.0, 0.0, 90.0)],
                vec![10, 20],
            ),
            (
                60.0,
                vec![claim(10.0, 0.0, 90.0), claim(20.0, 0.0, 90.0)],
                vec![20, 40],
            ),
            (
                60.0,
                vec![claim(10.0, 0.0, 15.0), claim(20.0, 0.0, 90.0)],
                vec![15, 45],
            ),
            (
                30.0,
                vec![claim(10.0, 0.0, 90.0), claim(50.0, 25.0, 90.0)],
                vec![5, 25],
            ),
            // Nobody wants anything.
            (
                30.0,
                vec![claim(0.0, 0.0, 90.0), claim(0.0, 0.0, 90.0)],
                vec![15, 15],
            ),
            // Bounds win over the total.
            (
                10.0,
                vec![claim(9.0, 9.0, 90.0), claim(9.0, 9.0, 90.0)],
                vec![9, 9],
            ),
            (
                90.0,
                vec![claim(9.0, 0.0, 10.0), claim(9.0, 0.0, 20.0)],
                vec![10, 20],
            ),
            (90.0, vec![], vec![]),
        ] {
            assert_eq!(rounded(total, &claims), shares, "{total} {claims:?}");
        }
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::new(0.0);
        demand.set(10, 0.0);
        let first = demand.settle(10.0);
        assert_eq!(
            (first.high, first.average, first.smoothed),
            (10.0, 10.0, 10.0)
        );
        demand.set(0, 10.0);
        let second = demand.settle(20.0);
        // It began with ten, for no time at all.
        assert_eq!((second.high, second.average), (10.0, 0.0));
        assert!((second.smoothed - 9.77).abs() < 1e-9, "{second:?}");
        let third = demand.settle(1020.0);
        assert!(third.smoothed < 1.0, "{third:?}");
        assert_eq!(third.high, 0.0);
    }

    #[test]
    fn short_peaks_count_for_less_than_long_ones() {
        let mut demand = Demand::new(0.0);
        demand.set(100, 1.0);
        demand.set(0, 1.1);
        let wanted = demand.settle(10.0);
        assert_eq!(wanted.high, 100.0);
        assert!((wanted.average - 1.0).abs() < 1e-6, "{wanted:?}");
        assert!(wanted.smoothed < 12.0, "{wanted:?}");
    }
}
