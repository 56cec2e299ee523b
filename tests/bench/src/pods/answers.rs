//! Whether each of many pods answers, and as itself.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use coracle_clock::Clock;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PODS;
use crate::access::Access;
use crate::client::{Connection, Protocol};
use crate::figures::{Figure, Report};

/// Connections that ask at once.
const CONNECTIONS: usize = 8;
/// Pods of one page of the list.
const PAGE: usize = 500;
/// Bounds the asking as a whole.
const LIMIT: Duration = Duration::from_secs(300);

/// What one connection has seen.
#[derive(Default)]
struct Seen {
    /// Milliseconds of each answer.
    times: Vec<f64>,
    /// The first that was no answer, or another pod's.
    wrong: Option<String>,
}

/// Asks each of the pods once over the API's proxy, and reports how many answered as themselves and how fast. Fails when
/// not all of them did.
pub(super) async fn each(access: &Access, clock: &Clock, report: &mut Report) -> Result<()> {
    let names = names(access).await?;
    let mut asking = JoinSet::new();
    for first in 0..CONNECTIONS {
        let mine: Vec<String> = names
            .iter()
            .skip(first)
            .step_by(CONNECTIONS)
            .cloned()
            .collect();
        let (access, clock) = (access.clone(), clock.clone());
        asking.spawn(async move { ask(&access, mine, &clock).await });
    }
    let mut seen = Seen::default();
    let all = async {
        while let Some(part) = asking.join_next().await {
            let part = part.context("one who asks ended early")??;
            seen.times.extend(part.times);
            seen.wrong = seen.wrong.take().or(part.wrong);
        }
        anyhow::Ok(())
    };
    timeout(LIMIT, all)
        .await
        .context("not all pods answered in time")??;
    let answered = Figure::new("pods.resting_answered", "", seen.times.len() as f64);
    report.add(answered.at_least(names.len() as f64));
    report.add(Figure::median("pods.resting_answer", "ms", &seen.times));
    match seen.wrong {
        None => Ok(()),
        Some(wrong) => bail!(
            "{} of {} pods answered; {wrong}",
            seen.times.len(),
            names.len()
        ),
    }
}

/// The names of all pods.
async fn names(access: &Access) -> Result<Vec<String>> {
    // Whoever has asked nothing for a while has no connection any more.
    let mut connection = Connection::open(access, Protocol::Http1).await?;
    let (mut names, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!("{PODS}?limit={PAGE}&continue={next}");
        let list = connection.get(&path).await?;
        let items = list["items"].as_array().context("a list without items")?;
        for item in items {
            let name = item["metadata"]["name"].as_str();
            names.push(name.context("a pod without a name")?.to_owned());
        }
        match list["metadata"]["continue"].as_str() {
            Some(more) if !more.is_empty() => next = more.replace('=', "%3D"),
            _ => return Ok(names),
        }
    }
}

async fn ask(access: &Access, names: Vec<String>, clock: &Clock) -> Result<Seen> {
    let mut connection = Connection::open(access, Protocol::Http1).await?;
    let mut seen = Seen::default();
    for name in names {
        let path = format!("{PODS}/{name}:8080/proxy/");
        let start = clock.monotonic();
        let (status, answer) = connection
            .exchange(Method::GET, &path, Bytes::new())
            .await?;
        let took = (clock.monotonic() - start).as_secs_f64() * 1000.0;
        let answer = String::from_utf8_lossy(&answer);
        if status.is_success() && answer.contains(&format!("from {name},")) {
            seen.times.push(took);
        } else if seen.wrong.is_none() {
            seen.wrong = Some(format!("pod {name} answered {status}: {answer}"));
        }
    }
    Ok(seen)
}
