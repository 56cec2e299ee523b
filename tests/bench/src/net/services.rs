//! A Service with thousands of endpoints: what a pick costs, and how soon a change is seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coracle_clock::Clock;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::{LIMIT, Net, SERVICES, dns};
use crate::client::Connection;
use crate::figures::{Figure, Report};

/// Endpoints of one slice, as upstream's controller makes them.
const OF_A_SLICE: u64 = 100;
/// How often an endpoint moves.
const CHANGES: u64 = 50;
/// How soon everybody shall know.
const SEEN_WITHIN: f64 = 5.0;
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// What the example measures, with the names, units and targets of its figures.
const IN_PROCESS: [(&str, &str, &str, f64); 4] = [
    ("pick", "net.pick", "µs", 1.0),
    ("seen", "net.endpoint_seen", "ms", SEEN_WITHIN),
    ("short", "net.dns_name_short", "µs", 5.0),
    ("whole", "net.dns_name_whole", "µs", 5.0),
];

/// Runs the example `picks`, which measures inside one process.
pub(super) async fn in_process(net: &Net, report: &mut Report) -> Result<()> {
    let beside = std::env::current_exe()?.with_file_name("examples/picks");
    let program = net.picks.as_ref().unwrap_or(&beside);
    let output = Command::new(program)
        .args([net.endpoints.to_string(), net.rounds.to_string()])
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, output).await.context("picks did not end")?;
    let output = output.with_context(|| {
        format!(
            "failed to run {}: build it with `cargo build --release -p coracle-services --example picks`, or name it \
             with --picks",
            program.display()
        )
    })?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "picks failed: {errors}");
    let samples: Value = serde_json::from_slice(&output.stdout).context("picks printed no JSON")?;
    for (key, name, unit, target) in IN_PROCESS {
        let samples = samples[key].as_array();
        let samples = samples.with_context(|| format!("picks said nothing of {key}"))?;
        let samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
        report.add(Figure::median(name, unit, &samples).below(target));
    }
    Ok(())
}

/// Moves endpoints of a Service by the API, and asks DNS, which has the same tables as all who pick, until it says so.
pub(super) async fn from_outside(
    connection: &mut Connection,
    dns: SocketAddr,
    net: &Net,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "large"},
        "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
    });
    connection.create(SERVICES, &service).await?;
    let slices = net.endpoints / OF_A_SLICE;
    for number in 0..slices {
        connection.create(SLICES, &slice(number, 0)).await?;
    }
    let (mut after_answer, mut after_request) = (Vec::new(), Vec::new());
    for change in 1..=CHANGES {
        let number = change % slices;
        let name = format!("{}.large.default.svc.cluster.local", host(number));
        let seen = tokio::spawn(follow(dns, name, moved(change), clock.clone()));
        let path = format!("{SLICES}/large-{number}");
        let body = slice(number, change).to_string();
        let sent = clock.monotonic();
        connection.call(Method::PUT, &path, body.into()).await?;
        let answered = clock.monotonic();
        let seen = timeout(LIMIT, seen).await;
        let seen = seen.context("the change was never seen")???;
        let milliseconds = |since: Duration| seen.saturating_sub(since).as_secs_f64() * 1000.0;
        after_answer.push(milliseconds(answered));
        after_request.push(milliseconds(sent));
    }
    let name = "net.endpoint_seen_after_answer";
    report.add(Figure::median(name, "ms", &after_answer).below(SEEN_WITHIN));
    let name = "net.endpoint_seen_after_request";
    report.add(Figure::median(name, "ms", &after_request));
    for number in 0..slices {
        connection
            .delete(&format!("{SLICES}/large-{number}"))
            .await?;
    }
    connection.delete(&format!("{SERVICES}/large")).await
}

/// A slice whose first endpoint is where the change of that number puts it.
fn slice(number: u64, change: u64) -> Value {
    let endpoint = |index: u64| {
        let [_, _, c, d] = ((number * OF_A_SLICE + index) as u32).to_be_bytes();
        let address = match (index, change) {
            (0, 1..) => moved(change),
            _ => Ipv4Addr::new(10, 250, c, d).into(),
        };
        let mut endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
        if index == 0 {
            endpoint["hostname"] = json!(host(number));
        }
        endpoint
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("large-{number}"), "labels": {"kubernetes.io/service-name": "large"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
        "endpoints": (0..OF_A_SLICE).map(endpoint).collect::<Vec<_>>(),
    })
}

fn host(number: u64) -> String {
    format!("first-{number}")
}

/// Where a change puts an endpoint.
fn moved(change: u64) -> IpAddr {
    let [_, b, c, d] = (change as u32).to_be_bytes();
    Ipv4Addr::new(10, 251 + b, c, d).into()
}

/// Asks for a name again and again; when it had the address.
async fn follow(
    server: SocketAddr,
    name: String,
    wanted: IpAddr,
    clock: Clock,
) -> Result<Duration> {
    let socket = dns::connected(server).await?;
    while dns::ask(&socket, &name).await? != Some(wanted) {}
    Ok(clock.monotonic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_moves_the_first_endpoint_alone() {
        let (before, after) = (slice(3, 0), slice(3, 9));
        assert_eq!(before["endpoints"][0]["addresses"][0], "10.250.1.44");
        assert_eq!(after["endpoints"][0]["addresses"][0], "10.251.0.9");
        assert_eq!(before["endpoints"][1], after["endpoints"][1]);
        assert_eq!(after["endpoints"].as_array().map(Vec::len), Some(100));
    }
}
