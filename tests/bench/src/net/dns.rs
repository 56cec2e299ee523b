//! What an answer over UDP costs the server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coracle_clock::Clock;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::{LIMIT, LOOK_EVERY, SERVICES};
use crate::client::Connection;
use crate::figures::{Figure, Report};
use crate::process::Sample;

/// How long each load takes.
const TIME: Duration = Duration::from_secs(2);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What an answer may cost, in microseconds of processor time.
const TARGET: f64 = 15.0;
const NAME: &str = "speed.default.svc.cluster.local";
/// How many ask, each one question at a time.
const CLIENTS: [(usize, &str, &str); 2] = [
    (1, "net.dns_udp_cpu_1", "net.dns_udp_rate_1"),
    (16, "net.dns_udp_cpu_n", "net.dns_udp_rate_n"),
];

/// Asks for the name of a Service as fast as it is answered.
pub(super) async fn measure(
    connection: &mut Connection,
    server: SocketAddr,
    pid: u32,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "speed"},
        "spec": {"ports": [{"port": 80}]},
    });
    connection.create(SERVICES, &service).await?;
    let there = async {
        let socket = connected(server).await?;
        while ask(&socket, NAME).await?.is_none() {
            sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    let there = timeout(LIMIT, there).await;
    there.context("the name of the Service did not come")??;
    for (clients, cpu, rate) in CLIENTS {
        let (start, before) = (clock.monotonic(), Sample::take(&[pid])?);
        let answers = load(server, clients).await?;
        let took = clock.monotonic().saturating_sub(start).as_secs_f64();
        let used = Sample::take(&[pid])?.since(&before).microseconds;
        ensure!(answers > 0, "{server} answered nothing");
        let cost = used / answers as f64;
        report.add(Figure::new(cpu, "µs", cost).below(TARGET));
        report.add(Figure::new(rate, "1/s", answers as f64 / took));
    }
    connection.delete(&format!("{SERVICES}/speed")).await
}

/// How many answers came.
async fn load(server: SocketAddr, clients: usize) -> Result<u64> {
    let (answers, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (answers, over) = (answers.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let socket = connected(server).await?;
            while !over.load(Ordering::Relaxed) {
                let address = ask(&socket, NAME).await?;
                ensure!(address.is_some(), "{NAME} has no address any more");
                answers.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    sleep(TIME).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(answers.load(Ordering::Relaxed))
}

pub(super) async fn connected(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// The first address of a name.
pub(super) async fn ask(socket: &UdpSocket, name: &str) -> Result<Option<IpAddr>> {
    socket.send(&question(name)).await?;
    let mut buffer = [0; 4096];
    let length = timeout(ANSWER, socket.recv(&mut buffer)).await;
    let length = length.context("a question was not answered")??;
    Ok(first_address(&buffer[..length]))
}

/// A question for the IPv4 addresses of a name, as RFC 1035 lays it out.
fn question(name: &str) -> Vec<u8> {
    // Number, "recursion desired", one question.
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// The address in the first record of an answer, if that is an `A`.
fn first_address(answer: &[u8]) -> Option<IpAddr> {
    let question = answer.get(12..)?;
    let name = question.iter().scan(0usize, |left, byte| {
        if *left > 0 {
            *left -= 1;
            return Some(false);
        }
        *left = usize::from(*byte);
        Some(*byte == 0)
    });
    let end = 12 + name.take_while(|is_end| !is_end).count() + 1 + 4;
    // A pointer to the name, type, class, time to live, length.
    let record = answer.get(end..end + 16)?;
    let is_address = record[2..4] == [0, 1] && record[10..12] == [0, 4];
    let octets: [u8; 4] = record[12..].try_into().ok()?;
    is_address.then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_begins_with_the_question() {
        let mut answer = question("a.bc");
        assert_eq!(first_address(&answer), None);
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 7]);
        assert_eq!(first_address(&answer), Some([10, 96, 0, 7].into()));
        for end in 0..answer.len() {
            assert_eq!(first_address(&answer[..end]), None, "{end}");
        }
    }
}
