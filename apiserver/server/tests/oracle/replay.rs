//! Sends a scenario's requests to a server in this process, and observes the answers.
//!
//! The clock is paused: waiting costs nothing, a watch that would last a minute ends at once, and every run is the same.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use coracle_clock::Clock;
use coracle_server::allocate::ServiceRanges;
use coracle_server::authn::{ServiceAccountTokens, StaticTokens, TokenKeys};
use coracle_server::{ApiServer, Config};
use coracle_store::MemoryStore;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::compare::{Difference, compare};
use crate::deep::deep;
use crate::normalise::Normaliser;
use crate::scenario::{self, Check, Scenario, Step, Until};

/// Where the recorded server listened, which some answers name.
const RECORDED_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const RECORDED_PORT: u16 = 26443;
/// Who sends the requests of scenarios.
const TOKENS: &str = "bench-token,bench-admin,u1,\"system:masters\"\n";
/// The namespace in bodies that are no text; as long as a real one.
const NAMESPACE_IN_BYTES: &[u8] = b"orc-nsnsnsns";
/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a step waits for the answer that it wants.
const UNTIL_TIMEOUT: Duration = Duration::from_secs(20);

/// A server in memory with what a new cluster has, and nobody who acts on objects.
pub(crate) struct TestServer {
    api: ApiServer,
    clock: Clock,
}

impl TestServer {
    /// Starts a server, and lets `work` use it, on a stack for what nests.
    pub(crate) fn run<T: Send>(work: impl AsyncFnOnce(&Self) -> T + Send) -> T {
        deep(async || {
            let server = Self::start().await;
            work(&server).await
        })
    }

    async fn start() -> Self {
        let clock = Clock::fake(1);
        let mut config = Config::new(Arc::new(MemoryStore::new(clock.clone())), clock.clone());
        let tokens = StaticTokens::parse(TOKENS).expect("well-formed");
        config.public_address = Some(format!("{RECORDED_HOST}:{RECORDED_PORT}"));
        config.authentication.static_tokens = tokens;
        let keys = TokenKeys::generate().expect("a key");
        let accounts = ServiceAccountTokens::new(keys);
        config.authentication.service_accounts = Some(Arc::new(accounts));
        let api = ApiServer::start(config).await.expect("an empty store");
        api.bootstrap_namespaces()
            .await
            .expect("namespaces are made");
        api.bootstrap_priority_classes()
            .await
            .expect("priority classes are made");
        api.bootstrap_roles().await.expect("roles are made");
        let made = api.bootstrap_flow_control().await;
        made.expect("schemas and levels are made");
        let address = ServiceRanges::default().api_server();
        let endpoint = RECORDED_HOST.into();
        api.bootstrap_kubernetes_service(address, endpoint, RECORDED_PORT)
            .await
            .expect("the Service is made");
        Self { api, clock }
    }

    /// Runs a scenario; returns where the answers differ from the recorded ones.
    pub(crate) async fn replay(&self, scenario: &Scenario) -> Vec<Difference> {
        // Like the names that upstream's answers had, but the same in every run.
        let digest: [u8; 32] = Sha256::digest(&scenario.name).into();
        let character =
            |byte: &u8| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(byte % 36)]);
        let namespace = format!(
            "orc-{}",
            digest[..8].iter().map(character).collect::<String>()
        );
        let mut replay = Replay {
            server: self,
            scenario,
            normaliser: Normaliser::new(scenario, &namespace, self.clock.now()),
            variables: HashMap::from([("ns".to_owned(), namespace.clone())]),
            namespace,
            created: Vec::new(),
            differences: Vec::new(),
        };
        if scenario.namespace {
            replay.make_namespace().await;
        }
        for step in &scenario.steps {
            if let Err(problem) = replay.step(step).await {
                let request = format!("{} {}", step.method, step.path);
                replay.differences.push(Difference {
                    request,
                    place: "answer".to_owned(),
                    want: None,
                    got: Some(problem.into()),
                });
                break;
            }
        }
        replay.clean().await;
        replay.differences
    }
}

/// A scenario under way.
struct Replay<'a> {
    server: &'a TestServer,
    scenario: &'a Scenario,
    namespace: String,
    /// What `${name}` stands for.
    variables: HashMap<String, String>,
    normaliser: Normaliser<'a>,
    /// Requests that made objects.
    created: Vec<&'a Step>,
    differences: Vec<Difference>,
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or_default().trim()
    }

    /// JSON as a value (of watches: their events), everything else as text.
    fn value(&self, is_watch: bool) -> Value {
        if self.content_type().contains("protobuf") {
            return "".into();
        }
        let text = String::from_utf8_lossy(&self.body);
        let plain = || Value::from(&*text);
        if !self.content_type().contains("json") || text.trim().is_empty() && !is_watch {
            return plain();
        }
        let head: String = text.chars().take(80).collect();
        let parsed = if is_watch && (text.trim().is_empty() || head.contains("\"type\":")) {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()
                .map(Value::Array)
        } else {
            serde_json::from_str(&text)
        };
        parsed.unwrap_or_else(|_| plain())
    }
}

impl<'a> Replay<'a> {
    /// One step, and the comparison of its answer.
    fn step(&mut self, step: &'a Step) -> LocalBoxFuture<'_, Result<(), String>> {
        // Steps hold steps, so the future has to be boxed.
        async move {
            self.server
                .clock
                .sleep(Duration::from_secs_f64(step.wait))
                .await;
            let deadline = self.server.clock.monotonic() + UNTIL_TIMEOUT;
            let answer = loop {
                let answer = self.exchange(step).await?;
                let reached = step
                    .until
                    .as_ref()
                    .is_none_or(|until| self.reached(until, step, &answer));
                if reached || self.server.clock.monotonic() > deadline {
                    break answer;
                }
                self.server.clock.sleep(Duration::from_millis(150)).await;
            };
            let made = answer.status == 201 && matches!(&*step.method, "POST" | "PATCH");
            if made && (step.method == "PATCH" || !step.query.contains_key("dryRun")) {
                self.created.push(step);
            }
            let seen = self.observe(step, &answer);
            let mut found = Vec::new();
            compare(&step.expect, &seen, "", &mut found);
            for difference in &mut found {
                difference.request = format!("{} {}", step.method, step.path);
            }
            self.differences.append(&mut found);
            Ok(())
        }
        .boxed_local()
    }

    /// Sends the step's request; the steps that happen during its answer are sent once that has begun.
    async fn exchange(&mut self, step: &'a Step) -> Result<Answer, String> {
        let request = self.request(step)?;
        let late = |_| "no answer in time".to_owned();
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.server.api.handle(request));
        let (head, body) = answer.await.map_err(late)?.into_parts();
        for inner in &step.during {
            self.step(inner).await?;
        }
        let body = tokio::time::timeout(REQUEST_TIMEOUT, body.collect());
        let body = body.await.map_err(late)?;
        let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
        // Over a connection, an answer to HEAD ends with its headers.
        let is_head = step.method == "HEAD";
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: if is_head {
                Bytes::new()
            } else {
                body.to_bytes()
            },
        })
    }

    fn request(&self, step: &Step) -> Result<Request<Full<Bytes>>, String> {
        let mut target = escape(&self.fill_text(&step.path), b"/%:@!$&'()*+,;=~-._");
        for (index, (key, value)) in parameters(&self.fill(&step.query.clone().into())).enumerate()
        {
            let form = |text: &str| escape(text, b"~-._ ").replace(' ', "+");
            target.push(if index == 0 { '?' } else { '&' });
            target += &format!("{}={}", form(&key), form(&value));
        }
        let mut headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (
                AUTHORIZATION,
                HeaderValue::from_static("Bearer bench-token"),
            ),
        ]);
        let header = |text: &str| {
            HeaderValue::from_str(text).map_err(|error| format!("header {text:?}: {error}"))
        };
        if let Some(user) = &step.user {
            headers.insert("impersonate-user", header(&self.fill_text(&user.user))?);
            if let Some(group) = user.groups.first() {
                headers.insert("impersonate-group", header(group)?);
            }
        }
        let body = if let Some(bytes) = &step.body_base64 {
            let bytes = BASE64_STANDARD
                .decode(bytes)
                .map_err(|error| error.to_string())?;
            replace(&bytes, NAMESPACE_IN_BYTES, self.namespace.as_bytes())
        } else if let Some(body) = &step.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let mut body = self.fill(body);
            if let Some(pad) = &step.pad {
                scenario::set(&mut body, &pad.pointer, "x".repeat(pad.length));
            }
            match body {
                Value::String(text) => text.into_bytes(),
                body => body.to_string().into_bytes(),
            }
        } else {
            Vec::new()
        };
        for (name, value) in &step.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|error| format!("header {name}: {error}"))?;
            match value.as_str() {
                Some(value) => drop(headers.insert(name, header(&self.fill_text(value))?)),
                None => drop(headers.remove(name)),
            }
        }
        let mut request = Request::builder().method(&*step.method).uri(&target);
        if let Some(place) = request.headers_mut() {
            *place = headers;
        }
        let request = request.body(Full::from(body));
        request.map_err(|error| format!("{target}: {error}"))
    }

    /// What is compared of an answer. Also takes the variables from it.
    fn observe(&mut self, step: &Step, answer: &Answer) -> Value {
        let is_watch = step.query.contains_key("watch");
        let mut seen = Map::new();
        seen.insert("status".to_owned(), answer.status.into());
        let warnings: Vec<Value> = answer
            .headers
            .get_all(WARNING)
            .iter()
            .map(|warning| {
                self.normaliser
                    .text(&String::from_utf8_lossy(warning.as_bytes()))
                    .into()
            })
            .collect();
        let headers: Map<String, Value> = step
            .check_headers
            .iter()
            .map(|name| {
                let value = answer.header(name).map(|value| self.normaliser.text(value));
                (name.clone(), value.into())
            })
            .collect();
        let raw = answer.value(is_watch);
        for (name, place) in &step.capture {
            let place = place.as_str().unwrap_or_default();
            let value = match scenario::at(&raw, place) {
                _ if place == "base64:" => BASE64_STANDARD.encode(&answer.body),
                Some(Value::String(text)) => text.clone(),
                value => value.cloned().unwrap_or_default().to_string(),
            };
            self.variables.insert(name.clone(), value);
        }
        // Also where the body is not compared: what it names for the first time gets its number.
        let mut body = self.normaliser.body(raw);
        if step.check == Check::Status {
            return seen.into();
        }
        seen.insert("contentType".to_owned(), answer.content_type().into());
        if !warnings.is_empty() {
            seen.insert("warnings".to_owned(), warnings.into());
        }
        if !headers.is_empty() {
            seen.insert("headers".to_owned(), headers.into());
        }
        if let Value::Array(events) = &mut body
            && is_watch
        {
            events.retain(|event| !is_idle_bookmark(event));
        }
        for place in &step.ignore {
            scenario::remove(&mut body, place);
        }
        if step.check == Check::Select {
            let value = |place: &String| scenario::at(&body, place).cloned().unwrap_or_default();
            let selected = step
                .select
                .iter()
                .map(|place| (place.clone(), value(place)));
            body = Value::Object(selected.collect());
        }
        let is_opaque = answer.content_type().contains("protobuf") || step.check == Check::Headers;
        if !is_opaque && body != "" {
            seen.insert("body".to_owned(), body);
        }
        seen.into()
    }

    fn reached(&self, until: &Until, step: &Step, answer: &Answer) -> bool {
        let is_watch = step.query.contains_key("watch");
        let at_place = until.pointer.as_ref().is_none_or(|place| {
            let value = answer.value(is_watch);
            let value = scenario::at(&value, place).filter(|value| !value.is_null());
            match &until.equals {
                Some(wanted) => value == Some(&self.fill(wanted)),
                None => value.is_some(),
            }
        });
        at_place && until.status.is_none_or(|status| status == answer.status)
    }

    async fn make_namespace(&mut self) {
        let mut namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}});
        if !self.scenario.namespace_labels.is_empty() {
            namespace["metadata"]["labels"] = self.scenario.namespace_labels.clone().into();
        }
        self.quiet("POST", "/api/v1/namespaces", "", Some(namespace))
            .await;
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", self.namespace);
        self.quiet("POST", &path, "", Some(account)).await;
    }

    /// Removes the objects outside of namespaces that the scenario made, then its namespace: the server goes on.
    async fn clean(&mut self) {
        for step in std::mem::take(&mut self.created).into_iter().rev() {
            let mut path = self.fill_text(&step.path);
            if path.contains("/namespaces/") || step.body_base64.is_some() {
                continue;
            }
            if step.method == "POST" {
                let body = step
                    .body
                    .as_ref()
                    .map(|body| self.fill(body))
                    .unwrap_or_default();
                match body["metadata"]["name"].as_str() {
                    Some(name) if name.contains(&self.namespace) => path = format!("{path}/{name}"),
                    _ => continue,
                }
            }
            let deleted = self.quiet("DELETE", &path, "", None).await;
            if deleted.is_some_and(|object| object["metadata"]["finalizers"].is_array()) {
                let patch = json!({"metadata": {"finalizers": null}});
                self.quiet("PATCH", &path, "application/merge-patch+json", Some(patch))
                    .await;
            }
        }
        if self.scenario.namespace {
            let path = format!("/api/v1/namespaces/{}", self.namespace);
            self.quiet("DELETE", &path, "", None).await;
        }
    }

    /// A request that is no part of the scenario; its answer, if that is a success.
    async fn quiet(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: Option<Value>,
    ) -> Option<Value> {
        let media_type = if media_type.is_empty() {
            "application/json"
        } else {
            media_type
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, "Bearer bench-token")
            .header(CONTENT_TYPE, media_type)
            .body(Full::from(
                body.map(|body| body.to_string()).unwrap_or_default(),
            ))
            .ok()?;
        let answer = self.server.api.handle(request).await;
        let is_success = answer.status().is_success();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        is_success.then(|| serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Puts in the variables, into keys too.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(map) => {
                let filled = map
                    .iter()
                    .map(|(key, item)| (self.fill_text(key), self.fill(item)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let name = rest[start + 2..].split('}').next().unwrap_or_default();
            filled += &rest[..start];
            rest = match self.variables.get(name) {
                Some(value) => {
                    filled += value;
                    &rest[start + name.len() + 3..]
                }
                None => {
                    filled += "${";
                    &rest[start + 2..]
                }
            };
        }
        filled + rest
    }
}

/// A bookmark says that time passed, unless it ends the initial events.
fn is_idle_bookmark(event: &Value) -> bool {
    let notes = &event["object"]["metadata"]["annotations"];
    event["type"] == "BOOKMARK" && notes.get("k8s.io/initial-events-end").is_none()
}

/// The parameters of a query; one with a list of values is there several times.
fn parameters(query: &Value) -> impl Iterator<Item = (String, String)> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let map = query.as_object().into_iter().flatten();
    let pairs = map.flat_map(move |(key, value)| {
        let values = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        values.iter().map(move |value| (key.clone(), text(value)))
    });
    pairs.collect::<Vec<_>>().into_iter()
}

/// Percent-encodes everything but letters, digits and `safe`.
fn escape(text: &str, safe: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || safe.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(from) {
            replaced.extend_from_slice(to);
            rest = after;
        } else {
            replaced.push(rest[0]);
            rest = &rest[1..];
        }
    }
    replaced
}
