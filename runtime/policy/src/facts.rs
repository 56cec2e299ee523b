//! What is known of pods and namespaces: as much as decisions need.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use coracle_client::ObjectKey;
use coracle_network::Protocol;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::hosts::AllowedHosts;
use crate::rules::Policy;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// One pod.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub(crate) labels: Labels,
    /// Named ports of its containers.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
    /// Its addresses, as far as its status tells them.
    pub(crate) addresses: Vec<IpAddr>,
    /// The hosts outside that it may reach; `None`: all.
    pub(crate) hosts: Option<Arc<AllowedHosts>>,
}

/// One namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceFacts {
    pub(crate) labels: Labels,
    /// The hosts outside that its pods may reach; `None`: all.
    pub(crate) hosts: Option<Arc<AllowedHosts>>,
}

impl PodFacts {
    /// Reads an object.
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let containers = spec.iter().flat_map(|spec| {
            let init = spec.init_containers.iter().flatten();
            spec.containers.iter().chain(init)
        });
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let ports = ports.filter_map(|port| {
            let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => return None,
            };
            Some((
                port.name.clone()?,
                protocol,
                u16::try_from(port.container_port).ok()?,
            ))
        });
        let status = pod.status.as_ref();
        // The address of a pod that has ended may be another's by now.
        let is_over = status.and_then(|status| status.phase.as_deref());
        let is_over = matches!(is_over, Some("Succeeded" | "Failed"));
        let on_host = spec.is_some_and(|spec| spec.host_network == Some(true));
        let addresses = status.filter(|_| !is_over && !on_host);
        let addresses = addresses.iter().flat_map(|status| {
            let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
            all.chain(status.pod_ip.as_deref())
        });
        let mut addresses: Vec<IpAddr> = addresses.filter_map(|text| text.parse().ok()).collect();
        addresses.dedup();
        Self {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ports: ports.collect(),
            addresses,
            hosts: AllowedHosts::of(&pod.metadata),
        }
    }
}

impl NamespaceFacts {
    /// Reads an object's metadata. Every namespace has its name as a label (`kubernetes.io/metadata.name`).
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            labels: metadata.labels.clone().unwrap_or_default(),
            hosts: AllowedHosts::of(metadata),
        }
    }
}

/// Everything that decisions are made by.
#[derive(Debug, Default)]
pub struct Facts {
    pub(crate) pods: HashMap<ObjectKey, PodFacts>,
    pub(crate) by_address: HashMap<IpAddr, ObjectKey>,
    pub(crate) namespaces: HashMap<String, NamespaceFacts>,
    /// By namespace, then by name.
    pub(crate) policies: HashMap<String, BTreeMap<String, Arc<Policy>>>,
    /// How many pods and namespaces restrict the hosts outside.
    pub(crate) restricted: usize,
}

impl Facts {
    /// Puts a pod in, in place of what was known of it.
    pub fn put_pod(&mut self, key: ObjectKey, pod: PodFacts) {
        self.take_pod(&key);
        for address in &pod.addresses {
            self.by_address.insert(*address, key.clone());
        }
        self.restricted += usize::from(pod.hosts.is_some());
        self.pods.insert(key, pod);
    }

    /// Forgets a pod.
    pub fn take_pod(&mut self, key: &ObjectKey) {
        let Some(pod) = self.pods.remove(key) else {
            return;
        };
        self.restricted -= usize::from(pod.hosts.is_some());
        for address in &pod.addresses {
            if self.by_address.get(address) == Some(key) {
                self.by_address.remove(address);
            }
        }
    }

    /// Puts a namespace in.
    pub fn put_namespace(&mut self, name: String, namespace: NamespaceFacts) {
        self.take_namespace(&name);
        self.restricted += usize::from(namespace.hosts.is_some());
        self.namespaces.insert(name, namespace);
    }

    /// Forgets a namespace.
    pub fn take_namespace(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.remove(name) {
            self.restricted -= usize::from(namespace.hosts.is_some());
        }
    }

    /// Puts a policy in.
    pub fn put_policy(&mut self, policy: Policy) {
        let policies = self
            .policies
            .entry(policy.key.namespace.clone())
            .or_default();
        policies.insert(policy.key.name.clone(), Arc::new(policy));
    }

    /// Forgets a policy.
    pub fn take_policy(&mut self, key: &ObjectKey) {
        if let Some(policies) = self.policies.get_mut(&key.namespace) {
            policies.remove(&key.name);
            if policies.is_empty() {
                self.policies.remove(&key.namespace);
            }
        }
    }
}
