//! What an answer over UDP costs the server, and by turns what it costs to send back what came: a thread that waits for
//! datagrams in the system and does nothing with them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coracle_clock::Clock;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::{LIMIT, LOOK_EVERY, Net, SERVICES, by_turns, peer};
use crate::client::Connection;
use crate::figures::{Figure, Report};
use crate::process::Sample;

/// How long each load takes.
const TIME: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// What an answer may cost, in microseconds of processor time.
const TARGET: f64 = 15.0;
const NAME: &str = "speed.default.svc.cluster.local";

/// The figures of so many who ask, each one question at a time.
struct Asking {
    clients: usize,
    cpu: &'static str,
    rate: &'static str,
    echo: &'static str,
    by_echo: &'static str,
}

const ASKING: [Asking; 2] = [
    Asking {
        clients: 1,
        cpu: "net.dns_udp_cpu_1",
        rate: "net.dns_udp_rate_1",
        echo: "net.dns_udp_echo_cpu_1",
        by_echo: "net.dns_udp_cpu_1_by_echo",
    },
    Asking {
        clients: 16,
        cpu: "net.dns_udp_cpu_n",
        rate: "net.dns_udp_rate_n",
        echo: "net.dns_udp_echo_cpu_n",
        by_echo: "net.dns_udp_cpu_n_by_echo",
    },
];

/// Asks for the name of a Service as fast as it is answered.
pub(super) async fn measure(
    connection: &mut Connection,
    server: SocketAddr,
    pid: u32,
    net: &Net,
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
    let echo = peer::Server::start("echo-datagrams", false)?;
    for asking in ASKING {
        let (mut ours, mut rates, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..net.rounds {
            let load = load(server, pid, asking.clients, has_address, clock).await?;
            ours.push(load.cost);
            rates.push(load.rate);
            let load = self::load(echo.address, echo.pid(), asking.clients, |_| true, clock);
            theirs.push(load.await?.cost);
        }
        report.add(Figure::median(asking.cpu, "µs", &ours).below(TARGET));
        report.add(Figure::median(asking.rate, "1/s", &rates));
        report.add(Figure::median(asking.echo, "µs", &theirs));
        let ratio = by_turns(&ours, &theirs);
        report.add(Figure::median(asking.by_echo, "", &ratio));
    }
    connection.delete(&format!("{SERVICES}/speed")).await
}

/// What a load took.
struct Load {
    /// Microseconds of the server's processor time for each answer.
    cost: f64,
    /// Answers per second.
    rate: f64,
}

/// Asks a server for a while, of which all answers must be right.
async fn load(
    server: SocketAddr,
    pid: u32,
    clients: usize,
    is_right: fn(&[u8]) -> bool,
    clock: &Clock,
) -> Result<Load> {
    let (start, before) = (clock.monotonic(), Sample::take(&[pid])?);
    let answers = answers(server, clients, is_right).await?;
    let took = clock.monotonic().saturating_sub(start).as_secs_f64();
    let used = Sample::take(&[pid])?.since(&before).microseconds;
    ensure!(answers > 0, "{server} answered nothing");
    Ok(Load {
        cost: used / answers as f64,
        rate: answers as f64 / took,
    })
}

/// How many answers came.
async fn answers(server: SocketAddr, clients: usize, is_right: fn(&[u8]) -> bool) -> Result<u64> {
    let (answers, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let (answers, over) = (answers.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let socket = connected(server).await?;
            let question = question(NAME);
            let mut buffer = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                let length = exchange(&socket, &question, &mut buffer).await?;
                ensure!(is_right(&buffer[..length]), "{server} answers wrongly");
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

fn has_address(answer: &[u8]) -> bool {
    first_address(answer).is_some()
}

pub(super) async fn connected(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// The first address of a name.
pub(super) async fn ask(socket: &UdpSocket, name: &str) -> Result<Option<IpAddr>> {
    let mut buffer = [0; 4096];
    let length = exchange(socket, &question(name), &mut buffer).await?;
    Ok(first_address(&buffer[..length]))
}

/// Sends a message; the length of the one that comes back.
async fn exchange(socket: &UdpSocket, message: &[u8], buffer: &mut [u8]) -> Result<usize> {
    socket.send(message).await?;
    let length = timeout(ANSWER, socket.recv(buffer)).await;
    Ok(length.context("a question was not answered")??)
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
