use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentStrategy, ReplicaSet, ReplicaSetStatus, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::reconcile::{
    Change, World, available, desired, look_again, max_surge, max_unavailable, reconcile, replicas,
};
use super::revision::{REVISION, template_hash};
use crate::fixtures::{deployment, now, pod, replica_set, template};

/// A world and the controllers below it: ReplicaSets that get their Pods, now or never.
struct Cluster {
    world: World,
    /// Pods of ReplicaSets whose image is this one never become ready.
    broken: Option<&'static str>,
    created: u32,
}

impl Cluster {
    fn new(deployment: Deployment) -> Self {
        let world = World {
            deployment: Arc::new(deployment),
            sets: vec![],
            pods: vec![],
            now: now(),
        };
        Self {
            world,
            broken: None,
            created: 0,
        }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        let deployment = Arc::make_mut(&mut self.world.deployment);
        edit(deployment.spec.as_mut().expect("spec"));
        deployment.metadata.generation = deployment
            .metadata
            .generation
            .map(|generation| generation + 1);
    }

    fn set_image(&mut self, image: &str) {
        self.edit(|spec| spec.template = template(image));
    }

    fn apply(&mut self, change: Change) {
        let position = |sets: &[Arc<ReplicaSet>], set: &ReplicaSet| {
            sets.iter()
                .position(|known| known.metadata.name == set.metadata.name)
        };
        match change {
            Change::Create(mut set) => {
                self.created += 1;
                set.metadata.uid = set.metadata.name.clone().map(|name| format!("uid-{name}"));
                set.metadata.generation = Some(1);
                let created = now() + jiff::SignedDuration::from_secs(self.created.into());
                set.metadata.creation_timestamp = Some(Time(created));
                self.world.sets.push(Arc::new(*set));
            }
            Change::Update { old, mut new } => {
                if let Some(index) = position(&self.world.sets, &old) {
                    if old.spec != new.spec {
                        new.metadata.generation =
                            old.metadata.generation.map(|generation| generation + 1);
                    }
                    self.world.sets[index] = Arc::new(*new);
                }
            }
            Change::Delete(set) => self
                .world
                .sets
                .retain(|known| known.metadata.name != set.metadata.name),
            Change::Adopt(set, owners) | Change::Release(set, owners) => {
                if let Some(index) = position(&self.world.sets, &set) {
                    Arc::make_mut(&mut self.world.sets[index])
                        .metadata
                        .owner_references = Some(owners);
                }
            }
            Change::SetRevision(revision) => {
                let deployment = Arc::make_mut(&mut self.world.deployment);
                let annotations = deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(REVISION.into(), revision.to_string());
            }
            Change::SetStatus(status) => {
                Arc::make_mut(&mut self.world.deployment).status = Some(*status)
            }
        }
    }

    /// Every ReplicaSet gets the Pods it asks for.
    fn pods_follow(&mut self) {
        for set in &mut self.world.sets {
            let set = Arc::make_mut(set);
            let works = self.broken != Some(image(set).as_str());
            let count = replicas(set);
            let ready = Some(count).filter(|count| works && *count > 0);
            set.status = Some(ReplicaSetStatus {
                replicas: count,
                ready_replicas: ready,
                available_replicas: ready,
                observed_generation: set.metadata.generation,
                ..Default::default()
            });
        }
    }

    /// Rounds until nothing changes; `each` sees every state in between.
    fn settle(&mut self, mut each: impl FnMut(&Self)) {
        for _ in 0..100 {
            let changes = reconcile(&self.world);
            let pods_settled = self.world.sets.iter().all(|set| {
                set.status.as_ref().is_some_and(|s| {
                    s.replicas == replicas(set) && s.observed_generation == set.metadata.generation
                })
            });
            if changes.is_empty() && pods_settled {
                return;
            }
            for change in changes {
                self.apply(change);
                each(self);
            }
            self.pods_follow();
            each(self);
        }
        panic!("not settled after 100 rounds: {:?}", reconcile(&self.world));
    }

    fn set(&self, image_: &str) -> &ReplicaSet {
        self.world
            .sets
            .iter()
            .find(|set| image(set) == image_)
            .expect("a ReplicaSet of that image")
    }

    fn sizes(&self) -> Vec<i32> {
        self.world.sets.iter().map(|set| replicas(set)).collect()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let status = self.world.deployment.status.as_ref().expect("a status");
        let found = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == type_);
        let found = found.unwrap_or_else(|| panic!("no condition {type_} in {status:?}"));
        (
            found.status.clone(),
            found.reason.clone().unwrap_or_default(),
        )
    }
}

fn image(set: &ReplicaSet) -> String {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref()?.spec.as_ref());
    template
        .and_then(|spec| spec.containers[0].image.clone())
        .unwrap_or_default()
}

fn rolling(replicas: i32, surge: i32, unavailable: i32) -> Deployment {
    let mut deployment = deployment("web", replicas);
    deployment.spec.as_mut().expect("spec").strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }),
    });
    deployment
}

#[test]
fn the_first_replica_set_has_its_full_size_at_once() {
    let cluster = Cluster::new(rolling(3, 1, 1));
    let changes = reconcile(&cluster.world);
    let Change::Create(set) = &changes[0] else {
        panic!("expected a ReplicaSet, got {changes:?}")
    };
    let hash = template_hash(&template("one"), 0);
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(replicas(set), 3);
    assert_eq!(
        set.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("pod-template-hash")),
        Some(&hash)
    );
    let selector = set
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.match_labels.as_ref());
    assert_eq!(
        selector.and_then(|labels| labels.get("pod-template-hash")),
        Some(&hash)
    );
    assert!(changes.contains(&Change::SetRevision(1)));
}

#[test]
fn a_rollout_replaces_everything_and_says_so() {
    let mut cluster = Cluster::new(rolling(3, 1, 1));
    cluster.settle(|_| {});
    assert_eq!(
        cluster.condition("Progressing"),
        ("True".into(), "NewReplicaSetAvailable".into())
    );
    cluster.set_image("two");
    cluster.settle(|_| {});
    assert_eq!(replicas(cluster.set("two")), 3);
    assert_eq!(replicas(cluster.set("one")), 0);
    assert_eq!(
        cluster.condition("Available"),
        ("True".into(), "MinimumReplicasAvailable".into())
    );
    let status = cluster.world.deployment.status.as_ref().expect("a status");
    assert_eq!(
        (
            status.replicas,
            status.updated_replicas,
            status.unavailable_replicas
        ),
        (Some(3), Some(3), None)
    );
}

#[test]
fn a_broken_template_stops_at_what_may_be_unavailable() {
    let mut cluster = Cluster::new(rolling(4, 1, 1));
    cluster.settle(|_| {});
    cluster.broken = Some("two");
    cluster.set_image("two");
    cluster.settle(|_| {});
    assert_eq!(replicas(cluster.set("one")), 3, "the old ones still serve");
    assert_eq!(replicas(cluster.set("two")), 2);
    assert!(look_again(&cluster.world).is_some());
    cluster.world.now = now() + jiff::SignedDuration::from_secs(700);
    cluster.settle(|_| {});
    assert_eq!(
        cluster.condition("Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
    assert_eq!(look_again(&cluster.world), None);
}

#[test]
fn an_undo_reuses_the_old_replica_set() {
    let mut cluster = Cluster::new(rolling(2, 1, 0));
    cluster.settle(|_| {});
    cluster.set_image("two");
    cluster.settle(|_| {});
    cluster.set_image("one");
    cluster.settle(|_| {});
    assert_eq!(cluster.world.sets.len(), 2);
    let annotations = cluster
        .set("one")
        .metadata
        .annotations
        .clone()
        .expect("annotations");
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(
        annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
}

#[test]
fn a_paused_deployment_makes_nothing_new_but_can_be_resized() {
    let mut cluster = Cluster::new(rolling(2, 1, 0));
    cluster.settle(|_| {});
    cluster.edit(|spec| spec.paused = Some(true));
    cluster.set_image("two");
    cluster.edit(|spec| spec.replicas = Some(5));
    cluster.settle(|_| {});
    assert_eq!(cluster.sizes(), [5]);
    assert_eq!(
        cluster.condition("Progressing"),
        ("Unknown".into(), "DeploymentPaused".into())
    );
    cluster.edit(|spec| spec.paused = None);
    cluster.settle(|_| {});
    assert_eq!(replicas(cluster.set("two")), 5);
    assert_eq!(cluster.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn resizing_during_a_rollout_is_shared_in_proportion() {
    let mut cluster = Cluster::new(rolling(10, 3, 2));
    cluster.settle(|_| {});
    cluster.broken = Some("two");
    cluster.set_image("two");
    cluster.settle(|_| {});
    assert_eq!(cluster.sizes(), [8, 5]);
    cluster.edit(|spec| spec.replicas = Some(15));
    let changes = reconcile(&cluster.world);
    for change in changes {
        cluster.apply(change);
    }
    // Upstream's documented example: 5 more, 3 to the larger and 2 to the smaller.
    assert_eq!(cluster.sizes(), [11, 7]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut cluster = Cluster::new(deployment("web", 2));
    cluster.edit(|spec| {
        spec.strategy = Some(DeploymentStrategy {
            type_: Some("Recreate".into()),
            rolling_update: None,
        })
    });
    cluster.settle(|_| {});
    let old = cluster.world.sets[0].metadata.uid.clone().expect("a uid");
    cluster.world.pods = vec![pod("last").controlled_by(&old).terminating().build()];
    cluster.set_image("two");
    cluster.settle(|_| {});
    assert_eq!(cluster.sizes(), [0], "the last old pod still runs");
    cluster.world.pods.clear();
    cluster.settle(|_| {});
    assert_eq!(replicas(cluster.set("two")), 2);
}

#[test]
fn the_history_is_kept_within_its_limit() {
    let mut cluster = Cluster::new(rolling(1, 1, 0));
    cluster.edit(|spec| spec.revision_history_limit = Some(2));
    for image in ["one", "two", "three", "four", "five"] {
        cluster.set_image(image);
        cluster.settle(|_| {});
    }
    let mut images: Vec<_> = cluster.world.sets.iter().map(|set| image(set)).collect();
    images.sort();
    assert_eq!(images, ["five", "four", "three"]);
}

#[test]
fn a_stray_replica_set_is_adopted_before_anything_is_made() {
    let mut cluster = Cluster::new(rolling(1, 1, 0));
    let mut stray = replica_set("web-stray", 1);
    stray.metadata.labels = Some(crate::fixtures::labels(&[("app", "web")]));
    cluster.world.sets.push(Arc::new(stray));
    assert!(matches!(
        reconcile(&cluster.world).as_slice(),
        [Change::Adopt(..)]
    ));
    cluster.settle(|_| {});
    assert_eq!(cluster.world.sets.len(), 1);
}

#[test]
fn a_terminating_deployment_only_reports() {
    let mut cluster = Cluster::new(rolling(3, 1, 1));
    Arc::make_mut(&mut cluster.world.deployment)
        .metadata
        .deletion_timestamp = Some(Time(now()));
    assert!(matches!(
        reconcile(&cluster.world).as_slice(),
        [Change::SetStatus(_)]
    ));
}

fn any_rollout() -> impl Strategy<Value = (i32, i32, i32, Vec<(usize, i32)>)> {
    let edits = prop::collection::vec((0..3usize, 0..8i32), 1..5);
    (0..8i32, 0..4i32, 0..4i32, edits)
}

proptest! {
    #[test]
    fn rollouts_settle_within_their_bounds((size, surge, unavailable, edits) in any_rollout()) {
        let mut cluster = Cluster::new(rolling(size, surge, unavailable));
        cluster.settle(|_| {});
        for (image, _) in &edits {
            cluster.set_image(["one", "two", "three"][*image]);
            cluster.settle(|cluster| {
                let deployment = &cluster.world.deployment;
                let total: i32 = cluster.sizes().iter().sum();
                assert!(total <= desired(deployment) + max_surge(deployment), "surged to {total}");
                let served: i32 = cluster.world.sets.iter().map(|set| available(set).min(replicas(set))).sum();
                assert!(served >= desired(deployment) - max_unavailable(deployment), "down to {served}");
            });
        }
        for (image, size) in &edits {
            cluster.set_image(["one", "two", "three"][*image]);
            cluster.edit(|spec| spec.replicas = Some(*size));
            cluster.settle(|_| {});
            prop_assert_eq!(cluster.sizes().iter().sum::<i32>(), *size);
            prop_assert_eq!(replicas(cluster.set(["one", "two", "three"][*image])), *size);
        }
        prop_assert_eq!(reconcile(&cluster.world), vec![]);
    }

    #[test]
    fn a_crash_after_any_write_is_made_good(writes in 0..4usize, (size, surge, unavailable, _) in any_rollout()) {
        let mut cluster = Cluster::new(rolling(size, surge, unavailable));
        cluster.settle(|_| {});
        cluster.set_image("two");
        for _ in 0..20 {
            for change in reconcile(&cluster.world).into_iter().take(writes) {
                cluster.apply(change);
            }
            cluster.pods_follow();
        }
        cluster.settle(|_| {});
        prop_assert_eq!(replicas(cluster.set("two")), size);
    }
}
