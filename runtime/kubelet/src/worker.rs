//! One look at one pod: decide, begin what was decided, report.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Error, EventKind, ObjectKey, Outcome, Precondition};
use k8s_openapi::api::core::v1::{HostIP, Node, Pod, PodIP, PodStatus};
use serde_json::{Map, Value, json};

use crate::admission::{REJECTED, chooses_nodes};
use crate::fields;
use crate::kubelet::{Kubelet, KubeletConfig, is_new};
use crate::state::{Entry, revision};
use crate::statics::mirrored;
use crate::step::{self, DEADLINE_EXCEEDED, Failure};

impl Kubelet {
    /// Brings everything of that name closer to what the API says.
    pub(crate) async fn sync(&self, key: &ObjectKey) -> Outcome {
        let clock = self.0.ctx.clock();
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let live = self.0.pods.get(key).filter(|pod| self.is_ours(pod));
        if let Some(pod) = live.as_ref().filter(|pod| is_new(pod)) {
            self.look_at_node(pod).await;
        }
        let decision = self.0.state.lock().decide(key, live, now, monotonic);
        if let Some(pod) = decision.admitted {
            self.tell_ignored(&pod, None);
        }
        if let Some((before, pod)) = decision.debugged {
            self.tell_ignored(&pod, Some(&before));
        }
        for (uid, action) in decision.actions {
            tokio::spawn(self.clone().carry_out(uid, action));
        }
        for (pod, why) in decision.ended {
            self.tell_end(&pod, &why);
        }
        for (pod, news) in decision.resizes {
            let recorder = self.0.ctx.recorder();
            recorder.event(pod.as_ref(), news.kind, news.reason, news.message);
        }
        let mut outcome = Outcome::Done;
        let shown = self.show(decision.make_mirror, decision.delete_mirror);
        match shown.await {
            Ok(true) => {}
            Ok(false) => outcome = Outcome::Retry,
            Err(error) => {
                tracing::debug!(%key, error = error.message(), "a mirror pod is not as it should be");
                outcome = Outcome::Retry;
            }
        }
        if let Some(wake_at) = decision.wake_at {
            let delay = Duration::try_from(wake_at - now).unwrap_or_default();
            // A moment later rather than earlier: time stamps are compared as they are.
            outcome = outcome.or_sooner(Outcome::After(delay + Duration::from_millis(1)));
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

    /// Asks for the node's labels before a pod is let in that chooses its node by them.
    async fn look_at_node(&self, pod: &Pod) {
        let is_known = self
            .0
            .state
            .lock()
            .entries
            .contains_key(coracle_client::uid(pod));
        if is_known || !pod.spec.as_ref().is_some_and(chooses_nodes) {
            return;
        }
        let node = ObjectKey::cluster(self.node());
        match self.0.ctx.objects().get::<Node>(&node).await {
            Ok(Some(node)) => {
                let labels = node.metadata.labels.unwrap_or_default();
                self.0.state.lock().node.labels = labels;
            }
            // The labels that the kubelet gave it will do.
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(error = error.message(), "the node could not be looked at");
            }
        }
    }

    /// Names, once, what the spec asks for and nobody here can give: of a pod that was let in, or that asks for more than
    /// `before`.
    fn tell_ignored(&self, pod: &Pod, before: Option<&Pod>) {
        let Some(message) = fields::ignored(pod, before, self.0.config.is_on_host(pod)) else {
            return;
        };
        let recorder = self.0.ctx.recorder();
        recorder.event(pod, EventKind::Warning, "FieldsIgnored", message);
    }

    /// Makes and deletes mirrors of static pods; false when it has to be tried again.
    async fn show(&self, make: Option<Arc<Pod>>, delete: Option<Arc<Pod>>) -> Result<bool, Error> {
        if let Some(mirror) = delete {
            self.delete_mirror(&mirror).await?;
        }
        match make {
            Some(pod) => self.make_mirror(&pod).await,
            None => Ok(true),
        }
    }

    /// Tells why a pod ended, where its containers don't.
    fn tell_end(&self, pod: &Pod, why: &Failure) {
        let kind = if why.reason == DEADLINE_EXCEEDED {
            EventKind::Normal
        } else {
            EventKind::Warning
        };
        let recorder = self.0.ctx.recorder();
        let message = why.message.strip_prefix(REJECTED).unwrap_or(&why.message);
        recorder.event(pod, kind, &why.reason, message);
    }

    /// Writes the status of the pod of that name, if it is another than the API has.
    pub(crate) async fn report(&self, key: &ObjectKey) -> Result<(), Error> {
        let now = self.0.ctx.clock().now();
        let config = &self.0.config;
        let host_ip = config.node_address().to_string();
        let (pod, patch) = {
            let mut state = self.0.state.lock();
            let live = state.live_mut(key);
            let Some(entry) = live.filter(|entry| !entry.forgetting) else {
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
            let mut status = step::status(&entry.pod, &entry.observed, &host_ip, now);
            add_second(&mut status, config);
            let shown = match &entry.mirror {
                None => entry.pod.clone(),
                Some(mirror) => {
                    // Nobody but us keeps the status of a static pod.
                    Arc::make_mut(&mut entry.pod).status = Some(status.clone());
                    let Some(shown) = mirror.object.clone() else {
                        return Ok(());
                    };
                    let set_by_api = shown.status.as_ref().and_then(|s| s.qos_class.clone());
                    status.qos_class = set_by_api;
                    shown
                }
            };
            match difference(&shown, &status) {
                Some(patch) => (shown, patch),
                None => return Ok(()),
            }
        };
        let when = Precondition::uid_of(pod.as_ref());
        let objects = self.0.ctx.objects();
        let written: Pod = objects.strategic_patch_status(key, &when, patch).await?;
        let mut state = self.0.state.lock();
        let uid = mirrored(&written).unwrap_or(coracle_client::uid(&written));
        match state.entries.get_mut(uid).filter(|entry| !entry.orphaned) {
            Some(Entry {
                mirror: Some(mirror),
                ..
            }) => mirror.object = Some(Arc::new(written)),
            Some(entry) if revision(&written) > revision(&entry.pod) => {
                entry.replace(Arc::new(written));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Lists the addresses of both families of a pod that has them.
fn add_second(status: &mut PodStatus, config: &KubeletConfig) {
    let both = |ip: &Option<String>| {
        let address = ip.as_deref()?.parse().ok()?;
        config.second(address).map(|_| config.both(address))
    };
    if let Some(all) = both(&status.pod_ip) {
        let all = all.into_iter().map(|ip| PodIP { ip: ip.to_string() });
        status.pod_ips = Some(all.collect());
    }
    if let Some(all) = both(&status.host_ip) {
        let all = all.into_iter().map(|ip| HostIP { ip: ip.to_string() });
        status.host_ips = Some(all.collect());
    }
}

/// The strategic merge patch from the status that `pod` has to `status`, if they differ. Conditions
/// are named one by one, so that those of others stay as they are by the time it is applied; other
/// lists are replaced as a whole; a field that is gone is set to null.
fn difference(pod: &Pod, status: &PodStatus) -> Option<Value> {
    if pod.status.as_ref() == Some(status) {
        return None; // as most looks at a pod find
    }
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
        let mut value = value.clone();
        if key == "conditions" {
            value = changed_conditions(old.get(key), &value);
        } else if key == "resources" || key == "allocatedResources" {
            value = without_gone(old.get(key), value);
        } else if (key == "podIPs" || key == "hostIPs") && old.contains_key(key) {
            // The server would merge it, address by address.
            value = [json!({"$patch": "replace"})]
                .into_iter()
                .chain(value.as_array().into_iter().flatten().cloned())
                .collect();
        }
        patch.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(json!({"status": patch}))
}

/// The map `new` with null for whatever is in `old` only, since the server merges it into that.
fn without_gone(old: Option<&Value>, new: Value) -> Value {
    let (Some(Value::Object(old)), Value::Object(mut new)) = (old, new.clone()) else {
        return new;
    };
    for (key, old) in old {
        let value = new.remove(key).unwrap_or(Value::Null);
        new.insert(key.clone(), without_gone(Some(old), value));
    }
    Value::Object(new)
}

/// Those of `new` that are not in `old` as they are, without what they no longer say; and the types that are in `old` only.
fn changed_conditions(old: Option<&Value>, new: &Value) -> Value {
    let none = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&none);
    let new = new.as_array().unwrap_or(&none);
    let is_in_new = |condition: &&Value| new.iter().any(|new| new["type"] == condition["type"]);
    let changed = new.iter().filter(|condition| !old.contains(condition));
    let changed = changed.map(|condition| {
        let before = old.iter().find(|old| old["type"] == condition["type"]);
        without_gone(before, condition.clone())
    });
    let gone = old.iter().filter(|condition| !is_in_new(condition));
    let gone = gone.map(|condition| json!({"$patch": "delete", "type": condition["type"]}));
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_that_are_gone_are_taken_away() {
        let read = |value: Value| serde_json::from_value::<Pod>(value).expect("a pod");
        let old = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}});
        let old = read(json!({"status": {"resources": old}}));
        let new = json!({"resources": {"limits": {"cpu": "2"}}});
        let new = serde_json::from_value::<PodStatus>(new).expect("a status");
        let gone = json!({"limits": {"cpu": "2", "memory": null}, "requests": null});
        let expected = json!({"status": {"resources": gone}});
        assert_eq!(difference(&old, &new), Some(expected));
    }

    #[test]
    fn a_condition_loses_what_it_no_longer_says() {
        let read = |conditions: Value| {
            let pod = json!({"status": {"conditions": conditions}});
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let waits =
            json!([{"type": "Ready", "status": "False", "reason": "R", "message": "waits"}]);
        let ready = read(json!([{"type": "Ready", "status": "True"}]));
        let ready = ready.status.expect("a status");
        let told = json!([{"type": "Ready", "status": "True", "reason": null, "message": null}]);
        let expected = json!({"status": {"conditions": told}});
        assert_eq!(difference(&read(waits), &ready), Some(expected));
    }

    #[test]
    fn only_conditions_that_changed_are_named() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let status = |conditions: Vec<Value>, ip: &str| json!({"status": {"conditions": conditions, "podIPs": [{"ip": ip}], "hostIPs": [{"ip": ip}]}});
        let read = |value: Value| serde_json::from_value::<Pod>(value).expect("a pod");
        let ready = condition("Ready", "True");
        let (others, gone) = (condition("Other", "True"), condition("Gone", "True"));
        let old = vec![condition("Ready", "False"), others.clone(), gone];
        let old = read(status(old, "10.0.0.2"));
        let new = read(status(vec![ready.clone(), others], "10.0.0.3"));
        let patch = difference(&old, new.status.as_ref().expect("a status"));
        let conditions = json!([ready, {"$patch": "delete", "type": "Gone"}]);
        let addresses = json!([{"$patch": "replace"}, {"ip": "10.0.0.3"}]);
        let expected = json!({"status": {"conditions": conditions, "podIPs": addresses, "hostIPs": addresses}});
        assert_eq!(patch, Some(expected));
        assert_eq!(
            difference(&old, old.status.as_ref().expect("a status")),
            None
        );
    }
}
