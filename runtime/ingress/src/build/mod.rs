//! From the cluster's objects to the routing table: a pure function, with what is wrong with each Ingress.

mod problem;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_client::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressSpec,
};
use regex::RegexBuilder;
use rustls::sign::CertifiedKey;

use crate::certificates::{Certificates, SecretProblem};
use crate::settings::{OWN, Settings};
use crate::table::{Backend, Match, Table, Target};
pub(crate) use problem::Problem;

/// What IngressClasses call this controller.
pub const CONTROLLER: &str = "coracle.dev/ingress";
/// Marks the class of Ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// How a class was named before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Names the backend of a class's requests that no Ingress wants: `NAMESPACE/SERVICE:PORT`.
const CLASS_BACKEND: &str = "default-backend";
/// What `appProtocol` says of ports that speak HTTP/2 without TLS.
const HTTP2: &str = "kubernetes.io/h2c";
/// The most memory of one expression.
const EXPRESSION_BYTES: usize = 256 << 10;

/// What the decision needs to see.
pub(crate) struct World<'a> {
    /// All Ingresses.
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    /// All IngressClasses.
    pub(crate) classes: Vec<Arc<IngressClass>>,
    /// A Service by its key.
    pub(crate) service: &'a dyn Fn(&ObjectKey) -> Option<Arc<Service>>,
    /// The certificate in a Secret.
    pub(crate) secret: &'a dyn Fn(&ObjectKey) -> Result<Arc<CertifiedKey>, SecretProblem>,
}

/// What follows from it.
#[derive(Default)]
pub(crate) struct Built {
    /// Where requests go.
    pub(crate) table: Table,
    /// What is shown to whom.
    pub(crate) certificates: Certificates,
    /// The Ingresses that are served, the oldest first, with what is wrong with each.
    pub(crate) served: Vec<(Arc<Ingress>, BTreeSet<Problem>)>,
}

/// Everything that the served Ingresses say.
pub(crate) fn build(world: &World<'_>) -> Built {
    let mut built = Built::default();
    for ingress in served(world) {
        let mut problems = BTreeSet::new();
        add(world, &ingress, &mut built, &mut problems);
        built.served.push((ingress, problems));
    }
    let ours = world.classes.iter().filter(|class| is_ours(class));
    let default = ours.filter_map(|class| class_backend(class)).next();
    if let Some(target) = default {
        built.table.set_class_default(target);
    }
    built
}

/// The Secrets that the served Ingresses name.
pub(crate) fn secrets(world: &World<'_>) -> BTreeSet<ObjectKey> {
    let of = |ingress: &Arc<Ingress>| {
        let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
        let tls = ingress
            .spec
            .iter()
            .flat_map(|spec| spec.tls.iter().flatten());
        let names = tls.filter_map(|tls| tls.secret_name.clone());
        let names = names.filter(|name| !name.is_empty());
        names
            .map(|name| ObjectKey::new(namespace.clone(), name))
            .collect::<Vec<_>>()
    };
    served(world).iter().flat_map(of).collect()
}

/// The Ingresses of our classes, the oldest first.
fn served(world: &World<'_>) -> Vec<Arc<Ingress>> {
    let ours: BTreeSet<&str> = world
        .classes
        .iter()
        .filter(|class| is_ours(class))
        .filter_map(|class| class.metadata.name.as_deref())
        .collect();
    // The one that admission gives to Ingresses without a class, for those that are older than it.
    let default = world
        .classes
        .iter()
        .filter(|class| annotation(&class.metadata.annotations, DEFAULT_CLASS) == Some("true"))
        .min_by_key(|class| {
            let created = class.metadata.creation_timestamp.clone();
            (Reverse(created), class.metadata.name.clone())
        })
        .and_then(|class| class.metadata.name.as_deref());
    let class = |ingress: &Ingress| {
        let spec = ingress.spec.as_ref();
        let named = spec.and_then(|spec| spec.ingress_class_name.clone());
        let older = annotation(&ingress.metadata.annotations, CLASS_ANNOTATION);
        named.or_else(|| older.or(default).map(str::to_owned))
    };
    let mut all: Vec<Arc<Ingress>> = world
        .ingresses
        .iter()
        .filter(|ingress| class(ingress).is_some_and(|class| ours.contains(class.as_str())))
        .cloned()
        .collect();
    all.sort_by_cached_key(|ingress| {
        let created = ingress.metadata.creation_timestamp.clone();
        (created, ObjectKey::of(ingress.as_ref()))
    });
    all
}

fn is_ours(class: &IngressClass) -> bool {
    let spec = class.spec.as_ref();
    spec.and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER)
}

fn annotation<'a>(
    annotations: &'a Option<BTreeMap<String, String>>,
    name: &str,
) -> Option<&'a str> {
    annotations.as_ref()?.get(name).map(String::as_str)
}

/// The target of a class's annotation; one that cannot be read counts as absent.
fn class_backend(class: &IngressClass) -> Option<Target> {
    let name = format!("{OWN}{CLASS_BACKEND}");
    let text = annotation(&class.metadata.annotations, &name)?;
    let (service, port) = text.trim().rsplit_once(':')?;
    let (namespace, service) = service.split_once('/')?;
    Some(Target {
        ingress: None,
        path: String::new(),
        backend: Backend::Service {
            service: ObjectKey::new(namespace, service),
            port: port.to_owned(),
        },
        settings: Arc::default(),
        is_http2: false,
        has_tls: false,
    })
}

/// Puts one Ingress in.
fn add(world: &World<'_>, ingress: &Ingress, built: &mut Built, problems: &mut BTreeSet<Problem>) {
    let none = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&none);
    let empty = BTreeMap::new();
    let annotations = ingress.metadata.annotations.as_ref().unwrap_or(&empty);
    let (settings, wrong) = Settings::read(annotations);
    problems.extend(wrong.into_iter().map(Problem::Annotation));
    let mut one = One {
        world,
        key: ObjectKey::of(ingress),
        settings: Arc::new(settings),
        has_tls: spec.tls.iter().flatten().next().is_some(),
        problems,
    };
    let mut hosts = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = rule
            .host
            .as_deref()
            .unwrap_or_default()
            .to_ascii_lowercase();
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            one.add_path(&mut built.table, &host, path);
        }
        hosts.push(host);
    }
    if let Some(backend) = &spec.default_backend {
        let target = one.target("", backend);
        built.table.add_default(&hosts, &target);
    }
    for tls in spec.tls.iter().flatten() {
        let named = tls
            .hosts
            .iter()
            .flatten()
            .map(|host| host.to_ascii_lowercase());
        let mut named: Vec<String> = named.collect();
        if named.is_empty() {
            named.clone_from(&hosts);
        }
        // Without a Secret the hosts have certificates of the cluster's authority.
        let Some(secret) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        let secret = ObjectKey::new(one.key.namespace.clone(), secret);
        match (world.secret)(&secret) {
            Ok(certificate) => built.certificates.add(&named, &certificate),
            Err(problem) => drop(one.problems.insert(Problem::Secret(secret, problem))),
        }
    }
}

/// One Ingress while it is put in.
struct One<'a> {
    world: &'a World<'a>,
    key: ObjectKey,
    settings: Arc<Settings>,
    has_tls: bool,
    problems: &'a mut BTreeSet<Problem>,
}

impl One<'_> {
    fn add_path(&mut self, table: &mut Table, host: &str, path: &HTTPIngressPath) {
        let text = path.path.as_deref().filter(|path| !path.is_empty());
        let text = text.unwrap_or("/");
        let how = match path.path_type.as_str() {
            "Exact" => Match::Exact,
            _ if self.settings.use_regex => {
                let expression = RegexBuilder::new(&format!("^{text}"))
                    .size_limit(EXPRESSION_BYTES)
                    .case_insensitive(true)
                    .build();
                match expression {
                    Ok(expression) => Match::Expression(expression),
                    Err(_) => {
                        self.problems.insert(Problem::Expression(text.to_owned()));
                        return;
                    }
                }
            }
            _ => Match::Prefix,
        };
        let target = self.target(text, &path.backend);
        if let Some(there) = table.add(host, how, &target) {
            let other = there.ingress.clone().unwrap_or_default();
            self.problems.insert(Problem::Taken {
                host: host.to_owned(),
                path: text.to_owned(),
                by: other,
            });
        }
    }

    fn target(&mut self, path: &str, backend: &IngressBackend) -> Arc<Target> {
        let (backend, is_http2) = self.backend(backend);
        Arc::new(Target {
            ingress: Some(self.key.clone()),
            path: path.to_owned(),
            settings: self.settings.clone(),
            is_http2: is_http2 || self.settings.is_http2,
            has_tls: self.has_tls,
            backend,
        })
    }

    /// What serves it, and whether it speaks HTTP/2; notes what is wrong with it.
    fn backend(&mut self, backend: &IngressBackend) -> (Backend, bool) {
        let Some(service) = &backend.service else {
            let resource = backend.resource.as_ref();
            let name = resource.map(|resource| format!("{}/{}", resource.kind, resource.name));
            let name = name.unwrap_or_default();
            self.problems.insert(Problem::Resource(name.clone()));
            return (Backend::Resource(name), false);
        };
        let key = ObjectKey::new(self.key.namespace.clone(), service.name.clone());
        let port = service.port.as_ref();
        let name = port
            .and_then(|port| port.name.clone())
            .filter(|name| !name.is_empty());
        let number = port.and_then(|port| port.number);
        let wanted = name
            .or_else(|| number.map(|number| number.to_string()))
            .unwrap_or_default();
        let is_http2 = match (self.world.service)(&key) {
            None => {
                self.problems.insert(Problem::NoService(key.clone()));
                false
            }
            Some(found) => self.check(&key, &wanted, &found),
        };
        let backend = Backend::Service {
            service: key,
            port: wanted,
        };
        (backend, is_http2)
    }

    /// Whether the port says that it speaks HTTP/2 without TLS (KEP-3726).
    fn check(&mut self, key: &ObjectKey, wanted: &str, service: &Service) -> bool {
        let spec = service.spec.as_ref();
        let is_name = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
        let Some(port) = port(service, wanted) else {
            // Such a Service needs no ports: a number is one of whoever has the name.
            if is_name && wanted.parse::<u16>().is_ok() {
                return false;
            }
            let problem = Problem::NoPort(key.clone(), wanted.to_owned());
            self.problems.insert(problem);
            return false;
        };
        port.app_protocol.as_deref() == Some(HTTP2)
    }
}

/// The TCP port of that name or number.
fn port<'a>(
    service: &'a Service,
    wanted: &str,
) -> Option<&'a k8s_openapi::api::core::v1::ServicePort> {
    let spec = service.spec.as_ref()?;
    let mut tcp = spec
        .ports
        .iter()
        .flatten()
        .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    tcp.find(|port| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted)
}
