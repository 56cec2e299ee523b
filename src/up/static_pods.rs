//! The node's static pods: the manifests of a folder, looked at again and again.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_clock::Clock;
use coracle_kubelet::Kubelet;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::manifests;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells whether a folder is as it was: its files, their times and sizes.
type Seen = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Gives the node the pods of the folder's manifests until the stop signal. A file that cannot be read,
/// or is no Pod, is left out, and said to be when it changes; a folder that is not there has no pods.
pub(super) async fn keep(folder: PathBuf, kubelet: Kubelet, clock: Clock, stop: CancellationToken) {
    let mut seen = None;
    loop {
        let (folder, before) = (folder.clone(), seen.clone());
        let look = move || look(&folder, before.as_ref());
        // A panic is tried again like anything else.
        if let Ok(Some((now, pods))) = tokio::task::spawn_blocking(look).await {
            kubelet.set_static_pods(pods);
            seen = Some(now);
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The pods, if the folder is another than before.
fn look(folder: &Path, before: Option<&Seen>) -> Option<(Seen, Vec<Pod>)> {
    let files = manifests::files(folder).unwrap_or_default();
    let now: Seen = files
        .into_iter()
        .map(|path| {
            let found = path.metadata().ok();
            let modified = found.as_ref().and_then(|found| found.modified().ok());
            (path, modified, found.map_or(0, |found| found.len()))
        })
        .collect();
    if before == Some(&now) {
        return None;
    }
    let mut pods = Vec::new();
    for (path, _, _) in &now {
        match read(path) {
            Ok(found) => pods.extend(found),
            Err(error) => tracing::warn!(path = %path.display(), "no static pod: {error:#}"),
        }
    }
    Some((now, pods))
}

fn read(path: &Path) -> anyhow::Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for manifest in manifests::load(&[path.to_owned()])? {
        let kind = manifest.object["kind"].as_str().unwrap_or_default();
        anyhow::ensure!(kind == "Pod", "{} is a {kind}", manifest.source);
        let pod = serde_json::from_value(manifest.object)
            .map_err(|error| anyhow::anyhow!("{} is not a Pod: {error}", manifest.source))?;
        pods.push(pod);
    }
    Ok(pods)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: 'file:./a.wasm'}]}\n";

    fn names(found: Option<(Seen, Vec<Pod>)>) -> Option<Vec<String>> {
        let (_, pods) = found?;
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
        let (seen, pods) = look(folder.path(), None).expect("read");
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
        // One bad file does not hide the others.
        std::fs::write(folder.path().join("bad.yaml"), "kind: [").expect("written");
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
        std::fs::write(folder.path().join("map.yaml"), map).expect("written");
        assert_eq!(
            names(look(folder.path(), Some(&seen))),
            Some(vec!["web".into()])
        );
    }
}
