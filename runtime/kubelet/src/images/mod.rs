//! Images of containers: what is asked for, what is told about it, and what is cleared away.
//!
//! ```text
//! EnsureImage ─▶ secrets ─▶ is it there? ─▶ Pulling ─▶ runtime ─▶ Pulled | Failed, BackOff
//! every 5 min ─▶ sweep, and when the disk is full: collect ─▶ remove what no pod uses
//! ```

mod collect;
mod keep;
mod names;
mod secrets;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use coracle_api::duration;
use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::{ImageError, ImageRef, ImageRequest, PullPolicy, PullSecret, PulledImage};
use k8s_openapi::api::core::v1::ImageVolumeSource;

pub use collect::ImageCollection;
pub(crate) use keep::NodeImages;
pub(crate) use names::image_id;
pub(crate) use volumes::VolumeImages;

use crate::actions::{field_path, find};
use crate::kubelet::Kubelet;
use crate::state::Entry;
use crate::step::ImageState;
use crate::translate;

impl Kubelet {
    /// Makes the image of a container ready, and those of the volumes that it mounts, and tells what came of
    /// it in upstream's words (`pkg/kubelet/images/image_manager.go`).
    pub(crate) async fn ensure_image(&self, uid: &str, entry: &Entry, name: &str) {
        let Some(container) = find(&entry.pod, name) else {
            return;
        };
        let mut request = translate::image(&container, entry.observed.container(name));
        if let Err(error) = self.follow_sources(&entry.pod).await {
            tracing::warn!(pod = uid, error, "an image is pulled without some secrets");
        }
        request.pull_secrets = self.pull_secrets(&entry.pod);
        let object = InvolvedObject::of(entry.pod.as_ref()).at(&field_path(&entry.pod, name));
        let pull_secrets = request.pull_secrets.clone();
        let mut image = request.image.clone();
        let mut outcome = self.pull(&object, request, Use::Program).await;
        if outcome.is_ok() {
            for (volume, source) in volumes::mounted(&entry.pod, &container) {
                image = source.reference.clone().unwrap_or_default();
                let found = self
                    .pull_volume(uid, volume, source, &pull_secrets, &object)
                    .await;
                if let Err(error) = found {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let now = self.0.ctx.clock().now();
        let mut state = self.0.state.lock();
        let backs_off = state.entries.get_mut(uid).map(|entry| {
            let is_other = find(&entry.pod, name).is_none_or(|now| now.image != container.image);
            let record = entry.observed.container_mut(name);
            match outcome {
                // Nobody wants it any more.
                _ if is_other => record.image = ImageState::Absent,
                Ok((pulled, _)) => record.image = ImageState::Ready(pulled),
                Err(error) => record.image_failed(&error, now),
            }
            let refusal = record.image.refusal();
            refusal.is_some_and(|refusal| refusal.reason == "ErrImagePull" && refusal.attempts > 1)
        });
        drop(state);
        if backs_off == Some(true) {
            let recorder = self.0.ctx.recorder();
            let message = format!("Back-off pulling image {image:?}");
            recorder.event_for(object.clone(), EventKind::Normal, "BackOff", message);
            let message = "Error: ImagePullBackOff".to_owned();
            recorder.event_for(object, EventKind::Warning, "Failed", message);
        }
    }

    /// Makes the files of an image volume present.
    async fn pull_volume(
        &self,
        uid: &str,
        volume: &str,
        source: &ImageVolumeSource,
        pull_secrets: &[PullSecret],
        object: &InvolvedObject,
    ) -> Result<(), ImageError> {
        let mut request = match volumes::request(source) {
            Ok(request) => request,
            Err(error) => {
                self.tell_failure(object, "", &error);
                return Err(error);
            }
        };
        request.pull_secrets = pull_secrets.to_vec();
        request.known_digest = self.0.volume_images.known(uid, volume, &request.image);
        let (image, folder) = self.pull(object, request, Use::Files).await?;
        if let Some(folder) = folder {
            self.0.volume_images.hold(uid, volume, image, folder);
        }
        Ok(())
    }

    /// Has one image, and tells of it.
    async fn pull(
        &self,
        object: &InvolvedObject,
        request: ImageRequest,
        what: Use,
    ) -> Result<(ImageRef, Option<PathBuf>), ImageError> {
        let clock = self.0.ctx.clock();
        let recorder = self.0.ctx.recorder();
        let tell = |reason, message| {
            recorder.event_for(object.clone(), EventKind::Normal, reason, message);
        };
        let runtime = &self.0.runtime;
        let image = request.image.clone();
        let pulls = will_pull(&request, runtime.has_image(&request).await);
        if pulls {
            tell("Pulling", format!("Pulling image {image:?}"));
        }
        let began = clock.monotonic();
        let outcome = match what {
            Use::Program => runtime
                .pull_image(request)
                .await
                .map(|pulled| (pulled, None)),
            Use::Files => runtime.image_files(request).await.map(|(image, folder)| {
                let waited = Duration::ZERO;
                (PulledImage { image, waited }, Some(folder))
            }),
        };
        let took = clock.monotonic() - began;
        match outcome {
            Ok((pulled, folder)) => {
                let message = if pulls {
                    self.0.images.changed();
                    pulled_message(&image, &pulled, took)
                } else {
                    format!(
                        "Container image {image:?} already present on machine and can be accessed by the pod"
                    )
                };
                tell("Pulled", message);
                Ok((pulled.image, folder))
            }
            Err(error) => {
                self.tell_failure(object, &image, &error);
                Err(error)
            }
        }
    }

    fn tell_failure(&self, object: &InvolvedObject, image: &str, error: &ImageError) {
        let recorder = self.0.ctx.recorder();
        let (reason, message) = failure(image, error);
        recorder.event_for(object.clone(), EventKind::Warning, reason, message);
        let message = format!("Error: {}", error.reason());
        recorder.event_for(object.clone(), EventKind::Warning, "Failed", message);
    }
}

/// What an image is pulled for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// To be run.
    Program,
    /// To be read, whatever it is.
    Files,
}

/// Whether the image's source will be asked.
fn will_pull(request: &ImageRequest, is_there: bool) -> bool {
    !is_there && request.policy != PullPolicy::Never
}

fn pulled_message(image: &str, pulled: &PulledImage, took: Duration) -> String {
    format!(
        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
        go_duration(took.saturating_sub(pulled.waited)),
        go_duration(took),
        pulled.image.size
    )
}

/// Reason and message of the first Event about a failure.
fn failure(image: &str, error: &ImageError) -> (&'static str, String) {
    match error {
        ImageError::InvalidName(message) => ("InspectFailed", message.clone()),
        ImageError::NeverPull(message) => ("ErrImageNeverPull", message.clone()),
        ImageError::Pull(_) | ImageError::NotRunnable(_) => {
            ("Failed", format!("Failed to pull image {image:?}: {error}"))
        }
    }
}

/// As Go prints it, to the millisecond.
fn go_duration(length: Duration) -> String {
    let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    duration::shown(millis.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (millis, text) in [
            (0, "0s"),
            (7, "7ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (1594, "1.594s"),
            (62_050, "1m2.05s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn failures_have_upstreams_reasons() {
        let (reason, message) = failure("app:1", &ImageError::Pull("404".to_owned()));
        assert_eq!(
            (reason, &*message),
            ("Failed", "Failed to pull image \"app:1\": 404")
        );
        let (reason, _) = failure("A", &ImageError::InvalidName("couldn't parse".to_owned()));
        assert_eq!(reason, "InspectFailed");
        let (reason, _) = failure("a", &ImageError::NeverPull("not present".to_owned()));
        assert_eq!(reason, "ErrImageNeverPull");
    }
}
