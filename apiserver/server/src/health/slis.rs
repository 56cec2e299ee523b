//! `/metrics/slis`: what the health paths answered, check by check, from which the share of good time is reckoned.
//!
//! Names, labels and what counts are upstream's (`component-base/metrics/prometheus/slis`): a check that a request leaves
//! out does not count, nor does one that is asked for by its own path.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

/// What became of one check, by the health path that asked for it.
#[derive(Default)]
struct Tally {
    passes: bool,
    passed: u64,
    failed: u64,
}

/// The results of all checks so far. There are as many entries as checks and health paths, whoever asks.
#[derive(Default)]
pub(super) struct Slis {
    tallies: Mutex<BTreeMap<(String, &'static str), Tally>>,
}

impl Slis {
    /// Counts a check called `name` that a request for the path `kind` made.
    pub(super) fn count(&self, kind: &'static str, name: &str, passes: bool) {
        let mut tallies = self.tallies.lock();
        let tally = tallies.entry((name.to_owned(), kind)).or_default();
        tally.passes = passes;
        match passes {
            true => tally.passed += 1,
            false => tally.failed += 1,
        }
    }

    /// The document, in Prometheus' text form.
    pub(super) fn render(&self) -> String {
        let tallies = self.tallies.lock();
        let mut text = String::new();
        let (now, total) = ("kubernetes_healthcheck", "kubernetes_healthchecks_total");
        let _ = writeln!(
            text,
            "# HELP {now} [STABLE] This metric records the result of a single healthcheck.\n# TYPE {now} gauge"
        );
        for ((name, kind), tally) in tallies.iter() {
            let passes = u8::from(tally.passes);
            let _ = writeln!(text, "{now}{{name={name:?},type={kind:?}}} {passes}");
        }
        let _ = writeln!(
            text,
            "# HELP {total} [STABLE] This metric records the results of all healthcheck.\n# TYPE {total} counter"
        );
        for ((name, kind), tally) in tallies.iter() {
            for (status, count) in [("error", tally.failed), ("success", tally.passed)] {
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "{total}{{name={name:?},status={status:?},type={kind:?}}} {count}"
                    );
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_by_check_and_path() {
        let slis = Slis::default();
        slis.count("readyz", "etcd", false);
        slis.count("readyz", "etcd", true);
        slis.count("readyz", "etcd", true);
        slis.count("livez", "ping", false);
        let text = slis.render();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"kubernetes_healthcheck{name="etcd",type="readyz"} 1"#,
                r#"kubernetes_healthcheck{name="ping",type="livez"} 0"#,
                r#"kubernetes_healthchecks_total{name="etcd",status="error",type="readyz"} 1"#,
                r#"kubernetes_healthchecks_total{name="etcd",status="success",type="readyz"} 2"#,
                r#"kubernetes_healthchecks_total{name="ping",status="error",type="livez"} 1"#,
            ]
        );
    }
}
