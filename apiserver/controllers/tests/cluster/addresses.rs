//! Claims of Service addresses, and node ports, after writes that failed half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_client::{DeletePropagation, Error, ObjectClient, Precondition};
use coracle_clock::{Clock, Timestamp};
use coracle_server::Config;
use coracle_store::{
    Error as StoreError, KeyValue, MemoryStore, Op, Page, Precondition as When, Revision, Store,
    WatchStream,
};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::{Value, json};

use crate::support::{ADMIN, Refused, TestCluster, client, key, serve};

const FIRST_PORT: u16 = 30_000;
const LAST_PORT: u16 = 30_003;

/// A store whose writes of Services and their claims fail from one on, until it is healed.
struct Failing {
    inner: MemoryStore,
    /// How many more of these writes succeed; negative: all.
    left: AtomicI64,
    /// Failed writes happen all the same, and only their answer is lost.
    answers_lost: bool,
}

impl Failing {
    fn new(answers_lost: bool) -> Self {
        Self {
            inner: MemoryStore::new(Clock::fake(1)),
            left: AtomicI64::new(-1),
            answers_lost,
        }
    }

    fn fail_after(&self, writes: i64) {
        self.left.store(writes, Ordering::Relaxed);
    }

    fn heal(&self) {
        self.left.store(-1, Ordering::Relaxed);
    }

    fn fails(&self, op: &Op) -> bool {
        let path = String::from_utf8_lossy(op.key()).into_owned();
        let concerned = path.contains("services/") || path.contains("ipaddresses/");
        match self.left.load(Ordering::Relaxed) {
            _ if !concerned => false,
            0 => true,
            left if left < 0 => false,
            _ => {
                self.left.fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }
}

#[async_trait]
impl Store for Failing {
    async fn range(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.range(prefix, at, after, limit).await
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        self.inner.get(key).await
    }

    async fn write(
        &self,
        op: Op,
        precondition: When,
        ttl: Option<Duration>,
    ) -> Result<Revision, StoreError> {
        if !self.fails(&op) {
            return self.inner.write(op, precondition, ttl).await;
        }
        if self.answers_lost {
            self.inner.write(op, precondition, ttl).await?;
        }
        Err(StoreError::Closed)
    }

    async fn watch(&self, from: Revision) -> Result<WatchStream, StoreError> {
        self.inner.watch(from).await
    }

    fn current_revision(&self) -> Revision {
        self.inner.current_revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.compacted_revision()
    }

    fn cluster_id(&self) -> &str {
        self.inner.cluster_id()
    }

    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.inner.compact(up_to).await
    }

    async fn expire(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.inner.expire(now).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn config(store: Arc<Failing>) -> Config {
    let mut config = Config::new(store, Clock::fake(2));
    config.service_ranges.node_ports = FIRST_PORT..=LAST_PORT;
    config
}

fn node_port(name: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": port}]},
    })
}

async fn create(objects: &ObjectClient, service: Value) -> Result<Service, Error> {
    let service: Service = serde_json::from_value(service).expect("a Service");
    objects.create(&service).await
}

/// One change of Services and their claims.
#[derive(Clone, Copy, Debug)]
enum Change {
    Create,
    Refused,
    Delete,
    ToExternalName,
    FromExternalName,
    OtherPort,
}

const CHANGES: [Change; 6] = [
    Change::Create,
    Change::Refused,
    Change::Delete,
    Change::ToExternalName,
    Change::FromExternalName,
    Change::OtherPort,
];

/// Makes the change; whether it succeeds is not the matter.
async fn make(objects: &ObjectClient, change: Change) {
    let (old, when) = (key("default", "old"), Precondition::default());
    let patch = match change {
        Change::Create => {
            let _ = create(objects, node_port("new", "10.96.7.8", FIRST_PORT + 1)).await;
            return;
        }
        // The address is claimed before the port is found to be taken.
        Change::Refused => {
            let _ = create(objects, node_port("new", "10.96.7.8", FIRST_PORT)).await;
            return;
        }
        Change::Delete => {
            let how = DeletePropagation::Default;
            let _ = objects.delete::<Service>(&old, &when, how, None).await;
            return;
        }
        Change::ToExternalName => json!({"spec": {
            "type": "ExternalName", "externalName": "e.example.com", "clusterIP": null, "clusterIPs": null,
        }}),
        Change::FromExternalName => {
            let spec = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            let outside = key("default", "outside");
            let _ = objects.patch::<Service>(&outside, &when, spec).await;
            return;
        }
        Change::OtherPort => json!({"spec": {"ports": [{"port": 80, "nodePort": FIRST_PORT + 2}]}}),
    };
    let _ = objects.patch::<Service>(&old, &when, patch).await;
}

async fn prepare(objects: &ObjectClient) {
    create(objects, node_port("old", "10.96.7.7", FIRST_PORT))
        .await
        .expect("made");
    let outside = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "e.example.com"},
    });
    create(objects, outside).await.expect("made");
}

/// Every address that a Service has is claimed by it, every claim is some Service's, and of the node ports exactly
/// those are free that no Service has.
async fn assert_agreement(objects: &ObjectClient, case: &str) {
    let all = Default::default();
    let services = objects.list::<Service>(None, &all).await.expect("a list");
    let claims = objects.list::<IPAddress>(None, &all).await.expect("a list");
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for service in services.items {
        let spec = service.spec.expect("a spec");
        let name = service.metadata.name.expect("a name");
        held.extend(
            spec.cluster_ips
                .into_iter()
                .flatten()
                .map(|address| (address, name.clone())),
        );
        ports.extend(
            spec.ports
                .into_iter()
                .flatten()
                .filter_map(|port| port.node_port),
        );
    }
    let mut claimed: Vec<_> = claims
        .items
        .into_iter()
        .map(|claim| {
            (
                claim.metadata.name.unwrap_or_default(),
                claim.spec.parent_ref.name,
            )
        })
        .collect();
    held.sort();
    claimed.sort();
    assert_eq!(held, claimed, "{case}");
    for port in FIRST_PORT..=LAST_PORT {
        let made = create(objects, node_port(&format!("probe-{port}"), "", port)).await;
        let free = !ports.contains(&i32::from(port));
        assert_eq!(made.is_ok(), free, "{case}: port {port}");
    }
}

/// Every change, cut off after every number of writes, with both ways to fail.
fn cases() -> impl Iterator<Item = (Change, i64, bool)> {
    CHANGES.into_iter().flat_map(|change| {
        (0..4).flat_map(move |writes| [(change, writes, false), (change, writes, true)])
    })
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_anywhere_is_repaired_while_the_cluster_runs() {
    for (change, writes, answers_lost) in cases() {
        let store = Arc::new(Failing::new(answers_lost));
        let cluster = TestCluster::start_with(config(store.clone())).await;
        let objects = cluster.ctx.objects();
        prepare(objects).await;
        store.fail_after(writes);
        make(objects, change).await;
        store.heal();
        cluster.ctx.clock().sleep(Duration::from_secs(900)).await;
        let case = format!("{change:?} after {writes} writes, answers lost: {answers_lost}");
        assert_agreement(objects, &case).await;
        cluster.stop_components().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_is_repaired_by_the_next_start() {
    for (change, writes, answers_lost) in cases() {
        let store = Arc::new(Failing::new(answers_lost));
        let before = serve(config(store.clone())).await;
        let objects = ObjectClient::new(client(&before, ADMIN, &Refused::default()));
        prepare(&objects).await;
        store.fail_after(writes);
        make(&objects, change).await;
        before.stop();
        store.heal();
        let after = serve(config(store)).await;
        let objects = ObjectClient::new(client(&after, ADMIN, &Refused::default()));
        let case = format!("{change:?} after {writes} writes, answers lost: {answers_lost}");
        assert_agreement(&objects, &case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_offers_addresses_once_it_is_ready_and_stays_while_they_are_used() {
    let cluster = TestCluster::start().await;
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["192.168.7.0/29"]},
    });
    cluster.create::<ServiceCIDR>(range).await;
    let ready = |range: &ServiceCIDR, status: &str| {
        let conditions = range
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let mut conditions = conditions.filter(|condition| condition.type_ == "Ready");
        conditions.any(|condition| condition.status == status)
    };
    cluster
        .until::<ServiceCIDR>("both are ready and guarded", |ranges| {
            let good = ranges
                .iter()
                .filter(|range| ready(range, "True") && range.metadata.finalizers.is_some());
            good.count() == 2
        })
        .await;
    let objects = cluster.ctx.objects();
    let service = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        })
    };
    create(objects, service("a", "192.168.7.3"))
        .await
        .expect("an address of it");
    let (more, when) = (key("", "more"), Precondition::default());
    let how = DeletePropagation::Default;
    objects
        .delete::<ServiceCIDR>(&more, &when, how, None)
        .await
        .expect("told");
    cluster
        .until::<ServiceCIDR>("it says why it stays", |ranges| {
            ranges.iter().any(|range| ready(range, "False"))
        })
        .await;
    let refused = create(objects, service("b", "192.168.7.4")).await;
    assert_eq!(refused.expect_err("it is about to go").reason(), "Invalid");
    cluster.delete::<Service>("a", how).await;
    cluster
        .until::<ServiceCIDR>("it goes", |ranges| ranges.len() == 1)
        .await;
}
