//! Ingress in this process: its listeners, its class, its rights, and the certificates of hosts that have none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use coracle_client::{Context, Lister, ObjectClient, ObjectKey};
use coracle_ingress::{CONTROLLER, DEFAULT_CLASS, FallbackCertificates, IngressConfig, Metrics};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::access::AccessLog;
use super::reachable;
use crate::cli::UpArgs;
use crate::listeners::{Choice, Listen};
use crate::pki::CurrentAuthority;

/// The component's name; its user is the service account of that name in `kube-system`.
pub(super) const COMPONENT: &str = "ingress-controller";
/// The class of Ingresses that name none.
const CLASS: &str = "coracle";
/// What the component may do, and that it may.
const ROLE: &str = "coracle:ingress-controller";
/// The ports when the flags do not say.
const HTTP_PORT: u16 = 8080;
const HTTPS_PORT: u16 = 8443;
/// When what could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The host's listeners for Ingresses.
#[derive(Default)]
pub(super) struct Listeners {
    http: Option<TcpListener>,
    https: Option<TcpListener>,
}

impl Listeners {
    /// Binds those that the flags do not turn off.
    pub(super) async fn bind(args: &UpArgs) -> Result<Self> {
        let http = Choice {
            what: "the HTTP port of Ingresses",
            flag: "--ingress-http",
            default_port: HTTP_PORT,
            explicit: None,
        };
        let https = Choice {
            what: "the HTTPS port of Ingresses",
            flag: "--ingress-https",
            default_port: HTTPS_PORT,
            explicit: None,
        };
        Ok(Self {
            http: Listen::bind(args.ingress_http, http).await?,
            https: Listen::bind(args.ingress_https, https).await?,
        })
    }

    /// Where clients of this machine reach them: the scheme, and the address.
    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let listeners = [("http", &self.http), ("https", &self.https)];
        let address = |listener: &TcpListener| listener.local_addr().ok().map(reachable);
        listeners
            .into_iter()
            .filter_map(|(scheme, listener)| Some((scheme, address(listener.as_ref()?)?)))
            .collect()
    }

    /// Hands them over.
    pub(super) fn into_config(
        self,
        authority: Arc<CurrentAuthority>,
        metrics: Arc<Metrics>,
        log: AccessLog,
    ) -> IngressConfig {
        IngressConfig {
            metrics,
            log,
            http: self.http,
            https: self.https,
            fallback: authority,
        }
    }
}

impl FallbackCertificates for CurrentAuthority {
    fn issue(&self, names: &[String]) -> Result<(String, String), String> {
        let issued = self.issue_server(names);
        let issued = issued.map_err(|error| format!("{error:#}"))?;
        Ok((issued.certificate, issued.key))
    }

    fn generation(&self) -> u64 {
        CurrentAuthority::generation(self)
    }
}

/// Makes the component's role, and the default IngressClass unless there is one of its name.
pub(super) async fn make_objects(objects: ObjectClient) {
    while let Err(error) = make_role(&objects).await {
        tracing::warn!("the role of {COMPONENT} was not made: {error:#}");
        tokio::time::sleep(RETRY).await;
    }
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT_CLASS: "true"}},
        "spec": {"controller": CONTROLLER},
    });
    let class: IngressClass = serde_json::from_value(class).expect("it is one");
    match objects.create(&class).await {
        Ok(_) => tracing::info!(name = CLASS, "the default ingress class is made"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => tracing::warn!(
            error = error.message(),
            "the default ingress class was not made"
        ),
    }
}

async fn make_role(objects: &ObjectClient) -> Result<()> {
    let key = ObjectKey::cluster(ROLE);
    let of = |kind: &str, rest: Value| {
        let mut object = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": ROLE},
        });
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    };
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let rules = json!({"rules": [
        rule("networking.k8s.io", &["ingresses/status"], &["update"]),
        rule("", &["secrets"], &["get", "list", "watch"]),
        rule("", &["events"], &["create", "patch", "update"]),
    ]});
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": COMPONENT, "namespace": "kube-system"}],
    });
    let role = of("ClusterRole", rules);
    let applied = objects.apply::<ClusterRole>(&key, "coracle", &role).await;
    applied.context("the ClusterRole was not applied")?;
    let binding = of("ClusterRoleBinding", binding);
    let applied = objects
        .apply::<ClusterRoleBinding>(&key, "coracle", &binding)
        .await;
    applied.context("the ClusterRoleBinding was not applied")?;
    Ok(())
}

/// A line for every path of a served Ingress that this machine's clients reach without DNS: of every host, or of a name
/// below `localhost`.
pub(super) async fn urls(
    context: &Context,
    addresses: &[(&'static str, SocketAddr)],
) -> Vec<String> {
    let ingresses: Lister<Ingress> = context.lister();
    ingresses.synced().await;
    let all = ingresses.list();
    all.iter()
        .flat_map(|ingress| urls_of(ingress, addresses))
        .collect()
}

fn urls_of(ingress: &Ingress, addresses: &[(&'static str, SocketAddr)]) -> Vec<String> {
    let Some((scheme, address)) = addresses.first() else {
        return Vec::new();
    };
    let status = ingress
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    if status.is_none_or(|status| status.ingress.iter().flatten().next().is_none()) {
        return Vec::new();
    }
    let name = ingress.metadata.name.as_deref().unwrap_or_default();
    let rules = ingress
        .spec
        .iter()
        .flat_map(|spec| spec.rules.iter().flatten());
    let lines = rules.flat_map(|rule| {
        let host = match rule.host.as_deref().unwrap_or_default() {
            "" => Some(address.ip().to_string()),
            host if host.starts_with('*') => None,
            host if host == "localhost" || host.ends_with(".localhost") => Some(host.to_owned()),
            _ => None,
        };
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        paths.filter_map(move |path| {
            let (host, path) = (host.as_ref()?, path.path.as_deref().unwrap_or("/"));
            let port = address.port();
            Some(format!(
                "\n  {scheme}://{host}:{port}{path}   (ingress/{name})\n"
            ))
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_that_need_no_dns() {
        let path = |path: &str| json!({"path": path, "pathType": "Prefix", "backend": {}});
        let rule = |host: &str, paths: &[&str]| {
            let paths: Vec<Value> = paths.iter().map(|text| path(text)).collect();
            json!({"host": host, "http": {"paths": paths}})
        };
        let rules = [
            rule("web.localhost", &["/", "/api"]),
            rule("*.localhost", &["/"]),
            rule("web.example", &["/"]),
            rule("", &["/all"]),
        ];
        let served = |points: Value| -> Ingress {
            let object = json!({
                "metadata": {"name": "web"}, "spec": {"rules": rules},
                "status": {"loadBalancer": {"ingress": points}},
            });
            serde_json::from_value(object).expect("an ingress")
        };
        let addresses = [("http", "127.0.0.1:8080".parse().expect("an address"))];
        let lines = urls_of(&served(json!([{"ip": "127.0.0.1"}])), &addresses);
        let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
        let wanted = [
            "http://web.localhost:8080/   (ingress/web)",
            "http://web.localhost:8080/api   (ingress/web)",
            "http://127.0.0.1:8080/all   (ingress/web)",
        ];
        assert_eq!(lines, wanted);
        assert!(urls_of(&served(json!(null)), &addresses).is_empty());
        assert!(urls_of(&served(json!([{"ip": "127.0.0.1"}])), &[]).is_empty());
    }
}
