//! Hostile pods: let in, kept coming, thrown out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_clock::Clock;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::kinds::{Kind, Program};
use super::{LIMIT, PODS};
use crate::client::{Connection, Protocol};
use crate::cluster::Cluster;

/// How often pods are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often pods are looked at while others are measured.
const LOOK_SELDOM: Duration = Duration::from_millis(100);

/// Images for each pod whose image is refused, for each second of a measurement: as many as there are looks.
const IMAGES_A_SECOND: u64 = 10;

/// Who makes them.
pub(super) struct Intruders {
    api: Connection,
    /// The folder of the test guests.
    guests: PathBuf,
    /// The folder of the programs that are made here.
    made: PathBuf,
    count: u64,
    /// How long each measurement takes.
    long: Duration,
    /// How many programs were made.
    serial: u64,
    clock: Clock,
}

impl Intruders {
    /// So many of each kind.
    pub(super) async fn new(
        cluster: &Cluster,
        guests: PathBuf,
        made: &Path,
        count: u64,
        long: Duration,
        clock: &Clock,
    ) -> Result<Self> {
        Ok(Self {
            api: Connection::open(&cluster.access, Protocol::Http1).await?,
            guests,
            made: made.to_owned(),
            count,
            long,
            serial: 0,
            clock: clock.clone(),
        })
    }

    /// What `measurement` gives beside pods of a kind.
    pub(super) async fn beside<T>(
        &mut self,
        kind: &Kind,
        measurement: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // Assembled before anything is measured, and more than can be refused meanwhile.
        let mut images = self.images(&kind.program)?.into_iter();
        let mut names = Vec::new();
        for image in images.by_ref().take(usize::try_from(self.count)?) {
            names.push(self.create(&kind.program, &image).await?);
        }
        let measured = match kind.program {
            Program::Made { is_refused, .. } => {
                let is_over = AtomicBool::new(!is_refused);
                let measuring = async {
                    let measured = measurement.await;
                    is_over.store(true, Ordering::Relaxed);
                    measured
                };
                let replacing = self.replace(&kind.program, &mut names, images, &is_over);
                let (measured, replaced) = tokio::join!(measuring, replacing);
                replaced?;
                // Compiling goes on without its pod; the next measurement shall not meet it.
                let is_done = |pod: &Value| has_run(pod) || is_refused_image(pod);
                self.until_all(&names, is_done).await?;
                measured?
            }
            _ => {
                self.until_all(&names, has_run).await?;
                measurement.await?
            }
        };
        self.throw_out(&names).await?;
        Ok(measured)
    }

    /// What the kind's pods run, one after the other.
    pub(super) fn images(&mut self, program: &Program) -> Result<Vec<String>> {
        let count = usize::try_from(self.count)?;
        let path = |path: PathBuf| format!("file://{}", path.display());
        Ok(match program {
            Program::Guest(file, _) => vec![path(self.guests.join(file)); count],
            Program::Text(text) => vec![path(self.assemble(text)?); count],
            Program::Made { make, is_refused } => {
                let each = match is_refused {
                    true => 1 + IMAGES_A_SECOND * self.long.as_secs(),
                    false => 1,
                };
                let made = (0..self.count * each).map(|_| {
                    let text = make(self.serial);
                    Ok(path(self.assemble(&text)?))
                });
                made.collect::<Result<_>>()?
            }
        })
    }

    fn assemble(&mut self, text: &str) -> Result<PathBuf> {
        let path = self.made.join(format!("{}.wasm", self.serial));
        self.serial += 1;
        std::fs::write(&path, wat::parse_str(text)?)?;
        Ok(path)
    }

    async fn create(&mut self, program: &Program, image: &str) -> Result<String> {
        let name = format!("hostile-{}", self.clock.name_suffix(5));
        let arguments = match program {
            Program::Guest(_, arguments) => *arguments,
            _ => &[],
        };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "hostile", "image": image, "args": arguments,
                "resources": {"limits": {"memory": "256Mi"}},
            }]},
        });
        self.api.create(PODS, &pod).await?;
        Ok(name)
    }

    /// Puts another pod in the place of each whose image was refused, until that is over.
    async fn replace(
        &mut self,
        program: &Program,
        names: &mut [String],
        mut images: impl Iterator<Item = String>,
        is_over: &AtomicBool,
    ) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            sleep(LOOK_SELDOM).await;
            for name in names.iter_mut() {
                let path = format!("{PODS}/{name}");
                if !is_refused_image(&self.api.get(&path).await?) {
                    continue;
                }
                let image = images.next().context("too few images were made")?;
                self.api.delete(&path).await?;
                *name = self.create(program, &image).await?;
            }
        }
        Ok(())
    }

    async fn until_all(&mut self, names: &[String], is_so: impl Fn(&Value) -> bool) -> Result<()> {
        for name in names {
            let api = &mut self.api;
            let looking = async {
                while !is_so(&api.get(&format!("{PODS}/{name}")).await?) {
                    sleep(LOOK_EVERY).await;
                }
                anyhow::Ok(())
            };
            let looked = timeout(LIMIT, looking).await;
            looked.with_context(|| format!("pod {name} did not run"))??;
        }
        Ok(())
    }

    async fn throw_out(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            self.api.delete(&format!("{PODS}/{name}")).await?;
        }
        let api = &mut self.api;
        let gone = async {
            for name in names {
                let path = format!("{PODS}/{name}");
                while api
                    .exchange(Method::GET, &path, Bytes::new())
                    .await?
                    .0
                    .is_success()
                {
                    sleep(LOOK_EVERY).await;
                }
            }
            anyhow::Ok(())
        };
        timeout(LIMIT, gone)
            .await
            .context("hostile pods were not deleted")?
    }
}

/// Whether the pod's container runs, or has run.
fn has_run(pod: &Value) -> bool {
    let status = &pod["status"]["containerStatuses"][0];
    let states = [&status["state"], &status["lastState"]];
    states
        .iter()
        .any(|state| state["running"].is_object() || state["terminated"].is_object())
}

/// Whether the pod waits because its image cannot run.
fn is_refused_image(pod: &Value) -> bool {
    let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
    matches!(
        reason.as_str(),
        Some("ErrImageNotRunnable" | "ImagePullBackOff")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Value {
        json!({"status": {"containerStatuses": [status]}})
    }

    #[test]
    fn a_container_that_crashes_has_run() {
        assert!(has_run(&pod(json!({"state": {"running": {}}}))));
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert!(has_run(&pod(
            json!({"state": waiting, "lastState": {"terminated": {}}})
        )));
        assert!(!has_run(&pod(json!({"state": waiting}))));
        assert!(!has_run(&json!({})));
    }

    #[test]
    fn an_image_that_is_still_compiled_is_not_refused() {
        let waits = |reason: &str| {
            is_refused_image(&pod(json!({"state": {"waiting": {"reason": reason}}})))
        };
        assert!(waits("ErrImageNotRunnable"));
        assert!(!waits("ContainerCreating"));
    }
}
