//! Events: what a component wants a user to know about an object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::{Clock, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::correlate::{Correlator, Topic, Verdict};
use crate::key::{Kind, ObjectKey};
use crate::objects::{ObjectClient, Precondition};

/// How many Events of one component may wait to be written; past it they are dropped.
const WAITING: usize = 10_000;
/// How many are written at once, and then in a second while more keep coming: as many as a kubelet upstream writes.
/// Events tell of work and are not to slow it down: those of a thousand pods that start are written when the pods are
/// ready.
const BURST: u32 = 100;
const PER_SECOND: u32 = 50;
/// When nothing has been recorded for so long, or so many wait, this many are written in a second.
const CALM: Duration = Duration::from_secs(1);
const MANY: usize = WAITING / 2;
const PER_SECOND_IN_CALM: u32 = 500;
/// How long an Event waits before it is written. What it tells of goes on at that moment, with writes of its own that
/// somebody waits for; on a disk, each of them is a sync.
const BEHIND: Duration = Duration::from_millis(20);

/// Whether an Event tells of something expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// All is as it should be.
    Normal,
    /// Somebody may have to act.
    Warning,
}

impl EventKind {
    fn word(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an Event is about.
#[derive(Clone, Debug)]
pub struct InvolvedObject(ObjectReference);

impl InvolvedObject {
    /// The whole object.
    pub fn of<K: Kind>(object: &K) -> Self {
        let mut reference = object.object_ref(&());
        reference.resource_version = object.meta().resource_version.clone();
        Self(reference)
    }

    /// A part of it, such as `spec.containers{web}`.
    #[must_use]
    pub fn at(mut self, field_path: &str) -> Self {
        self.0.field_path = Some(field_path.to_owned());
        self
    }
}

impl From<ObjectReference> for InvolvedObject {
    fn from(reference: ObjectReference) -> Self {
        Self(reference)
    }
}

/// Writes one component's Events; cheap to clone.
///
/// Recording never waits and never fails: Events are written in the background, equal ones are
/// counted, many similar ones folded, and a flood about one object is cut off, all as upstream's
/// recorder does. An Event may be lost; nothing may depend on one.
#[derive(Clone)]
pub struct EventRecorder {
    waiting: mpsc::Sender<Occurrence>,
    clock: Clock,
    latest: Latest,
}

/// When something was recorded last, in nanoseconds on the monotonic clock.
type Latest = Arc<AtomicU64>;

struct Occurrence {
    /// When, on the monotonic clock.
    at: Duration,
    /// When, on the wall clock.
    now: Timestamp,
    object: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
}

impl EventRecorder {
    /// Records under `component`'s name (and `host`, for one that lives on a node) until `stop`.
    /// Must be called within a tokio runtime.
    pub fn new(
        objects: ObjectClient,
        clock: Clock,
        stop: CancellationToken,
        component: &str,
        host: Option<&str>,
    ) -> Self {
        let (waiting, occurrences) = mpsc::channel(WAITING);
        let latest = Latest::default();
        let writer = Writer {
            objects,
            clock: clock.clone(),
            stop,
            component: component.to_owned(),
            host: host.unwrap_or_default().to_owned(),
            correlator: Correlator::new(),
            pace: Pace::default(),
            latest: latest.clone(),
            occurrences,
        };
        tokio::spawn(writer.run());
        Self {
            waiting,
            clock,
            latest,
        }
    }

    /// Records something about `object`. `reason` is a CamelCase word that programs may test;
    /// `message` is for people.
    pub fn event<K: Kind>(
        &self,
        object: &K,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event_for(InvolvedObject::of(object), kind, reason, message);
    }

    /// Records something about an object that is only referred to, or about a part of one.
    pub fn event_for(
        &self,
        object: InvolvedObject,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let at = self.clock.monotonic();
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.latest.fetch_max(nanos, Ordering::Relaxed);
        let occurrence = Occurrence {
            at,
            now: self.clock.now(),
            object: object.0,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if self.waiting.try_send(occurrence).is_err() {
            tracing::debug!(reason, "dropped an event: too many wait to be written");
        }
    }
}

struct Writer {
    objects: ObjectClient,
    clock: Clock,
    stop: CancellationToken,
    component: String,
    host: String,
    correlator: Correlator,
    pace: Pace,
    latest: Latest,
    occurrences: mpsc::Receiver<Occurrence>,
}

/// How many Events may be written in a second, if the latest was recorded so long ago and so many wait.
fn per_second(quiet: Duration, waiting: usize) -> u32 {
    match quiet >= CALM || waiting > MANY {
        true => PER_SECOND_IN_CALM,
        false => PER_SECOND,
    }
}

/// When the next Event may be written: a bucket that holds [`BURST`] and fills by so many in a second.
#[derive(Debug, Default)]
struct Pace {
    /// When the bucket is full again, if nothing is taken out; on the monotonic clock.
    full_at: Duration,
}

impl Pace {
    /// Takes one out, and says how long to wait before it may be used.
    fn take(&mut self, now: Duration, per_second: u32) -> Duration {
        let one = Duration::from_secs(1) / per_second;
        // It is empty at most, whatever it was filled by before.
        self.full_at = self.full_at.clamp(now, now + one * BURST) + one;
        self.full_at.saturating_sub(now).saturating_sub(one * BURST)
    }
}

impl Writer {
    async fn run(mut self) {
        while let Some(occurrence) = tokio::select! {
            biased;
            occurrence = self.occurrences.recv() => occurrence,
            () = self.stop.cancelled() => None,
        } {
            let due = occurrence.at + BEHIND;
            self.wait(due.saturating_sub(self.clock.monotonic())).await;
            self.write(occurrence).await;
        }
    }

    async fn write(&mut self, occurrence: Occurrence) {
        let Occurrence {
            at,
            now,
            object,
            kind,
            reason,
            message,
        } = occurrence;
        let topic = Topic {
            object: identity(&object),
            kind: kind.word(),
            reason,
        };
        let name = object.name.clone().unwrap_or_default();
        // Events about cluster-scoped objects live in "default", as upstream's.
        let namespace = object
            .namespace
            .clone()
            .filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());

        let verdict = self.correlator.judge(&topic, &name, &message, now, at);
        let (name, message, count, first) = match verdict {
            Verdict::Drop => return,
            Verdict::Create { name, message } => (name, message, 1, now),
            Verdict::Bump {
                name,
                message,
                count,
                first,
            } => {
                let patch = json!({"count": count, "lastTimestamp": Time(now), "message": message});
                let key = ObjectKey::new(namespace.clone(), name.clone());
                self.turn().await;
                match self
                    .objects
                    .patch::<Event>(&key, &Precondition::default(), patch)
                    .await
                {
                    Ok(_) => return,
                    // Events expire; this one starts anew under its old name.
                    Err(error) if error.is_not_found() => (name, message, count, first),
                    Err(error) => return self.lost(&error),
                }
            }
        };
        self.turn().await;
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: object,
            reason: Some(topic.reason),
            message: Some(message),
            type_: Some(kind.word().to_owned()),
            count: Some(count),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Default::default()
        };
        if let Err(error) = self.objects.create(&event).await {
            self.lost(&error);
        }
    }

    async fn turn(&mut self) {
        let now = self.clock.monotonic();
        let latest = Duration::from_nanos(self.latest.load(Ordering::Relaxed));
        let per_second = per_second(now.saturating_sub(latest), self.occurrences.len());
        let wait = self.pace.take(now, per_second);
        self.wait(wait).await;
    }

    /// Waits, unless everything is being stopped: then what is left is written at once.
    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            tokio::select! {
                () = self.clock.sleep(time) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn lost(&self, error: &crate::Error) {
        tracing::debug!(
            component = self.component,
            message = error.message(),
            "lost an event"
        );
    }
}

fn identity(object: &ObjectReference) -> String {
    [
        &object.api_version,
        &object.kind,
        &object.namespace,
        &object.name,
        &object.uid,
        &object.field_path,
    ]
    .map(|part| part.as_deref().unwrap_or_default())
    .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_at_once_and_what_follows_in_its_time() {
        let mut pace = Pace::default();
        let mut now = Duration::from_secs(100);
        assert!((0..BURST).all(|_| pace.take(now, 50).is_zero()));
        let one = Duration::from_millis(20);
        for _ in 0..3 {
            // Who has waited goes on at that rate.
            assert_eq!(pace.take(now, 50), one);
            now += one;
        }
        // Calm at last.
        assert_eq!(pace.take(now, 500), one / 10);
        // After a while there is another burst.
        let later = now + Duration::from_secs(10);
        assert!((0..BURST).all(|_| pace.take(later, 50).is_zero()));
    }

    #[test]
    fn more_are_written_once_no_more_come_or_too_many_wait() {
        let milliseconds = Duration::from_millis;
        for (quiet, waiting, expected) in [
            (0, 10, 50),
            (999, MANY, 50),
            (1000, 1, 500),
            (0, MANY + 1, 500),
        ] {
            assert_eq!(per_second(milliseconds(quiet), waiting), expected);
        }
    }
}
