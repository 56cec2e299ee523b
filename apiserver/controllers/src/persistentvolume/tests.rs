use std::sync::Arc;

use coracle_client::EventKind;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::reconcile::{self, Change, ClaimWorld, VolumeWorld};

/// A free volume of that size.
fn volume(name: &str, size: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "hostPath": {"path": "/srv"}, "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Available"},
    })
}

/// A claim for 1Gi, without a class.
fn claim() -> Value {
    json!({
        "metadata": {"name": "data", "namespace": "shop", "uid": "c", "resourceVersion": "7"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "", "volumeMode": "Filesystem",
        },
        "status": {"phase": "Pending"},
    })
}

fn class(name: &str, provisioner: &str, mode: &str) -> Value {
    json!({
        "metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
        "reclaimPolicy": "Delete",
    })
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("well-formed")
}

/// A small cluster on which changes can be carried out.
#[derive(Default)]
struct World {
    claim: Value,
    volumes: Vec<Value>,
    classes: Vec<Value>,
    told: Vec<(&'static str, String)>,
}

impl World {
    fn of(claim: Value, volumes: &[Value]) -> Self {
        Self {
            claim,
            volumes: volumes.to_vec(),
            ..Self::default()
        }
    }

    fn claims(&self) -> Arc<PersistentVolumeClaim> {
        Arc::new(read(&self.claim))
    }

    fn all(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.iter().map(|v| Arc::new(read(v))).collect()
    }

    /// One round about the claim; whether it came to anything but Events.
    fn claim(&mut self) -> bool {
        let classes = self.classes.iter();
        let plan = reconcile::claim(&ClaimWorld {
            claim: self.claims(),
            volumes: self.all(),
            classes: classes.map(|c| Arc::new(read::<StorageClass>(c))).collect(),
        });
        let name = plan.volume.and_then(|v| v.metadata.name.clone());
        self.apply(plan.changes, name)
    }

    /// One round about a volume.
    fn volume(&mut self, index: usize) -> bool {
        let volume: PersistentVolume = read(&self.volumes[index]);
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.clone());
        let uid = reference.and_then(|r| r.uid);
        let is_there = !self.claim.is_null();
        let claim = is_there.then(|| self.claims());
        let claim = claim.filter(|claim| claim.metadata.uid == uid);
        let name = volume.metadata.name.clone();
        let volume = Arc::new(volume);
        self.apply(reconcile::volume(&VolumeWorld { volume, claim }), name)
    }

    fn apply(&mut self, changes: Vec<Change>, name: Option<String>) -> bool {
        let mut has_written = false;
        for change in changes {
            let volume = self.volumes.iter_mut();
            let mut volume = volume.filter(|v| v["metadata"]["name"].as_str() == name.as_deref());
            match change {
                Change::Claim(patch) | Change::ClaimStatus(patch) => {
                    merge(&mut self.claim, &patch);
                    has_written = true;
                }
                Change::Volume(patch) | Change::VolumeStatus(patch) => {
                    merge(volume.next().expect("the volume"), &patch);
                    has_written = true;
                }
                Change::Tell(_, reason, message) | Change::TellOfVolume(_, reason, message) => {
                    self.told.push((reason, message));
                }
            }
        }
        has_written
    }

    /// Rounds about everything until nothing is written any more.
    fn settle(&mut self) {
        for _ in 0..10 {
            let mut has_written = !self.claim.is_null() && self.claim();
            for index in 0..self.volumes.len() {
                has_written |= self.volume(index);
            }
            if !has_written {
                return;
            }
        }
        panic!("no rest: {} {:?}", self.claim, self.volumes);
    }

    fn phase(&self) -> &str {
        self.claim["status"]["phase"].as_str().unwrap_or_default()
    }

    fn bound_to(&self) -> Option<&str> {
        self.claim["spec"]["volumeName"].as_str()
    }

    fn phase_of(&self, index: usize) -> &str {
        self.volumes[index]["status"]["phase"]
            .as_str()
            .unwrap_or_default()
    }

    fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = self.told.iter().map(|(reason, _)| *reason).collect();
        reasons.dedup();
        reasons
    }
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(json!({})), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[test]
fn a_claim_gets_the_smallest_volume_that_suits_it() {
    let mut other_class = volume("class", "1Gi");
    other_class["spec"]["storageClassName"] = json!("fast");
    let mut other_mode = volume("block", "1Gi");
    other_mode["spec"]["volumeMode"] = json!("Block");
    let mut read_only = volume("read-only", "1Gi");
    read_only["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
    let mut going = volume("going", "1Gi");
    going["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    let small = volume("small", "1023Mi");
    let unsuitable = [other_class, other_mode, read_only, going, small];
    let mut world = World::of(claim(), &unsuitable);
    world.settle();
    assert_eq!((world.phase(), world.bound_to()), ("Pending", None));
    assert_eq!(world.reasons(), ["FailedBinding"]);

    world.volumes.push(volume("large", "5Gi"));
    world.volumes.push(volume("right", "2Gi"));
    world.settle();
    assert_eq!((world.phase(), world.bound_to()), ("Bound", Some("right")));
    assert_eq!(world.claim["status"]["capacity"]["storage"], "2Gi");
    assert_eq!(
        (world.phase_of(6), world.phase_of(5)),
        ("Bound", "Available")
    );
    let reference = &world.volumes[6]["spec"]["claimRef"];
    assert_eq!(
        (&reference["uid"], &reference["kind"]),
        (&json!("c"), &json!("PersistentVolumeClaim"))
    );
    let annotations = &world.claim["metadata"]["annotations"];
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
}

#[test]
fn a_binding_is_completed_wherever_it_stopped() {
    let mut whole = World::of(claim(), &[volume("pv", "1Gi")]);
    whole.settle();
    for stop in 0..5 {
        let mut world = World::of(claim(), &[volume("pv", "1Gi")]);
        let plan = reconcile::claim(&ClaimWorld {
            claim: world.claims(),
            volumes: world.all(),
            classes: Vec::new(),
        });
        assert_eq!(plan.changes.len(), 4);
        let first = plan.changes.into_iter().take(stop).collect();
        world.apply(first, Some("pv".to_owned()));
        world.settle();
        assert_eq!(
            (&world.claim, &world.volumes),
            (&whole.claim, &whole.volumes),
            "{stop}"
        );
    }
}

#[test]
fn labels_choose_among_volumes() {
    let mut labelled = volume("labelled", "9Gi");
    labelled["metadata"]["labels"] = json!({"disk": "ssd"});
    let mut wanted = claim();
    wanted["spec"]["selector"] = json!({"matchLabels": {"disk": "ssd"}});
    let mut world = World::of(wanted, &[volume("plain", "1Gi"), labelled]);
    world.settle();
    assert_eq!(world.bound_to(), Some("labelled"));
}

#[test]
fn a_volume_that_is_meant_for_a_claim_is_its() {
    let mut meant = volume("meant", "5Gi");
    meant["spec"]["claimRef"] = json!({"namespace": "shop", "name": "data"});
    let mut others = volume("others", "1Gi");
    others["spec"]["claimRef"] = json!({"namespace": "shop", "name": "other"});
    let mut world = World::of(claim(), &[volume("free", "1Gi"), others, meant]);
    world.settle();
    assert_eq!(world.bound_to(), Some("meant"));
    assert_eq!(world.volumes[2]["spec"]["claimRef"]["uid"], "c");
    assert!(
        world.volumes[2]["metadata"]["annotations"].is_null(),
        "its user bound it"
    );
    assert_eq!(world.phase_of(1), "Available");
}

#[test]
fn a_claim_that_names_its_volume_gets_that_or_none() {
    let mut named = claim();
    named["spec"]["volumeName"] = json!("pv");
    let mut world = World::of(named.clone(), &[volume("free", "1Gi")]);
    world.settle();
    assert_eq!((world.phase(), world.reasons().len()), ("Pending", 0));

    for (change, reason) in [
        (
            json!({"spec": {"capacity": {"storage": "1Mi"}}}),
            "VolumeMismatch",
        ),
        (
            json!({"spec": {"storageClassName": "fast"}}),
            "VolumeMismatch",
        ),
        (
            json!({"spec": {"claimRef": {"namespace": "shop", "name": "x", "uid": "x"}}}),
            "FailedBinding",
        ),
    ] {
        let mut unfit = volume("pv", "1Gi");
        merge(&mut unfit, &change);
        let mut world = World::of(named.clone(), &[unfit]);
        world.claim();
        assert_eq!((world.phase(), world.reasons()), ("Pending", vec![reason]));
    }

    let mut world = World::of(named, &[volume("pv", "9Gi"), volume("free", "1Gi")]);
    world.settle();
    assert_eq!((world.phase(), world.bound_to()), ("Bound", Some("pv")));
}

#[test]
fn a_claim_that_lost_its_volume_says_so_once() {
    let mut world = World::of(claim(), &[volume("pv", "1Gi")]);
    world.settle();
    let mut stolen = World::of(world.claim.clone(), &world.volumes);
    stolen.volumes[0]["spec"]["claimRef"]["uid"] = json!("another");
    stolen.claim();
    assert_eq!(
        (stolen.phase(), stolen.reasons()),
        ("Lost", vec!["ClaimMisbound"])
    );
    world.volumes.clear();
    world.claim();
    world.claim();
    assert_eq!((world.phase(), world.told.len()), ("Lost", 1));
    assert_eq!(world.reasons(), ["ClaimLost"]);
}

#[test]
fn a_released_volume_stays_or_is_left_to_whoever_made_it() {
    let bound = |policy: &str, made: bool| {
        let mut pv = volume("pv", "1Gi");
        pv["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        if made {
            pv["metadata"]["annotations"] = json!({"pv.kubernetes.io/provisioned-by": "x"});
        }
        let mut world = World::of(claim(), &[pv]);
        world.settle();
        world.claim = Value::Null;
        world.settle();
        world
    };
    for (policy, made, phase, reasons) in [
        ("Retain", false, "Released", vec![]),
        ("Delete", true, "Released", vec![]),
        ("Delete", false, "Failed", vec!["VolumeFailedDelete"]),
        ("Recycle", false, "Failed", vec!["VolumeFailedRecycle"]),
    ] {
        let mut world = bound(policy, made);
        assert_eq!(
            (world.phase_of(0), world.reasons()),
            (phase, reasons),
            "{policy}"
        );
        // It is nobody's until its user says so.
        world.claim = claim();
        world.claim["metadata"]["uid"] = json!("next");
        world.settle();
        assert_eq!(world.phase(), "Pending");
    }
}

#[test]
fn a_volume_that_two_claims_chose_is_given_back() {
    let mut own = World::of(claim(), &[volume("a", "1Gi"), volume("b", "1Gi")]);
    own.settle();
    assert_eq!(own.bound_to(), Some("a"));
    let reference = own.volumes[0]["spec"]["claimRef"].clone();
    own.volumes[1]["spec"]["claimRef"] = reference;
    own.volumes[1]["metadata"]["annotations"] =
        json!({"pv.kubernetes.io/bound-by-controller": "yes"});
    own.settle();
    assert!(own.volumes[1]["spec"]["claimRef"].is_null());
    assert_eq!(own.phase_of(1), "Available");
}

#[test]
fn a_class_says_who_makes_the_volume_and_when() {
    let wanting = |class: &str| {
        let mut wanted = claim();
        wanted["spec"]["storageClassName"] = json!(class);
        wanted
    };
    let classes = vec![
        class("now", "example.com/disk", "Immediate"),
        class("later", "example.com/disk", "WaitForFirstConsumer"),
        class("manual", "kubernetes.io/no-provisioner", "Immediate"),
    ];
    let cases = [
        (
            "now",
            "ExternalProvisioning",
            "either by the external provisioner 'example.com/disk'",
        ),
        (
            "later",
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        (
            "manual",
            "ProvisioningFailed",
            "no volume plugin matched name",
        ),
        (
            "none",
            "ProvisioningFailed",
            "storageclass.storage.k8s.io \"none\" not found",
        ),
    ];
    for (name, reason, words) in cases {
        let mut world = World::of(wanting(name), &[volume("free", "1Gi")]);
        world.classes = classes.clone();
        world.settle();
        assert_eq!(
            (world.phase(), world.reasons()),
            ("Pending", vec![reason]),
            "{name}"
        );
        assert!(world.told[0].1.contains(words), "{:?}", world.told);
        let told =
            &world.claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"];
        assert_eq!(told.as_str(), (name == "now").then_some("example.com/disk"));
    }
    let mut world = World::of(wanting("later"), &[]);
    world.classes = classes;
    world.claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "a"});
    world.settle();
    assert_eq!(world.reasons(), ["ExternalProvisioning"]);
}

#[test]
fn a_claim_without_a_word_about_its_class_gets_the_default_one() {
    let mut world = World::of(claim(), &[]);
    merge(
        &mut world.claim,
        &json!({"spec": {"storageClassName": null}}),
    );
    let mut default = class("standard", "example.com/disk", "Immediate");
    default["metadata"]["annotations"] =
        json!({"storageclass.kubernetes.io/is-default-class": "true"});
    world.classes = vec![class("other", "x.y/z", "Immediate"), default];
    world.settle();
    assert_eq!(world.claim["spec"]["storageClassName"], "standard");
    assert!(
        world
            .told
            .iter()
            .all(|(reason, _)| *reason == "ExternalProvisioning")
    );
    let warnings = reconcile::claim(&ClaimWorld {
        claim: world.claims(),
        volumes: Vec::new(),
        classes: Vec::new(),
    });
    let is_warning = |c: &Change| matches!(c, Change::Tell(EventKind::Warning, _, _));
    assert!(warnings.changes.iter().any(is_warning), "its class is gone");
}

#[test]
fn a_claim_whose_node_is_chosen_gets_a_volume_that_is_there() {
    let on = |name: &str, node: &str| {
        let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        let mut local = volume(name, "1Gi");
        local["spec"]["storageClassName"] = json!("manual");
        local["spec"]["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}});
        local
    };
    let mut world = World::of(claim(), &[on("a", "node-a"), on("b", "node-b")]);
    world.classes = vec![class(
        "manual",
        "kubernetes.io/no-provisioner",
        "WaitForFirstConsumer",
    )];
    world.claim["spec"]["storageClassName"] = json!("manual");
    world.settle();
    assert_eq!(
        (world.phase(), world.reasons()),
        ("Pending", vec!["WaitForFirstConsumer"])
    );
    world.claim["metadata"]["annotations"] =
        json!({"volume.kubernetes.io/selected-node": "node-b"});
    world.settle();
    assert_eq!((world.phase(), world.bound_to()), ("Bound", Some("b")));
}
