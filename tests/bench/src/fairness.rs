//! What one user's flood does to another: latency of a quiet user's requests alone, and while somebody floods the server.
//!
//! ```text
//! this program ──starts──▶ server                             on a processor of its own
//!      │ quiet user: one request at a time                    on the other
//!      └──starts──▶ itself, as the flood: one request at a     there too, at idle priority
//!                   time on each of many connections
//! ```
//!
//! A flood comes from elsewhere. Here it has to share the machine, so it runs only while neither the server nor the quiet
//! user has anything to do on its processor, and the server has its own. `--shared` lets all run anywhere: on a small
//! machine that measures the kernel's scheduler as well.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use coracle_clock::Clock;
use http::Method;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::access::{Access, Target};
use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, TOKEN};
use crate::figures::{Figure, Report, Spread};
use crate::load::{Ask, Clients, Until};
use crate::objects::config_map;
use crate::space::{Space, fill};

/// How many times the 99th percentile may be in a flood what it is otherwise.
const TARGET: f64 = 2.0;
/// How long a flood goes on before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Objects in the lists.
const LISTED: usize = 100;
/// The users; both are of the flow schema `global-default`, where each is a flow.
const USERS: [&str; 2] = ["quiet", "flood"];

/// How much of a flood.
#[derive(Debug, Clone, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Fairness {
    /// How long each load is measured, alone and again in each flood
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections of the flood
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// What clients speak
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Let server and clients run on any processor
    #[arg(long)]
    shared: bool,
    /// Measure only what contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// What is asked, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// An object.
    Get,
    /// A hundred objects of 1 KiB.
    List,
    /// A small ConfigMap, durably.
    Create,
}

impl What {
    /// The request: its number is nobody else's.
    fn ask(
        self,
        namespace: &str,
        prefix: String,
    ) -> impl Fn(usize) -> Ask + Clone + Send + 'static {
        let namespace = namespace.to_owned();
        move |number| match self {
            Self::Get => {
                let path = format!("{namespace}/configmaps/object-000000");
                (Method::GET, path, Bytes::new())
            }
            Self::List => (Method::GET, format!("{namespace}/configmaps"), Bytes::new()),
            Self::Create => {
                // In a collection of their own, so that lists stay as long as they are.
                let object = json!({
                    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{prefix}-{number}")},
                    "data": {"greeting": "aGVsbG8="},
                });
                let path = format!("{namespace}/secrets");
                (Method::POST, path, Bytes::from(object.to_string()))
            }
        }
    }
}

/// One measurement: whose, in which flood.
struct Case {
    quiet: What,
    flood: What,
    /// Figures: alone, in the flood, and by how much.
    names: [&'static str; 3],
}

const CASES: [Case; 5] = [
    Case {
        quiet: What::Get,
        flood: What::Get,
        names: [
            "fairness.get_alone",
            "fairness.get_among_gets",
            "fairness.get_among_gets_p99_ratio",
        ],
    },
    Case {
        quiet: What::Get,
        flood: What::List,
        names: [
            "fairness.get_alone",
            "fairness.get_among_lists",
            "fairness.get_among_lists_p99_ratio",
        ],
    },
    Case {
        quiet: What::Get,
        flood: What::Create,
        names: [
            "fairness.get_alone",
            "fairness.get_among_creates",
            "fairness.get_among_creates_p99_ratio",
        ],
    },
    Case {
        quiet: What::List,
        flood: What::List,
        names: [
            "fairness.list_alone",
            "fairness.list_among_lists",
            "fairness.list_among_lists_p99_ratio",
        ],
    },
    Case {
        quiet: What::Create,
        flood: What::Create,
        names: [
            "fairness.create_alone",
            "fairness.create_among_creates",
            "fairness.create_among_creates_p99_ratio",
        ],
    },
];

/// Where the server may run, and where its clients.
pub(crate) struct Apart {
    server: Vec<usize>,
    clients: Vec<usize>,
}

impl Fairness {
    /// Divides the processors and moves this program to those of the clients. To be called before there are threads.
    pub(crate) fn move_apart(&self) -> Result<Option<Apart>> {
        let set = sched_getaffinity(None).context("failed to ask where this program may run")?;
        let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|at| set.is_set(*at)).collect();
        if self.shared || processors.len() < 2 {
            return Ok(None);
        }
        let (server, clients) = processors.split_at(processors.len() / 2);
        run_on(clients)?;
        Ok(Some(Apart {
            server: server.to_vec(),
            clients: clients.to_vec(),
        }))
    }
}

/// Lets this thread, and what it starts, run on these processors only.
pub(crate) fn run_on(processors: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor);
    }
    sched_setaffinity(None, &set).context("failed to choose processors")
}

/// Measures a server of our own.
pub(crate) async fn measure(
    binary: &Binary,
    fairness: &Fairness,
    apart: Option<Apart>,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let tokens = NamedTempFile::new().context("failed to make a file of tokens")?;
    let users = USERS.map(|user| format!("{user},{user},{user}\n")).concat();
    std::fs::write(
        tokens.path(),
        format!("{TOKEN},bench,bench,\"system:masters\"\n{users}"),
    )?;
    let path = tokens.path().to_str().context("a path that is no text")?;
    // A process runs where the thread may run that starts it.
    if let Some(apart) = &apart {
        run_on(&apart.server)?;
    }
    let started = binary.up(&["--token-auth-file", path], clock).await;
    if let Some(apart) = &apart {
        run_on(&apart.clients)?;
    }
    let (cluster, _) = started?;
    let bench = Bench {
        access: cluster.access.clone(),
        pid: cluster.pid,
        fairness: fairness.clone(),
        clock: clock.clone(),
    };
    bench.measure(report).await?;
    cluster.stop().await
}

struct Bench {
    access: Access,
    pid: u32,
    fairness: Fairness,
    clock: Clock,
}

impl Bench {
    async fn measure(&self, report: &mut Report) -> Result<()> {
        let space = Space::make(&self.access, &self.clock).await?;
        let config_maps = space.collection("configmaps");
        let admin = self.clients(self.access.clone());
        fill(&admin, &config_maps, LISTED, |name| config_map(name, 0)).await?;
        self.allow().await?;
        let namespace = config_maps.trim_end_matches("/configmaps");
        let mut alone: Vec<(What, Vec<f64>)> = Vec::new();
        for case in &CASES {
            if !case.names[1].contains(&self.fairness.only) {
                continue;
            }
            let usual = match alone.iter().find(|(what, _)| *what == case.quiet) {
                Some((_, usual)) => usual.clone(),
                None => {
                    let usual = self.quiet(case.quiet, namespace).await?;
                    report.add(Figure::median(case.names[0], "ms", &usual));
                    alone.push((case.quiet, usual.clone()));
                    usual
                }
            };
            let among = self.in_a_flood(case, namespace).await?;
            let p99 = |latencies: &[f64]| Spread::of(latencies).p99;
            let ratio = p99(&among) / p99(&usual);
            report.add(Figure::median(case.names[1], "ms", &among));
            report.add(Figure::new(case.names[2], "×", ratio).below(TARGET));
        }
        space.delete().await
    }

    async fn in_a_flood(&self, case: &Case, namespace: &str) -> Result<Vec<f64>> {
        let authority = NamedTempFile::new().context("failed to make a file")?;
        std::fs::write(authority.path(), self.access.ca())?;
        let mut flood = self.start_flood(case.flood, namespace, &authority)?;
        sleep(WARM_UP).await;
        let among = self.quiet(case.quiet, namespace).await;
        if let Some(status) = flood.try_wait()? {
            bail!("the flood ended early: {status}");
        }
        flood.kill().await?;
        among
    }

    /// Lets both users do everything.
    async fn allow(&self) -> Result<()> {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let subjects: Vec<Value> = USERS
            .map(|name| json!({"apiGroup": GROUP, "kind": "User", "name": name}))
            .to_vec();
        let role = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin"});
        let name = format!("bench-{}", self.clock.name_suffix(5));
        let binding = json!({"metadata": {"name": name}, "subjects": subjects, "roleRef": role});
        let mut connection = Connection::open(&self.access, Protocol::Http1).await?;
        let path = format!("/apis/{GROUP}/v1/clusterrolebindings");
        connection.create(&path, &binding).await.map(drop)
    }

    fn clients(&self, access: Access) -> Clients {
        Clients {
            access,
            protocol: self.fairness.protocol,
            pids: vec![self.pid],
            clock: self.clock.clone(),
        }
    }

    /// Milliseconds of each of the quiet user's requests.
    async fn quiet(&self, what: What, namespace: &str) -> Result<Vec<f64>> {
        let clients = self.clients(self.access.with_token(USERS[0])?);
        let time = Duration::from_secs(self.fairness.seconds);
        let ask = what.ask(namespace, self.clock.name_suffix(8));
        Ok(clients.run(1, Until::Elapsed(time), ask).await?.latencies)
    }

    /// This program again, at the priority of what is done when there is nothing else to do.
    fn start_flood(&self, what: What, namespace: &str, authority: &NamedTempFile) -> Result<Child> {
        let own = std::env::current_exe().context("failed to find this program")?;
        let name = |value: Option<clap::builder::PossibleValue>| -> String {
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        Command::new("chrt")
            .args(["--idle", "0"])
            .arg(own)
            .args(["flood", "--what", &name(what.to_possible_value())])
            .args(["--namespace", namespace])
            .args(["--connections", &self.fairness.connections.to_string()])
            .args([
                "--protocol",
                &name(self.fairness.protocol.to_possible_value()),
            ])
            .args(["--server", &format!("https://{}", self.access.authority)])
            .arg("--ca")
            .arg(authority.path())
            .args(["--token", USERS[1]])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("failed to run chrt, of util-linux, which gives the flood its priority")
    }
}

/// A flood, until it is killed.
#[derive(Debug, Args)]
pub(crate) struct Flood {
    /// What is asked
    #[arg(long, value_enum)]
    what: What,
    /// The path of a namespace
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    connections: usize,
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[command(flatten)]
    target: Target,
}

/// Asks on every connection as soon as it has its answer, whatever that is.
pub(crate) async fn flood(flood: &Flood, clock: &Clock) -> Result<()> {
    let access = flood.target.access()?.context("no server is named")?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..flood.connections {
        let mut connection = Connection::open(&access, flood.protocol).await?;
        let ask = flood.what.ask(&flood.namespace, clock.name_suffix(8));
        tasks.spawn(async move {
            for number in 0.. {
                let (method, path, body) = ask(number);
                connection.exchange(method, &path, body).await?;
            }
            anyhow::Ok(())
        });
    }
    tasks.join_next().await.context("no connections")??
}
