//! Round trips, floods and connects between two pods, by guests that measure themselves; the same by native programs over
//! the kernel's loopback, and by the same guests in `wasmtime run` with the host's sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{LIMIT, LOOK_EVERY, Modules, Net, PORT, by_turns, peer, printed, run, serve};
use crate::client::Connection;
use crate::figures::{Figure, Report};

const MEBIBYTE: u64 = 1 << 20;

/// What one pair of client and server is asked for, and how much of it.
const TASKS: [&str; 3] = ["echo", "flood", "connect"];

/// Nanoseconds of one pair, round by round: of a round trip, of a flood, of a connect.
type Times = [Vec<f64>; TASKS.len()];

/// Measures all pairs by turns.
///
/// The kernel gets the better of two placements in each round: a round trip is faster on one processor, a flood on two.
pub(super) async fn measure(
    connection: &mut Connection,
    modules: &Modules,
    net: &Net,
    report: &mut Report,
) -> Result<()> {
    let newer = serve(connection, "newer", &modules.speed).await?;
    let older = serve(connection, "older", &modules.inherited).await?;
    let (apart, together) = (
        peer::Server::start("serve", false)?,
        peer::Server::start("serve", true)?,
    );
    let wasmtime = match &net.wasmtime {
        Some(path) => Some(Wasmtime::start(path, &modules.speed).await?),
        None => None,
    };
    let (mut ours, mut olders) = (Times::default(), Times::default());
    let (mut kernels, mut hosts) = (Times::default(), Times::default());
    let mut placed = [Times::default(), Times::default()];
    let amounts = [net.round_trips, net.mebibytes * MEBIBYTE, net.connects];
    for round in 0..net.rounds {
        for (at, (task, amount)) in TASKS.into_iter().zip(amounts).enumerate() {
            let (far, near) = (
                apart.ask(task, amount).await?,
                together.ask(task, amount).await?,
            );
            kernels[at].push(far.min(near));
            placed[0][at].push(far);
            placed[1][at].push(near);
            let (port, text) = (PORT.to_string(), amount.to_string());
            for (server, module, times) in [
                (&newer, &modules.speed, &mut ours),
                (&older, &modules.inherited, &mut olders),
            ] {
                let args = [task, server, &port, &text];
                let name = format!("{task}-{round}");
                let log = run(connection, &name, module, &args).await?;
                times[at].push(printed(&log)?);
            }
            if let Some(wasmtime) = &wasmtime {
                hosts[at].push(wasmtime.ask(task, amount).await?);
            }
        }
    }
    for name in ["newer", "older"] {
        connection
            .delete(&format!("{}/{name}", super::PODS))
            .await?;
    }
    let [echo, flood, connect] = &ours;
    let [older_echo, older_flood, older_connect] = &olders;
    let [kernel_echo, kernel_flood, kernel_connect] = &kernels;
    let mut add = |figure| report.add(figure);
    for (name, times) in [
        ("net.roundtrip_0_2", echo),
        ("net.roundtrip_0_1", older_echo),
        ("net.roundtrip_kernel_apart", &placed[0][0]),
        ("net.roundtrip_kernel_together", &placed[1][0]),
    ] {
        let times: Vec<f64> = times.iter().map(|nanos| nanos / 1000.0).collect();
        add(Figure::median(name, "µs", &times));
    }
    for (name, times, target) in [
        ("net.roundtrip_0_2_by_kernel", echo, 2.0 / 3.0),
        ("net.roundtrip_0_1_by_kernel", older_echo, 1.0 / 3.0),
    ] {
        add(Figure::median(name, "", &by_turns(times, kernel_echo)).below(target));
    }
    for (name, times) in [
        ("net.bulk_0_2", flood),
        ("net.bulk_0_1", older_flood),
        ("net.bulk_kernel", kernel_flood),
    ] {
        let rate = |nanos: &f64| net.mebibytes as f64 / 1024.0 / (nanos / 1e9);
        let rates: Vec<f64> = times.iter().map(rate).collect();
        add(Figure::median(name, "GiB/s", &rates));
    }
    for (name, times, target) in [
        ("net.bulk_0_2_by_kernel", flood, 2.5),
        ("net.bulk_0_1_by_kernel", older_flood, 6.0),
    ] {
        add(Figure::median(name, "", &by_turns(kernel_flood, times)).at_least(target));
    }
    for (name, times) in [
        ("net.connect_0_2_by_kernel", connect),
        ("net.connect_0_1_by_kernel", older_connect),
    ] {
        add(Figure::median(name, "", &by_turns(times, kernel_connect)));
    }
    if wasmtime.is_some() {
        for (name, ratio) in [
            ("net.roundtrip_0_2_by_wasmtime", by_turns(echo, &hosts[0])),
            ("net.bulk_0_2_by_wasmtime", by_turns(&hosts[1], flood)),
            ("net.connect_0_2_by_wasmtime", by_turns(connect, &hosts[2])),
        ] {
            add(Figure::median(name, "", &ratio));
        }
    }
    Ok(())
}

/// The guest in `wasmtime run`, with the host's sockets.
struct Wasmtime<'a> {
    program: &'a Path,
    module: &'a Path,
    address: SocketAddr,
    /// Killed when it is dropped.
    _server: Child,
}

/// What gives a guest the sockets of the host.
const INHERIT: [&str; 3] = ["run", "-S", "inherit-network,tcp"];

impl<'a> Wasmtime<'a> {
    async fn start(program: &'a Path, module: &'a Path) -> Result<Self> {
        // Freed for the guest; nobody else takes it in the few milliseconds between.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut server = Command::new(program)
            .args(INHERIT)
            .arg(module)
            .args(["serve", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to run {}", program.display()))?;
        let listens = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            listens = timeout(LIMIT, listens) => listens.context("wasmtime does not listen")?,
            status = server.wait() => anyhow::bail!("wasmtime ended: {}", status?),
        }
        Ok(Self {
            program,
            module,
            address,
            _server: server,
        })
    }

    async fn ask(&self, what: &str, amount: u64) -> Result<f64> {
        let (host, port) = (
            self.address.ip().to_string(),
            self.address.port().to_string(),
        );
        let output = Command::new(self.program)
            .args(INHERIT)
            .arg(self.module)
            .args([what, &host, &port, &amount.to_string()])
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("failed to run {}", self.program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "wasmtime failed: {errors}");
        printed(&String::from_utf8_lossy(&output.stdout))
    }
}
