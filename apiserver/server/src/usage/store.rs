//! The last two scrapes of every node, and the rates between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::RESOLUTION;
use super::scrape::{Point, Scrape};

/// A container that began so lately has its start for its first point.
const FRESH: Duration = Duration::from_secs(2 * RESOLUTION.as_secs());
/// Rates over less than this say nothing.
const SHORTEST: i64 = 1000;

/// What somebody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    /// When it was measured last, in milliseconds since 1970.
    pub(super) at: i64,
    /// Since when, likewise.
    pub(super) since: i64,
    /// Nanoseconds of processor time per second.
    pub(super) cpu: u64,
    /// Bytes.
    pub(super) memory: u64,
}

/// By node: the latest scrape and the one before.
#[derive(Debug, Default)]
pub(super) struct Store {
    nodes: BTreeMap<String, (Option<Scrape>, Scrape)>,
    /// Which node has a pod.
    homes: BTreeMap<(String, String), String>,
}

impl Store {
    /// Takes the scrapes of one round; nodes that are not among them, because they are gone or did not answer, are
    /// forgotten.
    pub(super) fn put(&mut self, round: Vec<(String, Scrape)>) {
        let mut before = std::mem::take(&mut self.nodes);
        self.homes.clear();
        for (node, scrape) in round {
            for pod in scrape.pods.keys() {
                self.homes.insert(pod.clone(), node.clone());
            }
            let previous = before.remove(&node).map(|(_, latest)| latest);
            self.nodes.insert(node, (previous, scrape));
        }
    }

    /// What a node uses.
    pub(super) fn node(&self, name: &str) -> Option<Usage> {
        let (before, now) = self.nodes.get(name)?;
        usage(before.as_ref()?.node, now.node?)
    }

    /// What the containers of a pod use; `None` until all that were measured have a rate.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(String, Usage)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let (before, now) = self.nodes.get(self.homes.get(&key)?)?;
        let before = before.as_ref().and_then(|scrape| scrape.pods.get(&key));
        let containers = now.pods.get(&key)?.iter();
        let known = containers.map(|(container, now)| {
            let before = before.and_then(|pod| pod.get(container)).copied();
            Some((container.clone(), usage(before, *now)?))
        });
        known.collect()
    }
}

/// The rate between two points; of a run that is new since the first, or was never seen before, the one since its
/// start, if that was lately.
fn usage(before: Option<Point>, now: Point) -> Option<Usage> {
    let same = before.filter(|before| before.started == now.started && before.cpu <= now.cpu);
    let first = same.or_else(|| {
        let up = now.at.checked_sub(now.started)?;
        let fresh = i64::try_from(FRESH.as_millis()).unwrap_or(i64::MAX);
        (now.started > 0 && up <= fresh).then_some(Point {
            at: now.started,
            cpu: 0,
            ..now
        })
    })?;
    let window = now.at.checked_sub(first.at).filter(|ms| *ms >= SHORTEST)?;
    let spent = u128::from(now.cpu - first.cpu) * 1000;
    Some(Usage {
        at: now.at,
        since: first.at,
        cpu: u64::try_from(spent / window.unsigned_abs() as u128).unwrap_or(u64::MAX),
        memory: now.memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, cpu: u64, started: i64) -> Point {
        Point {
            at,
            cpu,
            memory: 5,
            started,
        }
    }

    #[test]
    fn a_rate_is_between_two_points_of_one_run() {
        let (second, hour) = (1_000_000_000, 3_600_000);
        for (before, now, rate) in [
            // Half a core for fifteen seconds.
            (
                Some(point(hour, second, 1)),
                point(hour + 15_000, 8 * second + 500_000_000, 1),
                Some(500_000_000),
            ),
            // A run that began between the two.
            (
                Some(point(hour, 99, 1)),
                point(hour + 15_000, second, hour + 10_000),
                Some(200_000_000),
            ),
            // Never seen before, and old.
            (None, point(hour, second, 1), None),
            // Never seen before, and new; but too new.
            (None, point(hour, second, hour - 10_000), Some(100_000_000)),
            (None, point(hour, second, hour - 10), None),
            // Nothing moved on.
            (Some(point(hour, 1, 1)), point(hour, 1, 1), None),
            // The clock went backwards.
            (Some(point(hour, 1, 1)), point(hour - 5000, 1, 1), None),
        ] {
            let found = usage(before, now).map(|usage| usage.cpu);
            assert_eq!(found, rate, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_pod_is_known_until_a_round_without_it() {
        let scrape = |at, cpu| Scrape {
            node: Some(point(at, cpu, 0)),
            pods: BTreeMap::from([(
                ("a".to_owned(), "web".to_owned()),
                BTreeMap::from([("app".to_owned(), point(at, cpu, 1))]),
            )]),
        };
        let node = |scrape| vec![("n".to_owned(), scrape)];
        let mut store = Store::default();
        store.put(node(scrape(100_000, 0)));
        assert!(store.node("n").is_none() && store.pod("a", "web").is_none());
        store.put(node(scrape(115_000, 15_000_000)));
        assert_eq!(store.node("n").map(|usage| usage.cpu), Some(1_000_000));
        assert_eq!(store.pod("a", "web").map(|pod| pod.len()), Some(1));
        store.put(node(Scrape::default()));
        assert!(store.pod("a", "web").is_none());
        store.put(Vec::new());
        assert!(store.node("n").is_none() && store.nodes.is_empty());
    }
}
