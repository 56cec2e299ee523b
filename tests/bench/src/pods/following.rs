//! Which pods there are and which of them are ready, as a watch tells it: the cheapest way that does not ask again.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::time::timeout;

use crate::access::Access;
use crate::client::Watch;

/// The pods of a collection, as far as the watch has told.
pub(super) struct Following {
    watch: Watch,
    all: All,
}

/// The same, to look at.
#[derive(Default)]
pub(super) struct All {
    /// By name, whether each is ready.
    pods: HashMap<String, bool>,
    ready: usize,
}

impl All {
    /// How many there are.
    pub(super) fn exist(&self) -> usize {
        self.pods.len()
    }

    /// How many of them are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let was = match event.kind.as_str() {
            "DELETED" => self.pods.remove(&event.object.metadata.name),
            "ADDED" | "MODIFIED" => {
                let is_ready = event.object.is_ready();
                self.ready += usize::from(is_ready);
                self.pods.insert(event.object.metadata.name, is_ready)
            }
            other => bail!("the watch of pods told {other}"),
        };
        self.ready -= usize::from(was == Some(true));
        Ok(())
    }
}

impl Following {
    /// Follows the pods at `path` from now on.
    pub(super) async fn open(access: &Access, path: &str) -> Result<Self> {
        Ok(Self {
            watch: Watch::open(access, path).await?,
            all: All::default(),
        })
    }

    /// Waits until the pods are as wanted.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        is_met: impl Fn(&All) -> bool,
    ) -> Result<()> {
        let told = async {
            while !is_met(&self.all) {
                let line = self.watch.line().await?;
                self.all.take(serde_json::from_slice(&line)?)?;
            }
            anyhow::Ok(())
        };
        let outcome = timeout(limit, told).await;
        let (ready, exist) = (self.all.ready(), self.all.exist());
        outcome.with_context(|| format!("{ready} of {exist} pods are ready after {limit:?}"))?
    }
}

/// What is read of an event; all else is skipped.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    fn is_ready(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(all: &mut All, kind: &str, name: &str, ready: Option<&str>) -> Result<()> {
        let conditions: Vec<Value> = ready
            .iter()
            .map(|status| json!({"type": "Ready", "status": status}))
            .collect();
        let object = json!({"metadata": {"name": name}, "status": {"conditions": conditions}});
        all.take(serde_json::from_value(
            json!({"type": kind, "object": object}),
        )?)
    }

    #[test]
    fn each_pod_counts_once_as_it_was_told_last() -> Result<()> {
        let mut all = All::default();
        told(&mut all, "ADDED", "a", None)?;
        told(&mut all, "ADDED", "b", Some("False"))?;
        assert_eq!((all.exist(), all.ready()), (2, 0));
        told(&mut all, "MODIFIED", "a", Some("True"))?;
        told(&mut all, "MODIFIED", "a", Some("True"))?;
        told(&mut all, "MODIFIED", "b", Some("True"))?;
        assert_eq!((all.exist(), all.ready()), (2, 2));
        told(&mut all, "MODIFIED", "b", Some("False"))?;
        told(&mut all, "DELETED", "a", Some("True"))?;
        assert_eq!((all.exist(), all.ready()), (1, 0));
        assert!(told(&mut all, "ERROR", "a", None).is_err());
        Ok(())
    }
}
