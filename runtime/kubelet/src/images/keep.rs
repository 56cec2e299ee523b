//! The loop that clears images away, and the list of them in the Node's status.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject};
use k8s_openapi::api::core::v1::{ContainerImage, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use super::collect::{HIGH, LOW, Sightings};
use super::names::node_names;
use crate::kubelet::Kubelet;
use crate::step::ImageState;

/// Between two looks at the disk (`ImageGCPeriod`).
const COLLECT_EVERY: Duration = Duration::from_secs(300);
/// What belongs to no image is removed when nobody has touched it for so long: a pull may be under way.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
/// Images that a Node shows (`nodeStatusMaxImages`).
const MOST_IMAGES: usize = 50;

/// The node's images as its status shows them.
pub(crate) struct NodeImages {
    is_stale: AtomicBool,
    shown: Mutex<Vec<ContainerImage>>,
    /// Held while images are cleared away.
    sightings: tokio::sync::Mutex<Sightings>,
}

impl Default for NodeImages {
    fn default() -> Self {
        Self {
            is_stale: AtomicBool::new(true),
            shown: Mutex::default(),
            sightings: tokio::sync::Mutex::default(),
        }
    }
}

impl NodeImages {
    /// Something was pulled or removed.
    pub(super) fn changed(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }
}

impl Kubelet {
    /// The images for the Node's status, the largest first. Only changes make it look at the disk.
    pub(crate) async fn node_images(&self) -> Vec<ContainerImage> {
        if self.0.images.is_stale.swap(false, Ordering::Relaxed) {
            let mut all = self.0.runtime.list_images().await;
            all.sort_by(|a, b| (b.size, &a.names).cmp(&(a.size, &b.names)));
            all.truncate(MOST_IMAGES);
            let shown = all.into_iter().map(|image| ContainerImage {
                names: Some(node_names(&image.names, &image.digest)),
                size_bytes: i64::try_from(image.size).ok(),
            });
            *self.0.images.shown.lock() = shown.collect();
        }
        self.0.images.shown.lock().clone()
    }

    /// Clears images away until the kubelet stops.
    pub(crate) async fn keep_images(self) {
        let clock = self.0.ctx.clock();
        loop {
            tokio::select! {
                () = clock.sleep(COLLECT_EVERY) => {}
                () = self.0.ctx.stop().cancelled() => return,
            }
            self.collect_images().await;
            // Loaded from the command line, perhaps.
            self.0.images.changed();
        }
    }

    /// Clears away what nobody uses, if the disk is full.
    pub(crate) async fn collect_images(&self) {
        let mut sightings = self.0.images.sightings.lock().await;
        let runtime = &self.0.runtime;
        let now = self.0.ctx.clock().monotonic();
        let used = self.used_images();
        let list: Vec<String> = used.iter().cloned().collect();
        match runtime.sweep_images(&list, LEFT_BEHIND).await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed, "files of images that were left behind are removed"),
            Err(error) => tracing::warn!(%error, "the image store cannot be swept"),
        }
        let images = runtime.list_images().await;
        sightings.note(&images, &used, now);
        let Some(fs) = runtime.image_fs().await else {
            return;
        };
        let collection = sightings.collect(fs, &images, &used, now);
        if collection.wanted == 0 {
            return;
        }
        tracing::info!(
            usage = collection.usage,
            high = HIGH,
            low = LOW,
            wanted = collection.wanted,
            images = collection.images.len(),
            "the disk is full, images that no pod uses are removed"
        );
        for digest in &collection.images {
            // A pod may have begun to use it meanwhile.
            if self.used_images().contains(digest) {
                continue;
            }
            if let Err(error) = runtime.remove_image(digest).await {
                tracing::warn!(digest, %error, "an image cannot be removed");
            }
        }
        if collection.bytes < collection.wanted {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {} bytes eligible to free.",
                collection.wanted, collection.bytes
            );
            let node = Node {
                metadata: ObjectMeta {
                    name: Some(self.node().to_owned()),
                    ..ObjectMeta::default()
                },
                ..Node::default()
            };
            let recorder = self.0.ctx.recorder();
            let kind = EventKind::Warning;
            recorder.event_for(
                InvolvedObject::of(&node),
                kind,
                "FreeDiskSpaceFailed",
                message,
            );
        }
    }

    /// Digests of the images of this node's pods, run or about to.
    fn used_images(&self) -> HashSet<String> {
        let mounted = self.0.volume_images.digests();
        let state = self.0.state.lock();
        let records = state
            .entries
            .values()
            .flat_map(|entry| entry.observed.containers.values());
        records
            .flat_map(|record| {
                let ready = match &record.image {
                    ImageState::Ready(image) => Some(image.digest.clone()),
                    _ => None,
                };
                let ran = record.image_ref.as_ref().map(|image| image.digest.clone());
                ready.into_iter().chain(ran)
            })
            .chain(mounted)
            .collect()
    }
}
