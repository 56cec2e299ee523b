//! What the fabric asks: who the ends are, what is decided of them, and whom a denial is told.

mod learned;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use coracle_client::{Context, EventKind, Lister, ObjectKey};
use coracle_network::{
    ConnectionPolicy, DnsConfig, Fabric, NamespaceView, Protocol, ResolveError, Resolver, Verdict,
};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use parking_lot::{Mutex, RwLock};

use crate::decide::{End, Question, decide};
use crate::facts::{Facts, NamespaceFacts, PodFacts};
use crate::hosts::{ANNOTATION, AllowedHosts};
use crate::rules::{Direction, Policy};
use crate::told::Told;
use learned::Learned;

/// How many names may stand for one another.
const ALIASES: usize = 8;

/// What the guard knows from the start.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// The domain of the cluster's names, such as `cluster.local`; they are no hosts outside.
    pub cluster_domain: String,
    /// The addresses of pods and Services; they are no hosts outside.
    pub cluster_ranges: Vec<IpNet>,
    /// Addresses at which the node itself answers, besides its own, such as that of the cluster's DNS. No policy can name
    /// them, as there are no pods behind them; they are the node.
    pub of_node: Vec<IpAddr>,
    /// Counts what is denied.
    pub denials: Arc<Denials>,
}

/// How many connections and lookups were denied, for whoever shows it; shared with the guard.
#[derive(Debug, Default)]
pub struct Denials([AtomicU64; 3]);

impl Denials {
    /// At the pods that were dialled.
    pub fn ingress(&self) -> u64 {
        self.get(Kind::Ingress)
    }

    /// At the pods that dialled.
    pub fn egress(&self) -> u64 {
        self.get(Kind::Egress)
    }

    /// To hosts outside that are not allowed, lookups of their names included.
    pub fn hosts(&self) -> u64 {
        self.get(Kind::Hosts)
    }

    fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    fn count(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters in Prometheus' text format.
    pub fn render(&self) -> String {
        let name = "coracle_network_denials_total";
        let (ingress, egress, hosts) = (self.ingress(), self.egress(), self.hosts());
        format!(
            "# HELP {name} Connections and lookups of pods that policies did not let through.\n\
             # TYPE {name} counter\n\
             {name}{{by=\"ingress\"}} {ingress}\n\
             {name}{{by=\"egress\"}} {egress}\n\
             {name}{{by=\"allowed-hosts\"}} {hosts}\n"
        )
    }
}

/// Decides what the fabric asks.
pub struct Guard {
    config: GuardConfig,
    context: Context,
    fabric: Weak<Fabric>,
    /// All addresses of the node.
    node: Vec<IpAddr>,
    facts: RwLock<Facts>,
    /// The caches are filled; until then nobody knows what is denied.
    is_ready: AtomicBool,
    caches: Caches,
    learned: Mutex<Learned>,
    told: Mutex<Told<Thing>>,
    denials: Arc<Denials>,
}

struct Caches {
    pods: Lister<Pod>,
    namespaces: Lister<Namespace>,
    policies: Lister<NetworkPolicy>,
    /// Those of type ExternalName are other names for hosts outside.
    services: Lister<Service>,
}

/// What is told once in a while: a pod, what it does, and with whom.
type Thing = (ObjectKey, Kind, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Ingress = 0,
    Egress = 1,
    Hosts = 2,
}

impl Guard {
    /// Follows pods, namespaces and policies, and answers the fabric from now on. Call it after whoever knows the names has
    /// been set ([`Fabric::set_resolver`]): lookups go through the guard to them. Must be called within a tokio runtime.
    ///
    /// `context` writes Events. Until its caches are filled, pods reach themselves and the node alone.
    pub fn start(config: GuardConfig, context: Context, fabric: &Arc<Fabric>) -> Arc<Self> {
        let (pods, namespaces, policies) = (
            context.informer::<Pod>(),
            context.informer::<Namespace>(),
            context.informer::<NetworkPolicy>(),
        );
        let mut node = config.of_node.clone();
        node.extend(fabric.node_addresses());
        let guard = Arc::new(Self {
            denials: config.denials.clone(),
            config,
            node,
            fabric: Arc::downgrade(fabric),
            facts: RwLock::default(),
            is_ready: AtomicBool::new(false),
            caches: Caches {
                pods: pods.lister(),
                namespaces: namespaces.lister(),
                policies: policies.lister(),
                services: context.lister(),
            },
            learned: Mutex::default(),
            told: Mutex::default(),
            context,
        });
        let this = guard.clone();
        pods.subscribe(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let pod = (!change.is_deleted()).then(|| PodFacts::of(change.object()));
            this.pod_changed(key, pod);
        });
        let this = guard.clone();
        namespaces.subscribe(move |change| {
            let metadata = &change.object().metadata;
            let name = metadata.name.clone().unwrap_or_default();
            let namespace = (!change.is_deleted()).then(|| NamespaceFacts::of(metadata));
            this.namespace_changed(name, namespace);
        });
        let this = guard.clone();
        policies.subscribe(move |change| {
            let policy = Policy::of(change.object());
            let mut facts = this.facts.write();
            match change.is_deleted() {
                true => facts.take_policy(&policy.key),
                false => facts.put_policy(policy),
            }
        });
        fabric.set_policy(guard.clone());
        fabric.set_resolver(Arc::new(Names {
            inner: fabric.resolver(),
            guard: guard.clone(),
        }));
        guard
    }

    fn pod_changed(&self, key: ObjectKey, pod: Option<PodFacts>) {
        let mut facts = self.facts.write();
        let before = facts.pods.get(&key).and_then(|pod| pod.hosts.clone());
        let now = pod.as_ref().and_then(|pod| pod.hosts.clone());
        match pod {
            Some(pod) => facts.put_pod(key.clone(), pod),
            None => facts.take_pod(&key),
        }
        let is_gone = !facts.pods.contains_key(&key);
        drop(facts);
        if is_gone || before != now {
            self.learned.lock().forget(&key);
        }
    }

    fn namespace_changed(&self, name: String, namespace: Option<NamespaceFacts>) {
        let mut facts = self.facts.write();
        let before = facts
            .namespaces
            .get(&name)
            .and_then(|known| known.hosts.clone());
        let now = namespace.as_ref().and_then(|known| known.hosts.clone());
        match namespace {
            Some(namespace) => facts.put_namespace(name.clone(), namespace),
            None => facts.take_namespace(&name),
        }
        drop(facts);
        if before != now {
            self.learned.lock().forget_namespace(&name);
        }
    }

    fn is_ready(&self) -> bool {
        if self.is_ready.load(Ordering::Relaxed) {
            return true;
        }
        let caches = &self.caches;
        let ready =
            caches.pods.is_synced() && caches.namespaces.is_synced() && caches.policies.is_synced();
        self.is_ready.store(ready, Ordering::Relaxed);
        ready
    }

    /// The pod at an address: of this node's, the fabric knows best.
    fn who(&self, facts: &Facts, address: IpAddr) -> End {
        let local = self
            .fabric
            .upgrade()
            .and_then(|fabric| fabric.namespace(address));
        let local = local.and_then(|namespace| {
            let (namespace, name) = namespace.pod().split_once('/')?;
            Some(ObjectKey::new(namespace, name))
        });
        End {
            address,
            pod: local.or_else(|| facts.by_address.get(&address).cloned()),
        }
    }

    fn judge(
        &self,
        direction: Direction,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Verdict {
        let (from, to_ip) = (from.to_canonical(), to.ip().to_canonical());
        if is_free(&self.node, from, to_ip) {
            return Verdict::Allow;
        }
        if !self.is_ready() {
            return not_known();
        }
        let facts = self.facts.read();
        if facts.policies.is_empty() && facts.restricted == 0 {
            return Verdict::Allow;
        }
        let question = Question {
            from: self.who(&facts, from),
            to: self.who(&facts, to_ip),
            port: to.port(),
            protocol,
        };
        let denied = decide(&facts, direction, &question).err();
        let lists = match (direction, &question.from.pod) {
            (Direction::Egress, Some(pod)) => lists(&facts, pod),
            _ => Vec::new(),
        };
        drop(facts);
        if let Some(denied) = denied {
            let kind = match direction {
                Direction::Ingress => Kind::Ingress,
                Direction::Egress => Kind::Egress,
            };
            let peer = match &denied.peer.pod {
                Some(pod) => format!("{pod}:{}", denied.port),
                None => format!("{}:{}", denied.peer.address, denied.port),
            };
            let reason = denied.to_string();
            self.deny(&denied.pod, kind, peer, &reason);
            return Verdict::Deny { reason };
        }
        match question.from.pod {
            Some(pod) if !lists.is_empty() => self.judge_host(&pod, &lists, to_ip, to.port()),
            _ => Verdict::Allow,
        }
    }

    /// Whether a pod with lists may reach an address, be it for a name that it has looked up.
    fn judge_host(
        &self,
        pod: &ObjectKey,
        lists: &[Arc<AllowedHosts>],
        to: IpAddr,
        port: u16,
    ) -> Verdict {
        let inside = self
            .config
            .cluster_ranges
            .iter()
            .any(|range| range.contains(&to));
        if inside || lists.iter().all(|list| list.has_address(to, port)) {
            return Verdict::Allow;
        }
        let now = self.context.clock().monotonic();
        let names = self.learned.lock().names(pod, to, now);
        let may = names.iter().any(|name| {
            let has = |list: &Arc<AllowedHosts>| {
                list.has_address(to, port)
                    || list.ports_of(name).is_some_and(|ports| ports.has(port))
            };
            lists.iter().all(has)
        });
        if may {
            return Verdict::Allow;
        }
        let reason = format!(
            "port {port} of {to} is none of the hosts that the annotation {ANNOTATION} of the pod or its namespace \
             allows"
        );
        self.deny(pod, Kind::Hosts, format!("{to}:{port}"), &reason);
        Verdict::Deny { reason }
    }

    /// Whether a pod may know of a name. `searches` are the suffixes that it tries.
    fn judge_name(&self, pod: &ObjectKey, name: &str, searches: &[String]) -> Name {
        let lists = lists(&self.facts.read(), pod);
        if lists.is_empty() {
            return Name::Free;
        }
        let name = self.behind(name);
        let name = match self.listed(&lists, &name) {
            Some(true) => return Name::Allowed(name),
            Some(false) => return Name::Free,
            None => name,
        };
        let reason = format!(
            "{name} is none of the hosts that the annotation {ANNOTATION} of the pod or its namespace allows"
        );
        // A name that may be known is tried with the suffixes, too, which nobody meant.
        let is_tried = searches.iter().any(|suffix| {
            let bare = name.strip_suffix(suffix.trim_matches('.'));
            let bare = bare.and_then(|bare| bare.strip_suffix('.'));
            bare.is_some_and(|bare| self.listed(&lists, bare).is_some())
        });
        if !is_tried {
            self.deny(pod, Kind::Hosts, name, &reason);
        }
        Name::Closed(reason)
    }

    /// Whether lists have a name, or do not speak of it; `None`: it is closed.
    fn listed(&self, lists: &[Arc<AllowedHosts>], name: &str) -> Option<bool> {
        // Which name an address has is no way to reach it.
        let free = [
            self.config.cluster_domain.as_str(),
            "in-addr.arpa",
            "ip6.arpa",
        ];
        if free.iter().any(|zone| below(name, zone).is_some()) {
            return Some(false);
        }
        let has = |list: &Arc<AllowedHosts>| list.ports_of(name).is_some();
        lists.iter().all(has).then_some(true)
    }

    /// What a name stands for: of a Service of type ExternalName another name, else itself.
    fn behind(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for _ in 0..ALIASES {
            let service = below(&name, &self.config.cluster_domain)
                .and_then(|name| name.strip_suffix(".svc"))
                .and_then(|name| name.split_once('.'))
                .and_then(|(name, namespace)| {
                    self.caches.services.get(&ObjectKey::new(namespace, name))
                });
            let spec = service.as_ref().and_then(|service| service.spec.as_ref());
            let spec = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
            let Some(target) = spec.and_then(|spec| spec.external_name.as_deref()) else {
                break;
            };
            name = target.trim_end_matches('.').to_ascii_lowercase();
        }
        name
    }

    /// Counts a denial, and tells the pod's owner once in a while.
    fn deny(&self, pod: &ObjectKey, kind: Kind, peer: String, reason: &str) {
        self.denials.count(kind);
        tracing::debug!(%pod, ?kind, reason, "denied");
        let now = self.context.clock().monotonic();
        if !self.told.lock().is_new((pod.clone(), kind, peer), now) {
            return;
        }
        if let Some(object) = self.caches.pods.get(pod) {
            let (kind, what) = (EventKind::Warning, "ConnectionDenied");
            self.context
                .recorder()
                .event(object.as_ref(), kind, what, reason);
        }
    }
}

/// The part of a name in front of `zone`; empty for the zone itself.
fn below<'n>(name: &'n str, zone: &str) -> Option<&'n str> {
    let below = name.strip_suffix(zone)?;
    match below {
        "" => Some(below),
        below => below.strip_suffix('.'),
    }
}

/// Whether no policy concerns the connection: the node reaches its pods and they reach it, and a pod reaches itself.
fn is_free(node: &[IpAddr], from: IpAddr, to: IpAddr) -> bool {
    let is_node = |ip: IpAddr| node.contains(&ip) || ip.is_loopback() || ip.is_unspecified();
    is_node(from) || is_node(to) || from == to
}

fn not_known() -> Verdict {
    Verdict::Deny {
        reason: "the network policies are not known yet: try again in a moment".to_owned(),
    }
}

/// The policy of a fabric before its [`Guard`] is there: pods reach themselves and the node alone.
#[derive(Clone, Debug)]
pub struct NotKnown {
    /// All addresses of the node in the pod network.
    pub node: Vec<IpAddr>,
}

impl NotKnown {
    fn judge(&self, from: IpAddr, to: SocketAddr) -> Verdict {
        match is_free(&self.node, from.to_canonical(), to.ip().to_canonical()) {
            true => Verdict::Allow,
            false => not_known(),
        }
    }
}

impl ConnectionPolicy for NotKnown {
    fn on_connect(&self, from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Verdict {
        self.judge(from, to)
    }

    fn on_accept(&self, from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Verdict {
        self.judge(from, to)
    }
}

/// What a name is to a pod.
enum Name {
    /// Nothing that lists speak of.
    Free,
    /// One that its lists have: this, or what it stands for.
    Allowed(String),
    /// One that they do not have; the reason.
    Closed(String),
}

/// The lists of hosts that hold for a pod: its own, and its namespace's.
fn lists(facts: &Facts, pod: &ObjectKey) -> Vec<Arc<AllowedHosts>> {
    if facts.restricted == 0 {
        return Vec::new();
    }
    let own = facts.pods.get(pod).and_then(|pod| pod.hosts.clone());
    let namespace = facts.namespaces.get(&pod.namespace);
    let namespace = namespace.and_then(|namespace| namespace.hosts.clone());
    own.into_iter().chain(namespace).collect()
}

impl ConnectionPolicy for Guard {
    fn on_connect(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Verdict {
        self.judge(Direction::Egress, from, to, protocol)
    }

    fn on_accept(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Verdict {
        self.judge(Direction::Ingress, from, to, protocol)
    }

    fn on_question(&self, from: IpAddr, name: &str) -> Verdict {
        let facts = self.facts.read();
        if facts.restricted == 0 {
            return Verdict::Allow;
        }
        let pod = self.who(&facts, from.to_canonical()).pod;
        drop(facts);
        let fabric = self.fabric.upgrade();
        let network = fabric.and_then(|fabric| fabric.namespace(from.to_canonical()));
        let searches = network
            .as_ref()
            .map_or(&[][..], |network| &network.dns().searches);
        match pod.map(|pod| self.judge_name(&pod, name, searches)) {
            Some(Name::Closed(reason)) => Verdict::Deny { reason },
            _ => Verdict::Allow,
        }
    }

    fn on_answer(&self, from: IpAddr, name: &str, addresses: &[IpAddr]) {
        let facts = self.facts.read();
        if facts.restricted == 0 || addresses.is_empty() {
            return;
        }
        let Some(pod) = self.who(&facts, from.to_canonical()).pod else {
            return;
        };
        let is_listed = !lists(&facts, &pod).is_empty();
        drop(facts);
        if is_listed {
            let now = self.context.clock().monotonic();
            let name = self.behind(name);
            self.learned.lock().learn(&pod, &name, addresses, now);
        }
    }
}

/// Answers lookups of names that the pod may reach.
struct Names {
    inner: Arc<dyn Resolver>,
    guard: Arc<Guard>,
}

#[async_trait]
impl Resolver for Names {
    async fn lookup(
        &self,
        from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let guard = &self.guard;
        let Some((namespace, pod)) = from.pod.split_once('/') else {
            return self.inner.lookup(from, name).await;
        };
        let pod = ObjectKey::new(namespace, pod);
        let behind = match guard.judge_name(&pod, name, &from.dns.searches) {
            Name::Free => return self.inner.lookup(from, name).await,
            Name::Closed(_) => return Err(ResolveError::NotFound(name.to_owned())),
            Name::Allowed(behind) => behind,
        };
        let addresses = self.inner.lookup(from, name).await?;
        // What a server of the pod's own choice says opens nothing: it might stand for any address.
        if !self.inner.asks_own_servers(from.dns) {
            let now = guard.context.clock().monotonic();
            guard.learned.lock().learn(&pod, &behind, &addresses, now);
        }
        Ok(addresses)
    }

    fn asks_own_servers(&self, dns: &DnsConfig) -> bool {
        self.inner.asks_own_servers(dns)
    }
}
