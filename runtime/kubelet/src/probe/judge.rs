//! From single outcomes to verdicts.

use k8s_openapi::api::core::v1::Probe;

/// What a probe decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether the container has started.
    Startup,
    /// Whether it accepts work.
    Readiness,
    /// Whether it works.
    Liveness,
}

impl Kind {
    /// In the middle of a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }

    /// At its beginning.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Counts outcomes of one probe of one run, as upstream's prober worker does.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    successes_needed: u32,
    failures_needed: u32,
    /// The latest outcome, and how often it came in a row.
    streak: Option<(bool, u32)>,
    /// What was decided last; before, a container is alive and not ready.
    verdict: Option<bool>,
}

impl Judge {
    /// Of `probe`'s thresholds; liveness and startup probes need one success (the API insists).
    pub(super) fn new(kind: Kind, probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        let successes_needed = match kind {
            Kind::Readiness => threshold(probe.success_threshold, 1),
            Kind::Startup | Kind::Liveness => 1,
        };
        let failures_needed = threshold(probe.failure_threshold, 3);
        Self {
            successes_needed,
            failures_needed,
            streak: None,
            verdict: None,
        }
    }

    /// Whether nothing was counted yet.
    pub(super) fn is_new(&self) -> bool {
        self.streak.is_none()
    }

    /// Counts an outcome. The verdict, when it is another than before.
    pub(super) fn observe(&mut self, passed: bool) -> Option<bool> {
        let length = match self.streak {
            Some((last, length)) if last == passed => length.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((passed, length));
        let needed = if passed {
            self.successes_needed
        } else {
            self.failures_needed
        };
        if length < needed || self.verdict == Some(passed) {
            return None;
        }
        self.verdict = Some(passed);
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kind: Kind, successes: i32, failures: i32) -> Judge {
        let probe = Probe {
            success_threshold: Some(successes),
            failure_threshold: Some(failures),
            ..Probe::default()
        };
        Judge::new(kind, &probe)
    }

    fn verdicts(judge: &mut Judge, outcomes: &[bool]) -> Vec<Option<bool>> {
        outcomes
            .iter()
            .map(|passed| judge.observe(*passed))
            .collect()
    }

    #[test]
    fn verdicts_need_their_thresholds_in_a_row() {
        let mut judge = judge(Kind::Readiness, 2, 3);
        let outcomes = [
            true, false, true, true, true, false, false, true, false, false, false, false,
        ];
        let (pass, fail) = (Some(true), Some(false));
        let expected = [
            None, None, None, pass, None, None, None, None, None, None, fail, None,
        ];
        assert_eq!(verdicts(&mut judge, &outcomes), expected);
    }

    #[test]
    fn only_readiness_may_ask_for_several_successes() {
        assert_eq!(judge(Kind::Liveness, 5, 3).observe(true), Some(true));
        assert_eq!(judge(Kind::Startup, 5, 3).observe(true), Some(true));
        assert_eq!(judge(Kind::Readiness, 5, 3).observe(true), None);
    }
}
