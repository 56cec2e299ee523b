//! Events: what a component wants a user to know about an object.

use coracle_clock::Clock;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::correlate::{Correlator, Topic, Verdict};
use crate::key::{Kind, ObjectKey};
use crate::objects::{ObjectClient, Precondition};

/// How many Events of one component may wait to be written; past it they are dropped.
const WAITING: usize = 1000;

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
}

struct Occurrence {
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
        let writer = Writer {
            objects,
            clock,
            component: component.to_owned(),
            host: host.unwrap_or_default().to_owned(),
            correlator: Correlator::new(),
        };
        tokio::spawn(writer.run(occurrences, stop));
        Self { waiting }
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
        let occurrence = Occurrence {
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
    component: String,
    host: String,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut occurrences: mpsc::Receiver<Occurrence>, stop: CancellationToken) {
        while let Some(occurrence) = tokio::select! {
            biased;
            occurrence = occurrences.recv() => occurrence,
            () = stop.cancelled() => None,
        } {
            self.write(occurrence).await;
        }
    }

    async fn write(&mut self, occurrence: Occurrence) {
        let Occurrence {
            object,
            kind,
            reason,
            message,
        } = occurrence;
        let now = self.clock.now();
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

        let verdict = self
            .correlator
            .judge(&topic, &name, &message, now, self.clock.monotonic());
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
