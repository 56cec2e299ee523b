//! One look at one pod: decide, begin what was decided, report.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Error, ObjectKey, Outcome, Precondition};
use coracle_clock::Timestamp;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

use crate::ipam::Ipam;
use crate::kubelet::{Entry, Kubelet};
use crate::step::{self, Action, Run, SandboxState};

impl Kubelet {
    /// Brings everything of that name closer to what the API says.
    pub(crate) async fn sync(&self, key: &ObjectKey) -> Outcome {
        let now = self.0.ctx.clock().now();
        let mut outcome = Outcome::Done;
        let (actions, wake_at) = self.decide(key, now);
        for (uid, action) in actions {
            tokio::spawn(self.clone().carry_out(uid, action));
        }
        if let Some(wake_at) = wake_at {
            let delay = Duration::try_from(wake_at - now).unwrap_or_default();
            // A moment later rather than earlier: time stamps are compared as they are.
            outcome = Outcome::After(delay + Duration::from_millis(1));
        }
        match self.report(key).await {
            Ok(()) => outcome,
            Err(error) if error.is_not_found() => outcome,
            Err(error) => {
                tracing::debug!(%key, %error, "status was not written");
                outcome.or_sooner(Outcome::Retry)
            }
        }
    }

    /// What to begin now, marked in the state so that it is begun once.
    fn decide(
        &self,
        key: &ObjectKey,
        now: Timestamp,
    ) -> (Vec<(String, Action)>, Option<Timestamp>) {
        let live = self.0.pods.get(key).filter(|pod| self.is_ours(pod));
        let mut state = self.0.state.lock();
        let draining = state.draining;
        let live_uid = live
            .as_ref()
            .map(|pod| coracle_client::uid(pod.as_ref()).to_owned());
        if let Some(pod) = live {
            let uid = live_uid.as_deref().unwrap_or_default();
            match state.entries.get_mut(uid) {
                Some(entry) if revision(&pod) >= revision(&entry.pod) => entry.pod = pod,
                Some(_) => {}
                // A pod that was over before this process started has nothing to be kept.
                None if !draining => drop(state.insert(pod, now)),
                None => {}
            }
        }
        let (mut actions, mut wake_at) = (Vec::new(), None::<Timestamp>);
        for uid in state.of_key(key) {
            let Some(entry) = state.entries.get_mut(&uid) else {
                continue;
            };
            if live_uid.as_deref() != Some(uid.as_str()) && !entry.orphaned {
                entry.orphaned = true;
                entry.pod = Arc::new(wound_down(&entry.pod, now));
            }
            if draining {
                continue;
            }
            let step = step::step(&entry.pod, &entry.observed, now);
            wake_at = [wake_at, step.wake_at].into_iter().flatten().min();
            for action in step.actions {
                if begin(entry, &action) {
                    actions.push((uid.clone(), action));
                }
            }
        }
        (actions, wake_at)
    }

    /// Marks every running container as ending; the futures end them.
    pub(crate) fn begin_drain(&self, longest: Duration) -> Vec<BoxFuture<'static, ()>> {
        let mut state = self.0.state.lock();
        state.draining = true;
        let mut stops: Vec<BoxFuture<'static, ()>> = Vec::new();
        for (uid, entry) in &mut state.entries {
            let spec = entry.pod.spec.as_ref();
            let seconds = spec
                .and_then(|spec| spec.termination_grace_period_seconds)
                .unwrap_or(30);
            let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(longest);
            entry.observed.node_restarted |= entry.observed.is_anything_running();
            let running: Vec<String> = entry.observed.containers.keys().cloned().collect();
            for container in running {
                let action = Action::StopContainer { container, grace };
                if begin(entry, &action) {
                    stops.push(Box::pin(self.clone().carry_out(uid.clone(), action)));
                }
            }
        }
        stops
    }

    /// Writes the status of the pod of that name, if it is another than the API has.
    pub(crate) async fn report(&self, key: &ObjectKey) -> Result<(), Error> {
        let now = self.0.ctx.clock().now();
        let host_ip = Ipam::node_address(self.0.config.pod_range).to_string();
        let (pod, patch) = {
            let state = self.0.state.lock();
            let live = state
                .entries
                .values()
                .find(|entry| entry.key == *key && !entry.orphaned);
            let Some(entry) = live.filter(|entry| !entry.forgetting) else {
                return Ok(());
            };
            let status = step::status(&entry.pod, &entry.observed, &host_ip, now);
            match difference(&entry.pod, &status) {
                Some(patch) => (entry.pod.clone(), patch),
                None => return Ok(()),
            }
        };
        let when = Precondition::uid_of(pod.as_ref());
        let written: Pod = self.0.ctx.objects().patch_status(key, &when, patch).await?;
        let mut state = self.0.state.lock();
        if let Some(entry) = state.entries.get_mut(coracle_client::uid(&written))
            && !entry.orphaned
            && revision(&written) > revision(&entry.pod)
        {
            entry.pod = Arc::new(written);
        }
        Ok(())
    }
}

/// Marks an action as begun. False when it has been begun already.
fn begin(entry: &mut Entry, action: &Action) -> bool {
    match action {
        Action::RunSandbox => entry.observed.sandbox = SandboxState::Starting,
        Action::StopSandbox => entry.observed.sandbox = SandboxState::Stopping,
        Action::EnsureImage { container } => {
            entry.observed.container_mut(container).image.pulling()
        }
        Action::StartContainer {
            container,
            restart_count,
        } => {
            entry
                .observed
                .container_mut(container)
                .starting(*restart_count);
        }
        Action::StopContainer { container, .. } => {
            let record = entry.observed.container_mut(container);
            let Run::Running { started_at, .. } = record.run else {
                return false;
            };
            record.run = Run::Stopping { started_at };
        }
        Action::Forget => return !std::mem::replace(&mut entry.forgetting, true),
    }
    true
}

/// A pod that is gone from the API is wound down as if it had been deleted without grace.
fn wound_down(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(Time(now));
    pod.metadata.deletion_grace_period_seconds = Some(0);
    pod
}

/// The merge patch from the status that `pod` has to `status`, if they differ. Lists are replaced
/// as a whole; a field that is gone is set to null.
fn difference(pod: &Pod, status: &k8s_openapi::api::core::v1::PodStatus) -> Option<Value> {
    let old = pod
        .status
        .as_ref()
        .and_then(|old| serde_json::to_value(old).ok())
        .unwrap_or(Value::Null);
    let new = serde_json::to_value(status).ok()?;
    if old == new {
        return None;
    }
    let (none, new) = (Map::new(), new.as_object()?);
    let old = old.as_object().unwrap_or(&none);
    let mut patch = Map::new();
    for (key, value) in new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
    {
        patch.insert(key.clone(), value.clone());
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(json!({"status": patch}))
}

/// Which of two versions of one pod is newer. Our server counts with one number
/// (Kubernetes 1.35 made resource versions comparable); anything else counts as old.
fn revision(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}
