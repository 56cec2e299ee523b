//! The node's static pods: the manifests of a folder, looked at again and again.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_api::core::v1::pod;
use coracle_clock::Clock;
use coracle_kubelet::{Kubelet, named_kind};
use coracle_server::manifest::Manifest;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::manifests;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells whether a folder is as it was: its files, their times and sizes.
type Seen = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Gives the node the pods of the folder's manifests until the stop signal. A file that cannot be read,
/// or is no Pod, is left out, and said to be when it changes; a folder that is not there has no pods. While the
/// system does not let the folder be read, the pods stay as they are.
pub(super) async fn keep(folder: PathBuf, kubelet: Kubelet, clock: Clock, stop: CancellationToken) {
    let (mut seen, mut said) = (None, None);
    loop {
        let (folder, before) = (folder.clone(), seen.clone());
        let look = move || look(&folder, before.as_ref());
        // A panic is tried again like anything else.
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(Some((now, pods)))) => {
                kubelet.set_static_pods(pods);
                (seen, said) = (Some(now), None);
            }
            Ok(Err(error)) => {
                // Once, and not with every look.
                let why = Some(format!("{error:#}"));
                if said != why {
                    tracing::warn!("the static pods stay as they are: {error:#}");
                    said = why;
                }
            }
            Ok(Ok(None)) | Err(_) => {}
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The pods, if the folder is another than before. An error says nothing about them, and is worth another look.
fn look(folder: &Path, before: Option<&Seen>) -> anyhow::Result<Option<(Seen, Vec<Pod>)>> {
    let files = match manifests::files(folder) {
        Err(error) if io_kind(&error) == Some(ErrorKind::NotFound) => Vec::new(),
        files => files?,
    };
    let now: Seen = files
        .into_iter()
        .map(|path| {
            let found = path.metadata().ok();
            let modified = found.as_ref().and_then(|found| found.modified().ok());
            (path, modified, found.map_or(0, |found| found.len()))
        })
        .collect();
    if before == Some(&now) {
        return Ok(None);
    }
    let (mut pods, mut names) = (Vec::new(), HashSet::new());
    for (path, _, _) in &now {
        match read(path) {
            Ok(found) => {
                for pod in found {
                    // Two of one name would both run, and only one of them could be shown.
                    if names.insert(name_of(&pod)) {
                        pods.push(pod);
                    } else {
                        let (namespace, name) = name_of(&pod);
                        tracing::warn!(path = %path.display(), "no static pod: {namespace}/{name} is there already");
                    }
                }
            }
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => tracing::warn!(path = %path.display(), "no static pod: {error:#}"),
        }
    }
    Ok(Some((now, pods)))
}

/// Namespace and name; a manifest that says no namespace means `default`.
fn name_of(pod: &Pod) -> (String, String) {
    let namespace = pod.metadata.namespace.clone();
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    (
        namespace.unwrap_or_else(|| "default".to_owned()),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

/// What the system said, if it is the system's error.
fn io_kind(error: &anyhow::Error) -> Option<ErrorKind> {
    let mut chain = error.chain();
    chain.find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()))
}

/// Whether a file may be read the next time (too many files are open, the disk failed): not one that is gone, or
/// belongs to somebody else.
fn is_passing(error: &anyhow::Error) -> bool {
    let kind = io_kind(error);
    kind.is_some_and(|kind| !matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied))
}

/// The pods of a file as the API server would take them: with defaults, and without faults. The node could run others, but
/// nobody would see them, since it may not show them.
fn read(path: &Path) -> anyhow::Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for manifests::Manifest { object, source } in manifests::load(&[path.to_owned()])? {
        let kind = object["kind"].as_str().unwrap_or_default();
        anyhow::ensure!(kind == "Pod", "{source} is a {kind}");
        let Manifest { object, warnings } = Manifest::read(object, &pod::RESOURCE)
            .map_err(|error| anyhow::anyhow!("{source}: {error}"))?;
        for warning in warnings {
            tracing::warn!("{source}: {warning}");
        }
        let pod = serde_json::from_value(object.root().clone().into())
            .map_err(|error| anyhow::anyhow!("{source} is not a Pod: {error}"))?;
        if let Some(kind) = named_kind(&pod) {
            anyhow::bail!("{source}: static pods may not reference {kind}");
        }
        pods.push(pod);
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: 'file:./a.wasm'}]}\n";

    fn names(found: anyhow::Result<Option<(Seen, Vec<Pod>)>>) -> Option<Vec<String>> {
        let (_, pods) = found.expect("no error of the system")?;
        Some(
            pods.into_iter()
                .filter_map(|pod| pod.metadata.name)
                .collect(),
        )
    }

    #[test]
    fn a_folder_is_read_when_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("missing");
        assert_eq!(names(look(&missing, None)), Some(vec![]));
        std::fs::write(folder.path().join("web.yaml"), POD).expect("written");
        std::fs::write(folder.path().join("notes.txt"), "no manifest").expect("written");
        let (seen, pods) = look(folder.path(), None).expect("read").expect("new");
        let image = pods[0]
            .spec
            .as_ref()
            .map(|spec| spec.containers[0].image.clone());
        let image = image.flatten().expect("an image");
        assert!(
            image.starts_with("file:///") && image.ends_with("/a.wasm"),
            "{image}"
        );
        assert_eq!(names(look(folder.path(), Some(&seen))), None, "nothing new");
        // Of two with one name the first counts.
        let twin = POD.replace("a.wasm", "b.wasm");
        std::fs::write(folder.path().join("web-2.yaml"), twin).expect("written");
        // One bad file does not hide the others.
        std::fs::write(folder.path().join("bad.yaml"), "kind: [").expect("written");
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
        std::fs::write(folder.path().join("map.yaml"), map).expect("written");
        assert_eq!(
            names(look(folder.path(), Some(&seen))),
            Some(vec!["web".into()])
        );
    }

    #[test]
    fn a_pod_that_the_api_server_would_not_take_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pod.yaml");
        let error = |manifest: &str| {
            std::fs::write(&path, manifest).expect("written");
            let error = read(&path).expect_err("it is wrong");
            assert!(!is_passing(&error), "{error:#}");
            format!("{error:#}")
        };
        let bad = error(&POD.replace("name: web", "name: Bad_Name"));
        assert!(
            bad.contains(r#"Pod "Bad_Name" is invalid: metadata.name: Invalid value"#),
            "{bad}"
        );
        let twice = error(&POD.replace("spec: {", "spec: {restartPolicy: Sometimes, "));
        assert!(
            twice.contains("spec.restartPolicy: Unsupported value"),
            "{twice}"
        );
        let named = error(&POD.replace("spec: {", "spec: {imagePullSecrets: [{name: login}], "));
        assert!(
            named.ends_with("static pods may not reference secrets"),
            "{named}"
        );
    }

    #[test]
    fn a_pod_has_the_defaults_of_the_api() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pod.yaml");
        std::fs::write(&path, POD.replace("file:./a.wasm", "team/app:latest")).expect("written");
        let pods = read(&path).expect("a pod");
        let spec = pods[0].spec.as_ref().expect("a spec");
        let policy = spec.containers[0].image_pull_policy.as_deref();
        assert_eq!(policy, Some("Always"));
        assert_eq!(spec.termination_grace_period_seconds, Some(30));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pods");
        std::fs::write(&path, "no folder").expect("written");
        let error = look(&path, None).expect_err("not a folder");
        assert_eq!(io_kind(&error), Some(ErrorKind::NotADirectory));
        for (kind, passes) in [
            (ErrorKind::Other, true),
            (ErrorKind::NotFound, false),
            (ErrorKind::PermissionDenied, false),
        ] {
            let error = anyhow::Error::from(io::Error::from(kind)).context("failed to read");
            assert_eq!(is_passing(&error), passes, "{kind:?}");
        }
        assert!(!is_passing(&anyhow::anyhow!("is a ConfigMap")));
    }
}
