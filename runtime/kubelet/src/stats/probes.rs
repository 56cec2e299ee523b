//! `/metrics/probes`: how the probes of running containers came out.

use std::collections::BTreeMap;

use super::page::Page;

/// How one attempt of a probe came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Failed,
    Successful,
    /// The attempt said nothing about the container.
    Unknown,
}

/// Attempts since each pod came, by pod; forgotten with it.
#[derive(Debug, Default)]
pub(crate) struct ProbeCounts(BTreeMap<String, Pod>);

#[derive(Debug)]
struct Pod {
    namespace: String,
    name: String,
    /// By container and kind of probe.
    counts: BTreeMap<(String, &'static str), BTreeMap<Outcome, u64>>,
}

impl ProbeCounts {
    /// Counts one attempt of a probe of the kind `Liveness`, `Readiness` or `Startup`.
    pub(crate) fn count(
        &mut self,
        uid: &str,
        (namespace, name): (&str, &str),
        container: &str,
        kind: &'static str,
        outcome: Outcome,
    ) {
        let pod = self.0.entry(uid.to_owned()).or_insert_with(|| Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            counts: BTreeMap::new(),
        });
        let probe = pod.counts.entry((container.to_owned(), kind)).or_default();
        *probe.entry(outcome).or_default() += 1;
    }

    /// Drops what is known of a pod.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// The page.
    pub(super) fn page(&self) -> String {
        let mut page = Page::default();
        if self.0.is_empty() {
            return page.finish();
        }
        let name = "prober_probe_total";
        let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
        page.family(name, "counter", help);
        for (uid, pod) in &self.0 {
            for ((container, kind), outcomes) in &pod.counts {
                for (outcome, count) in outcomes {
                    let labels: [(&str, &str); 6] = [
                        ("container", container.as_str()),
                        ("namespace", &pod.namespace),
                        ("pod", &pod.name),
                        ("pod_uid", uid),
                        ("probe_type", kind),
                        ("result", outcome.name()),
                    ];
                    page.figure(name, &labels, count, None);
                }
            }
        }
        page.finish()
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Successful => "successful",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_until_their_pod_goes() {
        let mut counts = ProbeCounts::default();
        let pod = ("default", "web");
        for outcome in [Outcome::Successful, Outcome::Failed, Outcome::Successful] {
            counts.count("uid-1", pod, "app", "Liveness", outcome);
        }
        let labels = "container=\"app\",namespace=\"default\",pod=\"web\",pod_uid=\"uid-1\",probe_type=\"Liveness\"";
        let lines: Vec<String> = counts.page().lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                format!("prober_probe_total{{{labels},result=\"failed\"}} 1"),
                format!("prober_probe_total{{{labels},result=\"successful\"}} 2"),
            ]
        );
        counts.forget("uid-1");
        assert_eq!(counts.page(), "");
    }
}
