//! A Pod's row: `printPod` of `pkg/printers/internalversion`.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{age, since};
use crate::{At, Object};

/// The cells of a Pod, in the order of its columns.
pub(super) fn cells(pod: &Object, now: Timestamp) -> Vec<Value> {
    let state = State::of(pod);
    let mut restarts = state.restarts.to_string();
    if let (true, Some(last)) = (state.restarts != 0, state.last_restart) {
        restarts = format!("{restarts} ({} ago)", since(last, now));
    }
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let addresses = pod.at("status.podIPs");
    vec![
        Value::from(pod.name()),
        Value::from(format!("{}/{}", state.ready, state.total)),
        Value::from(state.reason),
        Value::from(restarts),
        age(pod, now),
        or_none(addresses.index(0).key("ip").str()),
        or_none(pod.at("spec.nodeName").str()),
        or_none(pod.at("status.nominatedNodeName").str()),
        readiness_gates(pod),
    ]
}

/// What the columns Ready, Status and Restarts summarise.
struct State {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl State {
    fn of(pod: &Object) -> Self {
        let (spec, status) = (pod.at("spec"), pod.at("status"));
        let init_containers = spec.key("initContainers");
        let sidecars: HashSet<&str> = init_containers
            .items()
            .filter(|container| container.key("restartPolicy").str() == "Always")
            .map(|container| container.key("name").str())
            .collect();
        let mut state = State {
            reason: first_reason(&status),
            ready: 0,
            total: spec.key("containers").len() + sidecars.len(),
            restarts: 0,
            last_restart: None,
        };
        let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
        let mut initializing = false;
        for (index, container) in status.key("initContainerStatuses").items().enumerate() {
            state.count_restarts(&container);
            let sidecar = sidecars.contains(container.key("name").str());
            if sidecar {
                sidecar_restarts += container.key("restartCount").as_i64().unwrap_or(0);
                last_sidecar_restart = last_sidecar_restart.max(last_termination(&container));
            }
            let (terminated, waiting) = (
                container.at("state.terminated"),
                container.at("state.waiting.reason"),
            );
            if terminated.exists() && terminated.key("exitCode").as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && container.key("started").is_true() {
                state.ready += usize::from(container.key("ready").is_true());
                continue;
            }
            state.reason = if terminated.exists() {
                format!("Init:{}", termination_reason(&terminated))
            } else if !waiting.str().is_empty() && waiting.str() != "PodInitializing" {
                format!("Init:{}", waiting.str())
            } else {
                format!("Init:{index}/{}", init_containers.len())
            };
            initializing = true;
            break;
        }
        if !initializing || has_condition(&status, "Initialized") {
            (state.restarts, state.last_restart) = (sidecar_restarts, last_sidecar_restart);
            state.add_containers(&status);
        }
        if pod.is_terminating() {
            let phase = status.key("phase");
            if status.key("reason").str() == "NodeLost" {
                state.reason = "Unknown".to_owned();
            } else if !["Succeeded", "Failed"].contains(&phase.str()) {
                state.reason = "Terminating".to_owned();
            }
        }
        state
    }

    fn add_containers(&mut self, status: &At<'_>) {
        let mut has_running = false;
        let containers = status.key("containerStatuses");
        // The first container's reason is shown, so it is looked at last.
        for index in (0..containers.len()).rev() {
            let container = containers.index(index);
            self.count_restarts(&container);
            let (terminated, waiting) = (
                container.at("state.terminated"),
                container.at("state.waiting.reason"),
            );
            if !waiting.str().is_empty() {
                self.reason = waiting.str().to_owned();
            } else if terminated.exists() {
                self.reason = termination_reason(&terminated);
            } else if container.key("ready").is_true() && container.at("state.running").exists() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            self.reason = if has_condition(status, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .to_owned();
        }
    }

    fn count_restarts(&mut self, container: &At<'_>) {
        self.restarts += container.key("restartCount").as_i64().unwrap_or(0);
        self.last_restart = self.last_restart.max(last_termination(container));
    }
}

fn first_reason(status: &At<'_>) -> String {
    let gated = status.key("conditions").items().any(|condition| {
        condition.key("type").str() == "PodScheduled"
            && condition.key("reason").str() == "SchedulingGated"
    });
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = status.key("reason").str();
    if reason.is_empty() {
        status.key("phase").str().to_owned()
    } else {
        reason.to_owned()
    }
}

fn termination_reason(terminated: &At<'_>) -> String {
    let signal = terminated.key("signal").as_i64().unwrap_or(0);
    match terminated.key("reason").str() {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!(
            "ExitCode:{}",
            terminated.key("exitCode").as_i64().unwrap_or(0)
        ),
        reason => reason.to_owned(),
    }
}

fn last_termination(container: &At<'_>) -> Option<Timestamp> {
    container
        .at("lastState.terminated.finishedAt")
        .str()
        .parse()
        .ok()
}

fn has_condition(status: &At<'_>, kind: &str) -> bool {
    status.key("conditions").items().any(|condition| {
        condition.key("type").str() == kind && condition.key("status").str() == "True"
    })
}

fn readiness_gates(pod: &Object) -> Value {
    let gates = pod.at("spec.readinessGates");
    if gates.is_empty() {
        return Value::from("<none>");
    }
    let status = pod.at("status");
    let open = gates
        .items()
        .filter(|gate| has_condition(&status, gate.key("conditionType").str()))
        .count();
    Value::from(format!("{open}/{}", gates.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(pod: Value) -> Vec<Value> {
        let pod = Object::from_value(pod).expect("an object");
        cells(&pod, "2030-01-01T00:01:00Z".parse().expect("a time"))
    }

    fn status(container: Value) -> Value {
        json!({
            "metadata": {"name": "x", "creationTimestamp": "2030-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": "Running", "containerStatuses": [container]},
        })
    }

    #[test]
    fn a_crashing_container_is_shown_with_its_last_restart() {
        let cells = row(status(json!({
            "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2030-01-01T00:00:55Z"}},
        })));
        assert_eq!(
            cells[1..5],
            [
                json!("0/1"),
                json!("CrashLoopBackOff"),
                json!("3 (5s ago)"),
                json!("60s")
            ]
        );
    }

    #[test]
    fn a_container_that_ended_shows_why() {
        assert_eq!(
            row(status(json!({"state": {"terminated": {"exitCode": 3}}})))[2],
            json!("ExitCode:3")
        );
        assert_eq!(
            row(status(
                json!({"state": {"terminated": {"reason": "OOMKilled"}}})
            ))[2],
            json!("OOMKilled")
        );
    }

    #[test]
    fn a_pod_that_is_being_deleted_terminates() {
        let mut pod = status(json!({"ready": true, "state": {"running": {}}}));
        assert_eq!(row(pod.clone())[1..3], [json!("1/1"), json!("Running")]);
        pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:30Z");
        assert_eq!(row(pod)[2], json!("Terminating"));
    }

    #[test]
    fn an_init_container_holds_the_others_up() {
        let pod = json!({
            "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "state": {"running": {}}},
            ]},
        });
        assert_eq!(row(pod)[2], json!("Init:1/2"));
    }
}
