use super::*;

/// A claim that is bound to the volume `pv`, which lies at `path`.
pub(super) fn bound(host: &mut Host, name: &str, path: &str) {
    let path = host.path(path);
    host.cluster.claim = Some(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": "claim"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"},
    }));
    host.cluster.volume = Some(json!({
        "metadata": {"name": "pv"},
        "spec": {
            "claimRef": {"name": name, "namespace": "shop", "uid": "claim"},
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
        },
    }));
}

pub(super) fn claim() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}

#[test]
fn a_bound_claim_is_the_folder_of_its_volume() {
    let mut host = Host::new();
    bound(&mut host, "data", "data/volumes/pvc-1");
    let mount = host.mount(claim(), json!({})).expect("mounted");
    assert!(mount.host_path.ends_with("data/volumes/pvc-1") && mount.host_path.is_dir());
    assert!(!mount.read_only);
    let sub = host
        .mount(claim(), json!({"subPath": "a", "readOnly": true}))
        .expect("mounted");
    assert!(sub.read_only && sub.host_path.ends_with("pvc-1/a"));
    let read_only = json!({"persistentVolumeClaim": {"claimName": "data", "readOnly": true}});
    assert!(host.mount(read_only, json!({})).expect("mounted").read_only);
}

#[test]
fn a_volume_outside_of_the_volumes_folder_obeys_the_rules_of_host_paths() {
    let mut host = Host::new();
    fs::create_dir(host.path("data/volumes")).expect("made");
    for closed in ["data/pki", "data/volumes", "data/volumes/../pki", "data"] {
        bound(&mut host, "data", closed);
        let refused = host.volume(claim()).expect_err(closed);
        assert!(
            refused.contains("reaches into the data directory"),
            "{refused}"
        );
    }
    assert!(!host.path("data/pki").exists());
    bound(&mut host, "data", "elsewhere");
    host.volume(claim()).expect("mounted");
    let volume = host.cluster.volume.as_mut().expect("a volume");
    volume["spec"]["hostPath"] = Value::Null;
    volume["spec"]["local"] = json!({"path": host.folder.path().join("none")});
    let refused = host.volume(claim()).expect_err("not made");
    assert!(refused.contains("is not a directory"), "{refused}");
}

#[test]
fn why_a_claim_cannot_be_mounted_is_said() {
    let mut host = Host::new();
    let refused = host.volume(claim()).expect_err("absent");
    assert!(
        refused.ends_with("persistentvolumeclaim \"data\" not found"),
        "{refused}"
    );

    bound(&mut host, "data", "elsewhere");
    let whole = (host.cluster.claim.clone(), host.cluster.volume.clone());
    type Change = fn(&mut Cluster);
    let cases: [(Change, &str); 4] = [
        (
            |cluster| cluster.claim.as_mut().expect("one")["status"]["phase"] = json!("Pending"),
            "has non-bound phase (\"Pending\")",
        ),
        (
            |cluster| cluster.volume = None,
            "persistentvolume \"pv\" not found",
        ),
        (
            |cluster| cluster.volume.as_mut().expect("one")["spec"]["claimRef"]["uid"] = json!("x"),
            "is not bound to PVC shop/data",
        ),
        (
            |cluster| {
                let spec = &mut cluster.volume.as_mut().expect("one")["spec"];
                *spec = json!({"claimRef": spec["claimRef"], "capacity": {}, "nfs": {"server": "s", "path": "/"}});
            },
            "of type \"nfs\"",
        ),
    ];
    for (change, problem) in cases {
        (host.cluster.claim, host.cluster.volume) = whole.clone();
        change(&mut host.cluster);
        let refused = host.volume(claim()).expect_err(problem);
        assert!(refused.contains(problem), "{refused}");
    }
}

#[test]
fn an_ephemeral_volume_is_a_claim_that_the_pod_owns() {
    let mut host = Host::new();
    bound(&mut host, "web-v", "data/volumes/pvc-1");
    let ephemeral = json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    let refused = host.volume(ephemeral.clone()).expect_err("another's");
    assert!(refused.contains("was not created for pod shop/web (pod is not owner)"));
    let owner =
        json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u", "controller": true});
    host.cluster.claim.as_mut().expect("a claim")["metadata"]["ownerReferences"] = json!([owner]);
    assert!(host.volume(ephemeral).expect("mounted").ends_with("pvc-1"));
}
