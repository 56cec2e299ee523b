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

use std::time::Duration;

use coracle_api::duration;
use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::{ImageError, ImageRequest, PullPolicy, PulledImage};

pub(crate) use keep::NodeImages;
pub(crate) use names::image_id;

use crate::actions::{field_path, find};
use crate::kubelet::Kubelet;
use crate::state::Entry;
use crate::step::ImageState;
use crate::translate;

impl Kubelet {
    /// Makes the image of a container ready, and tells what came of it in upstream's words
    /// (`pkg/kubelet/images/image_manager.go`).
    pub(crate) async fn ensure_image(&self, uid: &str, entry: &Entry, name: &str) {
        let Some(container) = find(&entry.pod, name) else {
            return;
        };
        let mut request = translate::image(&container, entry.observed.container(name));
        if let Err(error) = self.follow_sources(&entry.pod).await {
            tracing::warn!(pod = uid, error, "an image is pulled without some secrets");
        }
        request.pull_secrets = self.pull_secrets(&entry.pod);
        let clock = self.0.ctx.clock();
        let object = InvolvedObject::of(entry.pod.as_ref()).at(&field_path(&entry.pod, name));
        let tell = |kind, reason: &str, message: String| {
            let recorder = self.0.ctx.recorder();
            recorder.event_for(object.clone(), kind, reason, message);
        };
        let image = request.image.clone();
        let pulls = will_pull(&request, self.0.runtime.has_image(&request).await);
        if pulls {
            tell(
                EventKind::Normal,
                "Pulling",
                format!("Pulling image {image:?}"),
            );
        }
        let began = clock.monotonic();
        let outcome = self.0.runtime.pull_image(request).await;
        let (took, now) = (clock.monotonic() - began, clock.now());
        if pulls && outcome.is_ok() {
            self.0.images.changed();
        }
        match &outcome {
            Ok(pulled) if pulls => {
                tell(
                    EventKind::Normal,
                    "Pulled",
                    pulled_message(&image, pulled, took),
                );
            }
            Ok(_) => {
                let message = format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                );
                tell(EventKind::Normal, "Pulled", message);
            }
            Err(error) => {
                let (reason, message) = failure(&image, error);
                tell(EventKind::Warning, reason, message);
                let message = format!("Error: {}", error.reason());
                tell(EventKind::Warning, "Failed", message);
            }
        }
        let backs_off = self.with(uid, |observed| {
            let record = observed.container_mut(name);
            match outcome {
                Ok(pulled) => record.image = ImageState::Ready(pulled.image),
                Err(error) => record.image_failed(&error, now),
            }
            let refusal = record.image.refusal();
            refusal.is_some_and(|refusal| refusal.reason == "ErrImagePull" && refusal.attempts > 1)
        });
        if backs_off == Some(true) {
            let message = format!("Back-off pulling image {image:?}");
            tell(EventKind::Normal, "BackOff", message);
            let message = "Error: ImagePullBackOff".to_owned();
            tell(EventKind::Warning, "Failed", message);
        }
    }
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
