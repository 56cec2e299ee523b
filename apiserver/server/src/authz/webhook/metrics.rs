//! What webhooks that decide have cost, in upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

const BUCKETS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

/// How asking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evaluation {
    Success,
    /// It failed; `open`: others were asked.
    Failed {
        open: bool,
    },
}

/// Counters by webhook; those of webhooks that are configured no more stay.
#[derive(Default)]
pub(crate) struct WebhookMetrics(Mutex<BTreeMap<String, Counts>>);

#[derive(Clone, Default)]
struct Counts {
    success: u64,
    error: u64,
    fail_open: u64,
    excluded: u64,
    condition_errors: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl WebhookMetrics {
    fn count(&self, name: &str, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.0.lock();
        match counts.get_mut(name) {
            Some(counts) => change(counts),
            None => change(counts.entry(name.to_owned()).or_default()),
        }
    }

    /// A webhook was asked.
    pub(super) fn evaluated(&self, name: &str, evaluation: Evaluation, took: Duration) {
        self.count(name, |counts| {
            match evaluation {
                Evaluation::Success => counts.success += 1,
                Evaluation::Failed { open } => {
                    counts.error += 1;
                    counts.fail_open += u64::from(open);
                }
            }
            let seconds = took.as_secs_f64();
            counts.seconds += seconds;
            for (bucket, bound) in counts.buckets.iter_mut().zip(BUCKETS) {
                *bucket += u64::from(seconds <= bound);
            }
        });
    }

    /// Its conditions said that it is not concerned.
    pub(super) fn excluded(&self, name: &str) {
        self.count(name, |counts| counts.excluded += 1);
    }

    /// Its conditions could not be evaluated.
    pub(super) fn condition_failed(&self, name: &str) {
        self.count(name, |counts| counts.condition_errors += 1);
    }

    /// Prometheus' text; empty as long as no webhook was asked.
    pub(crate) fn render(&self) -> String {
        let counts = self.0.lock().clone();
        let mut text = String::new();
        if counts.is_empty() {
            return text;
        }
        type Read = fn(&Counts) -> u64;
        let series: [(&str, &str, &str, Read); 5] = [
            (
                "apiserver_authorization_webhook_evaluations_total",
                "success",
                "Webhooks asked, by outcome.",
                |c| c.success,
            ),
            (
                "apiserver_authorization_webhook_evaluations_total",
                "error",
                "",
                |c| c.error,
            ),
            (
                "apiserver_authorization_webhook_evaluations_fail_open_total",
                "error",
                "Failures after which others were asked.",
                |c| c.fail_open,
            ),
            (
                "apiserver_authorization_match_condition_exclusions_total",
                "",
                "Requests that conditions kept from webhooks.",
                |c| c.excluded,
            ),
            (
                "apiserver_authorization_match_condition_evaluation_errors_total",
                "",
                "Conditions that could not be evaluated.",
                |c| c.condition_errors,
            ),
        ];
        for (metric, result, help, read) in series {
            if !help.is_empty() {
                let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} counter");
            }
            for (name, counts) in &counts {
                let labels = match result {
                    "" => format!("name=\"{name}\""),
                    result => format!("name=\"{name}\",result=\"{result}\""),
                };
                let _ = writeln!(text, "{metric}{{{labels}}} {}", read(counts));
            }
        }
        let metric = "apiserver_authorization_webhook_duration_seconds";
        let help = "Time until webhooks answered.";
        let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} histogram");
        for (name, counts) in &counts {
            let count = counts.success + counts.error;
            for (bound, bucket) in BUCKETS.iter().zip(counts.buckets) {
                let _ = writeln!(
                    text,
                    "{metric}_bucket{{name=\"{name}\",le=\"{bound}\"}} {bucket}"
                );
            }
            let _ = writeln!(
                text,
                "{metric}_bucket{{name=\"{name}\",le=\"+Inf\"}} {count}"
            );
            let _ = writeln!(text, "{metric}_sum{{name=\"{name}\"}} {}", counts.seconds);
            let _ = writeln!(text, "{metric}_count{{name=\"{name}\"}} {count}");
        }
        text
    }
}
