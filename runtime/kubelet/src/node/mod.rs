//! The node's own object: registration, status and heartbeat.
//!
//! [`object`] says what the Node should be, as a value; this loop writes it when it differs, and
//! renews the node's Lease so that the control plane sees that the kubelet lives.

mod object;

pub(crate) use object::labels;

use std::time::Duration;

use coracle_client::{Error, ObjectKey, Precondition};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use serde_json::json;

use crate::kubelet::Kubelet;

/// Between renewals of the Lease (a quarter of its duration, as upstream).
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How long the control plane waits for a renewal.
const LEASE_SECONDS: i32 = 40;
/// Where the Leases of nodes are.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Between reports of an unchanged status (`nodeStatusReportFrequency`).
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Delay after a failed write; doubles up to [`RENEW_EVERY`].
const FIRST_RETRY: Duration = Duration::from_millis(20);

/// Registers the node, then keeps its status and its Lease fresh until the kubelet stops.
pub(crate) async fn run(kubelet: Kubelet) {
    let ctx = &kubelet.0.ctx;
    let mut heart = Heart {
        kubelet: kubelet.clone(),
        reported: None,
        lease: None,
    };
    let mut retry = FIRST_RETRY;
    while !ctx.stop().is_cancelled() {
        let delay = match heart.beat().await {
            Ok(()) => {
                retry = FIRST_RETRY;
                RENEW_EVERY
            }
            Err(error) => {
                // The namespace of Leases, or the whole server, may come a moment later.
                tracing::debug!(
                    node = kubelet.node(),
                    error = error.message(),
                    "heartbeat was not written"
                );
                let delay = retry;
                retry = (retry * 2).min(RENEW_EVERY);
                delay
            }
        };
        tokio::select! {
            () = ctx.stop().cancelled() => return,
            () = ctx.clock().sleep(delay) => {}
            () = kubelet.0.pressure_changed.notified() => {}
        }
    }
}

/// What the loop remembers between beats.
struct Heart {
    kubelet: Kubelet,
    /// When the status was last written, by the monotonic clock.
    reported: Option<Duration>,
    /// The Lease as last written.
    lease: Option<Lease>,
}

impl Heart {
    async fn beat(&mut self) -> Result<(), Error> {
        // The Node first: it is what pods wait for.
        let node = self.node().await?;
        self.renew(&node).await
    }

    /// Makes the Node as it should be, and answers it as stored.
    async fn node(&mut self) -> Result<Node, Error> {
        let ctx = &self.kubelet.0.ctx;
        let (key, now) = (ObjectKey::cluster(self.kubelet.node()), ctx.clock().now());
        let monotonic = ctx.clock().monotonic();
        let config = &self.kubelet.0.config;
        let stored = match ctx.objects().get::<Node>(&key).await? {
            Some(stored) => stored,
            None => {
                let created = ctx.objects().create(&object::new(config, now)).await?;
                tracing::info!(node = self.kubelet.node(), "node registered");
                created
            }
        };
        let mut stored = stored;
        if let Some(patch) = object::registration(&stored, config) {
            stored = ctx
                .objects()
                .patch(&key, &Precondition::uid_of(&stored), patch)
                .await?;
        }
        let is_due = self
            .reported
            .is_none_or(|at| monotonic.saturating_sub(at) >= REPORT_EVERY);
        let pressure = self.kubelet.0.state.lock().pressure.conditions(now);
        let mut status = object::status(stored.status.as_ref(), config, &pressure, now);
        status.images = Some(self.kubelet.node_images().await);
        if is_due || object::differs(stored.status.as_ref(), &status) {
            let when = Precondition::uid_of(&stored);
            stored = ctx
                .objects()
                .patch_status(&key, &when, json!({"status": status}))
                .await?;
            self.reported = Some(monotonic);
        }
        Ok(stored)
    }

    /// Writes the time of this beat into the node's Lease.
    async fn renew(&mut self, node: &Node) -> Result<(), Error> {
        let ctx = &self.kubelet.0.ctx;
        let key = ObjectKey::new(LEASE_NAMESPACE, self.kubelet.node());
        let now = MicroTime(ctx.clock().now());
        if let Some(lease) = self.lease.take() {
            let when = Precondition::uid_of(&lease);
            let patch = json!({"spec": {"renewTime": now, "holderIdentity": self.kubelet.node()}});
            match ctx.objects().patch::<Lease>(&key, &when, patch).await {
                Ok(lease) => {
                    self.lease = Some(lease);
                    return Ok(());
                }
                // Somebody removed or replaced it: begin anew.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    self.lease = Some(lease);
                    return Err(error);
                }
            }
        }
        let spec = LeaseSpec {
            holder_identity: Some(self.kubelet.node().to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let lease = match ctx.objects().get::<Lease>(&key).await? {
            Some(lease) => {
                let when = Precondition::uid_of(&lease);
                ctx.objects()
                    .patch::<Lease>(&key, &when, json!({"spec": spec}))
                    .await?
            }
            None => ctx.objects().create(&self.lease_of(node, spec)).await?,
        };
        self.lease = Some(lease);
        Ok(())
    }

    /// The Lease goes with its Node.
    fn lease_of(&self, node: &Node, spec: LeaseSpec) -> Lease {
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.kubelet.node().to_owned(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        Lease {
            metadata: ObjectMeta {
                name: Some(self.kubelet.node().to_owned()),
                namespace: Some(LEASE_NAMESPACE.into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        }
    }
}
