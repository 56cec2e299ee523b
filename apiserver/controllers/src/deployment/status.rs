//! What a Deployment says about itself.
//!
//! ```text
//!   Progressing:  NewReplicaSetCreated ─▶ ReplicaSetUpdated ─▶ NewReplicaSetAvailable
//!                        └─ nothing moves for progressDeadlineSeconds ─▶ ProgressDeadlineExceeded
//! ```

use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::reconcile::{available, desired, max_unavailable, replicas};

pub(super) const AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PROGRESSING: &str = "Progressing";

/// The counts and the `Available` condition; everything else as it was.
pub(super) fn counted(
    deployment: &Deployment,
    old: &DeploymentStatus,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |count: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| count(set)).sum::<i32>();
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    let observed = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0)
    };
    let leaving = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|s| s.terminating_replicas)
            .unwrap_or(0)
    };

    let available_replicas = sum(&available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&observed)),
        updated_replicas: some(new.map_or(0, observed)),
        ready_replicas: some(sum(&ready)),
        available_replicas: some(available_replicas),
        // A Pod may be available before its ReplicaSet was told to want fewer.
        unavailable_replicas: some((sum(&replicas) - available_replicas).max(0)),
        terminating_replicas: Some(sum(&leaving)),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let enough = available_replicas >= desired(deployment) - max_unavailable(deployment);
    set_condition(
        &mut status,
        match enough {
            true => condition(
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                now,
            ),
            false => condition(
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
                now,
            ),
        },
    );
    status
}

/// Adds what a rollout in progress says: the `Progressing` and `ReplicaFailure` conditions.
pub(super) fn progressed(
    mut status: DeploymentStatus,
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let subject = match new {
        Some(set) => format!(
            "ReplicaSet \"{}\"",
            set.metadata.name.as_deref().unwrap_or_default()
        ),
        None => format!(
            "Deployment \"{}\"",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    let current = find(&status, PROGRESSING).cloned();
    let settled = status.replicas == status.updated_replicas
        && current
            .as_ref()
            .is_some_and(|condition| condition.reason.as_deref() == Some(AVAILABLE));
    if deadline(deployment).is_none() {
        remove_condition(&mut status, PROGRESSING);
    } else if !settled {
        if is_complete(deployment, &status) {
            let message = format!("{subject} has successfully progressed.");
            set_condition(
                &mut status,
                condition(PROGRESSING, "True", AVAILABLE, &message, now),
            );
        } else if moved(&old, &status) {
            let message = format!("{subject} is progressing.");
            let mut progressing =
                condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                // Every step forward counts anew for the deadline, even if the words are the same.
                progressing.last_transition_time = current.last_transition_time;
                remove_condition(&mut status, PROGRESSING);
            }
            set_condition(&mut status, progressing);
        } else if is_timed_out(deployment, &status, now) {
            let message = format!("{subject} has timed out progressing.");
            set_condition(
                &mut status,
                condition(PROGRESSING, "False", TIMED_OUT, &message, now),
            );
        }
    }

    let failures = |set: &ReplicaSet| {
        set.status
            .iter()
            .flat_map(|status| status.conditions.clone().unwrap_or_default())
            .find(|condition| condition.type_ == "ReplicaFailure")
    };
    // The newest ReplicaSet's failure tells most.
    match new
        .and_then(failures)
        .or_else(|| sets.iter().find_map(|set| failures(set)))
    {
        Some(failure) => set_condition(
            &mut status,
            condition(
                "ReplicaFailure",
                &failure.status,
                failure.reason.as_deref().unwrap_or_default(),
                failure.message.as_deref().unwrap_or_default(),
                now,
            ),
        ),
        None => remove_condition(&mut status, "ReplicaFailure"),
    }
    status
}

/// Says in the `Progressing` condition that a ReplicaSet was made or found for the template.
pub(super) fn note_new_set(
    status: &mut DeploymentStatus,
    name: &str,
    created: bool,
    now: Timestamp,
) {
    let (reason, message) = match created {
        true => (
            "NewReplicaSetCreated",
            format!("Created new replica set \"{name}\""),
        ),
        false if find(status, PROGRESSING).is_none() => (
            "FoundNewReplicaSet",
            format!("Found new replica set \"{name}\""),
        ),
        false => return,
    };
    set_condition(
        status,
        condition(PROGRESSING, "True", reason, &message, now),
    );
}

/// Says in the `Progressing` condition that a ReplicaSet could not be made.
pub(super) fn creation_failed(
    mut status: DeploymentStatus,
    name: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentStatus {
    let message = format!("Failed to create new replica set \"{name}\": {message}");
    set_condition(
        &mut status,
        condition(PROGRESSING, "False", "ReplicaSetCreateError", &message, now),
    );
    status
}

/// Says in the `Progressing` condition that the deadline does not run while paused.
pub(super) fn note_pause(status: &mut DeploymentStatus, deployment: &Deployment, now: Timestamp) {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.clone());
    if deadline(deployment).is_none() || reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let noted = reason.as_deref() == Some("DeploymentPaused");
    match (is_paused(deployment), noted) {
        (true, false) => {
            let paused = condition(
                PROGRESSING,
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused",
                now,
            );
            set_condition(status, paused);
        }
        (false, true) => {
            let resumed = condition(
                PROGRESSING,
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed",
                now,
            );
            set_condition(status, resumed);
        }
        _ => {}
    }
}

pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false)
}

/// Whether every replica is new and available, and none is left over.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let want = desired(deployment);
    let all = |count: Option<i32>| count.unwrap_or(0) == want;
    all(status.updated_replicas)
        && all(status.replicas)
        && all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// When the deadline of a rollout that stands still runs out.
pub(super) fn stuck_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let progressing = find(status, PROGRESSING)?;
    if is_complete(deployment, status)
        || matches!(progressing.reason.as_deref(), Some(TIMED_OUT | AVAILABLE))
    {
        return None;
    }
    let since = now.duration_since(progressing.last_update_time.as_ref()?.0);
    let left = jiff::SignedDuration::from_secs(deadline.into()) - since;
    // A second more, so that time stamps of whole seconds don't wake it in vain.
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO) + Duration::from_secs(1))
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(progressing)) = (deadline(deployment), find(status, PROGRESSING))
    else {
        return false;
    };
    match progressing.reason.as_deref() {
        Some(AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progressing
            .last_update_time
            .as_ref()
            .is_some_and(|updated| {
                now.duration_since(updated.0) > jiff::SignedDuration::from_secs(deadline.into())
            }),
    }
}

/// Whether anything got nearer to the goal since the status before.
fn moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let outdated =
        |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// The rollout's deadline in seconds; the largest number means that there is none.
fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment
        .spec
        .as_ref()?
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)
}

fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Replaces the condition, unless its status and reason are what they were.
fn set_condition(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = find(status, &condition.type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove_condition(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = status.conditions.as_mut() {
        conditions.retain(|condition| condition.type_ != type_);
    }
    status.conditions = status
        .conditions
        .take()
        .filter(|conditions| !conditions.is_empty());
}
