//! One request's way through the audit: what is known of it grows, and each stage writes an event.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::protobuf::Envelope;
use coracle_api::schema::{self, SchemaRef};
use coracle_clock::{Clock, Timestamp};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{Audit, AuditId, Level, Stage, Verdict};
use crate::answer::{Answer, Payload};
use crate::authn::Identity;
use crate::authz::Decision;
use crate::negotiate;
use crate::request_info::RequestInfo;
use crate::status::ApiError;

/// The longest user agent that is recorded, as upstream's `maxUserAgentLength`.
const MAX_USER_AGENT: usize = 1024;

/// The fields of an object reference, in upstream's order.
const REFERENCE: [&str; 8] = [
    "resource",
    "namespace",
    "name",
    "uid",
    "apiGroup",
    "apiVersion",
    "resourceVersion",
    "subresource",
];

/// A request that is, or may be, recorded.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    clock: Clock,
    received: Timestamp,
    info: RequestInfo,
    facts: Mutex<Facts>,
}

/// What is known so far.
#[derive(Default)]
struct Facts {
    /// `None` until the user is known.
    verdict: Option<Verdict>,
    /// The event, without what is about one stage.
    event: Map<String, Value>,
}

impl Trail {
    pub(super) fn new(
        audit: Arc<Audit>,
        clock: Clock,
        info: RequestInfo,
        headers: &HeaderMap,
        id: &AuditId,
        sources: &[IpAddr],
    ) -> Arc<Self> {
        let mut event = Map::new();
        event.insert("kind".to_owned(), "Event".into());
        event.insert("apiVersion".to_owned(), "audit.k8s.io/v1".into());
        event.insert("level".to_owned(), Value::Null);
        event.insert(
            "auditID".to_owned(),
            id.header().to_str().unwrap_or_default().into(),
        );
        event.insert("stage".to_owned(), Value::Null);
        let uri = match info.query_text.as_str() {
            "" => info.path.clone(),
            query => format!("{}?{query}", info.path),
        };
        event.insert("requestURI".to_owned(), uri.into());
        event.insert("verb".to_owned(), Value::from(info.verb.to_string()));
        event.insert("user".to_owned(), json!({}));
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if !sources.is_empty() {
            event.insert("sourceIPs".to_owned(), json!(sources));
        }
        if let Some(agent) = text("user-agent") {
            let short: String = agent.chars().take(MAX_USER_AGENT).collect();
            event.insert("userAgent".to_owned(), short.into());
        }
        if info.is_resource {
            event.insert("objectRef".to_owned(), reference(&info));
        }
        Arc::new(Self {
            audit,
            received: clock.now(),
            clock,
            info,
            facts: Mutex::new(Facts {
                verdict: None,
                event,
            }),
        })
    }

    /// The user is known: the policy decides, and the request counts as received.
    pub(crate) fn identified(&self, asking: &Identity, acting: Option<&Identity>) {
        let mut facts = self.facts.lock();
        facts.verdict = Some(self.audit.policy.verdict(asking, &self.info));
        facts.event.insert("user".to_owned(), user(asking));
        if let Some(acting) = acting.filter(|acting| *acting != asking) {
            facts
                .event
                .insert("impersonatedUser".to_owned(), user(acting));
        }
        self.write(&mut facts, Stage::RequestReceived, |_| {});
    }

    /// The authorizers have spoken.
    pub(crate) fn decided(&self, decision: &Decision) {
        let (decision, reason) = match decision {
            Decision::Allow(reason) => ("allow", reason.as_str()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason.as_str()),
            Decision::Failed { .. } => ("", "internal error"),
        };
        if !decision.is_empty() {
            self.annotate("authorization.k8s.io/decision", decision);
        }
        self.annotate("authorization.k8s.io/reason", reason);
    }

    /// Something else is told of the request.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        let mut facts = self.facts.lock();
        let annotations = facts
            .event
            .entry("annotations")
            .or_insert_with(|| json!({}));
        annotations[key] = value.into();
    }

    /// The body arrived.
    pub(crate) fn body(&self, bytes: &Bytes, headers: &HeaderMap) {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or(negotiate::JSON);
        let mut facts = self.facts.lock();
        let Some(verdict) = facts
            .verdict
            .clone()
            .filter(|verdict| verdict.level > Level::None)
        else {
            return;
        };
        let Some(mut object) = parse(bytes, content_type) else {
            return;
        };
        if !matches!(self.info.verb, "patch" | "delete" | "deletecollection") {
            complete(&mut facts.event, &object);
        }
        if verdict.level >= Level::Request {
            if verdict.omit_managed_fields {
                without_managed_fields(&mut object);
            }
            facts.event.insert("requestObject".to_owned(), object);
        }
    }

    /// The answer is there, or the head of it.
    pub(crate) fn answered(self: &Arc<Self>, answer: &mut Answer, panicked: bool) {
        if let Payload::Items(items) = &mut answer.payload
            && self.records_answers()
        {
            answer.payload = Payload::Bytes(items.take(usize::MAX));
        }
        match &answer.payload {
            _ if panicked => self.panicked(),
            Payload::Stream(_) | Payload::Tunnel(_) => {
                self.started(answer.status);
                answer.hold(Ending(Arc::clone(self)));
            }
            Payload::Bytes(body) => {
                let failure = answer.failure.as_ref();
                self.completed(answer.status, failure, body, answer.content_type);
            }
            Payload::Items(_) => {
                self.completed(answer.status, None, &Bytes::new(), answer.content_type);
            }
        }
    }

    /// Whether what is answered is part of the record.
    fn records_answers(&self) -> bool {
        let verdict = &self.facts.lock().verdict;
        verdict
            .as_ref()
            .is_some_and(|verdict| verdict.level >= Level::RequestResponse)
    }

    /// A long answer begins.
    fn started(&self, code: StatusCode) {
        let mut facts = self.facts.lock();
        let status = json!({"metadata": {}, "code": code.as_u16()});
        facts.event.insert("responseStatus".to_owned(), status);
        self.write(&mut facts, Stage::ResponseStarted, |_| {});
    }

    /// A long answer ended; its head told the status.
    fn ended(&self) {
        self.write(&mut self.facts.lock(), Stage::ResponseComplete, |_| {});
    }

    /// The answer is complete. `failure` is its Status, `body` its bytes.
    fn completed(
        &self,
        code: StatusCode,
        failure: Option<&ApiError>,
        body: &Bytes,
        content_type: &str,
    ) {
        let mut facts = self.facts.lock();
        // Without a user, a rule about users or groups does not fit.
        let nobody = || self.audit.policy.verdict(&Identity::default(), &self.info);
        let verdict = facts.verdict.clone().unwrap_or_else(nobody);
        let mut status = json!({"metadata": {}, "code": code.as_u16()});
        if let Some(failure) = failure {
            let told = failure.to_value();
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = told.get(key) {
                    status[key] = value.clone();
                }
            }
        }
        facts.event.insert("responseStatus".to_owned(), status);
        let whole = verdict.level >= Level::RequestResponse;
        let answer = match failure {
            Some(failure) if whole => Some(failure.to_value()),
            None if whole => parse(body, content_type),
            _ => None,
        };
        let stage = match facts.verdict {
            Some(_) => Stage::ResponseComplete,
            None => {
                facts.verdict = Some(verdict.clone());
                Stage::ResponseStarted
            }
        };
        self.write(&mut facts, stage, |event| {
            if let Some(mut answer) = answer {
                if verdict.omit_managed_fields {
                    without_managed_fields(&mut answer);
                }
                event.insert("responseObject".to_owned(), answer);
            }
        });
    }

    /// The handler panicked.
    fn panicked(&self) {
        let status = json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "APIServer panic'd while handling the request",
        });
        let mut facts = self.facts.lock();
        facts.event.insert("responseStatus".to_owned(), status);
        self.write(&mut facts, Stage::Panic, |_| {});
    }

    fn write(&self, facts: &mut Facts, stage: Stage, add: impl FnOnce(&mut Map<String, Value>)) {
        let Some(verdict) = &facts.verdict else {
            return;
        };
        if verdict.level == Level::None || verdict.omit_stages.contains(&stage) {
            return;
        }
        let mut event = facts.event.clone();
        event.insert("level".to_owned(), json!(verdict.level));
        event.insert("stage".to_owned(), json!(stage));
        add(&mut event);
        let annotations = event.shift_remove("annotations");
        event.insert("requestReceivedTimestamp".to_owned(), micros(self.received));
        event.insert("stageTimestamp".to_owned(), micros(self.clock.now()));
        event.extend(annotations.map(|annotations| ("annotations".to_owned(), annotations)));
        let mut line = serde_json::to_vec(&event).expect("JSON values can always be written");
        line.push(b'\n');
        self.audit.sink.append(line);
    }
}

/// Ends the trail when a stream does.
struct Ending(Arc<Trail>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended();
    }
}

fn micros(time: Timestamp) -> Value {
    format!("{time:.6}").into()
}

fn user(identity: &Identity) -> Value {
    let mut user = json!({"username": identity.user});
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.as_str().into();
    }
    if !identity.groups.is_empty() {
        user["groups"] = json!(identity.groups);
    }
    if !identity.extra.is_empty() {
        let extra: Map<String, Value> = identity
            .extra
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)))
            .collect();
        user["extra"] = Value::Object(extra);
    }
    user
}

/// What the path names.
fn reference(info: &RequestInfo) -> Value {
    let mut reference = Map::new();
    for (key, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() {
            reference.insert(key.to_owned(), value.as_str().into());
        }
    }
    Value::Object(reference)
}

/// Fills the reference with what the object says of itself.
fn complete(event: &mut Map<String, Value>, object: &Value) {
    let Some(Value::Object(reference)) = event.get_mut("objectRef") else {
        return;
    };
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        let value = object["metadata"][key].as_str().unwrap_or_default();
        if !value.is_empty() && !reference.contains_key(key) {
            reference.insert(key.to_owned(), value.into());
        }
    }
    let mut known = std::mem::take(reference);
    for key in REFERENCE {
        reference.extend(known.remove(key).map(|value| (key.to_owned(), value)));
    }
}

/// A body as a value. Bodies that can't be read are told by the answer.
fn parse(bytes: &Bytes, content_type: &str) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    if content_type.contains("protobuf") {
        let envelope = Envelope::open(bytes).ok()?;
        let named = envelope.api_version.split_once('/');
        let (group, version) = named.unwrap_or(("", &envelope.api_version));
        return envelope
            .decode(&SchemaRef::for_kind(group, version, &envelope.kind)?)
            .ok();
    }
    if content_type.contains("yaml") {
        let decoded = schema::decode_yaml(bytes, &SchemaRef::any());
        return decoded.ok().map(|decoded| decoded.value);
    }
    let is_json = content_type.contains("json") || content_type == negotiate::JSON;
    is_json.then(|| schema::parse_json(bytes).ok()).flatten()
}

/// Takes `managedFields` off an object, or off each of a list.
fn without_managed_fields(value: &mut Value) {
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
    if let Some(Value::Array(items)) = value.get_mut("items") {
        items.iter_mut().for_each(without_managed_fields);
    }
}
