//! `/livez`, `/readyz`, `/healthz`, `/version` and `/statusz`.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use parking_lot::RwLock;
use serde_json::{Value, json};

mod slis;
pub(crate) mod statusz;

use crate::answer::Answer;
use crate::request_info::RequestInfo;

/// The Kubernetes version whose contract is kept.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

/// A named check: whether it passes now.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The name that clients know the store's check by.
pub(crate) const STORE: &str = "etcd";

/// The health paths.
const PATHS: [&str; 3] = ["healthz", "livez", "readyz"];

/// The checks behind the health paths.
#[derive(Default)]
pub(crate) struct Health {
    ready: RwLock<Vec<(String, Check)>>,
    components: RwLock<BTreeMap<String, Check>>,
    slis: slis::Slis,
}

/// What became of a check, by its name.
pub(crate) type Checked = (String, Result<(), String>);

impl Health {
    /// Adds a check of readiness.
    pub(crate) fn add_ready_check(&self, name: impl Into<String>, check: Check) {
        self.ready.write().push((name.into(), check));
    }

    /// Adds a part of the control plane.
    pub(crate) fn add_component(&self, name: impl Into<String>, check: Check) {
        self.components.write().insert(name.into(), check);
    }

    /// The parts of the control plane by name, and whether they do their work now.
    pub(crate) fn components(&self) -> Vec<Checked> {
        let components = self.components.read();
        let checked = components
            .iter()
            .map(|(name, check)| (name.clone(), check()));
        checked.collect()
    }

    /// Answers a health path; `None` for other paths.
    ///
    /// As upstream's `healthz.InstallPathHandler`: the paths are public, so why a check fails is told by the path of that
    /// check alone.
    pub(crate) fn answer(&self, info: &RequestInfo, draining: bool) -> Option<Answer> {
        let path = info.path.strip_prefix('/')?;
        let (kind, one) = match path.split_once('/') {
            Some((kind, one)) => (kind, Some(one)),
            None => (path, None),
        };
        let kind = PATHS.into_iter().find(|known| *known == kind)?;
        let results = self.check(kind, draining);
        if let Some(one) = one {
            let result = results.into_iter().find(|(name, _)| name == one);
            return Some(match result {
                None => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
                Some((_, Ok(()))) => Answer::text(StatusCode::OK, "ok"),
                Some((_, Err(why))) => failure(format!("internal server error: {why}\n")),
            });
        }
        let excluded: BTreeSet<&str> = info.query.all("exclude").collect();
        for (name, result) in &results {
            if !excluded.contains(name.as_str()) {
                self.slis.count(kind, name, result.is_ok());
            }
        }
        Some(report(kind, &results, excluded, info.query.has("verbose")))
    }

    /// The document of `/metrics/slis`.
    pub(crate) fn slis(&self) -> Answer {
        Answer::metrics(self.slis.render())
    }

    fn check(&self, kind: &str, draining: bool) -> Vec<Checked> {
        let mut results: Vec<Checked> = vec![("ping".to_owned(), Ok(()))];
        if kind == "livez" {
            // Who is alive can be read from; that writes are refused, as for want of room, no restart would help.
            results.push((STORE.to_owned(), Ok(())));
            return results;
        }
        let ready = self.ready.read();
        results.extend(ready.iter().map(|(name, check)| (name.clone(), check())));
        if kind == "readyz" {
            // The caches are filled before the first request is answered.
            results.push(("informer-sync".to_owned(), Ok(())));
            let stopping = match draining {
                true => Err("process is shutting down".to_owned()),
                false => Ok(()),
            };
            results.push(("shutdown".to_owned(), stopping));
        }
        results
    }
}

fn failure(text: String) -> Answer {
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn report(kind: &str, results: &[Checked], mut excluded: BTreeSet<&str>, verbose: bool) -> Answer {
    let mut text = String::new();
    let mut healthy = true;
    for (name, result) in results {
        if excluded.remove(name.as_str()) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match result {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                healthy = false;
                tracing::debug!(kind, name, why, "a health check failed");
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        let unknown: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let unknown = unknown.join(",");
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {unknown}\n"
        ));
    }
    match (healthy, verbose) {
        (false, _) => failure(format!("{text}{kind} check failed\n")),
        (true, false) => Answer::text(StatusCode::OK, "ok"),
        (true, true) => Answer::text(StatusCode::OK, format!("{text}{kind} check passed\n")),
    }
}

/// The body of `/version`.
pub(crate) fn version() -> Value {
    let (major, minor) = ("1", "36");
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("{KUBERNETES_VERSION}+coracle"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": concat!("none; coracle ", env!("CARGO_PKG_VERSION")),
        "compiler": "rustc",
        "platform": format!("{}/{}", os(), architecture()),
    })
}

fn os() -> &'static str {
    if std::env::consts::OS == "macos" {
        "darwin"
    } else {
        std::env::consts::OS
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
