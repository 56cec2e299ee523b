//! The loop that clears images away, and the list of them in the Node's status.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::ImageListing;
use k8s_openapi::api::core::v1::{ContainerImage, Node};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use super::collect::Sightings;
use super::names::{may_be, node_names};
use super::volumes::mounted;
use crate::actions::find;
use crate::kubelet::Kubelet;
use crate::step::ImageState;

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
                () = clock.sleep(self.0.config.image_collection.period) => {}
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
        let images = runtime.list_images().await;
        let used = self.used_images(&images);
        let list: Vec<String> = used.iter().cloned().collect();
        match runtime.sweep_images(&list, LEFT_BEHIND).await {
            Ok(0) => {}
            Ok(freed) => tracing::info!(freed, "files of images that were left behind are removed"),
            Err(error) => tracing::warn!(%error, "the image store cannot be swept"),
        }
        sightings.note(&images, &used, now);
        let Some(fs) = runtime.image_fs().await else {
            return;
        };
        let when = &self.0.config.image_collection;
        let collection = sightings.collect(when, fs, &images, &used, now);
        if collection.wanted == 0 {
            return;
        }
        tracing::info!(
            usage = collection.usage,
            high = when.high_percent,
            low = when.low_percent,
            wanted = collection.wanted,
            images = collection.images.len(),
            "the disk is full, images that no pod uses are removed"
        );
        for digest in &collection.images {
            // A pod may have begun to use it meanwhile.
            if self.used_images(&images).contains(digest) {
                continue;
            }
            match runtime.remove_image(digest).await {
                Ok(()) => tracing::info!(digest, "an image is removed to free bytes"),
                Err(error) => tracing::warn!(digest, %error, "an image cannot be removed"),
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

    /// Digests of the images of this node's pods, run or about to: also those that are being made ready, and those of
    /// the volumes that go with them, which may be there already.
    fn used_images(&self, there: &[ImageListing]) -> HashSet<String> {
        let held = self.0.volume_images.digests();
        let state = self.0.state.lock();
        let mut awaited: Vec<String> = Vec::new();
        for entry in state.entries.values() {
            for (name, record) in &entry.observed.containers {
                if matches!(record.image, ImageState::Pulling { .. })
                    && let Some(container) = find(&entry.pod, name)
                {
                    let volumes = mounted(&entry.pod, &container);
                    awaited.extend(
                        volumes
                            .into_iter()
                            .filter_map(|(_, of)| of.reference.clone()),
                    );
                    awaited.extend(container.image.clone());
                }
            }
        }
        let awaited = there.iter().filter(|image| {
            let mut asked = awaited.iter();
            asked.any(|asked| may_be(asked, &image.names, &image.digest))
        });
        let awaited: Vec<String> = awaited.map(|image| image.digest.clone()).collect();
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
            .chain(held)
            .chain(awaited)
            .collect()
    }
}
