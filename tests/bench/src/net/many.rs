//! What many connections between pods weigh.

use anyhow::Result;
use tokio::time::sleep;

use super::{LOOK_EVERY, Modules, Net, PODS, PORT, pod, says, serve};
use crate::client::Connection;
use crate::figures::{Figure, Report};
use crate::process::Memory;

/// Connections of one pair of pods: below what a pod may have of sockets, and a guest of handles, of which each takes four.
const OF_A_PAIR: u64 = 1000;

/// Opens connections between pairs of pods, each used once and kept, and looks at what came with them: the clients' pods
/// included, the servers' not.
pub(super) async fn measure(
    connection: &mut Connection,
    pid: u32,
    modules: &Modules,
    net: &Net,
    report: &mut Report,
) -> Result<()> {
    let pairs = net.connections.div_ceil(OF_A_PAIR);
    let mut servers = Vec::new();
    for pair in 0..pairs {
        servers.push(serve(connection, &format!("many-{pair}"), &modules.speed).await?);
    }
    let before = Memory::of(pid)?;
    let (port, mut left) = (PORT.to_string(), net.connections);
    for (pair, server) in servers.iter().enumerate() {
        let count = left.min(OF_A_PAIR);
        left -= count;
        let args = ["keep", server.as_str(), &port, &count.to_string()];
        let client = pod(&format!("keeps-{pair}"), &modules.speed, &args);
        connection.create(PODS, &client).await?;
    }
    for pair in 0..pairs {
        says(connection, &format!("keeps-{pair}"), "kept").await?;
    }
    sleep(LOOK_EVERY).await;
    let grown = Memory::of(pid)?.resident - before.resident;
    let name = "net.connections_memory";
    report.add(Figure::new(name, "MiB", grown).below(200.0));
    let each = grown * 1024.0 / net.connections as f64;
    report.add(Figure::new("net.memory_per_connection", "KiB", each));
    for pair in 0..pairs {
        connection.delete(&format!("{PODS}/keeps-{pair}")).await?;
        connection.delete(&format!("{PODS}/many-{pair}")).await?;
    }
    Ok(())
}
