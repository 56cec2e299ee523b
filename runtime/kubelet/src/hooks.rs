//! What a container wants called once it runs, and before it is asked to end.

use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject, ObjectKey};
use coracle_cri::SandboxId;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use crate::actions::field_path;
use crate::handlers::{Place, Target};
use crate::kubelet::Kubelet;
use crate::state::Entry;
use crate::step::{Hook, Part, Run, part};

impl Kubelet {
    /// Calls the postStart hook of the run that is up. Until it is done the container shows as
    /// waiting; when it fails, the run is ended as if a probe had given it up.
    pub(crate) async fn post_start(&self, uid: &str, entry: &Entry, name: &str) {
        let Some(part) = part(&entry.pod, name) else {
            return;
        };
        let run = entry.observed.container(name).restart_count;
        let ended = self.ended(uid, name, run);
        // A run that ends on its own has no use for the rest of its hook.
        let outcome = tokio::select! {
            outcome = self.call(uid, &part, part.post_start()) => outcome,
            () = ended => Err("the container ended".to_owned()),
        };
        if let Err(error) = &outcome {
            self.failed(&entry.pod, name, "PostStart", error);
        }
        let hook = if outcome.is_ok() {
            Hook::Passed
        } else {
            Hook::Failed
        };
        let status = self.with(uid, |observed| {
            let record = observed.container_mut(name);
            if record.restart_count != run {
                return false;
            }
            record.post_start = hook;
            hook == Hook::Passed && matches!(record.run, Run::Running { .. })
        });
        if status == Some(true) {
            self.begin_probing(&entry.pod, uid, name, run);
        }
    }

    /// Calls the preStop hook of a run that is about to be ended, within `grace`.
    pub(crate) async fn pre_stop(&self, uid: &str, entry: &Entry, name: &str, grace: Duration) {
        let Some(part) = part(&entry.pod, name) else {
            return;
        };
        self.announce_end(&entry.pod, name, &entry.observed);
        let run = entry.observed.container(name).restart_count;
        let hook = tokio::select! {
            outcome = tokio::time::timeout(grace, self.call(uid, &part, part.pre_stop())) => match outcome {
                Ok(Ok(())) => Hook::Passed,
                Ok(Err(error)) => {
                    self.failed(&entry.pod, name, "PreStop", &error);
                    Hook::Failed
                }
                Err(_) => {
                    tracing::debug!(container = name, ?grace, "a preStop hook used up the grace");
                    Hook::Failed
                }
            },
            () = self.ended(uid, name, run) => Hook::Failed,
        };
        self.with(uid, |observed| {
            let record = observed.container_mut(name);
            if record.restart_count == run {
                record.pre_stop = hook;
            }
        });
    }

    /// Returns when the run is over.
    async fn ended(&self, uid: &str, name: &str, run: u32) {
        loop {
            let changed = self.0.changed.notified();
            let is_over = self.with(uid, |observed| {
                let record = observed.container(name);
                record.restart_count != run || !record.run.is_active()
            });
            if is_over.unwrap_or(true) {
                return;
            }
            changed.await;
        }
    }

    /// The words stay in the log: they may tell secrets of the server that was asked.
    fn failed(&self, pod: &Pod, name: &str, which: &str, error: &str) {
        tracing::warn!(pod = %ObjectKey::of(pod), container = name, hook = which, error, "a hook failed");
        let object = InvolvedObject::of(pod).at(&field_path(pod, name));
        let (reason, message) = (format!("Failed{which}Hook"), format!("{which}Hook failed"));
        self.0
            .ctx
            .recorder()
            .event_for(object, EventKind::Warning, &reason, message);
    }

    fn call<'a>(
        &'a self,
        uid: &'a str,
        part: &'a Part<'_>,
        handler: Option<&'a LifecycleHandler>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let Some(handler) = handler else {
                return Ok(());
            };
            if let Some(sleep) = &handler.sleep {
                let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return Ok(());
            }
            let target = Target::of_hook(handler, &part.container)?;
            let place = Place {
                kubelet: self,
                sandbox: &SandboxId(uid.to_owned()),
                container: part.name(),
            };
            target.call(&place).await
        })
    }
}
