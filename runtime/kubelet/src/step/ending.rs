//! The end of containers: hooks first, main containers before sidecars, and never beyond the grace.
//!
//! ```text
//!  asked to end ─▶ preStop (at once, for all) ─▶ wait for its turn ─▶ StopContainer(what is left, ≥ 2 s)
//!      │                                          sidecars: after the main containers, last one first
//!      └── grace and 5 s later ─▶ StopSandbox, whatever still runs
//! ```
//!
//! The accounting is upstream's (`killContainer` and `terminationOrdering` in pkg/kubelet/kuberuntime).

use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::parts::{Part, Role, parts};
use super::{Action, ContainerRecord, Hook, Observed, Run, SandboxState, Step};

/// However much of the grace hooks and turns have used, a container gets this much to end.
pub(super) const LEAST: Duration = Duration::from_secs(2);
/// Longest that the end of containers may take beyond their grace before their sandbox goes.
pub(super) const OVERDUE: Duration = Duration::from_secs(5);

/// Ends every run and, once nothing runs, the sandbox.
pub(super) fn end(
    pod: &Pod,
    spec: &PodSpec,
    observed: &Observed,
    grace: Duration,
    now: Timestamp,
    step: &mut Step,
) {
    step.ending = true;
    let since = observed.ending_since.unwrap_or(now);
    let parts: Vec<Part<'_>> = parts(spec).collect();
    let is_active = |part: &Part<'_>| observed.container(part.name()).run.is_active();
    let main_is_active = parts
        .iter()
        .any(|part| part.role == Role::Main && is_active(part));
    for (index, part) in parts.iter().enumerate() {
        let later = &parts[index + 1..];
        let has_turn = part.role != Role::Sidecar
            || !main_is_active
                && !later
                    .iter()
                    .any(|part| part.role == Role::Sidecar && is_active(part));
        let record = observed.container(part.name());
        stop(part, record, since, grace, has_turn, now, step);
    }
    // One that could not be made may still hold an address.
    let is_there = matches!(
        observed.sandbox,
        SandboxState::Ready | SandboxState::Failed { .. }
    );
    if is_there && may_drop(pod, observed, since, grace, now, step) {
        step.actions.push(Action::StopSandbox);
    }
}

/// Whether the sandbox can go: nothing runs in it, or what runs has had its time.
fn may_drop(
    pod: &Pod,
    observed: &Observed,
    since: Timestamp,
    grace: Duration,
    now: Timestamp,
    step: &mut Step,
) -> bool {
    if !observed.is_anything_running() {
        return true;
    }
    // Whoever starts it needs the sandbox, and hears of its end.
    if observed.is_anything_starting() {
        return false;
    }
    if grace.is_zero() {
        // Nobody waits for a grace that was given before.
        return step.actions.is_empty();
    }
    let deleted_by = pod.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let ends_at = (since + grace).max(deleted_by.unwrap_or(since));
    let overdue_at = ends_at + OVERDUE;
    if now < overdue_at {
        step.wake(overdue_at);
    }
    now >= overdue_at
}

/// The next action in the end of one run that was asked to end at `since` within `grace`.
pub(super) fn stop(
    part: &Part<'_>,
    record: &ContainerRecord,
    since: Timestamp,
    grace: Duration,
    has_turn: bool,
    now: Timestamp,
    step: &mut Step,
) {
    if !matches!(record.run, Run::Running { .. }) {
        return;
    }
    let container = part.name().to_owned();
    // Whole seconds, as upstream counts them.
    let gone = Duration::try_from(now - since)
        .unwrap_or_default()
        .as_secs();
    let left = grace.saturating_sub(Duration::from_secs(gone));
    if grace.is_zero() {
        return step
            .actions
            .push(Action::StopContainer { container, grace });
    }
    match record.pre_stop {
        Hook::Due if part.pre_stop().is_some() && !left.is_zero() => {
            let grace = left;
            return step.actions.push(Action::PreStop { container, grace });
        }
        Hook::Running => return,
        Hook::Due | Hook::Passed | Hook::Failed => {}
    }
    let ends_at = since + grace;
    if !has_turn && now < ends_at {
        return step.wake(ends_at);
    }
    let grace = left.max(LEAST);
    step.actions
        .push(Action::StopContainer { container, grace });
}
