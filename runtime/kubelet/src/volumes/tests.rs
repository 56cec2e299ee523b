mod claims;
mod host_paths;
mod measured;

use std::sync::Arc;

use coracle_cri::Mount;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service,
    ServiceAccountTokenProjection,
};
use serde_json::{Value, json};

use super::*;
use crate::environment::tests::NODE;
use crate::kubelet::Capacity;
use crate::translate::PodDefaults;

/// A ConfigMap `settings`, a Secret `keys`, a claim `data` and a volume `pv` if they are said, and nothing else.
struct Cluster {
    settings: Value,
    claim: Option<Value>,
    volume: Option<Value>,
    image: Option<PathBuf>,
}

impl Sources for Cluster {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let map = json!({"data": self.settings, "binaryData": {"raw": "/w=="}});
        (name == "settings").then(|| Arc::new(serde_json::from_value(map).expect("valid")))
    }
    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let secret = json!({"data": {"token": "c2VjcmV0"}});
        (name == "keys").then(|| Arc::new(serde_json::from_value(secret).expect("valid")))
    }
    fn services(&self) -> Vec<Arc<Service>> {
        Vec::new()
    }
    fn kubernetes(&self) -> Option<Arc<Service>> {
        None
    }
    fn allocatable(&self) -> Capacity {
        NODE
    }
    fn host_ips(&self) -> String {
        "10.240.0.1".into()
    }
    fn token(&self, source: &ServiceAccountTokenProjection) -> Option<String> {
        let audience = source.audience.as_deref().unwrap_or("api");
        (audience != "nobody").then(|| format!("token for {audience}"))
    }
    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let claim = self.claim.clone()?;
        let is_it = claim["metadata"]["name"] == name;
        is_it.then(|| Arc::new(serde_json::from_value(claim).expect("valid")))
    }
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        let volume = self.volume.clone().filter(|_| name == "pv")?;
        Some(Arc::new(serde_json::from_value(volume).expect("valid")))
    }
    fn image_files(&self, volume: &str) -> Option<PathBuf> {
        self.image.clone().filter(|_| volume == "v")
    }
}

struct Host {
    folder: tempfile::TempDir,
    cluster: Cluster,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("data/pods")).expect("made");
        Self {
            folder,
            cluster: Cluster {
                settings: json!({"a": "1", "b": "2"}),
                claim: None,
                volume: None,
                image: None,
            },
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn config(&self) -> KubeletConfig {
        KubeletConfig {
            node: "n".into(),
            pod_range: "10.240.0.0/24".parse().expect("a range"),
            second_pod_range: None,
            host_network: Vec::new(),
            defaults: PodDefaults {
                cluster_domain: "cluster.local".into(),
                cluster_dns: vec![[10, 96, 0, 10].into()],
                resolv_conf: "/nonexistent".into(),
                pods_directory: self.path("data/pods"),
            },
            data_directory: self.path("data"),
            capacity: Capacity {
                cpu_millis: 1,
                memory: 1,
                ephemeral_storage: 1,
                pods: 1,
            },
            image_collection: crate::ImageCollection::default(),
            version: "v1".into(),
        }
    }

    /// Prepares one volume `v` of that source, and mounts it as `mount` says.
    fn mount(&self, source: Value, mount: Value) -> Result<Mount, String> {
        let pod = pod(source, mount);
        prepare(&pod, "10.240.0.2", &self.config(), &self.cluster).map_err(|e| e.to_string())?;
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let env = [("POD".to_owned(), "web-0".to_owned())];
        let mounts = mounts(&pod, container, &env, &self.config(), &self.cluster);
        let mounts = mounts.map_err(|e| e.to_string())?;
        Ok(mounts.into_iter().next().expect("one mount"))
    }

    fn volume(&self, source: Value) -> Result<PathBuf, String> {
        self.mount(source, json!({})).map(|mount| mount.host_path)
    }
}

fn pod(source: Value, mount: Value) -> Pod {
    let (mut volume, mut mounted) = (
        json!({"name": "v"}),
        json!({"name": "v", "mountPath": "/v"}),
    );
    let fields = |value: Value| value.as_object().cloned().expect("an object");
    volume
        .as_object_mut()
        .expect("an object")
        .extend(fields(source));
    mounted
        .as_object_mut()
        .expect("an object")
        .extend(fields(mount));
    let pod = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "volumeMounts": [mounted], "resources": {"limits": {"memory": "2Mi"}}}],
                 "volumes": [volume]},
    });
    serde_json::from_value(pod).expect("valid")
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).expect("a file")
}

#[test]
fn files_of_objects_change_all_at_once() {
    let mut host = Host::new();
    let source = json!({"configMap": {"name": "settings"}});
    let folder = host.volume(source.clone()).expect("mounted");
    assert_eq!(
        (read(&folder, "a"), read(&folder, "b")),
        ("1".into(), "2".into())
    );
    assert_eq!(fs::read(folder.join("raw")).expect("there"), [0xff]);
    let generation = || fs::read_link(folder.join("..data")).expect("a link");
    let first = generation();
    host.volume(source.clone()).expect("mounted");
    assert_eq!(generation(), first, "nothing has changed");

    host.cluster.settings = json!({"a": "one", "c": "3"});
    host.volume(source).expect("mounted");
    assert_ne!(generation(), first);
    assert_eq!(
        (read(&folder, "a"), read(&folder, "c")),
        ("one".into(), "3".into())
    );
    assert!(
        fs::symlink_metadata(folder.join("b")).is_err(),
        "the link of a removed key"
    );
    assert!(!folder.join(&first).exists(), "the old generation");
    for entry in fs::read_dir(&folder).expect("listed") {
        let path = entry.expect("listed").path();
        if let Ok(target) = fs::read_link(&path) {
            assert!(
                target.is_relative(),
                "{} leads to {}",
                path.display(),
                target.display()
            );
        }
    }
}

#[test]
fn what_a_crash_left_is_completed() {
    let host = Host::new();
    let source = json!({"configMap": {"name": "settings"}});
    let folder = host.volume(source.clone()).expect("mounted");
    // Between the swap and the links, with the next generation half written.
    fs::remove_file(folder.join("a")).expect("removed");
    fs::create_dir(folder.join("..2")).expect("made");
    fs::write(folder.join("..data_tmp"), "").expect("written");
    host.volume(source).expect("mounted");
    assert_eq!(read(&folder, "a"), "1");
    assert!(!folder.join("..2").exists() && !folder.join("..data_tmp").exists());
}

#[test]
fn items_choose_keys_paths_and_modes() {
    let host = Host::new();
    let items = json!([{"key": "a", "path": "deep/er/x", "mode": 0o400}]);
    let folder = host
        .volume(json!({"configMap": {"name": "settings", "items": items}}))
        .expect("mounted");
    assert_eq!(read(&folder, "deep/er/x"), "1");
    assert!(!folder.join("b").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder.join("deep/er/x")), 0o400);
        let secrets = host
            .volume(json!({"secret": {"secretName": "keys", "defaultMode": 0o644}}))
            .expect("mounted");
        assert_eq!(
            mode(&secrets.join("token")),
            0o600,
            "nobody else reads secrets"
        );
    }
}

#[test]
fn what_is_missing_is_named_unless_it_is_optional() {
    let host = Host::new();
    let refused = |source: Value| host.volume(source).expect_err("refused");
    let prefix = "MountVolume.SetUp failed for volume \"v\" : ";
    assert_eq!(
        refused(json!({"configMap": {"name": "none"}})),
        format!("{prefix}configmap \"none\" not found")
    );
    assert_eq!(
        refused(json!({"secret": {"secretName": "none"}})),
        format!("{prefix}secret \"none\" not found")
    );
    let items = json!([{"key": "z", "path": "z"}]);
    assert_eq!(
        refused(json!({"configMap": {"name": "settings", "items": items}})),
        format!("{prefix}references non-existent config key: z")
    );
    host.volume(json!({"configMap": {"name": "none", "optional": true}}))
        .expect("optional");
    let optional = json!({"configMap": {"name": "settings", "items": items, "optional": true}});
    host.volume(optional).expect("optional");
    assert!(
        refused(json!({"nfs": {"server": "s", "path": "/"}}))
            .contains("volumes of type \"nfs\" are not supported")
    );
}

#[test]
fn a_volume_that_cannot_be_made_keeps_no_other_from_changing() {
    let mut host = Host::new();
    let volumes = json!([
        {"name": "gone", "secret": {"secretName": "gone"}},
        {"name": "v", "configMap": {"name": "settings"}},
    ]);
    let pod = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"containers": [], "volumes": volumes}});
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let folder = host.path("data/pods/u/volumes/v");
    for value in ["1", "new"] {
        host.cluster.settings = json!({"a": value});
        let error = prepare(&pod, "10.240.0.2", &host.config(), &host.cluster).expect_err("one");
        assert!(error.to_string().contains("\"gone\""), "{error}");
        assert_eq!(fs::read_to_string(folder.join("a")).expect("there"), value);
    }
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let host = Host::new();
    for path in ["../x", "/x", "a/../../x", "..data/x", ""] {
        let items = json!([{"key": "a", "path": path}]);
        let refused = host.volume(json!({"configMap": {"name": "settings", "items": items}}));
        assert!(refused.expect_err(path).contains("must be relative"));
    }
    for path in ["../x", "/etc", "a/../../x"] {
        let refused = host.mount(json!({"emptyDir": {}}), json!({"subPath": path}));
        assert!(refused.expect_err(path).contains("must be relative"));
    }
}

#[test]
fn a_projected_volume_has_the_files_of_all_its_sources() {
    let host = Host::new();
    let sources = json!([
        {"serviceAccountToken": {"path": "api-token"}},
        {"serviceAccountToken": {"path": "vault/token", "audience": "vault"}},
        {"configMap": {"name": "settings", "items": [{"key": "a", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "memory", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]}},
        {"secret": {"name": "keys"}},
    ]);
    let folder = host
        .volume(json!({"projected": {"sources": sources}}))
        .expect("mounted");
    assert_eq!(
        (read(&folder, "namespace"), read(&folder, "memory")),
        ("shop".into(), "2".into())
    );
    assert_eq!(
        (read(&folder, "labels"), read(&folder, "token")),
        ("app=\"x\"".into(), "secret".into())
    );
    assert_eq!(
        (read(&folder, "api-token"), read(&folder, "vault/token")),
        ("token for api".into(), "token for vault".into())
    );
    assert_eq!(read(&folder, "ca.crt"), "1");
    let missing = json!([{"serviceAccountToken": {"path": "t", "audience": "nobody"}}]);
    let refused = host.volume(json!({"projected": {"sources": missing}}));
    assert!(refused.expect_err("refused").contains("there is no token"));
}

#[test]
fn an_empty_dir_keeps_what_guests_wrote_and_sub_paths_are_made_in_it() {
    let host = Host::new();
    let folder = host.volume(json!({"emptyDir": {}})).expect("mounted");
    fs::write(folder.join("x"), "kept").expect("written");
    let sub = host
        .mount(
            json!({"emptyDir": {}}),
            json!({"subPath": "a/b", "readOnly": true}),
        )
        .expect("mounted");
    assert!(sub.read_only && sub.host_path.ends_with("v/a/b") && sub.host_path.is_dir());
    assert_eq!(read(&folder, "x"), "kept");
    let file = host.mount(json!({"emptyDir": {}}), json!({"subPath": "x"}));
    let file = file.expect("mounted");
    assert_eq!(fs::read_to_string(file.host_path).expect("there"), "kept");
}

#[test]
fn a_sub_path_may_name_variables_of_the_container() {
    let host = Host::new();
    let expression = json!({"subPathExpr": "logs/$(POD)"});
    let found = host
        .mount(json!({"emptyDir": {}}), expression)
        .expect("mounted");
    assert!(found.host_path.ends_with("v/logs/web-0") && found.host_path.is_dir());
    let refused = |text: &str| {
        let mount = host.mount(json!({"emptyDir": {}}), json!({"subPathExpr": text}));
        mount.expect_err(text)
    };
    assert!(refused("$(NONE)").contains("missing value for \"NONE\""));
    assert!(refused("../$(POD)").contains("must be relative"));
    assert!(refused("/$(POD)").contains("must be relative"));
}

#[test]
fn a_sub_path_of_an_object_stays_as_it_was_when_the_container_started() {
    let mut host = Host::new();
    let items = json!([{"key": "a", "path": "deep/a"}]);
    let source = json!({"configMap": {"name": "settings", "items": items}});
    let folder = json!({"subPath": "deep"});
    let deep = host
        .mount(source.clone(), folder.clone())
        .expect("mounted")
        .host_path;
    host.cluster.settings = json!({"a": "2"});
    let whole = host.volume(source.clone()).expect("mounted");
    assert_eq!(read(&whole, "deep/a"), "2");
    assert_eq!(read(&deep, "a"), "1", "it still has its files");
    let next = host.mount(source.clone(), folder).expect("mounted");
    assert!(next.read_only);
    assert_eq!(read(&next.host_path, "a"), "2", "the next run has the new");
    let file = host.mount(source, json!({"subPath": "deep/a"}));
    let file = file.expect("mounted").host_path;
    assert_eq!(fs::read_to_string(file).expect("there"), "2");
}

#[test]
fn an_image_is_there_once_it_was_pulled_and_to_be_read_only() {
    let mut host = Host::new();
    let source = json!({"image": {"reference": "files:1"}});
    let refused = host.volume(source.clone()).expect_err("not pulled");
    assert!(refused.ends_with("its image is not there"), "{refused}");
    fs::create_dir_all(host.path("image/sub")).expect("made");
    host.cluster.image = Some(host.path("image"));
    let mount = host.mount(source.clone(), json!({})).expect("mounted");
    assert!(mount.read_only && mount.host_path.ends_with("image"));
    let sub = host
        .mount(source.clone(), json!({"subPath": "sub"}))
        .expect("mounted");
    assert!(sub.host_path.ends_with("image/sub"));
    host.mount(source, json!({"subPath": "none"}))
        .expect_err("nothing is made in an image");
}

#[cfg(unix)]
#[test]
fn a_file_is_read_from_its_volume_alone() {
    let host = Host::new();
    let folder = host.volume(json!({"emptyDir": {}})).expect("mounted");
    fs::write(folder.join("env"), "A='1'").expect("written");
    fs::write(host.path("secret"), "S").expect("written");
    std::os::unix::fs::symlink(host.path("secret"), folder.join("out")).expect("linked");
    let pod = pod(json!({"emptyDir": {}}), json!({}));
    let read = |path: &str, most| read_file(&pod, "v", path, most, &host.config());
    assert_eq!(read("env", 100).expect("read"), Some("A='1'".to_owned()));
    assert_eq!(read("env", 2).expect("read"), Some("A=".to_owned()));
    assert_eq!(read("none", 100).expect("absent"), None);
    assert!(matches!(read("out", 100), Err(Problem::Escapes(_))));
    assert!(matches!(read("../v/env", 100), Err(Problem::Escapes(_))));
}

#[cfg(unix)]
#[test]
fn links_that_guests_made_lead_nowhere_else() {
    let host = Host::new();
    let folder = host.volume(json!({"emptyDir": {}})).expect("mounted");
    std::os::unix::fs::symlink("../../../..", folder.join("out")).expect("linked");
    let refused = host.mount(json!({"emptyDir": {}}), json!({"subPath": "out/made"}));
    assert!(refused.expect_err("outside").contains("must be relative"));
    assert!(!host.path("data/made").exists() && !host.path("made").exists());
}
