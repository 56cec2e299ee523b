use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

/// The pod `n/a` on node `one`, which names one of everything; its claim is of a volume that names a secret elsewhere.
fn with_pod() -> NodeAuthorizer {
    let pod = object(json!({
        "metadata": {"name": "a", "namespace": "n", "uid": "u1"},
        "spec": {
            "nodeName": "one", "serviceAccountName": "account",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "envFrom": [{"secretRef": {"name": "env-from"}}, {"configMapRef": {"name": "map-from"}}],
                "env": [
                    {"valueFrom": {"secretKeyRef": {"name": "env"}}}, {"valueFrom": {"configMapKeyRef": {"name": "map"}}},
                ],
            }],
            "volumes": [
                {"name": "s", "secret": {"secretName": "volume"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "in"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "e", "ephemeral": {}},
            ],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
        },
        "status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "a-gpu"}]},
    }));
    let volume = object(json!({
        "metadata": {"name": "disk"},
        "spec": {
            "claimRef": {"namespace": "n", "name": "claim"},
            "csi": {"nodePublishSecretRef": {"namespace": "storage", "name": "disk"}},
            "rbd": {"secretRef": {"name": "near"}},
        },
    }));
    let at = |node: &str| object(json!({"metadata": {"name": "x"}, "spec": {"nodeName": node}}));
    let authorizer = NodeAuthorizer::empty();
    let mut graph = authorizer.graph.write();
    graph.set_pod("n/a", Some(&pod));
    graph.set_volume("disk", Some(&volume));
    graph.set_attachment("at", Some(&at("one")));
    graph.set_slice("sl", Some(&at("one")));
    drop(graph);
    authorizer
}

fn ask(authorizer: &NodeAuthorizer, node: &str, question: &str) -> Decision {
    let identity = Identity::new(format!("system:node:{node}"), [NODES]);
    let mut words = question.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (verb, group, path, namespace, name, fields) =
        (next(), next(), next(), next(), next(), next());
    let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
    authorizer.decide(&Attributes {
        namespace,
        name: name.into(),
        subresource,
        fields: fields.parse().expect("a selector"),
        ..Attributes::resource(&identity, verb, group, resource)
    })
}

/// `verb group resource[/subresource] namespace name fields`, for the node that has the pod.
const OWN: &[&str] = &[
    "get  secrets n pull",
    "get  secrets n env-from",
    "watch  secrets n env",
    "list  secrets n volume",
    "get  secrets n projected",
    "get  secrets storage disk",
    "get  secrets n near",
    "get  configmaps n map-from",
    "get  configmaps n map",
    "get  configmaps n in",
    "get  persistentvolumeclaims n claim",
    "get  persistentvolumeclaims n a-e",
    "patch  persistentvolumeclaims/status n claim",
    "get  persistentvolumes  disk",
    "get resource.k8s.io resourceclaims n a-gpu",
    "get storage.k8s.io volumeattachments  at",
    "patch resource.k8s.io resourceslices  sl",
    "list resource.k8s.io resourceslices   nodeName=one",
    "get  serviceaccounts n account",
    "create  serviceaccounts/token n account",
    "get  pods n a",
    "watch  pods n a",
    "list  pods   spec.nodeName=one",
    "get  nodes  one",
    "watch  nodes  one",
    "get coordination.k8s.io leases kube-node-lease one",
    "delete storage.k8s.io csinodes  one",
];

/// What every node may do.
const ANYBODY: &[&str] = &[
    "create  pods n",
    "patch  pods/status n a",
    "create  pods/eviction n a",
    "create  nodes",
    "patch  nodes/status  one",
    "create coordination.k8s.io leases kube-node-lease",
    "list  services",
    "create  events n",
    "create certificates.k8s.io certificatesigningrequests",
];

#[test]
fn a_node_may_have_what_its_pods_name() {
    let authorizer = with_pod();
    for question in OWN {
        assert_eq!(ask(&authorizer, "one", question), yes(), "{question}");
        assert_ne!(ask(&authorizer, "two", question), yes(), "{question}");
    }
    for question in ANYBODY {
        assert_eq!(ask(&authorizer, "two", question), yes(), "{question}");
    }
}

#[test]
fn refusals_say_why() {
    let authorizer = with_pod();
    let related = "no relationship found between node 'two' and this object";
    for (question, reason) in [
        ("get  secrets n pull", related),
        ("get  secrets m pull", related),
        ("list  secrets n", "No Object name found"),
        (
            "list  secrets",
            "can only read namespaced object of this type",
        ),
        (
            "update  secrets n pull",
            "can only read resources of this type",
        ),
        ("get  secrets/x n pull", "cannot read subresource"),
        (
            "list  persistentvolumes",
            "can only get individual resources of this type",
        ),
        (
            "create  serviceaccounts n",
            "can only create tokens for individual service accounts",
        ),
        (
            "list  pods",
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (
            "list  pods   spec.nodeName=one",
            "can only list/watch pods with spec.nodeName field selector",
        ),
        (
            "list  nodes",
            "node 'two' cannot read all nodes, only its own Node object",
        ),
        (
            "get  nodes  one",
            "node 'two' cannot read 'one', only its own Node object",
        ),
        ("delete  nodes  two", ""),
        ("get  pods/log n a", ""),
        (
            "get coordination.k8s.io leases default two",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "get coordination.k8s.io leases kube-node-lease one",
            "can only access node lease with the same name as the requesting node",
        ),
        ("get apps deployments n a", ""),
    ] {
        assert_eq!(ask(&authorizer, "two", question), no(reason), "{question}");
    }
    for identity in [
        Identity::component("system:node:one"),
        Identity::new("one", [NODES]),
        Identity::new("jane", ["devs"]),
    ] {
        let asked = Attributes::resource(&identity, "create", "", "nodes");
        assert_eq!(authorizer.decide(&asked), no(""));
    }
    let nameless = Identity::new("system:node:", [NODES]);
    let asked = Attributes::resource(&nameless, "create", "", "nodes");
    assert_eq!(
        authorizer.decide(&asked),
        no("unknown node for user \"system:node:\"")
    );
}

#[test]
fn what_is_gone_gives_no_right() {
    let authorizer = with_pod();
    let moved = object(json!({
        "metadata": {"name": "a", "namespace": "n", "uid": "u2"}, "spec": {"nodeName": "two"},
    }));
    authorizer.graph.write().set_pod("n/a", Some(&moved));
    assert_ne!(ask(&authorizer, "one", "get  secrets n pull"), yes());
    assert_ne!(ask(&authorizer, "two", "get  secrets n pull"), yes());
    assert_eq!(ask(&authorizer, "two", "get  pods n a"), yes());
    let mut graph = authorizer.graph.write();
    graph.set_pod("n/a", None);
    graph.set_volume("disk", None);
    graph.set_attachment("at", None);
    graph.set_slice("sl", None);
    assert!(graph.is_empty());
}

#[test]
fn a_mirror_pod_gives_its_node_nothing() {
    let authorizer = NodeAuthorizer::empty();
    let mirror = object(json!({
        "metadata": {"name": "a", "namespace": "n", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "one", "imagePullSecrets": [{"name": "pull"}]},
    }));
    authorizer.graph.write().set_pod("n/a", Some(&mirror));
    assert_eq!(ask(&authorizer, "one", "get  pods n a"), yes());
    assert_ne!(ask(&authorizer, "one", "get  secrets n pull"), yes());
}
