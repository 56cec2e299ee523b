//! Clients that ask for a while, each waiting for its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_clock::Clock;
use http::Method;
use tokio::task::JoinSet;

use crate::access::Access;
use crate::client::{Connection, Protocol};
use crate::process::Sample;

/// What one request asks.
pub(crate) type Ask = (Method, String, Bytes);

/// Who asks, and whose processor time it is.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) access: Access,
    pub(crate) protocol: Protocol,
    /// The server's processes, where they are known.
    pub(crate) pids: Vec<u32>,
    pub(crate) clock: Clock,
}

/// When clients stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many requests of all together.
    Asked(usize),
}

/// One load, all of it.
pub(crate) struct Run {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Milliseconds from each request to its whole answer.
    pub(crate) latencies: Vec<f64>,
    /// Microseconds of processor time of the server per answer, where its process is known.
    pub(crate) cost: Option<f64>,
}

impl Clients {
    /// Asks over `clients` connections of their own; `ask` gets a number that no other request has.
    pub(crate) async fn run(
        &self,
        clients: usize,
        until: Until,
        ask: impl Fn(usize) -> Ask + Clone + Send + 'static,
    ) -> Result<Run> {
        let mut connections = Vec::new();
        for _ in 0..clients.max(1) {
            connections.push(Connection::open(&self.access, self.protocol).await?);
        }
        let numbers = Arc::new(AtomicUsize::new(0));
        let (start, before) = (self.clock.monotonic(), Sample::take(&self.pids)?);
        let mut tasks = JoinSet::new();
        for mut connection in connections {
            let (ask, numbers, clock) = (ask.clone(), numbers.clone(), self.clock.clone());
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                let mut now = clock.monotonic();
                loop {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let over = match until {
                        Until::Elapsed(time) => now - start >= time,
                        Until::Asked(count) => number >= count,
                    };
                    if over {
                        return anyhow::Ok(latencies);
                    }
                    let (method, path, body) = ask(number);
                    let sent = clock.monotonic();
                    connection.call(method, &path, body).await?;
                    now = clock.monotonic();
                    latencies.push(milliseconds(now - sent));
                }
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done.context("a client ended early")??);
        }
        let took = (self.clock.monotonic() - start).as_secs_f64();
        let used = Sample::take(&self.pids)?.since(&before).microseconds;
        let count = latencies.len().max(1) as f64;
        Ok(Run {
            rate: latencies.len() as f64 / took,
            cost: (!self.pids.is_empty()).then_some(used / count),
            latencies,
        })
    }
}

/// A time in milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
