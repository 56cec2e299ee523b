use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccountTokenProjection};
use serde_json::{Value, json};

use super::*;
use crate::kubelet::Capacity;
use crate::translate::PodDefaults;

/// A ConfigMap `settings`, a Secret `keys`, and nothing else.
struct Cluster {
    settings: Value,
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
    fn allocatable(&self) -> (u64, u64) {
        (2000, 1 << 30)
    }
    fn host_ip(&self) -> String {
        "10.240.0.1".into()
    }
    fn token(&self, source: &ServiceAccountTokenProjection) -> Option<String> {
        let audience = source.audience.as_deref().unwrap_or("api");
        (audience != "nobody").then(|| format!("token for {audience}"))
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
            defaults: PodDefaults {
                cluster_domain: "cluster.local".into(),
                cluster_dns: [10, 96, 0, 10].into(),
                pods_directory: self.path("data/pods"),
            },
            data_directory: self.path("data"),
            capacity: Capacity {
                cpu_millis: 1,
                memory: 1,
                ephemeral_storage: 1,
                pods: 1,
            },
            version: "v1".into(),
        }
    }

    /// Prepares one volume `v` of that source, and mounts it as `mount` says.
    fn mount(&self, source: Value, mount: Value) -> Result<Mount, String> {
        let pod = pod(source, mount);
        prepare(&pod, "10.240.0.2", &self.config(), &self.cluster).map_err(|e| e.to_string())?;
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let mounts = mounts(&pod, container, &self.config()).map_err(|e| e.to_string())?;
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
    assert!(
        file.expect_err("a file")
            .contains("only folders can be mounted")
    );
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

#[test]
fn host_paths_are_folders_outside_the_data_directory() {
    let host = Host::new();
    fs::create_dir(host.path("shared")).expect("made");
    fs::write(host.path("file"), "").expect("written");
    let mount =
        |path: PathBuf, kind: &str| host.volume(json!({"hostPath": {"path": path, "type": kind}}));
    let shared = mount(host.path("shared"), "Directory").expect("mounted");
    assert!(shared.ends_with("shared"));
    let made = mount(host.path("new/folder"), "DirectoryOrCreate").expect("mounted");
    assert!(made.is_dir());

    let refused = |path: &str, kind: &str| mount(host.path(path), kind).expect_err(path);
    assert!(refused("none", "").contains("is not a directory"));
    assert!(refused("file", "Directory").contains("is not a directory"));
    assert!(refused("shared", "Socket").contains("\"Socket\" is not supported"));
    for path in ["data", "data/pods", "", "shared/../data"] {
        assert!(
            refused(path, "").contains("reaches into the data directory"),
            "{path}"
        );
    }
    assert!(refused("data/new", "DirectoryOrCreate").contains("reaches into the data directory"));
    assert!(!host.path("data/new").exists());
    assert!(
        mount("/".into(), "")
            .expect_err("everything")
            .contains("reaches into the data directory")
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../data", host.path("shared/link")).expect("linked");
        assert!(refused("shared/link/pods", "").contains("reaches into the data directory"));
    }
}
