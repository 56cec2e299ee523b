//! The containers of a pod by what they are to it, and whether a run is followed by another.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, LifecycleHandler, Pod, PodSpec,
};

/// Actions of restart rules.
const RESTART: &str = "Restart";
const RESTART_ALL: &str = "RestartAllContainers";

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: the next one starts once it has started, and
    /// it runs until the main containers have ended.
    Sidecar,
    /// What the pod is there for.
    Main,
    /// Added to a running pod to look into it; never started again.
    Debug,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Its spec; that of a [`Role::Debug`] container as if it were any other.
    pub container: Cow<'a, Container>,
    /// What it is.
    pub role: Role,
}

/// All containers, in the order of their start: init containers and sidecars, main ones, those to
/// debug with.
pub fn parts(spec: &PodSpec) -> impl Iterator<Item = Part<'_>> {
    let init = spec.init_containers.iter().flatten().map(|container| Part {
        role: if container.restart_policy.as_deref() == Some("Always") {
            Role::Sidecar
        } else {
            Role::Init
        },
        container: Cow::Borrowed(container),
    });
    let main = spec.containers.iter().map(|container| Part {
        role: Role::Main,
        container: Cow::Borrowed(container),
    });
    let debug = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|container| Part {
            role: Role::Debug,
            container: Cow::Owned(plain(container)),
        });
    init.chain(main).chain(debug)
}

/// The container of that name.
pub fn part<'a>(pod: &'a Pod, name: &str) -> Option<Part<'a>> {
    parts(pod.spec.as_ref()?).find(|part| part.container.name == name)
}

impl Part<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// What is called once it runs.
    pub fn post_start(&self) -> Option<&LifecycleHandler> {
        self.container.lifecycle.as_ref()?.post_start.as_ref()
    }

    /// What is called before it is asked to end.
    pub fn pre_stop(&self) -> Option<&LifecycleHandler> {
        self.container.lifecycle.as_ref()?.pre_stop.as_ref()
    }

    /// Whether such an end has all containers of the pod start over.
    pub fn restarts_all(&self, exit_code: i32) -> bool {
        self.role != Role::Debug && self.rule(exit_code) == Some(RESTART_ALL)
    }

    /// Whether any end has.
    pub fn may_restart_all(&self) -> bool {
        let mut rules = self.container.restart_policy_rules.iter().flatten();
        self.container.restart_policy.is_some() && rules.any(|rule| rule.action == RESTART_ALL)
    }

    /// What the first rule that matches asks for; rules count beside a policy only.
    fn rule(&self, exit_code: i32) -> Option<&str> {
        self.container.restart_policy.as_ref()?;
        let mut rules = self.container.restart_policy_rules.iter().flatten();
        let rule = rules.find(|rule| matches(rule, exit_code))?;
        Some(rule.action.as_str())
    }

    /// Whether a run that ended with `exit_code` is followed by another: the first of the container's
    /// rules that matches, else its policy, else the pod's (upstream's `ContainerShouldRestart`).
    pub fn restarts(&self, spec: &PodSpec, exit_code: i32) -> bool {
        match self.role {
            Role::Debug => false,
            Role::Sidecar => true,
            // It has done what it was there for.
            Role::Init if exit_code == 0 => false,
            Role::Init | Role::Main => {
                let own = self.container.restart_policy.as_deref();
                if matches!(self.rule(exit_code), Some(RESTART | RESTART_ALL)) {
                    return true;
                }
                match own.or(spec.restart_policy.as_deref()) {
                    Some("Never") => false,
                    Some("OnFailure") => exit_code != 0,
                    _ => true,
                }
            }
        }
    }
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}

/// An ephemeral container in the shape of the others.
fn plain(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        lifecycle: container.lifecycle,
        liveness_probe: container.liveness_probe,
        name: container.name,
        ports: container.ports,
        readiness_probe: container.readiness_probe,
        resize_policy: container.resize_policy,
        resources: container.resources,
        restart_policy: container.restart_policy,
        restart_policy_rules: container.restart_policy_rules,
        security_context: container.security_context,
        startup_probe: container.startup_probe,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_devices: container.volume_devices,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn restarts(pod: &str, init: bool, own: Value, exit_code: i32) -> bool {
        let mut container = json!({"name": "c"});
        if let (Value::Object(container), Value::Object(own)) = (&mut container, own) {
            container.extend(own);
        }
        let (inits, mains) = if init {
            (json!([container]), json!([]))
        } else {
            (json!([]), json!([container]))
        };
        let spec = json!({"restartPolicy": pod, "initContainers": inits, "containers": mains});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let part = parts(&spec).next().expect("a container");
        part.restarts(&spec, exit_code)
    }

    #[test]
    fn the_first_rule_that_matches_decides_then_the_containers_policy_then_the_pods() {
        let rules = |operator: &str| {
            json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]})
        };
        for (pod, own, exit_code, expected) in [
            ("Always", json!({}), 0, true),
            ("OnFailure", json!({}), 0, false),
            ("OnFailure", json!({}), 1, true),
            ("Never", json!({}), 1, false),
            ("Never", json!({"restartPolicy": "OnFailure"}), 1, true),
            ("Never", json!({"restartPolicy": "OnFailure"}), 0, false),
            ("Always", json!({"restartPolicy": "Never"}), 1, false),
            ("Never", rules("In"), 42, true),
            ("Always", rules("In"), 41, false),
            ("Always", rules("NotIn"), 42, false),
            ("Never", rules("NotIn"), 41, true),
        ] {
            let found = restarts(pod, false, own.clone(), exit_code);
            assert_eq!(found, expected, "{pod} {own} {exit_code}");
        }
    }

    #[test]
    fn an_init_container_that_succeeded_is_done_and_a_sidecar_never_is() {
        assert!(!restarts("Always", true, json!({}), 0));
        assert!(restarts("Always", true, json!({}), 1));
        assert!(!restarts("Never", true, json!({}), 1));
        let sidecar = json!({"restartPolicy": "Always"});
        assert!(restarts("Never", true, sidecar.clone(), 0));
        assert!(restarts("Never", true, sidecar, 1));
        assert!(restarts(
            "Never",
            true,
            json!({"restartPolicy": "OnFailure"}),
            1
        ));
    }
}
