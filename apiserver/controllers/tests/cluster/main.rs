//! The controllers and the scheduler over the in-memory API server, with a kubelet of a few lines.
//!
//! Time is virtual: an hour passes in milliseconds, and a test that waits for ever ends with the
//! last state it saw.

mod addresses;
mod budgets;
mod collection;
mod stops;
mod support;
mod volumes;

use std::time::Duration;

use coracle_client::{DeletePropagation, ObjectKey, Precondition, is_terminating};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use support::{TestCluster, condition, deployment, key};

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_ready_pods_behind_a_service() {
    let cluster = TestCluster::start().await;
    cluster.create::<Service>(support::service("web")).await;
    cluster
        .create::<Deployment>(deployment("web", 3, "one"))
        .await;
    let names = cluster.ready_pods("web", 3).await;
    cluster
        .until::<EndpointSlice>("three ready endpoints", |slices| {
            let endpoints = slices
                .iter()
                .flat_map(|slice| slice.endpoints.iter().flatten());
            endpoints
                .filter(|endpoint| {
                    endpoint
                        .conditions
                        .as_ref()
                        .is_some_and(|c| c.ready == Some(true))
                })
                .count()
                == 3
        })
        .await;
    cluster
        .until::<Endpoints>("three ready addresses", |all| {
            let subsets = all
                .iter()
                .flat_map(|endpoints| endpoints.subsets.iter().flatten());
            subsets
                .map(|subset| subset.addresses.iter().flatten().count())
                .sum::<usize>()
                == 3
        })
        .await;
    cluster
        .until::<Deployment>("it is complete", |all| {
            all.iter().any(|d| {
                condition(d, "Progressing")
                    == Some(("True".into(), "NewReplicaSetAvailable".into()))
            })
        })
        .await;
    let deployment = cluster.get::<Deployment>("web").await;
    let annotations = deployment.metadata.annotations.expect("annotations");
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
    for name in names {
        let message = format!("Successfully assigned default/{name} to node-a");
        cluster
            .until::<Event>("the Pod's placement is told", |events| {
                events
                    .iter()
                    .any(|event| event.message.as_deref() == Some(message.as_str()))
            })
            .await;
    }
    cluster
        .until::<Event>("the scaling is told", |events| {
            events.iter().any(|event| {
                let message = event.message.clone().unwrap_or_default();
                event.reason.as_deref() == Some("ScalingReplicaSet")
                    && message.starts_with("Scaled up replica set web-")
                    && message.ends_with(" from 0 to 3")
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "one"))
        .await;
    let before = cluster.ready_pods("web", 2).await;
    cluster
        .delete::<Pod>(&before[0], DeletePropagation::Default)
        .await;
    cluster
        .until::<Pod>("another takes its place", |pods| {
            let ready = pods
                .iter()
                .filter(|pod| support::is_ready(pod) && !is_terminating(pod.as_ref()));
            pods.len() == 2
                && ready.count() == 2
                && pods
                    .iter()
                    .all(|pod| pod.metadata.name.as_deref() != Some(&before[0]))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_never_serves_less_than_it_may_and_can_be_undone() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 4, "one"))
        .await;
    cluster.ready_pods("web", 4).await;
    for (image, revision) in [("two", "2"), ("one", "3")] {
        cluster.set_image("web", image).await;
        cluster
            .until::<Pod>("all Pods run the new image", |pods| {
                // 25 % of four: one may be missing, one more may be there.
                let serving = pods
                    .iter()
                    .filter(|pod| support::is_ready(pod) && !is_terminating(pod.as_ref()))
                    .count();
                assert!(serving >= 3, "only {serving} pods serve");
                let active = pods
                    .iter()
                    .filter(|pod| !is_terminating(pod.as_ref()))
                    .count();
                assert!(active <= 5, "{active} pods at once");
                pods.len() == 4
                    && serving == 4
                    && pods.iter().all(|pod| support::image(pod) == image)
            })
            .await;
        cluster
            .until::<Deployment>("the revision follows", |all| {
                let annotations = all.iter().filter_map(|d| d.metadata.annotations.as_ref());
                annotations.into_iter().any(|a| {
                    a.get("deployment.kubernetes.io/revision")
                        .is_some_and(|r| r == revision)
                })
            })
            .await;
    }
    let sets = cluster.list::<ReplicaSet>();
    assert_eq!(sets.len(), 2, "the undo reuses the first ReplicaSet");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_fits() {
    let cluster = TestCluster::start().await;
    let big = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "100"}}}]},
    });
    cluster.create::<Pod>(big).await;
    let why = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
               1 No preemption victims found for incoming pod.";
    cluster
        .until::<Pod>("its condition says why", |pods| {
            pods.iter().any(|pod| {
                support::pod_condition(pod, "PodScheduled", "False", "Unschedulable", why)
            })
        })
        .await;
    cluster
        .until::<Event>("an Event says why", |events| {
            let mut told = events
                .iter()
                .filter(|event| event.reason.as_deref() == Some("FailedScheduling"));
            told.any(|event| event.message.as_deref() == Some(why))
        })
        .await;
    cluster.add_node("node-b", "200").await;
    cluster
        .until::<Pod>("it is on the new node", |pods| {
            pods.iter().any(|pod| {
                pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("node-b")
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_pods_never_overcommits_a_node() {
    let cluster = TestCluster::start().await;
    for n in 0..30 {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{n}"), "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "1"}}}]},
        });
        cluster.create::<Pod>(pod).await;
    }
    cluster
        .until::<Pod>("sixteen are placed, fourteen wait", |pods| {
            let placed = pods.iter().filter(|pod| {
                pod.spec
                    .as_ref()
                    .is_some_and(|spec| spec.node_name.is_some())
            });
            let placed = placed.count();
            assert!(placed <= 16, "{placed} pods on a node of 16 CPUs");
            let refused = pods
                .iter()
                .filter(|pod| support::scheduled(pod) == Some(false))
                .count();
            placed == 16 && refused == 14
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owner() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "one"))
        .await;
    cluster.ready_pods("web", 2).await;
    cluster
        .delete::<Deployment>("web", DeletePropagation::Background)
        .await;
    cluster
        .until::<ReplicaSet>("no ReplicaSet is left", |sets| sets.is_empty())
        .await;
    cluster
        .until::<Pod>("no Pod is left", |pods| pods.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_removes_the_owner_last() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "one"))
        .await;
    cluster.ready_pods("web", 2).await;
    let pods = cluster.lister::<Pod>();
    cluster
        .delete::<Deployment>("web", DeletePropagation::Foreground)
        .await;
    cluster
        .until::<Deployment>("the Deployment is gone", |all| {
            // Asked at every change: it is never gone while a Pod is there.
            all.is_empty() && {
                assert!(pods.is_empty(), "the owner went before its Pods");
                true
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_are_adopted_again() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "one"))
        .await;
    let before = cluster.ready_pods("web", 2).await;
    cluster
        .delete::<Deployment>("web", DeletePropagation::Orphan)
        .await;
    cluster
        .until::<Deployment>("the Deployment is gone", |all| all.is_empty())
        .await;
    cluster
        .until::<ReplicaSet>("the ReplicaSet has no owner", |sets| {
            sets.len() == 1
                && sets
                    .iter()
                    .all(|set| set.metadata.owner_references.iter().flatten().count() == 0)
        })
        .await;
    cluster
        .create::<Deployment>(deployment("web", 2, "one"))
        .await;
    cluster
        .until::<ReplicaSet>("it is adopted", |sets| {
            sets.len() == 1
                && sets
                    .iter()
                    .all(|set| set.metadata.owner_references.iter().flatten().count() == 1)
        })
        .await;
    assert_eq!(
        cluster.ready_pods("web", 2).await,
        before,
        "the Pods were left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Namespace>(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        )
        .await;
    cluster
        .until::<ServiceAccount>("it has its ServiceAccount", |all| {
            all.iter()
                .any(|account| account.metadata.namespace.as_deref() == Some("shop"))
        })
        .await;
    let mut web = deployment("web", 2, "one");
    web["metadata"]["namespace"] = json!("shop");
    cluster.create::<Deployment>(web).await;
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/f"]},
    });
    cluster.create::<ConfigMap>(held).await;
    cluster
        .until::<Pod>("its Pods are ready", |pods| {
            pods.iter().filter(|p| support::is_ready(p)).count() == 2
        })
        .await;

    let objects = cluster.ctx.objects();
    let shop = ObjectKey::cluster("shop");
    let when = Precondition::default();
    objects
        .delete::<Namespace>(&shop, &when, DeletePropagation::Default, None)
        .await
        .expect("deleted");
    cluster
        .until::<Namespace>("it says what holds it", |all| {
            let conditions = all.iter().flat_map(|n| n.status.iter().flat_map(|s| s.conditions.iter().flatten()));
            conditions.into_iter().any(|condition| {
                condition.type_ == "NamespaceFinalizersRemaining"
                    && condition.message.as_deref()
                        == Some("Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances")
            })
        })
        .await;
    let freed = json!({"metadata": {"finalizers": []}});
    objects
        .patch::<ConfigMap>(&ObjectKey::new("shop", "held"), &when, freed)
        .await
        .expect("patched");
    cluster
        .until::<Namespace>("it is gone", |all| {
            all.iter()
                .all(|n| n.metadata.name.as_deref() != Some("shop"))
        })
        .await;
    assert!(cluster.list::<Pod>().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_loses_its_pods_readiness() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 1, "one"))
        .await;
    cluster.ready_pods("web", 1).await;
    cluster.silence();
    cluster
        .until::<Node>("its readiness is unknown and it is tainted", |nodes| {
            let taints = nodes[0]
                .spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten());
            let unreachable = taints
                .filter(|taint| taint.key == "node.kubernetes.io/unreachable")
                .count();
            let conditions = nodes[0]
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            let unknown = conditions
                .filter(|condition| condition.status == "Unknown")
                .count();
            unreachable == 2 && unknown == 4
        })
        .await;
    assert!(cluster.ctx.clock().monotonic() >= Duration::from_secs(40));
    cluster
        .until::<Pod>("its Pod is not ready", |pods| {
            pods.iter().all(|pod| !support::is_ready(pod))
        })
        .await;
    let objects = cluster.ctx.objects();
    let when = Precondition::default();
    objects
        .delete::<Node>(&key("", "node-a"), &when, DeletePropagation::Default, None)
        .await
        .expect("deleted");
    cluster
        .until::<Pod>("its Pods are given up", |pods| {
            pods.iter().all(|pod| {
                pod.spec
                    .as_ref()
                    .is_some_and(|spec| spec.node_name.is_none())
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_settled_cluster_writes_nothing_but_heartbeats() {
    let cluster = TestCluster::start().await;
    cluster.create::<Service>(support::service("web")).await;
    cluster
        .create::<Deployment>(deployment("web", 3, "one"))
        .await;
    cluster.ready_pods("web", 3).await;
    cluster.settle().await;
    let before = cluster.versions();
    cluster.ctx.clock().sleep(Duration::from_secs(3600)).await;
    assert_eq!(cluster.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn controllers_that_start_again_find_their_work() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 3, "one"))
        .await;
    cluster.ready_pods("web", 3).await;
    // Every component ends; meanwhile things change.
    cluster.stop_components().await;
    cluster.set_image("web", "two").await;
    let cluster = cluster.restart_components();
    cluster
        .until::<Pod>("the rollout completes", |pods| {
            pods.len() == 3
                && pods
                    .iter()
                    .all(|pod| support::is_ready(pod) && support::image(pod) == "two")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn every_namespace_has_the_authority_and_secrets_get_their_tokens() {
    let cluster = TestCluster::start().await;
    let published = |maps: &[std::sync::Arc<ConfigMap>]| {
        let ours = maps.iter().filter(|map| {
            let data = map.data.as_ref().and_then(|data| data.get("ca.crt"));
            data.is_some_and(|pem| pem == support::AUTHORITY)
        });
        ours.count()
    };
    // default and the three namespaces of the system.
    cluster
        .until::<ConfigMap>("one in each namespace", |maps| published(maps) == 4)
        .await;
    let first: ConfigMap = cluster.get("kube-root-ca.crt").await;
    cluster
        .delete::<ConfigMap>("kube-root-ca.crt", DeletePropagation::Background)
        .await;
    cluster
        .until::<ConfigMap>("it is there again", |maps| {
            let is_gone = maps
                .iter()
                .all(|map| map.metadata.uid != first.metadata.uid);
            is_gone && published(maps) == 4
        })
        .await;

    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "default"}});
    cluster.create::<ServiceAccount>(account).await;
    cluster
        .create::<Secret>(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "robot", "namespace": "default", "annotations": annotations},
        }))
        .await;
    cluster
        .until::<Secret>("it holds the token", |secrets| {
            let data = secrets.iter().find_map(|secret| secret.data.as_ref());
            let token = data.and_then(|data| data.get("token"));
            token.is_some_and(|token| token.0 == b"token in robot")
        })
        .await;
    cluster
        .delete::<ServiceAccount>("robot", DeletePropagation::Background)
        .await;
    cluster
        .until::<Secret>("it went with its account", |secrets| secrets.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_uses_for_a_year_are_marked_and_then_go() {
    const MAP: &str = "kube-apiserver-legacy-service-account-token-tracking";
    let year = Duration::from_secs(366 * 86_400);
    let label = |secret: &Secret| {
        let labels = secret.metadata.labels.as_ref()?;
        labels
            .get("kubernetes.io/legacy-token-invalid-since")
            .cloned()
    };
    let cluster = TestCluster::start().await;
    let since = |map: &ConfigMap| map.data.as_ref()?.get("since").cloned();
    let is_map = |map: &ConfigMap| map.metadata.name.as_deref() == Some(MAP);
    let today = cluster.ctx.clock().now().strftime("%Y-%m-%d").to_string();
    cluster
        .until::<ConfigMap>("it says since when uses are written down", |maps| {
            let ours = maps.iter().find(|map| is_map(map));
            ours.and_then(|map| since(map)).as_ref() == Some(&today)
        })
        .await;
    for name in ["listed", "made"] {
        let secrets = match name {
            "listed" => json!([{"name": "listed"}]),
            _ => json!([]),
        };
        let meta = json!({"name": name, "namespace": "default"});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "secrets": secrets});
        cluster.create::<ServiceAccount>(account).await;
        let annotations = json!({"kubernetes.io/service-account.name": name});
        let meta = json!({"name": name, "namespace": "default", "annotations": annotations});
        let kind = "kubernetes.io/service-account-token";
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta});
        cluster.create::<Secret>(secret).await;
    }
    cluster.stop_components().await;
    cluster.ctx.clock().sleep(year + year / 100).await;
    let cluster = cluster.restart_components();
    cluster
        .until::<Secret>("the one that its account lists is marked", |secrets| {
            let marked = secrets.iter().filter(|secret| label(secret).is_some());
            let marked: Vec<_> = marked.filter_map(|s| s.metadata.name.clone()).collect();
            marked == ["listed"]
        })
        .await;
    cluster.stop_components().await;
    cluster.ctx.clock().sleep(year).await;
    let cluster = cluster.restart_components();
    cluster
        .until::<Secret>("it is gone, and the other one stays", |secrets| {
            let names = secrets.iter().filter_map(|s| s.metadata.name.as_deref());
            names.eq(["made"])
        })
        .await;
}
