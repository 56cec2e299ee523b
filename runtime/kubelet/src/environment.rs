//! The environment of a container, from its spec and the objects that the spec names.
//!
//! Order and precedence are the kubelet's upstream: Services, then `envFrom` in order, then `env`;
//! a later value of the same name wins, and `$(NAME)` sees what stands before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_api::field_errors::go_quote;
use indexmap::IndexMap;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, FileKeySelector, PersistentVolume, PersistentVolumeClaim,
    Pod, ResourceFieldSelector, Secret, Service, ServiceAccountTokenProjection,
};

use crate::expand::{MOST_BYTES, expand};
use crate::kubelet::Capacity;
use crate::{env_file, resources, step};

/// The objects that an environment may name.
pub(crate) trait Sources {
    /// A ConfigMap of the pod's namespace.
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>>;
    /// A Secret of the pod's namespace.
    fn secret(&self, name: &str) -> Option<Arc<Secret>>;
    /// The Services of the pod's namespace.
    fn services(&self) -> Vec<Arc<Service>>;
    /// The Service `kubernetes` of the namespace `default`.
    fn kubernetes(&self) -> Option<Arc<Service>>;
    /// What the node has, where a container has no limit.
    fn allocatable(&self) -> Capacity;
    /// The addresses of the node inside the pod network, with commas between.
    fn host_ips(&self) -> String;
    /// The token that a volume's source asks for, if it was fetched.
    fn token(&self, _source: &ServiceAccountTokenProjection) -> Option<String> {
        None
    }
    /// A claim of the pod's namespace.
    fn claim(&self, _name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        None
    }
    /// A volume of the cluster.
    fn volume(&self, _name: &str) -> Option<Arc<PersistentVolume>> {
        None
    }
    /// The folder of the image of the pod's volume of that name, once it was pulled.
    fn image_files(&self, _volume: &str) -> Option<PathBuf> {
        None
    }
    /// The text of a file in an emptyDir volume of the pod: none if it is not there.
    fn file(&self, _volume: &str, path: &str) -> Result<Option<String>, String> {
        Err(format!("{path} cannot be read here"))
    }
}

/// Why a container cannot be configured; the reason shown is `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// An object is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object lacks the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A value is not text.
    #[error(
        "key {key} in Secret {namespace}/{name} is not valid UTF-8, which an environment variable has to be"
    )]
    NotText {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field path that has no value for a pod.
    #[error("unsupported fieldPath: {0}")]
    UnknownField(String),
    /// A resource that is none.
    #[error("unsupported container resource: {0}")]
    UnknownResource(String),
    /// A container that the pod has not.
    #[error("container {0} not found")]
    NoContainer(String),
    /// A file of variables could not be read.
    #[error("failed to read environment variable file {path:?}: {problem}")]
    File {
        /// In its volume.
        path: String,
        /// What was wrong.
        problem: String,
    },
    /// A file of variables lacks the key.
    #[error("environment variable key {key:?} not found in file {path:?}")]
    NoFileKey {
        /// The key.
        key: String,
        /// In its volume.
        path: String,
    },
    /// Values that name each other came to more than [`MOST_BYTES`].
    #[error("with {0} expanded, the container's variables or arguments come to more than 1 MiB")]
    TooLarge(String),
}

/// The environment of `container` in `pod`, which has `addresses` (with commas between); names are unique, in order.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    addresses: &str,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut values: IndexMap<String, String> = IndexMap::new();
    let mut set = |name: String, value: String| {
        values.shift_remove(&name);
        values.insert(name, value);
    };
    let spec = pod.spec.as_ref();
    let with_links = spec
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    for (name, value) in service_variables(with_links, sources) {
        set(name, value);
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.config_map(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("configmap", &reference.name)),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.secret(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let text = String::from_utf8(value.0.clone());
                        set(
                            format!("{prefix}{key}"),
                            text.map_err(|_| not_text(pod, &reference.name, key))?,
                        );
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(not_found("secret", &reference.name)),
            }
        }
    }
    let mut left = MOST_BYTES;
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match value_from(pod, container, addresses, source, sources)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let value = variable.value.as_deref().unwrap_or_default();
                let value = expand(value, left, |name| values.get(name).cloned())
                    .ok_or_else(|| ConfigError::TooLarge(variable.name.clone()))?;
                left -= value.len();
                value
            }
        };
        values.shift_remove(&variable.name);
        values.insert(variable.name.clone(), value);
    }
    Ok(values.into_iter().collect())
}

fn value_from(
    pod: &Pod,
    container: &Container,
    addresses: &str,
    source: &EnvVarSource,
    sources: &dyn Sources,
) -> Result<Option<String>, ConfigError> {
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, addresses, &sources.host_ips()).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let name = reference.container_name.as_deref().unwrap_or_default();
        return if name.is_empty() {
            resource(pod, container, reference, sources).map(Some)
        } else {
            resource_of(pod, name, reference, sources).map(Some)
        };
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = sources.config_map(&reference.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(not_found("configmap", &reference.name))
            };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key));
        return match value {
            None if !optional => Err(no_key("ConfigMap", pod, &reference.name, &reference.key)),
            value => Ok(value.cloned()),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = sources.secret(&reference.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(not_found("secret", &reference.name))
            };
        };
        return match secret
            .data
            .as_ref()
            .and_then(|data| data.get(&reference.key))
        {
            None if !optional => Err(no_key("Secret", pod, &reference.name, &reference.key)),
            None => Ok(None),
            Some(value) => String::from_utf8(value.0.clone())
                .map(Some)
                .map_err(|_| not_text(pod, &reference.name, &reference.key)),
        };
    }
    if let Some(reference) = &source.file_key_ref {
        return file_value(reference, sources);
    }
    Ok(None)
}

/// The value of a resource of the container of that name, be it one that runs before the others or beside them.
pub(crate) fn resource_of(
    pod: &Pod,
    name: &str,
    reference: &ResourceFieldSelector,
    sources: &dyn Sources,
) -> Result<String, ConfigError> {
    let part = step::part(pod, name).ok_or_else(|| ConfigError::NoContainer(name.to_owned()))?;
    resource(pod, &part.container, reference, sources)
}

fn resource(
    pod: &Pod,
    container: &Container,
    reference: &ResourceFieldSelector,
    sources: &dyn Sources,
) -> Result<String, ConfigError> {
    let divisor = reference.divisor.as_ref();
    let divisor = divisor.map(|quantity| quantity.0.as_str());
    let node = sources.allocatable();
    let spec = pod.spec.as_ref();
    let allocatable = spec.map_or(node, |spec| resources::allocatable(spec, node));
    resources::field(container, &reference.resource, divisor, &allocatable)
        .ok_or_else(|| ConfigError::UnknownResource(reference.resource.clone()))
}

/// The value that a container before this one wrote into a file.
fn file_value(
    reference: &FileKeySelector,
    sources: &dyn Sources,
) -> Result<Option<String>, ConfigError> {
    let failed = |problem| ConfigError::File {
        path: reference.path.clone(),
        problem,
    };
    let optional = reference.optional == Some(true);
    let text = sources
        .file(&reference.volume_name, &reference.path)
        .map_err(failed)?;
    let value = match text {
        Some(text) => env_file::value(&text, &reference.key).map_err(failed)?,
        None if optional => None,
        None => return Err(failed("no such file".to_owned())),
    };
    match value {
        None if !optional => Err(ConfigError::NoFileKey {
            key: reference.key.clone(),
            path: reference.path.clone(),
        }),
        value => Ok(value),
    }
}

/// The value of a downward API field path, of a pod and a node with those addresses (commas between).
pub(crate) fn field(
    pod: &Pod,
    path: &str,
    addresses: &str,
    host_ips: &str,
) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let subscript = |prefix: &str| {
        path.strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix("['"))
            .and_then(|rest| rest.strip_suffix("']"))
    };
    let first = |addresses: &str| {
        let first = addresses.split(',').next();
        first.unwrap_or_default().to_owned()
    };
    let all = |map: &Option<BTreeMap<String, String>>| {
        let lines = map
            .iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", go_quote(value)));
        lines.collect::<Vec<_>>().join("\n")
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => all(&meta.labels),
        "metadata.annotations" => all(&meta.annotations),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.podIP" => first(addresses),
        "status.podIPs" => addresses.to_owned(),
        "status.hostIP" => first(host_ips),
        "status.hostIPs" => host_ips.to_owned(),
        _ => match (
            subscript("metadata.labels"),
            subscript("metadata.annotations"),
        ) {
            (Some(key), _) => entry(&meta.labels, key),
            (_, Some(key)) => entry(&meta.annotations, key),
            _ => return Err(ConfigError::UnknownField(path.to_owned())),
        },
    })
}

/// `NAME_SERVICE_HOST` and the Docker-links-style variables of every Service with an address; those
/// of `kubernetes` always.
fn service_variables(with_links: bool, sources: &dyn Sources) -> Vec<(String, String)> {
    let mut services = if with_links {
        sources.services()
    } else {
        Vec::new()
    };
    services.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let kubernetes = sources.kubernetes();
    let is_listed = |service: &Arc<Service>| {
        services
            .iter()
            .any(|s| s.metadata.uid == service.metadata.uid)
    };
    if let Some(service) = kubernetes.filter(|service| !is_listed(service)) {
        services.insert(0, service);
    }
    let mut variables = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec
            .cluster_ip
            .as_deref()
            .filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        let name = service
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .to_uppercase()
            .replace('-', "_");
        let Some(first) = spec.ports.iter().flatten().next() else {
            continue;
        };
        variables.push((format!("{name}_SERVICE_HOST"), address.to_owned()));
        variables.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
        for port in spec.ports.iter().flatten() {
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                variables.push((
                    format!("{name}_SERVICE_PORT_{port_name}"),
                    port.port.to_string(),
                ));
            }
        }
        let protocol = |port: &k8s_openapi::api::core::v1::ServicePort| {
            port.protocol.clone().unwrap_or_else(|| "TCP".into())
        };
        let host = match address.contains(':') {
            true => format!("[{address}]"),
            false => address.to_owned(),
        };
        let url = |port| format!("{}://{host}:", protocol(port).to_lowercase());
        variables.push((
            format!("{name}_PORT"),
            format!("{}{}", url(first), first.port),
        ));
        for port in spec.ports.iter().flatten() {
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port));
            variables.push((prefix.clone(), format!("{}{}", url(port), port.port)));
            variables.push((format!("{prefix}_PROTO"), protocol(port).to_lowercase()));
            variables.push((format!("{prefix}_PORT"), port.port.to_string()));
            variables.push((format!("{prefix}_ADDR"), address.to_owned()));
        }
    }
    variables
}

fn not_found(kind: &'static str, name: &str) -> ConfigError {
    ConfigError::NotFound {
        kind,
        name: name.to_owned(),
    }
}

fn no_key(kind: &'static str, pod: &Pod, name: &str, key: &str) -> ConfigError {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    ConfigError::NoKey {
        kind,
        namespace,
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

fn not_text(pod: &Pod, name: &str, key: &str) -> ConfigError {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    ConfigError::NotText {
        namespace,
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
