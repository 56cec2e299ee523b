//! `metrics.k8s.io`: what nodes and pods use, for `kubectl top` and autoscaling.
//!
//! ```text
//! every 15 s: nodes ─ NodeDialer: /metrics/resource ─▶ Scrape ─▶ Store (the last two of each node)
//!                                                                  │
//! GET nodes, pods ◀── NodeMetrics, PodMetrics ◀── rates ◀──────────┘
//! ```
//!
//! What metrics-server does as a server of its own behind an APIService; here it is a part of this one, served where
//! the registry has the kinds ([`Registry::with_metrics`](coracle_api::Registry::with_metrics)). Nothing is stored: after
//! a start the first figures are there once there are two scrapes, seconds later.

mod scrape;
mod store;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::quantity::Quantity;
use coracle_api::{Object, duration};
use coracle_clock::Timestamp;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::cache::Entry;
use crate::call::Call;
use crate::options::ListOptions;
use crate::selection::Selection;
use crate::server::Server;
use crate::status::{ApiError, Result};
use scrape::Scrape;
use store::{Store, Usage};

/// How often nodes are asked; metrics-server's resolution.
const RESOLUTION: Duration = Duration::from_secs(15);
/// After how long the second time, so that the first rates come soon.
const SECOND: Duration = Duration::from_secs(5);
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a page at most: ten thousand pods have about 4 MiB.
const MAX_PAGE: usize = 64 << 20;
/// Nodes that are asked at the same time.
const AT_ONCE: usize = 8;

/// The group that is served here.
pub(crate) const GROUP: &str = "metrics.k8s.io";

/// What was measured last.
#[derive(Debug, Default)]
pub(crate) struct Usages(Mutex<Store>);

/// Asks all nodes again and again, as long as the server is there.
pub(crate) async fn run(server: Weak<Server>) {
    let mut pause = SECOND;
    while let Some(server) = server.upgrade() {
        let round = scrape_all(&server).await;
        let answered = !round.is_empty();
        server.usages.0.lock().put(round);
        let (clock, stop) = (server.clock.clone(), server.stop.clone());
        drop(server);
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        // Until there is a node, the first is not long in coming.
        pause = if answered { RESOLUTION } else { SECOND };
    }
}

async fn scrape_all(server: &Server) -> Vec<(String, Scrape)> {
    let nodes = match server.all("", "nodes", "").await {
        Ok(nodes) => nodes,
        Err(error) => {
            tracing::debug!(%error, "the nodes are not known, and not measured");
            return Vec::new();
        }
    };
    let asked: Vec<_> = nodes
        .iter()
        .map(|node| ask(server, node.name().to_owned()))
        .collect();
    let asked = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
    asked.filter_map(std::future::ready).collect().await
}

/// What a node says of itself and its pods; `None` if it doesn't.
async fn ask(server: &Server, name: String) -> Option<(String, Scrape)> {
    match tokio::time::timeout(PATIENCE, page(server, &name)).await {
        Ok(Ok(page)) => {
            let now = server.clock.now().as_millisecond();
            return Some((name, scrape::read(&page, now)));
        }
        Ok(Err(error)) => tracing::debug!(node = name, error, "a node was not measured"),
        Err(_) => tracing::debug!(node = name, "a node did not tell its figures in time"),
    }
    None
}

async fn page(server: &Server, node: &str) -> std::result::Result<String, String> {
    let request = Request::get("/metrics/resource").body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = server.dialer.request(node, request).await;
    let response = response.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("the node answered {}", response.status()));
    }
    let (mut body, mut page) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Ok(data) = frame.into_data() {
            page.extend_from_slice(&data);
        }
        if page.len() > MAX_PAGE {
            return Err(format!("the page is larger than {MAX_PAGE} bytes"));
        }
    }
    String::from_utf8(page).map_err(|error| error.to_string())
}

/// Answers with the figures of one node or pod.
pub(crate) async fn get(server: &Server, call: &Call) -> Result<Answer> {
    let (namespace, name) = (call.namespace(), call.name());
    let plural = call.resource.plural;
    let found = server.find("", plural, namespace, name).await?;
    let Some(entry) = found else {
        // The object itself is missing, and named.
        let objects = server.registry.by_plural("", "v1", plural);
        return Err(ApiError::not_found(objects.unwrap_or(call.resource), name));
    };
    let now = server.clock.now();
    let figures = figures(&server.usages.0.lock(), call, &entry, now);
    let figures = figures.ok_or_else(|| {
        let name = match namespace {
            "" => name.to_owned(),
            namespace => format!("{namespace}/{name}"),
        };
        ApiError::not_found(call.resource, &name)
    })?;
    Ok(Answer::object(
        call,
        StatusCode::OK,
        Shown::Object(&figures),
        now,
    ))
}

/// Answers with the figures of all nodes or pods that the path and the selectors name and that have been measured.
pub(crate) async fn list(server: &Server, call: &Call) -> Result<Answer> {
    ListOptions::parse(&call.info.query, false)?;
    let selection = Selection::parse(&call.info.query, call.resource)?;
    let now = server.clock.now();
    let objects = server.registry.by_plural("", "v1", call.resource.plural);
    let objects = objects.ok_or_else(ApiError::unknown_path)?;
    let progress = server.storage.catch_up().await;
    let scope = call.scope();
    let entries = server
        .storage
        .cache(objects)?
        .list(&scope, progress)
        .entries;
    let measured: Vec<Object> = {
        let store = server.usages.0.lock();
        let chosen = entries.iter().filter(|entry| selection.matches(entry));
        let measured = chosen.filter_map(|entry| figures(&store, call, entry, now));
        measured.collect()
    };
    Ok(Answer::list_of(call, json!({}), measured, now))
}

/// What is known of a node or a pod.
fn figures(store: &Store, call: &Call, entry: &Arc<Entry>, now: Timestamp) -> Option<Object> {
    let (namespace, name) = (entry.namespace(), entry.name());
    let mut metadata = json!({"name": name});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    metadata["creationTimestamp"] = seconds(now);
    if !entry.labels.is_empty() {
        let labels = entry.labels.iter();
        let labels = labels.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
        metadata["labels"] = Value::Object(labels.collect());
    }
    let object = |usage: &Usage| {
        json!({
            "kind": call.resource.kind,
            "apiVersion": call.resource.api_version(),
            "metadata": metadata,
            "timestamp": Timestamp::from_millisecond(usage.at).map_or(Value::Null, seconds),
            "window": duration::shown(usage.at.saturating_sub(usage.since).saturating_mul(1_000_000)),
        })
    };
    let object = if call.resource.namespaced {
        let is_running = entry
            .fields
            .contains(&("status.phase", "Running".to_owned()));
        let containers = store.pod(namespace, name).filter(|_| is_running)?;
        // The oldest figure speaks for all.
        let (_, oldest) = containers.iter().min_by_key(|(_, usage)| usage.at)?;
        let mut object = object(oldest);
        let containers = containers
            .iter()
            .map(|(name, usage)| json!({"name": name, "usage": quantities(usage)}));
        object["containers"] = containers.collect();
        object
    } else {
        let usage = store.node(name)?;
        let mut object = object(&usage);
        object["usage"] = quantities(&usage);
        object
    };
    Object::from_value(object)
}

fn quantities(usage: &Usage) -> Value {
    let cpu = format!("{}n", usage.cpu).parse::<Quantity>();
    let memory = i64::try_from(usage.memory).unwrap_or(i64::MAX);
    json!({
        "cpu": cpu.map_or_else(|_| "0".to_owned(), |cpu| cpu.to_string()),
        "memory": Quantity::from_bytes(memory).to_string(),
    })
}

fn seconds(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
