//! Pods that run to an end.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::{sleep, timeout};

use crate::client::Connection;

const PODS: &str = "/api/v1/namespaces/default/pods";
/// How often a pod that measures itself is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the pod `name` has printed when it has succeeded, within `limit`; the pod is deleted then.
pub(crate) async fn output(
    connection: &mut Connection,
    name: &str,
    limit: Duration,
) -> Result<String> {
    to_the_end(connection, name, limit, LOOK_EVERY).await?;
    let (status, log) = log(connection, name).await?;
    ensure!(status.is_success(), "no log of {name}: {status} {log}");
    connection.delete(&format!("{PODS}/{name}")).await?;
    Ok(log)
}

/// Waits until the pod `name` has succeeded, which is looked for `every` so long; fails when it fails, or has not ended within
/// `limit`.
pub(crate) async fn to_the_end(
    connection: &mut Connection,
    name: &str,
    limit: Duration,
    every: Duration,
) -> Result<()> {
    let ending = async {
        loop {
            let pod = connection.get(&format!("{PODS}/{name}")).await?;
            match pod["status"]["phase"].as_str() {
                Some("Succeeded") => return Ok(()),
                Some("Failed") => {
                    let (_, log) = log(connection, name).await?;
                    let statuses = &pod["status"]["containerStatuses"];
                    bail!("the pod {name} failed: {statuses}, having printed: {log}");
                }
                _ => sleep(every).await,
            }
        }
    };
    let ended = timeout(limit, ending).await;
    ended.with_context(|| format!("the pod {name} did not end"))?
}

/// What the pod `name` has printed so far, or why that is not told.
pub(crate) async fn log(connection: &mut Connection, name: &str) -> Result<(StatusCode, String)> {
    let path = format!("{PODS}/{name}/log");
    let (status, log) = connection
        .exchange(Method::GET, &path, Bytes::new())
        .await?;
    Ok((status, String::from_utf8_lossy(&log).into_owned()))
}
