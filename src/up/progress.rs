//! What a person sees while manifests become pods.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_client::{Context, Lister, ObjectKey};
use coracle_cri::{ImageStep, RuntimeEvent};
use coracle_network::Protocol;
use coracle_services::OpenPort;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::broadcast;

use crate::apply::Applied;
use crate::ready::{self, Progress};

/// How often the objects that wait are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Ports of the host that are told of at once.
const MOST_PORTS: usize = 16;

/// How long an object has to have a problem before it is told.
const LASTS: Duration = Duration::from_secs(1);

/// The terminal: lines that stay, and spinners below them when it is one.
#[derive(Clone, Default)]
pub(super) struct Screen {
    bars: MultiProgress,
    compiling: Arc<Mutex<HashMap<String, ProgressBar>>>,
    pulling: Arc<Mutex<HashMap<String, ProgressBar>>>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A line that stays.
    pub(super) fn line(&self, text: String) {
        self.bars.suspend(|| anstream::println!("{text}"));
    }

    /// A line that stays, about what went wrong.
    pub(super) fn error(&self, text: String) {
        self.bars.suspend(|| anstream::eprintln!("error: {text}"));
    }

    /// What to type next.
    pub(super) fn hint(&self, kubectl: &str, commands: &[&str]) {
        let lines: Vec<String> = commands
            .iter()
            .map(|command| format!("  {kubectl} {command}"))
            .collect();
        self.line(format!("try next:\n{}", lines.join("\n")));
    }

    /// Removes what moves.
    pub(super) fn finish(&self) {
        let _ = self.bars.clear();
    }

    fn image(&self, image: &str, step: &ImageStep) {
        let mut compiling = self
            .compiling
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = image.rsplit('/').next().unwrap_or(image).to_owned();
        let mut pulling = self
            .pulling
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let ImageStep::Downloading { done, total } = *step {
            let bar = pulling.entry(image.to_owned()).or_insert_with(|| {
                let text = format!("pulling {name}");
                self.line(text.clone());
                let style =
                    ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}");
                let bar = self.bars.add(ProgressBar::new(total).with_message(text));
                bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            return bar.set_position(done);
        }
        if let Some(bar) = pulling.remove(image) {
            bar.finish_and_clear();
        }
        match step {
            ImageStep::Pulling | ImageStep::Downloading { .. } => {}
            ImageStep::Compiling { bytes } => {
                let text = format!("compiling {name} ({} KiB)", bytes.div_ceil(1024));
                self.line(text.clone());
                let bar = self.bars.add(ProgressBar::new_spinner().with_message(text));
                bar.set_style(ProgressStyle::default_spinner());
                bar.enable_steady_tick(Duration::from_millis(100));
                compiling.insert(image.to_owned(), bar);
            }
            ImageStep::Ready => {
                if let Some(bar) = compiling.remove(image) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

/// The caches that tell how far the applied objects are.
struct Caches {
    deployments: Lister<Deployment>,
    pods: Lister<Pod>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
}

impl Caches {
    fn of(context: &Context) -> Self {
        Self {
            deployments: context.lister(),
            pods: context.lister(),
            services: context.lister(),
            slices: context.lister(),
        }
    }

    /// `None` for kinds that are ready as soon as they are there.
    fn progress(&self, object: &Applied) -> Option<Progress> {
        let key = key_of(object);
        match object.object["kind"].as_str()? {
            "Deployment" => {
                let found = self.deployments.get(&key)?;
                match ready::deployment(&found) {
                    Progress::Waiting(text) => {
                        Some(Progress::Waiting(match self.problem_below(&found) {
                            Some(problem) => format!("{text}; {problem}"),
                            None => text,
                        }))
                    }
                    other => Some(other),
                }
            }
            "Pod" => Some(ready::pod(self.pods.get(&key)?.as_ref())),
            "Service" => {
                let slices = self.slices.in_namespace(&key.namespace);
                let found = self.services.get(&key)?;
                Some(ready::service(&found, slices.iter().map(AsRef::as_ref)))
            }
            _ => None,
        }
    }

    /// What keeps a pod of the Deployment from running.
    fn problem_below(&self, deployment: &Deployment) -> Option<String> {
        let selector = deployment.spec.as_ref()?.selector.match_labels.clone()?;
        let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
        let pods = self.pods.in_namespace(&namespace);
        let is_ours = |pod: &&Arc<Pod>| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        pods.iter()
            .filter(is_ours)
            .find_map(|pod| ready::problem(pod))
    }
}

/// What keeps objects waiting. A problem is told once, and only if it lasts: most of a start's are over before they are
/// read, such as a node that is not ready yet.
#[derive(Default)]
struct Problems(HashMap<String, Problem>);

struct Problem {
    text: String,
    since: Duration,
    is_told: bool,
}

impl Problems {
    /// Whether the problem `text` of `object`, which it has at `now`, is to be told now.
    fn is_news(&mut self, object: &str, text: &str, now: Duration) -> bool {
        let fresh = || Problem {
            text: text.to_owned(),
            since: now,
            is_told: false,
        };
        let known = self.0.entry(object.to_owned()).or_insert_with(fresh);
        if known.text != text {
            *known = fresh();
        }
        let is_news = !known.is_told && now.saturating_sub(known.since) >= LASTS;
        known.is_told |= is_news;
        is_news
    }
}

/// Prints a line per object as it becomes ready, and each problem once; returns when nothing waits.
pub(super) async fn follow(
    context: &Context,
    applied: &[Applied],
    mut images: Option<broadcast::Receiver<RuntimeEvent>>,
    screen: &Screen,
) {
    let caches = Caches::of(context);
    let mut waiting: Vec<&Applied> = applied
        .iter()
        .filter(|a| {
            matches!(
                a.object["kind"].as_str(),
                Some("Deployment" | "Pod" | "Service")
            )
        })
        .collect();
    let mut problems = Problems::default();
    while !waiting.is_empty() {
        waiting.retain(|object| match caches.progress(object) {
            Some(Progress::Ready(text)) => {
                screen.line(format!("{} ready: {text}", object.name));
                false
            }
            Some(Progress::Failed(text)) => {
                screen.line(format!("{} failed: {text}", object.name));
                false
            }
            Some(Progress::Waiting(text)) => {
                let is_problem = text.contains(": ");
                let now = context.clock().monotonic();
                if is_problem && problems.is_news(&object.name, &text, now) {
                    screen.line(format!("{} waits: {text}", object.name));
                }
                true
            }
            None => true,
        });
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            event = next(&mut images) => if let RuntimeEvent::ImageProgress { image, step } = event {
                screen.image(&image, &step);
            }
        }
    }
}

async fn next(images: &mut Option<broadcast::Receiver<RuntimeEvent>>) -> RuntimeEvent {
    while let Some(receiver) = images {
        match receiver.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => *images = None,
        }
    }
    std::future::pending().await
}

/// A line for every node port of the Services in `of`, or of all Services: a cluster that is started
/// again serves what it served before. With the port.
pub(super) async fn urls(context: &Context, of: Option<&[Applied]>) -> Vec<(u16, String)> {
    let services: Lister<Service> = context.lister();
    services.synced().await;
    let found = match of {
        Some(applied) => {
            let applied = applied
                .iter()
                .filter(|object| object.object["kind"] == "Service");
            applied
                .filter_map(|object| services.get(&key_of(object)))
                .collect()
        }
        None => services.list(),
    };
    let lines = found.iter().flat_map(|service| {
        let ports = service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten());
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|name| name == "TCP"));
        let open =
            tcp.filter_map(|port| u16::try_from(port.node_port?).ok().filter(|port| *port > 0));
        open.map(|port| {
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let line = format!("\n  http://127.0.0.1:{port}/   (service/{name})\n");
            (port, line)
        })
    });
    lines.collect()
}

/// Lines for ports of the host that were opened, but those of `printed`, of which there is a line.
pub(super) fn opened(ports: &[OpenPort], printed: &HashSet<u16>) -> Vec<String> {
    let is_news = |port: &&OpenPort| {
        port.protocol == Protocol::Udp || !printed.contains(&port.address.port())
    };
    let news: Vec<_> = ports.iter().filter(is_news).collect();
    let line = |port: &&OpenPort| {
        let protocol = match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        let (address, owner) = (port.address, &port.owner);
        match port.namespace.as_str() {
            "default" => format!("{protocol} {address} is open for {owner}"),
            namespace => format!("{protocol} {address} is open for {owner} of {namespace}"),
        }
    };
    let mut lines: Vec<String> = news.iter().take(MOST_PORTS).map(line).collect();
    match news.len().saturating_sub(MOST_PORTS) {
        0 => {}
        more => lines.push(format!("{more} more ports are open, too")),
    }
    lines
}

/// A `logs` command for something that was applied.
pub(super) fn logs_hint(applied: &[Applied]) -> String {
    let has_logs = |a: &&Applied| matches!(a.object["kind"].as_str(), Some("Deployment" | "Pod"));
    match applied.iter().find(has_logs) {
        Some(object) => {
            let kind = object.name.split(['.', '/']).next().unwrap_or_default();
            format!("logs {kind}/{}", key_of(object).name)
        }
        None => "get events".to_owned(),
    }
}

fn key_of(object: &Applied) -> ObjectKey {
    let field = |name: &str| {
        object.object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    ObjectKey::new(field("namespace"), field("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_opened_are_told_but_for_those_that_have_a_line() {
        let port = |number: u16, protocol, namespace: &str| OpenPort {
            address: ([127, 0, 0, 1], number).into(),
            protocol,
            owner: "service/web".to_owned(),
            namespace: namespace.to_owned(),
        };
        let ports = [
            port(30080, Protocol::Tcp, "default"),
            port(30080, Protocol::Udp, "default"),
            port(30081, Protocol::Tcp, "shop"),
        ];
        let lines = [
            "UDP 127.0.0.1:30080 is open for service/web",
            "TCP 127.0.0.1:30081 is open for service/web of shop",
        ];
        assert_eq!(opened(&ports, &HashSet::from([30080])), lines);
        let many: Vec<_> = (1..=20)
            .map(|number| port(number, Protocol::Tcp, "shop"))
            .collect();
        let lines = opened(&many, &HashSet::new());
        assert_eq!(lines.len(), MOST_PORTS + 1);
        assert_eq!(lines[MOST_PORTS], "4 more ports are open, too");
    }

    #[test]
    fn a_problem_is_told_once_and_only_if_it_lasts() {
        let mut problems = Problems::default();
        let mut at = |millis, text| problems.is_news("pod/a", text, Duration::from_millis(millis));
        assert!(!at(0, "not ready"), "it may be over soon");
        assert!(!at(900, "no image"), "another problem began");
        assert!(!at(1000, "no image"));
        assert!(at(1900, "no image"));
        assert!(!at(5000, "no image"), "it was told");
        assert!(!at(5100, "not ready"));
        assert!(at(6100, "not ready"));
    }
}
