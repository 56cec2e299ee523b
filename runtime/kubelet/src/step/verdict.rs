//! Whether a pod is over: nothing of it will run again, and what it came to.

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::parts::{Part, Role, parts};
use super::record::NODE_RESTARTED;
use super::{Exit, Observed, Run, over};

/// The reason of a pod that ran for longer than it may.
pub(crate) const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// What a pod that is over came to. While its last containers still end, its status goes on to show
/// the phase before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Succeeded` or `Failed`.
    pub phase: &'static str,
    /// Why, when it was not its containers that decided.
    pub why: Option<Failure>,
}

/// Why the node gave a pod up: `reason` and `message` of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Such as `DeadlineExceeded`, `OutOfcpu`, `Evicted`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

impl Verdict {
    fn failed(reason: &str, message: &str) -> Self {
        let why = Failure {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        Self {
            phase: "Failed",
            why: Some(why),
        }
    }
}

/// What the pod came to, if it is over. A phase that the API shows is never left again.
pub fn verdict(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Verdict> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let decided = |phase| Some(Verdict { phase, why: None });
    match phase {
        Some("Succeeded") => return decided("Succeeded"),
        Some("Failed") => return decided("Failed"),
        _ => {}
    }
    if let Some(failure) = &observed.failure {
        let why = Some(failure.clone());
        return Some(Verdict {
            phase: "Failed",
            why,
        });
    }
    if deadline(pod).is_some_and(|deadline| deadline <= now) {
        let message = "Pod was active on the node longer than the specified deadline";
        return Some(Verdict::failed(DEADLINE_EXCEEDED, message));
    }
    of_containers(pod, spec, observed)
}

/// When the pod has run for as long as it may (`activeDeadlineSeconds`, from `startTime` on).
pub(super) fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    let second = start.as_second().checked_add(seconds)?;
    Timestamp::from_second(second).ok()
}

fn of_containers(pod: &Pod, spec: &PodSpec, observed: &Observed) -> Option<Verdict> {
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    if !is_deleted && over::is_under_way(spec, observed) {
        return None;
    }
    let (mut main, mut failed, mut cut_off) = (0, 0, false);
    for part in parts(spec) {
        let record = observed.container(part.name());
        if (record.again || record.outdated) && !is_deleted {
            return None;
        }
        let exit = match (part.role, &record.run) {
            (Role::Init, Run::Exited(exit)) if exit.exit_code != 0 => {
                if part.restarts(spec, exit.exit_code) {
                    return None;
                }
                return Some(failed_by(exit.reason == NODE_RESTARTED));
            }
            (Role::Init | Role::Sidecar | Role::Debug, _) => continue,
            (Role::Main, Run::Exited(exit)) => exit,
            (Role::Main, _) => return None,
        };
        if !is_deleted && part.restarts(spec, exit.exit_code) {
            return None;
        }
        main += 1;
        failed += usize::from(exit.exit_code != 0);
        cut_off |= is_cut_off(&part, spec, exit);
    }
    match (main, failed) {
        (0, _) => None,
        (_, 0) => Some(Verdict {
            phase: "Succeeded",
            why: None,
        }),
        _ => Some(failed_by(cut_off)),
    }
}

/// Whether the run ended because the node did, and is not repeated.
fn is_cut_off(part: &Part<'_>, spec: &PodSpec, exit: &Exit) -> bool {
    exit.reason == NODE_RESTARTED && !part.restarts(spec, exit.exit_code)
}

fn failed_by(cut_off: bool) -> Verdict {
    if cut_off {
        let message = "the node was restarted while the pod ran, and its restartPolicy is Never";
        return Verdict::failed(NODE_RESTARTED, message);
    }
    Verdict {
        phase: "Failed",
        why: None,
    }
}
