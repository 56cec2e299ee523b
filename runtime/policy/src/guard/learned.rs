//! Which addresses the names stood for that a pod has looked up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use coracle_client::ObjectKey;

/// How long an answer counts: guests keep them, whatever their time to live.
const LASTS: Duration = Duration::from_secs(3600);
/// Addresses of one pod; past it the oldest are forgotten, and have to be looked up again.
const ADDRESSES: usize = 1024;
/// Names of one address.
const NAMES: usize = 16;

/// By pod, then by address: the names, and when each was last answered.
#[derive(Default)]
pub(crate) struct Learned(HashMap<ObjectKey, HashMap<IpAddr, Vec<(String, Duration)>>>);

impl Learned {
    /// A name stood for these addresses.
    pub(crate) fn learn(
        &mut self,
        pod: &ObjectKey,
        name: &str,
        addresses: &[IpAddr],
        now: Duration,
    ) {
        let known = self.0.entry(pod.clone()).or_default();
        for address in addresses.iter().map(IpAddr::to_canonical).take(ADDRESSES) {
            if known.len() >= ADDRESSES && !known.contains_key(&address) {
                let last = |names: &[(String, Duration)]| names.iter().map(|(_, at)| *at).max();
                let oldest = known.iter().min_by_key(|(_, names)| last(names));
                if let Some(oldest) = oldest.map(|(address, _)| *address) {
                    known.remove(&oldest);
                }
            }
            let names = known.entry(address).or_default();
            names.retain(|(other, _)| other != name);
            if names.len() >= NAMES {
                names.remove(0);
            }
            names.push((name.to_owned(), now));
        }
    }

    /// The names that stood for an address lately.
    pub(crate) fn names(&self, pod: &ObjectKey, address: IpAddr, now: Duration) -> Vec<String> {
        let names = self.0.get(pod).and_then(|known| known.get(&address));
        let names = names.into_iter().flatten();
        let fresh = names.filter(|(_, at)| now.saturating_sub(*at) < LASTS);
        fresh.map(|(name, _)| name.clone()).collect()
    }

    /// The pod is gone, or is allowed something else.
    pub(crate) fn forget(&mut self, pod: &ObjectKey) {
        self.0.remove(pod);
    }

    /// The same for all pods of a namespace.
    pub(crate) fn forget_namespace(&mut self, namespace: &str) {
        self.0.retain(|pod, _| pod.namespace != namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_by_their_names_for_a_while() {
        let mut learned = Learned::default();
        let (pod, other) = (ObjectKey::new("a", "p"), ObjectKey::new("b", "p"));
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let at = Duration::from_secs;
        learned.learn(&pod, "one", &[ip(1), ip(2)], at(0));
        learned.learn(&pod, "two", &[ip(2)], at(10));
        assert_eq!(learned.names(&pod, ip(1), at(20)), ["one"]);
        assert_eq!(learned.names(&pod, ip(2), at(20)), ["one", "two"]);
        assert_eq!(learned.names(&pod, ip(2), at(3605)), ["two"]);
        assert!(learned.names(&other, ip(1), at(20)).is_empty());
        learned.learn(&other, "one", &[ip(1)], at(20));
        learned.forget_namespace("a");
        assert!(learned.names(&pod, ip(1), at(20)).is_empty());
        assert_eq!(learned.names(&other, ip(1), at(20)), ["one"]);
        learned.forget(&other);
        assert!(learned.names(&other, ip(1), at(20)).is_empty());
    }

    #[test]
    fn not_too_much_is_remembered() {
        let mut learned = Learned::default();
        let pod = ObjectKey::new("a", "p");
        let ip = |n: usize| IpAddr::from(u32::try_from(n).expect("few").to_be_bytes());
        for n in 0..ADDRESSES + 10 {
            learned.learn(&pod, "name", &[ip(n)], Duration::from_secs(n as u64));
        }
        assert_eq!(learned.0[&pod].len(), ADDRESSES);
        let now = Duration::from_secs(2000);
        assert!(learned.names(&pod, ip(0), now).is_empty());
        assert_eq!(learned.names(&pod, ip(ADDRESSES + 9), now).len(), 1);
        for n in 0..NAMES * 2 {
            learned.learn(&pod, &n.to_string(), &[ip(5000)], now);
        }
        assert_eq!(learned.names(&pod, ip(5000), now).len(), NAMES);
    }
}
