//! From a pod's spec to what the pod runtime is asked for.

use std::net::IpAddr;
use std::path::PathBuf;

use coracle_cri::{
    ContainerConfig, ContainerId, ContainerPort, ImageRef, ImageRequest, Mount, PodSandboxConfig,
    PullPolicy, Resize, SandboxId, SandboxResize, TerminationMessage,
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::dns;
use crate::environment::ConfigError;
use crate::expand::{MOST_BYTES, expand};
use crate::hostname::{FullNameTooLong, PodNames, pod_names};
use crate::resources::{Resources, cpu_weight, pod_cpu_limit, pod_memory_limit};
use crate::step::ContainerRecord;

/// What a node's pods share.
#[derive(Clone, Debug)]
pub struct PodDefaults {
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// The addresses of the cluster's DNS server, in the order in which pods ask them.
    pub cluster_dns: Vec<IpAddr>,
    /// The host's own settings, of which pods have the search suffixes, or all if their `dnsPolicy`
    /// says so.
    pub resolv_conf: PathBuf,
    /// The folder that holds a folder per pod.
    pub pods_directory: PathBuf,
}

impl PodDefaults {
    /// The folder of one pod: logs, volumes, files.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.pods_directory.join(uid)
    }

    /// The folder of a pod's log files.
    pub fn log_directory(&self, uid: &str) -> PathBuf {
        self.pod_directory(uid).join("logs")
    }
}

/// The sandbox of `pod` at `address`, without one of the other family and with a network of its own.
pub(crate) fn sandbox(
    pod: &Pod,
    address: IpAddr,
    defaults: &PodDefaults,
) -> Result<PodSandboxConfig, FullNameTooLong> {
    let spec = pod.spec.clone().unwrap_or_default();
    let (namespace, name) = names(pod);
    let PodNames {
        hostname,
        full_name,
    } = pod_names(pod, &defaults.cluster_domain)?;
    Ok(PodSandboxConfig {
        id: sandbox_id(pod),
        pod: format!("{namespace}/{name}"),
        hostname,
        full_name,
        address,
        second_address: None,
        host_network: false,
        host_aliases: spec
            .host_aliases
            .iter()
            .flatten()
            .filter_map(|alias| {
                Some((
                    alias.ip.parse().ok()?,
                    alias.hostnames.clone().unwrap_or_default(),
                ))
            })
            .collect(),
        dns: dns::config(&spec, namespace, defaults),
        log_directory: defaults.log_directory(uid(pod)),
        memory_limit: pod_memory_limit(&spec),
        cpu_limit_millis: pod_cpu_limit(&spec),
    })
}

/// The run number `restart_count` of `container` with that environment, its volumes already on disk.
pub(crate) fn container(
    pod: &Pod,
    container: &Container,
    image: ImageRef,
    restart_count: u32,
    mounts: Vec<Mount>,
    env: Vec<(String, String)>,
) -> Result<ContainerConfig, ConfigError> {
    let lookup = |name: &str| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    let mut left = MOST_BYTES;
    let mut expanded = |list: &Option<Vec<String>>| -> Result<Vec<String>, ConfigError> {
        let expand_one = |text: &String| {
            let text =
                expand(text, left, lookup).ok_or_else(|| ConfigError::TooLarge(text.clone()))?;
            left -= text.len();
            Ok(text)
        };
        list.iter().flatten().map(expand_one).collect()
    };
    let resources = Resources::of(container);
    Ok(ContainerConfig {
        id: ContainerId {
            sandbox: sandbox_id(pod),
            name: container.name.clone(),
        },
        image,
        command: expanded(&container.command)?,
        args: expanded(&container.args)?,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        read_only_root: container
            .security_context
            .as_ref()
            .is_some_and(|context| context.read_only_root_filesystem == Some(true)),
        ports: container
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(ContainerPort {
                    name: port.name.clone().unwrap_or_default(),
                    port: u16::try_from(port.container_port).ok()?,
                    tcp: port.protocol.as_deref().unwrap_or("TCP") == "TCP",
                })
            })
            .collect(),
        memory_limit: resources.memory_limit,
        cpu_limit_millis: resources.cpu_limit_millis,
        cpu_weight_millis: pod
            .spec
            .as_ref()
            .map_or(1, |spec| cpu_weight(spec, container)),
        restart_count,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        termination_message: TerminationMessage {
            path: container
                .termination_message_path
                .clone()
                .unwrap_or_else(|| "/dev/termination-log".to_owned()),
            fall_back_to_logs: container.termination_message_policy.as_deref()
                == Some("FallbackToLogsOnError"),
        },
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        env,
    })
}

/// What `container` of a pod with that spec may use from now on.
pub(crate) fn resize(spec: &PodSpec, container: &Container) -> Resize {
    let resources = Resources::of(container);
    Resize {
        memory_limit: resources.memory_limit,
        cpu_limit_millis: resources.cpu_limit_millis,
        cpu_weight_millis: cpu_weight(spec, container),
        pod_memory_limit: pod_memory_limit(spec),
        pod_cpu_limit_millis: pod_cpu_limit(spec),
    }
}

/// What a pod with that spec may use as a whole from now on.
pub(crate) fn resize_sandbox(spec: &PodSpec) -> SandboxResize {
    SandboxResize {
        memory_limit: pod_memory_limit(spec),
        cpu_limit_millis: pod_cpu_limit(spec),
    }
}

/// The image of `container`; an image that ran before may come from the node when its file is gone.
pub(crate) fn image(container: &Container, record: &ContainerRecord) -> ImageRequest {
    let image = container.image.clone().unwrap_or_default();
    let known = record
        .image_ref
        .as_ref()
        .filter(|known| known.image == image);
    ImageRequest {
        policy: match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        },
        known_digest: known.map(|known| known.digest.clone()),
        pull_secrets: Vec::new(),
        command: container.command.clone().unwrap_or_default(),
        image,
    }
}

/// The sandbox of a pod is named by the pod's UID.
pub(crate) fn sandbox_id(pod: &Pod) -> SandboxId {
    SandboxId(uid(pod).to_owned())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn names(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaults() -> PodDefaults {
        PodDefaults {
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec![[10, 96, 0, 10].into()],
            resolv_conf: "/nonexistent".into(),
            pods_directory: "/pods".into(),
        }
    }

    fn pod(spec: serde_json::Value) -> Pod {
        let pod =
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec});
        serde_json::from_value(pod).expect("valid")
    }

    #[test]
    fn cluster_first_looks_in_the_pods_namespace_first() {
        let config = sandbox(
            &pod(json!({"containers": []})),
            [10, 240, 0, 2].into(),
            &defaults(),
        )
        .expect("a short name");
        assert_eq!(config.dns.searches[0], "shop.svc.cluster.local");
        assert_eq!(config.dns.options, ["ndots:5"]);
        assert_eq!(
            (config.hostname.as_str(), config.pod.as_str()),
            ("web", "shop/web")
        );
    }

    #[test]
    fn a_pod_is_limited_when_all_its_containers_are() {
        let limited = json!({"name": "a", "resources": {"limits": {"memory": "1Mi"}}});
        let both = sandbox(
            &pod(json!({"containers": [limited, limited]})),
            [10, 0, 0, 2].into(),
            &defaults(),
        )
        .expect("a short name");
        assert_eq!(both.memory_limit, Some(2 << 20));
        let one = sandbox(
            &pod(json!({"containers": [limited, {"name": "b"}]})),
            [10, 0, 0, 2].into(),
            &defaults(),
        )
        .expect("a short name");
        assert_eq!(one.memory_limit, None);
    }
}
