//! `/livez`, `/readyz`, `/healthz` and `/version`.

use http::StatusCode;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::request_info::RequestInfo;

/// The Kubernetes version whose contract is kept.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

/// A named check: whether it passes now.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks behind the health paths.
#[derive(Default)]
pub(crate) struct Health {
    ready: RwLock<Vec<(String, Check)>>,
}

impl Health {
    /// Adds a check of readiness; liveness has only `ping`.
    pub(crate) fn add_ready_check(&self, name: impl Into<String>, check: Check) {
        self.ready.write().push((name.into(), check));
    }

    /// Answers a health path; `None` for other paths.
    pub(crate) fn answer(&self, info: &RequestInfo, draining: bool) -> Option<Answer> {
        let path = info.path.trim_end_matches('/');
        let (kind, one) = ["healthz", "livez", "readyz"]
            .into_iter()
            .find_map(|kind| {
                let rest = path.strip_prefix('/')?.strip_prefix(kind)?;
                (rest.is_empty() || rest.starts_with('/'))
                    .then(|| (kind, rest.trim_start_matches('/')))
            })?;
        let mut results: Vec<(String, Result<(), String>)> = vec![("ping".to_owned(), Ok(()))];
        if kind != "livez" {
            results.extend(
                self.ready
                    .read()
                    .iter()
                    .map(|(name, check)| (name.clone(), check())),
            );
        }
        if kind == "readyz" {
            let stopping = if draining {
                Err("process is shutting down".to_owned())
            } else {
                Ok(())
            };
            results.push(("shutdown".to_owned(), stopping));
        }
        if !one.is_empty() {
            let result = results.into_iter().find(|(name, _)| name == one);
            return Some(match result {
                None => Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
                Some((_, Ok(()))) => Answer::text(StatusCode::OK, "ok"),
                Some((name, Err(why))) => Answer::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {name}: {why}\n"),
                ),
            });
        }
        let excluded: Vec<&str> = info.query.all("exclude").collect();
        results.retain(|(name, _)| !excluded.contains(&name.as_str()));
        Some(report(kind, &results, info.query.has("verbose")))
    }
}

fn report(kind: &str, results: &[(String, Result<(), String>)], verbose: bool) -> Answer {
    let healthy = results.iter().all(|(_, result)| result.is_ok());
    if healthy && !verbose {
        return Answer::text(StatusCode::OK, "ok");
    }
    let mut text = String::new();
    for (name, result) in results {
        match result {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(why) => text.push_str(&format!("[-]{name} failed: {why}\n")),
        }
    }
    text.push_str(&format!(
        "{kind} check {}\n",
        if healthy { "passed" } else { "failed" }
    ));
    // A load balancer tells "not now" from "broken" by the code.
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Answer::text(status, text)
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
