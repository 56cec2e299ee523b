//! Requests per second to a `wasi:http` component: of a pod through its Service, of the same pod through an Ingress, and of
//! `wasmtime serve`, in turns.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use coracle_clock::Clock;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Program};
use crate::figures::{Figure, Report};
use crate::latency::is_ready;
use crate::plain::load;
use crate::process::Sample;

/// How long a server may take to start, compilation included.
const LIMIT: Duration = Duration::from_secs(120);
/// How long both are warmed up.
const WARM_UP: Duration = Duration::from_millis(500);
const PODS: &str = "/api/v1/namespaces/default/pods";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// What to measure.
#[derive(Debug, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Serve {
    /// The `wasmtime` to compare with, of the version that Coracle is built with; without it Coracle is measured alone
    #[arg(long, value_name = "PATH")]
    wasmtime: Option<PathBuf>,
    /// Ask through an Ingress, too: what the hop costs
    #[arg(long)]
    ingress: bool,
    /// The component [default: the sample `hello-http`]
    #[arg(long, value_name = "PATH")]
    component: Option<PathBuf>,
    /// What is asked for
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=512))]
    connections: u64,
    /// How often each server has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long a turn takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// A server, and what its turns gave.
struct Server {
    address: SocketAddr,
    pid: u32,
    /// Answers per second.
    rates: Vec<f64>,
    /// Microseconds of processor time per answer.
    costs: Vec<f64>,
}

/// Measures both in turns, so that whatever else the machine does meets both.
pub(crate) async fn measure(
    binary: &Binary,
    serve: &Serve,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    ensure!(
        binary.program() == Program::Coracle,
        "the API server alone runs no pods"
    );
    let sample = binary.samples.join("hello-http/wasm/hello-http.wasm");
    let component = serve.component.as_ref().unwrap_or(&sample);
    let component = component
        .canonicalize()
        .with_context(|| format!("failed to find {}", component.display()))?;
    let folder = component.parent().context("a file is in a folder")?;
    let folder = folder
        .to_str()
        .context("the component's path is not UTF-8")?;
    let mut flags = vec!["--allow-images-from", folder];
    if serve.ingress {
        flags.extend(["--ingress-http=127.0.0.1:0", "--ingress-https=off"]);
    }
    let (cluster, _) = binary.up(&flags, clock).await?;
    let mut connection = Connection::open(&cluster.access, Protocol::Http1).await?;
    let address = timeout(LIMIT, run_pod(&mut connection, &component)).await;
    let mut ours = Server::new(address.context("the pod did not get ready")??, cluster.pid);
    let mut by_ingress = match serve.ingress {
        true => {
            let address = timeout(LIMIT, make_ingress(&mut connection)).await;
            let address = address.context("the Ingress was not served")??;
            Some(Server::new(address, cluster.pid))
        }
        false => None,
    };
    let peer = match &serve.wasmtime {
        Some(wasmtime) => Some(run_wasmtime(wasmtime, &component).await?),
        None => None,
    };
    let mut theirs = match &peer {
        Some((process, address)) => {
            let pid = process.id().context("wasmtime ended")?;
            Some(Server::new(*address, pid))
        }
        None => None,
    };
    let all = [Some(&ours), by_ingress.as_ref(), theirs.as_ref()];
    for server in all.into_iter().flatten() {
        load(
            server.address,
            &serve.path,
            serve.connections as usize,
            WARM_UP,
        )
        .await?;
    }
    for _ in 0..serve.rounds {
        ours.turn(serve, clock).await?;
        if let Some(by_ingress) = &mut by_ingress {
            by_ingress.turn(serve, clock).await?;
        }
        if let Some(theirs) = &mut theirs {
            theirs.turn(serve, clock).await?;
        }
    }
    report.add(Figure::median("serve.rate", "1/s", &ours.rates));
    report.add(Figure::median("serve.cpu", "µs", &ours.costs));
    if let Some(by_ingress) = &by_ingress {
        report.add(Figure::median(
            "serve.ingress_rate",
            "1/s",
            &by_ingress.rates,
        ));
        report.add(Figure::median("serve.ingress_cpu", "µs", &by_ingress.costs));
        // One process does both, so that the difference is the hop.
        let hop = by_ingress
            .costs
            .iter()
            .zip(&ours.costs)
            .map(|(with, without)| with - without);
        let hop: Vec<f64> = hop.collect();
        report.add(Figure::median("serve.ingress_hop_cpu", "µs", &hop).below(60.0));
    }
    if let Some(theirs) = &theirs {
        report.add(Figure::median("serve.wasmtime_rate", "1/s", &theirs.rates));
        report.add(Figure::median("serve.wasmtime_cpu", "µs", &theirs.costs));
        let ratio = |ours: &[f64], theirs: &[f64]| -> Vec<f64> {
            ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
        };
        let rates = ratio(&ours.rates, &theirs.rates);
        report.add(Figure::median("serve.rate_by_wasmtime", "", &rates).at_least(1.0));
        let costs = ratio(&ours.costs, &theirs.costs);
        report.add(Figure::median("serve.cpu_by_wasmtime", "", &costs));
    }
    cluster.stop().await
}

impl Server {
    fn new(address: SocketAddr, pid: u32) -> Self {
        Self {
            address,
            pid,
            rates: Vec::new(),
            costs: Vec::new(),
        }
    }

    async fn turn(&mut self, serve: &Serve, clock: &Clock) -> Result<()> {
        let time = Duration::from_secs(serve.seconds);
        let (start, before) = (clock.monotonic(), Sample::take(&[self.pid])?);
        let answers = load(self.address, &serve.path, serve.connections as usize, time).await?;
        let took = clock.monotonic().saturating_sub(start).as_secs_f64();
        let used = Sample::take(&[self.pid])?.since(&before).microseconds;
        ensure!(answers > 0, "{} answered nothing", self.address);
        self.rates.push(answers as f64 / took);
        self.costs.push(used / answers as f64);
        Ok(())
    }
}

/// Runs the component in a pod behind a Service with a node port, which is where it is then asked.
async fn run_pod(connection: &mut Connection, component: &Path) -> Result<SocketAddr> {
    let image = format!("file://{}", component.display());
    let labels = json!({"app": "serve"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "serve", "labels": labels},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "serve", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "serve"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    connection.create(PODS, &pod).await?;
    connection.create(SERVICES, &service).await?;
    while !is_ready(&connection.get(&format!("{PODS}/serve")).await?) {
        sleep(Duration::from_millis(20)).await;
    }
    let service = connection.get(&format!("{SERVICES}/serve")).await?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.context("no node port")?));
    // The endpoints come a moment after the pod.
    while load(address, "/", 1, Duration::from_millis(50))
        .await
        .is_err()
    {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(address)
}

/// Sends everything to the Service by an Ingress; where it is then asked.
async fn make_ingress(connection: &mut Connection) -> Result<SocketAddr> {
    let backend = json!({"service": {"name": "serve", "port": {"number": 80}}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "serve"},
        "spec": {"defaultBackend": backend},
    });
    connection.create(INGRESSES, &ingress).await?;
    loop {
        let ingress = connection.get(&format!("{INGRESSES}/serve")).await?;
        let port = ingress["status"]["loadBalancer"]["ingress"][0]["ports"][0]["port"].as_u64();
        if let Some(port) = port.and_then(|port| u16::try_from(port).ok()) {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs the component in `wasmtime serve` with its own settings, but for the interfaces of commands,
/// which pods have as well.
async fn run_wasmtime(wasmtime: &Path, component: &Path) -> Result<(Child, SocketAddr)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut process = Command::new(wasmtime)
        .args(["serve", "-S", "cli=y", "--addr", &address.to_string()])
        .arg(component)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to run {}", wasmtime.display()))?;
    let listens = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        listens = timeout(LIMIT, listens) => listens.context("wasmtime does not listen")?,
        status = process.wait() => anyhow::bail!("wasmtime ended: {}", status?),
    }
    Ok((process, address))
}
