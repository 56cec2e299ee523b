//! Processor use per second, from one summary to the next.

use std::collections::HashMap;
use std::time::Duration;

use coracle_clock::Timestamp;

use super::NodeSample;

/// Samples that follow sooner say nothing of a rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// Whose processor time it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Node,
    Pod(String),
    /// Of a pod, its name, and the number of the run.
    Container(String, String, u32),
}

/// The latest sample, and what was learned from it and the one before.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    at: Option<Timestamp>,
    used: HashMap<Whose, Duration>,
    nano_cores: HashMap<Whose, u64>,
}

impl Rates {
    /// Takes a sample, and answers the nanoseconds per second that everybody used lately. Who is new has
    /// no rate yet.
    pub(super) fn observe(&mut self, sample: &NodeSample) -> HashMap<Whose, u64> {
        let passed = self.at.map(|at| sample.at.duration_since(at));
        let passed = passed.and_then(|passed| Duration::try_from(passed).ok());
        if passed.is_some_and(|passed| passed < SHORTEST) {
            return self.nano_cores.clone();
        }
        let used: HashMap<Whose, Duration> = used(sample).collect();
        self.nano_cores.clear();
        if let Some(passed) = passed {
            for (whose, now) in &used {
                // A counter that went backwards is another one.
                let spent = self
                    .used
                    .get(whose)
                    .and_then(|before| now.checked_sub(*before));
                if let Some(spent) = spent {
                    let rate = spent.as_nanos() * 1_000_000_000 / passed.as_nanos().max(1);
                    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
                    self.nano_cores.insert(whose.clone(), rate);
                }
            }
        }
        (self.at, self.used) = (Some(sample.at), used);
        self.nano_cores.clone()
    }
}

fn used(sample: &NodeSample) -> impl Iterator<Item = (Whose, Duration)> {
    let node = sample.cpu.map(|cpu| (Whose::Node, cpu));
    let pods = sample.pods.iter().flat_map(|pod| {
        let own = (Whose::Pod(pod.uid.clone()), pod.stats.cpu);
        let containers = pod.stats.containers.iter().map(|container| {
            let whose = Whose::Container(
                pod.uid.clone(),
                container.id.name.clone(),
                container.restart_count,
            );
            (whose, container.cpu.used)
        });
        std::iter::once(own).chain(containers)
    });
    node.into_iter().chain(pods)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn a_rate_needs_two_samples_of_the_same_run() {
        let mut rates = Rates::default();
        let mut now = sample();
        assert!(rates.observe(&now).is_empty());
        now.at += Duration::from_secs(10);
        let container = &mut now.pods[0].stats.containers[0];
        container.cpu.used += Duration::from_secs(5);
        let whose = Whose::Container("uid-1".to_owned(), "app".to_owned(), 2);
        assert_eq!(rates.observe(&now)[&whose], 500_000_000);
        // Too soon: the rate from before is still the best there is.
        now.at += Duration::from_millis(10);
        assert_eq!(rates.observe(&now)[&whose], 500_000_000);
        now.at += Duration::from_secs(10);
        now.pods[0].stats.containers[0].restart_count = 3;
        let rates = rates.observe(&now);
        assert!(!rates.contains_key(&whose) && rates.contains_key(&Whose::Node));
    }
}
