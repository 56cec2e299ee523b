//! `coracle up`: a cluster in the foreground.
//!
//! ```text
//! hold the data directory ─▶ store ─▶ listen ─▶ pki, kubeconfig ─▶ cluster ─▶ ready
//!                                                  apply -f ─▶ a line per ready object ─▶ URL
//! Ctrl-C ─▶ readyz fails ─▶ guests drained ─▶ components ─▶ server ─▶ store      (again: end at once)
//! ```

mod access;
mod dns;
mod give_back;
mod ingress;
mod network;
mod node;
mod progress;
mod renewal;
mod serve;
mod static_pods;
mod trust;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_api::Registry;
use coracle_api::schema::{STACK_SIZE, on_deep_stack};
use coracle_clock::Clock;
use coracle_policy::Denials;
use coracle_server::allocate::ServiceRanges;
use coracle_server::audit::{Audit, Policy};
use coracle_server::authn::{ServiceAccountTokens, SharedAuthorities, StaticTokens};
use coracle_server::{Config, MetricsSource};
use coracle_services::AccessSink;
use coracle_store::{MemoryStore, RedbStore, Store};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::cli::{Part, UpArgs};
use crate::cluster::{Cluster, ClusterConfig, KubernetesService};
use crate::data_dir::DataDir;
use crate::identity::Identity;
use crate::kubeconfig::{self, Merged};
use crate::line_log::{LineLog, LogConfig};
use crate::listeners::Choice;
use crate::manifests::{self, Manifest};
use crate::pki::{CurrentAuthority, Pki, ServerCertificate, client_authorities, server_config};
use crate::{apply, files};

/// The port of the API server when `--listen` does not say.
const API_PORT: u16 = 6443;
/// How many tasks a thread of the control plane runs before it looks at the sockets.
const LOOK_AT_SOCKETS: u32 = 8;
/// The longest that guests may take at the end, whatever their grace periods say.
const LONGEST_STOP: Duration = Duration::from_secs(30);
/// What is logged when nobody says: warnings. Those of kube's watcher are told by the informers, who know which matter.
const LOGGED: &str = "warn,kube_runtime::watcher=error";

/// Runs `coracle up` until Ctrl-C.
pub fn run(args: UpArgs) -> Result<()> {
    start_tracing();
    crate::open_files::raise();
    // The control plane's own runtime; the data plane and guests have threads of theirs.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        // A busy thread looks at the sockets after so many tasks instead of 61: whoever asks for one thing would wait for
        // all the tasks of a flood in between.
        .event_interval(LOOK_AT_SOCKETS)
        .thread_stack_size(STACK_SIZE)
        .enable_all()
        .build()
        .context("failed to start the control plane's threads")?;
    // Not on the main thread, whose stack is what the shell allows.
    let outcome = on_deep_stack("up", || runtime.block_on(up(args)))
        .context("failed to start the control plane's first thread")
        .flatten();
    // Whatever still blocks (a file read, a compilation) must not hold the exit up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn up(args: UpArgs) -> Result<()> {
    // Everything that can be wrong with the input is found before anything is started.
    let manifests = manifests::load(&args.filenames)?;
    // After standard input was read: until then Ctrl-C ends the process as it ends any other.
    let interrupted = Interrupts::listen()?;
    let tokens = args
        .token_auth_file
        .as_deref()
        .map(load_tokens)
        .transpose()?;
    args.node_images.check().map_err(anyhow::Error::msg)?;
    let clients = trust::Clients::of(&args)?;
    let clock = Clock::system();
    let mut identity = Identity::read(&args.identity, &clock)?;
    let data = DataDir::open(args.data.data_dir.as_deref(), args.in_memory)?;
    let api = Choice {
        what: "the API server",
        flag: "--listen",
        default_port: API_PORT,
        explicit: args.listen,
    };
    let listener = api.bind().await?;
    let address = listener
        .local_addr()
        .context("failed to read the API server's address")?;
    let network = network::Network::of(&args)?;
    let has = |part: Part| !args.disable.contains(&part);
    let (mut ingress, mut names) = <(ingress::Listeners, dns::Names)>::default();
    if has(Part::Node) && has(Part::Services) {
        ingress = ingress::Listeners::bind(&args).await?;
        names = dns::Names::bind(&args).await?;
    }
    let ingress_at = ingress.addresses();
    let mut listening = vec![("api".to_owned(), address)];
    listening.extend(names.address.map(|at| ("dns".to_owned(), at)));
    let schemes = ingress_at.iter();
    listening.extend(schemes.map(|(scheme, at)| (format!("ingress-{scheme}"), *at)));
    let (store, node, access) = side_by_side(
        || open_store(args.in_memory, &data, &clock),
        || match has(Part::Node) {
            true => node::Node::start(&args, &data, &network, &clock).map(Some),
            false => Ok(None),
        },
        || Access::prepare(&data, address, &listening, &network, &clock),
    )?;
    let merged = match args.no_kubeconfig {
        true => None,
        false => merge(&access.kubeconfig),
    };

    let mut server = Config::new(store.clone(), clock.clone());
    server.service_ranges = ServiceRanges {
        addresses: network.service_ranges[0]
            .to_string()
            .parse()
            .context("--service-cidr")?,
        secondary: network
            .service_ranges
            .get(1)
            .map(|range| range.to_string().parse())
            .transpose()
            .context("--service-cidr")?,
        node_ports: args.service_node_port_range.0..=args.service_node_port_range.1,
    };
    let audit = audit_log(&args, &data)?;
    if let Some((policy, log)) = &audit {
        server.audit = Some(Arc::new(Audit::new(policy.clone(), log.clone())));
    }
    let (dns_metrics, service_metrics) = <(Arc<LateMetrics>, Arc<LateMetrics>)>::default();
    let (ingress_metrics, denials) = <(Arc<coracle_ingress::Metrics>, Arc<Denials>)>::default();
    let (served, denied) = (ingress_metrics.clone(), denials.clone());
    server.further_metrics = vec![
        dns_metrics.source(),
        Arc::new(move || served.render()),
        Arc::new(move || denied.render()),
        service_metrics.source(),
    ];
    let access_log = access::open(&args)?;
    if let Some(log) = access_log.clone() {
        server
            .further_metrics
            .push(Arc::new(move || access::metrics(&log)));
    }
    if let Some(tokens) = tokens {
        server.authentication.static_tokens = tokens;
    }
    identity.apply(&mut server);
    if let Some(node) = &node {
        server.cluster_dialer = node.dialer();
        node.trust()
            .set_cluster(network.names_in_cluster(), &access.pki.ca)
            .context("failed to let pods trust the cluster's authority")?;
    }
    let in_pod_network = SocketAddr::new(network.node_address(), address.port());
    let accounts = ServiceAccountTokens::new(Arc::clone(&access.pki.tokens));
    server.public_address = Some(in_pod_network.to_string());
    server.authentication.service_accounts = Some(Arc::new(accounts));
    let users = clients.users(&access.pki.ca);
    let authorities = SharedAuthorities::new(client_authorities(&users)?);
    server.authentication.client_authorities = Some(authorities.clone());
    server.authentication.request_header = clients.request_header(&access.pki.ca)?;
    let (publish, published) = watch::channel(clients.published(&access.pki.ca));
    let config = ClusterConfig {
        server,
        published: Some(published),
        kubernetes: KubernetesService {
            cluster_ip: network.kubernetes,
            endpoint: in_pod_network,
        },
        controllers: has(Part::Controllers),
        scheduler: has(Part::Scheduler),
        node: node
            .as_ref()
            .map(|node| node.config(&args, &data, &network)),
    };
    let mut cluster = Cluster::start(config).await?;
    let authority = CurrentAuthority::new(access.pki.authority.clone());
    let signs = authority.clone();
    if has(Part::Controllers) {
        let context = cluster.context().clone();
        let signer = authority.clone();
        cluster.spawn(coracle_controllers::run_certificates(context, signer));
    }
    for task in identity.follow(cluster.context().stop()) {
        cluster.spawn(task);
    }
    // From here on /readyz says ok; the kubeconfig is there already.
    let shown = ServerCertificate::new(&access.pki.server)?;
    let config = server_config(shown.clone(), &clients.all(&access.pki.ca))?;
    let tls = serve::Tls::new(config);
    cluster.spawn(renewal::keep(renewal::Renewal {
        known: renewal::known(&access.pki),
        folder: data.join("pki"),
        kubeconfig: data.join("kubeconfig"),
        users_kubeconfig: !args.no_kubeconfig,
        names: server_names(address, &network),
        url: access.url.clone(),
        shown,
        tls: tls.clone(),
        authorities,
        authority: signs,
        clients,
        publish,
        guests: node
            .as_ref()
            .map(|node| (node.trust().clone(), network.names_in_cluster())),
        clock: clock.clone(),
        stop: cluster.context().stop().clone(),
    }));
    if let Some(kubelet) = cluster.kubelet().cloned() {
        let stop = cluster.context().stop().clone();
        match args.static_pods.clone() {
            Some(folder) => cluster.spawn(static_pods::keep(folder, kubelet, clock.clone(), stop)),
            // Those of an earlier start go.
            None => kubelet.set_static_pods([]),
        }
    }
    serve::host(&cluster, listener, tls.clone());
    let mut exposing = None;
    if let Some(node) = &node {
        serve::fabric(&cluster, node.fabric(), address.port(), tls);
        if has(Part::Services) {
            let log = access::AccessLog::new(
                access_log.clone().map(|log| log as Arc<dyn AccessSink>),
                clock.clone(),
            );
            let services = node.start_services(
                &args,
                &network,
                &mut cluster,
                names.listeners,
                node::Told {
                    denials,
                    log: log.clone(),
                },
            );
            exposing = Some(services.clone());
            let dns = services.dns().clone();
            let (shown, counted) = (dns.clone(), services.clone());
            dns_metrics.set(Arc::new(move || shown.metrics()));
            service_metrics.set(Arc::new(move || counted.metrics()));
            if let Some(kubelet) = cluster.kubelet() {
                let shown = services.clone();
                kubelet.show_services(Arc::new(move |namespace| shown.shown(namespace)));
            }
            dns::serve_metrics(node.fabric(), dns);
            cluster.spawn(dns::keep_service(
                cluster.admin(),
                cluster.context().clone(),
                network.dns.clone(),
                network.node_addresses.clone(),
            ));
            if !ingress_at.is_empty() {
                node.start_ingress(
                    &mut cluster,
                    services,
                    ingress.into_config(authority, ingress_metrics, log),
                );
            }
        }
    }

    let screen = progress::Screen::new();
    screen.line(format!("coracle is up at {}", access.url));
    if let Some(address) = names.address {
        screen.line(format!(
            "names of the cluster are answered at {address} (DNS over UDP and TCP)"
        ));
    }
    if !ingress_at.is_empty() {
        let urls = ingress_at.iter();
        let urls: Vec<String> = urls
            .map(|(scheme, at)| format!("{scheme}://{at}"))
            .collect();
        screen.line(format!("Ingresses are served at {}", urls.join(" and ")));
    }
    let kubectl = kubectl_command(merged.as_ref(), &data);
    let session = async {
        let mut printed = HashSet::new();
        if manifests.is_empty() && args.filenames.is_empty() {
            for (port, line) in progress::urls(cluster.context(), None).await {
                screen.line(line);
                printed.insert(port);
            }
            for line in ingress::urls(cluster.context(), &ingress_at).await {
                screen.line(line);
            }
            screen.hint(&kubectl, &["get nodes", "apply -f FILE"]);
        } else {
            printed = deploy(&cluster, &manifests, node.as_ref(), &screen, &kubectl).await?;
            for line in ingress::urls(cluster.context(), &ingress_at).await {
                screen.line(line);
            }
        }
        let events = node.as_ref().map(node::Node::subscribe);
        let telling = async {
            if let Some(services) = exposing {
                let tell = |ports: Vec<_>| {
                    let lines = progress::opened(&ports, &printed);
                    lines.into_iter().for_each(|line| screen.line(line));
                };
                services.tell_of_ports(tell).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            outcome = give_back::keep(&clock, events, give_back::now) => outcome,
            never = telling => never,
        }
    };
    let outcome = tokio::select! {
        outcome = session => outcome,
        () = interrupted.first() => Ok(()),
    };
    screen.finish();
    if outcome.is_ok() {
        screen.line("stopping; Ctrl-C again to end at once".to_owned());
    }
    tokio::select! {
        () = stop(cluster, node, store) => {
            let audited = audit.map(|(_, log)| log);
            tokio::task::block_in_place(|| {
                for log in audited.into_iter().chain(access_log) {
                    log.close();
                }
            });
        }
        () = interrupted.second() => {
            screen.line("ended at once".to_owned());
            std::process::exit(130);
        }
    }
    outcome
}

async fn stop(cluster: Cluster, node: Option<node::Node>, store: Arc<dyn Store>) {
    cluster.stop(LONGEST_STOP).await;
    // The data plane's threads end here: shared caches that were first asked for there live on them.
    drop(node);
    store.close().await;
}

/// Runs what needs nothing of each other at the same time: it mostly waits for the disk.
fn side_by_side<A: Send, B: Send, C>(
    a: impl FnOnce() -> Result<A> + Send,
    b: impl FnOnce() -> Result<B> + Send,
    c: impl FnOnce() -> Result<C>,
) -> Result<(A, B, C)> {
    let runtime = Handle::current();
    tokio::task::block_in_place(|| {
        thread::scope(|scope| {
            let a = scope.spawn(|| {
                let _entered = runtime.enter();
                a()
            });
            let b = scope.spawn(|| {
                let _entered = runtime.enter();
                b()
            });
            let c = c();
            Ok((joined(a)?, joined(b)?, c?))
        })
    })
}

/// The thread's result; its panic goes on in the caller.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn open_store(in_memory: bool, data: &DataDir, clock: &Clock) -> Result<Arc<dyn Store>> {
    Ok(match in_memory {
        true => Arc::new(MemoryStore::new(clock.clone())),
        false => Arc::new(RedbStore::open(data.join("store.redb"), clock.clone())?),
    })
}

/// How this cluster is reached, as its files say.
struct Access {
    url: String,
    pki: Pki,
    kubeconfig: serde_json::Value,
}

impl Access {
    /// Makes the certificates, the kubeconfig and `addresses.json`.
    fn prepare(
        data: &DataDir,
        address: SocketAddr,
        listening: &[(String, SocketAddr)],
        network: &network::Network,
        clock: &Clock,
    ) -> Result<Self> {
        let url = format!("https://{}", reachable(address));
        let names = server_names(address, network);
        let pki = Pki::ensure(&data.join("pki"), &names, clock)?;
        let kubeconfig = kubeconfig::new(&url, &pki.ca, &pki.admin);
        kubeconfig::write(&data.join("kubeconfig"), &kubeconfig)?;
        write_addresses(data, listening)?;
        Ok(Self {
            url,
            pki,
            kubeconfig,
        })
    }
}

/// Applies the manifests and follows them until all are ready. Gives the node ports that were printed.
async fn deploy(
    cluster: &Cluster,
    manifests: &[Manifest],
    node: Option<&node::Node>,
    screen: &progress::Screen,
    kubectl: &str,
) -> Result<HashSet<u16>> {
    let (client, registry) = (cluster.admin(), Registry::builtin());
    // From before the first object: its image may be compiled while the others are still sent.
    let images = node.map(node::Node::subscribe);
    let mut applied = Vec::new();
    let mut refused = 0;
    for manifest in manifests {
        match apply::apply(&client, &registry, manifest).await {
            Ok(object) => {
                screen.line(format!("{} {}", object.name, object.outcome));
                applied.push(object);
            }
            Err(error) => {
                refused += 1;
                screen.error(format!("{error:#}"));
            }
        }
    }
    if refused > 0 {
        bail!(
            "{refused} of {} objects were refused; what was accepted stays",
            manifests.len()
        );
    }
    progress::follow(cluster.context(), &applied, images, screen).await;
    let mut printed = HashSet::new();
    for (port, line) in progress::urls(cluster.context(), Some(&applied)).await {
        screen.line(line);
        printed.insert(port);
    }
    let logs = progress::logs_hint(&applied);
    screen.hint(kubectl, &["get pods", &logs]);
    Ok(printed)
}

/// A user's kubeconfig that cannot be changed is no reason not to start.
fn merge(kubeconfig: &serde_json::Value) -> Option<Merged> {
    match kubeconfig::merge_into_users(kubeconfig) {
        Ok(merged) => Some(merged),
        Err(error) => {
            anstream::eprintln!("warning: {error:#}");
            None
        }
    }
}

/// How plain kubectl reaches this cluster.
fn kubectl_command(merged: Option<&Merged>, data: &DataDir) -> String {
    match merged {
        Some(Merged {
            is_current: true, ..
        }) => "kubectl".to_owned(),
        Some(_) => format!("kubectl --context {}", kubeconfig::CONTEXT),
        None => format!("kubectl --kubeconfig {}", data.join("kubeconfig").display()),
    }
}

/// Every name and address that the server's certificate has to carry.
fn server_names(listen: SocketAddr, network: &network::Network) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    names.extend(network.names_in_cluster());
    let listen = listen.ip().to_string();
    if !listen.is_empty() && !names.contains(&listen) {
        names.push(listen);
    }
    names
}

/// The address that a client on this machine dials.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Numbers of a part that is not there yet when `/metrics` is first served.
#[derive(Default)]
struct LateMetrics(OnceLock<MetricsSource>);

impl LateMetrics {
    /// Shows those of `source` from now on.
    fn set(&self, source: MetricsSource) {
        // Set once, right after the part started.
        let _ = self.0.set(source);
    }

    /// What `/metrics` asks.
    fn source(self: &Arc<Self>) -> MetricsSource {
        let own = Arc::clone(self);
        Arc::new(move || own.0.get().map(|source| source()).unwrap_or_default())
    }
}

/// What listens where on this host; what does not listen is not in it.
fn write_addresses(data: &DataDir, listening: &[(String, SocketAddr)]) -> Result<()> {
    let mut addresses = json!({});
    for (what, address) in listening {
        addresses[what] = address.to_string().into();
    }
    files::write_public(
        &data.join("addresses.json"),
        format!("{addresses:#}\n").as_bytes(),
    )
}

/// The audit's policy and log, if the flags ask for one.
fn audit_log(args: &UpArgs, data: &DataDir) -> Result<Option<(Policy, Arc<LineLog>)>> {
    let Some(file) = &args.audit_policy_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read the audit policy {}", file.display()))?;
    let policy = Policy::parse(&text).map_err(anyhow::Error::msg);
    let policy =
        policy.with_context(|| format!("the audit policy {} is not usable", file.display()))?;
    let path = args.audit_log_path.clone();
    let path = path.unwrap_or_else(|| data.join("audit.log"));
    let log = LineLog::open(LogConfig {
        max_bytes: args.audit_log_maxsize as usize * 1_000_000,
        max_backups: args.audit_log_maxbackup as usize,
        path: path.clone(),
    });
    let log = log.with_context(|| format!("failed to open the audit log {}", path.display()))?;
    Ok(Some((policy, Arc::new(log))))
}

fn load_tokens(path: &Path) -> Result<StaticTokens> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the token file {}", path.display()))?;
    StaticTokens::parse(&text)
        .with_context(|| format!("the token file {} is not usable", path.display()))
}

/// The folders whose files pods may name: those of the flags, of `-f` and the current one.
fn image_folders(args: &UpArgs) -> Result<Vec<PathBuf>> {
    let mut folders = vec![std::env::current_dir().context("failed to find the current folder")?];
    folders.extend(manifests::folders(&args.filenames));
    if let Some(folder) = &args.static_pods {
        if !folder.is_dir() {
            bail!("--static-pods {} is not a folder", folder.display());
        }
        folders.push(folder.clone());
    }
    for folder in &args.allow_images_from {
        if !folder.is_dir() {
            bail!("--allow-images-from {} is not a folder", folder.display());
        }
        folders.push(folder.clone());
    }
    Ok(folders)
}

/// `CORACLE_LOG` chooses what is logged to standard error, such as `info` or `coracle_kubelet=debug`.
fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CORACLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGGED));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Ctrl-C and SIGTERM.
struct Interrupts(tokio::sync::watch::Receiver<u32>);

impl Interrupts {
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt =
            signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
        let mut terminate =
            signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        let (count, seen) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(seen))
    }

    async fn first(&self) {
        self.at_least(1).await;
    }

    async fn second(&self) {
        self.at_least(2).await;
    }

    async fn at_least(&self, wanted: u32) {
        let mut seen = self.0.clone();
        // The sender lives as long as the process.
        let _ = seen.wait_for(|count| *count >= wanted).await;
    }
}
