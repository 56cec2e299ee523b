//! One look at one pod: decide, begin what was decided, report.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Error, ObjectKey, Outcome, Precondition};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

use crate::ipam::Ipam;
use crate::kubelet::Kubelet;
use crate::state::revision;
use crate::step;

impl Kubelet {
    /// Brings everything of that name closer to what the API says.
    pub(crate) async fn sync(&self, key: &ObjectKey) -> Outcome {
        let clock = self.0.ctx.clock();
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let live = self.0.pods.get(key).filter(|pod| self.is_ours(pod));
        let decision = self.0.state.lock().decide(key, live, now, monotonic);
        for (uid, action) in decision.actions {
            tokio::spawn(self.clone().carry_out(uid, action));
        }
        let mut outcome = Outcome::Done;
        if let Some(wake_at) = decision.wake_at {
            let delay = Duration::try_from(wake_at - now).unwrap_or_default();
            // A moment later rather than earlier: time stamps are compared as they are.
            outcome = Outcome::After(delay + Duration::from_millis(1));
        }
        if let Some(hold) = decision.hold {
            return outcome.or_sooner(Outcome::After(hold));
        }
        match self.report(key).await {
            Ok(()) => outcome,
            Err(error) if error.is_not_found() => outcome,
            Err(error) => {
                tracing::debug!(%key, error = error.message(), "status was not written");
                outcome.or_sooner(Outcome::Retry)
            }
        }
    }

    /// Writes the status of the pod of that name, if it is another than the API has.
    pub(crate) async fn report(&self, key: &ObjectKey) -> Result<(), Error> {
        let now = self.0.ctx.clock().now();
        let host_ip = Ipam::node_address(self.0.config.pod_range).to_string();
        let (pod, patch) = {
            let state = self.0.state.lock();
            let Some(entry) = state.live(key).filter(|entry| !entry.forgetting) else {
                return Ok(());
            };
            // Someone who holds a finalizer still wants to know how the pod ended.
            if entry.gone
                && entry
                    .pod
                    .metadata
                    .finalizers
                    .iter()
                    .flatten()
                    .next()
                    .is_none()
            {
                return Ok(());
            }
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

/// The merge patch from the status that `pod` has to `status`, if they differ. Lists are replaced
/// as a whole; a field that is gone is set to null.
fn difference(pod: &Pod, status: &PodStatus) -> Option<Value> {
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
