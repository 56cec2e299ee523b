//! The resources of a pod as a whole, `spec.resources`, as its spec changes.
//!
//! ```text
//!  admitted ─▶ its sandbox has them ─ the spec asks for others ─┬▶ ResizePod ─▶ its sandbox has those
//!                                                               └▶ refused: `granted` is what counts
//! ```

use std::borrow::Cow;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

use super::{Action, Observed, Resizing, Run, SandboxState, Step};
use crate::totals::{Amounts, Counted};

/// What a pod as a whole may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// What its sandbox has.
    pub allocated: ResourceRequirements,
    /// Whether that is being changed.
    pub resize: Resizing,
}

static NONE: ResourceRequirements = ResourceRequirements {
    claims: None,
    limits: None,
    requests: None,
};

/// What the spec says that the pod as a whole may use.
pub(crate) fn wanted(pod: &Pod) -> ResourceRequirements {
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.clone());
    whole.unwrap_or_default()
}

/// The pod with the resources that it was granted: those from before, where it asks for what it cannot have, or where that is
/// not known yet.
pub(crate) fn granted<'a>(pod: &'a Pod, observed: &Observed) -> Cow<'a, Pod> {
    let before = observed.granted.as_ref();
    let Some(before) = before.and_then(|pod| pod.spec.as_ref()) else {
        return Cow::Borrowed(pod);
    };
    let mut granted = pod.clone();
    if let Some(spec) = granted.spec.as_mut() {
        spec.resources.clone_from(&before.resources);
        let of = |name: &str| {
            let init = before.init_containers.iter().flatten();
            let mut all = init.chain(&before.containers);
            all.find(|container| container.name == name)
        };
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            if let Some(before) = of(&container.name) {
                container.resources.clone_from(&before.resources);
            }
        }
    }
    Cow::Owned(granted)
}

/// The pod as it was granted before this process started, as far as its status tells; None for one that was granted what it
/// asks for.
pub(crate) fn recovered(pod: &Pod) -> Option<Pod> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "PodResizePending")?;
    let mut granted = pod.clone();
    let spec = granted.spec.as_mut()?;
    let init = status.init_container_statuses.iter().flatten();
    let known = init.chain(status.container_statuses.iter().flatten());
    let known: Vec<(&str, &ResourceRequirements)> = known
        .filter_map(|known| Some((known.name.as_str(), known.resources.as_ref()?)))
        .collect();
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        if let Some((_, has)) = known.iter().find(|(name, _)| *name == container.name) {
            container.resources = Some((*has).clone());
        }
    }
    if let (Some(whole), Some(has)) = (spec.resources.as_mut(), status.resources.as_ref()) {
        let keep = |asked: &mut Option<Amounts>, has: &Option<Amounts>| {
            for (name, amount) in asked.iter_mut().flatten() {
                if let Some(has) = has.as_ref().and_then(|has| has.get(name)) {
                    amount.clone_from(has);
                }
            }
        };
        keep(&mut whole.requests, &has.requests);
        keep(&mut whole.limits, &has.limits);
    }
    Some(granted)
}

/// Whether the sandbox has other resources than were granted.
pub(super) fn is_wanted(spec: &PodSpec, observed: &Observed) -> bool {
    let is_there = observed.sandbox == SandboxState::Ready;
    is_there && *spec.resources.as_ref().unwrap_or(&NONE) != observed.whole.allocated
}

/// Has them changed.
pub(super) fn advance(spec: &PodSpec, observed: &Observed, now: Timestamp, step: &mut Step) {
    if !is_wanted(spec, observed) {
        return;
    }
    match &observed.whole.resize {
        Resizing::Begun => {}
        Resizing::Failed { retry_at, .. } if *retry_at > now => step.wake(*retry_at),
        Resizing::Idle | Resizing::Failed { .. } => step.actions.push(Action::ResizePod),
    }
}

/// What a granted pod and its runs have now, and what the pod was promised: `resources` and `allocatedResources` of its
/// status (upstream's `convertToAPIPodLevelResourcesStatus`).
pub(super) fn status(spec: &PodSpec, observed: &Observed) -> (ResourceRequirements, Amounts) {
    let is_there = observed.sandbox == SandboxState::Ready;
    let has = |container: &Container| {
        let record = observed.containers.get(&container.name)?;
        let is_up = matches!(record.run, Run::Running { .. } | Run::Stopping { .. });
        is_up.then_some(&record.allocated)
    };
    let now = Counted {
        spec,
        whole: match is_there {
            true => Some(&observed.whole.allocated),
            false => spec.resources.as_ref(),
        },
        of: &|container| has(container).or(container.resources.as_ref()),
    };
    let promised = Counted {
        spec,
        whole: spec.resources.as_ref(),
        of: &|container| container.resources.as_ref(),
    };
    // What cannot be had by a pod as a whole is told of its containers alone.
    let mut resources = ResourceRequirements {
        claims: None,
        limits: Some(now.limits()),
        requests: Some(now.requests()),
    };
    for list in [&mut resources.limits, &mut resources.requests] {
        if let Some(amounts) = list {
            amounts.retain(|name, _| {
                ["cpu", "memory"].contains(&name.as_str()) || name.starts_with("hugepages-")
            });
        }
        *list = list.take().filter(|amounts| !amounts.is_empty());
    }
    (resources, promised.requests())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{ContainerRecord, ResizeRefusal, resize, step};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(whole: Value, container: Value) -> Pod {
        let containers = json!([{"name": "app", "resources": container}]);
        let spec = json!({"resources": whole, "containers": containers});
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn cpu(amount: &str) -> Value {
        json!({"requests": {"cpu": amount}})
    }

    fn read(resources: Value) -> ResourceRequirements {
        serde_json::from_value(resources).expect("resources")
    }

    #[test]
    fn what_a_pod_cannot_have_changes_nothing() {
        let before = pod(cpu("1"), cpu("500m"));
        let asks = pod(cpu("9"), cpu("8"));
        let mut observed = Observed::default();
        assert_eq!(*granted(&asks, &observed), asks, "nothing was refused");
        observed.granted = Some(Arc::new(before.clone()));
        assert_eq!(*granted(&asks, &observed), before, "it is not known yet");
        observed.resize_refusal = Some(ResizeRefusal::Infeasible("no".into()));
        assert_eq!(*granted(&asks, &observed), before);
    }

    #[test]
    fn what_was_granted_is_found_in_the_status() {
        let mut asks = pod(cpu("9"), cpu("8"));
        assert_eq!(recovered(&asks), None);
        let statuses = json!([{"name": "app", "resources": cpu("500m"), "image": "", "imageID": "", "ready": true, "restartCount": 0}]);
        let pending = json!([{"type": "PodResizePending", "status": "True"}]);
        let status =
            json!({"conditions": pending, "containerStatuses": statuses, "resources": cpu("1")});
        asks.status = serde_json::from_value(status).expect("a status");
        let granted = recovered(&asks).expect("something else was granted");
        assert_eq!(granted.spec, pod(cpu("1"), cpu("500m")).spec);
    }

    #[test]
    fn the_status_tells_what_runs_have_and_what_they_are_to_get() {
        let asks = pod(Value::Null, cpu("2"));
        let spec = asks.spec.as_ref().expect("a spec");
        let mut observed = Observed::default();
        let promised = json!({"cpu": "2"});
        assert_eq!(
            status(spec, &observed),
            (
                read(cpu("2")),
                serde_json::from_value(promised).expect("amounts")
            )
        );
        observed.sandbox = SandboxState::Ready;
        let record = ContainerRecord {
            allocated: read(cpu("1")),
            run: Run::Running {
                started_at: Timestamp::UNIX_EPOCH,
                serving: true,
            },
            ..ContainerRecord::default()
        };
        observed.containers.insert("app".to_owned(), record);
        assert_eq!(status(spec, &observed).0, read(cpu("1")));
        observed.whole.allocated = read(json!({"limits": {"cpu": "4"}}));
        let all = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "4"}});
        assert_eq!(status(spec, &observed).0, read(all));
    }

    /// What is to be done for a pod whose container has what `before` said, all else being ready.
    fn actions(pod: &Pod, before: &Pod) -> Vec<Action> {
        let mut observed = Observed {
            sandbox: SandboxState::Ready,
            ..Observed::default()
        };
        observed.whole.allocated = wanted(pod);
        for container in &pod.spec.as_ref().expect("a spec").containers {
            let mut record = ContainerRecord {
                run: Run::Running {
                    started_at: Timestamp::UNIX_EPOCH,
                    serving: true,
                },
                ..ContainerRecord::default()
            };
            resize::note_given(&mut record, before, &container.name);
            observed.containers.insert(container.name.clone(), record);
        }
        let actions = step(pod, &observed, Timestamp::UNIX_EPOCH).actions;
        let spec = pod.spec.as_ref().expect("a spec");
        let is_under_way = resize::progress(spec, &observed).is_some();
        assert_eq!(is_under_way, !actions.is_empty());
        actions
    }

    fn resized(names: &[&str]) -> Vec<Action> {
        let resized = names.iter().map(|name| Action::Resize {
            container: (*name).to_owned(),
        });
        resized.collect()
    }

    #[test]
    fn a_run_that_began_while_its_pod_was_resized_gets_its_share_afterwards() {
        let now = pod(cpu("2"), cpu("1"));
        let before = pod(cpu("1"), cpu("1"));
        assert_eq!(actions(&now, &before), resized(&["app"]));
        assert_eq!(actions(&now, &now), []);
    }

    #[test]
    fn a_run_that_has_what_its_siblings_leave_gets_another_share_with_them() {
        let pod = |sibling: &str| -> Pod {
            let sibling = json!({"name": "sibling", "resources": cpu(sibling)});
            let containers = json!([{"name": "app"}, sibling]);
            let spec = json!({"resources": cpu("2"), "containers": containers});
            serde_json::from_value(json!({"spec": spec})).expect("a pod")
        };
        let (now, before) = (pod("1500m"), pod("500m"));
        assert_eq!(actions(&now, &before), resized(&["app", "sibling"]));
        assert_eq!(actions(&now, &now), []);
    }
}
