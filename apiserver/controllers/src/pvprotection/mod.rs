//! Keeps a volume that is being deleted as long as it is bound: upstream's `pv_protection_controller.go`.

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Value, json};

use crate::worker::{outcome, work};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "pv-protection-controller";

const FINALIZER: &str = "kubernetes.io/pv-protection";

const WORKERS: usize = 1;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let volumes: Lister<PersistentVolume> = ctx.lister();
    let queue = ctx.watch::<PersistentVolume>().into_queue().await;
    let sync = async |key: ObjectKey| {
        let Some(volume) = volumes.get(&key) else {
            return Outcome::Done;
        };
        let Some(patch) = reconcile(&volume) else {
            return Outcome::Done;
        };
        let written = ctx.objects().update(volume.as_ref(), &patch).await;
        outcome(NAME, &key, written.map(|_| Outcome::Done))
    };
    work(queue, WORKERS, sync).await;
}

/// The merge patch that gives a volume its finalizer, or takes it from one that goes and is not bound.
fn reconcile(volume: &PersistentVolume) -> Option<Value> {
    let meta = &volume.metadata;
    let mut finalizers: Vec<&str> = meta
        .finalizers
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let has = finalizers.contains(&FINALIZER);
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    match meta.deletion_timestamp {
        None if !has => finalizers.push(FINALIZER),
        Some(_) if has && phase != Some("Bound") => finalizers.retain(|f| *f != FINALIZER),
        _ => return None,
    }
    Some(json!({"metadata": {"finalizers": finalizers}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(going: bool, finalizers: &[&str], phase: &str) -> Option<Value> {
        let since = going.then_some("2030-01-01T00:00:00Z");
        let volume = json!({
            "metadata": {"name": "pv", "finalizers": finalizers, "deletionTimestamp": since},
            "status": {"phase": phase},
        });
        reconcile(&serde_json::from_value(volume).expect("a volume"))
            .map(|patch| patch["metadata"]["finalizers"].clone())
    }

    #[test]
    fn a_volume_goes_when_it_is_not_bound() {
        let own = [FINALIZER];
        assert_eq!(decided(false, &[], "Available"), Some(json!(own)));
        assert_eq!(decided(false, &own, "Bound"), None);
        assert_eq!(decided(true, &own, "Bound"), None);
        assert_eq!(decided(true, &own, "Released"), Some(json!([])));
        assert_eq!(decided(true, &[], "Released"), None);
    }
}
