//! What a cluster has from the first moment: system namespaces, default roles, and the API server's own Service.

use std::net::IpAddr;

use coracle_api::scheduling::v1::priority_class::SYSTEM_CLASSES;
use coracle_api::schema::from_kept_json;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::USER_AGENT;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::answer::to_json;
use crate::authn::{Identity, MASTERS};
use crate::authz::rbac::{self, DefaultObject, Step};
use crate::body;
use crate::service::ApiServer;

/// Namespaces that are made when they are missing.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where the Service `kubernetes` is.
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A bootstrap write that was refused.
#[derive(Debug, thiserror::Error)]
#[error("failed to make {what}: {message}")]
pub struct BootstrapError {
    what: String,
    message: String,
}

impl BootstrapError {
    pub(crate) fn new(what: &str, message: impl std::fmt::Display) -> Self {
        Self {
            what: what.to_owned(),
            message: message.to_string(),
        }
    }
}

impl ApiServer {
    /// Makes the system namespaces that are missing. Call it before anyone else writes.
    pub async fn bootstrap_namespaces(&self) -> Result<(), BootstrapError> {
        let made = NAMESPACES.iter().map(|name| {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.ensure("/api/v1/namespaces", name, namespace, false)
        });
        self.together(made).await
    }

    /// Makes the priority classes of the system that are missing.
    pub async fn bootstrap_priority_classes(&self) -> Result<(), BootstrapError> {
        let made = SYSTEM_CLASSES.iter().map(|class| {
            let object = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class.name},
                "value": class.value, "description": class.description,
            });
            let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
            self.ensure(path, class.name, object, false)
        });
        self.together(made).await
    }

    /// Makes the default roles and bindings that are missing, and puts back what is missing of the others; those in
    /// namespaces need the system namespaces. A cluster where nothing is missing is not written to.
    pub async fn bootstrap_roles(&self) -> Result<(), BootstrapError> {
        let mut made = rbac::default_policy();
        if self.server.serves_metrics() {
            made.extend(rbac::metrics_policy());
        }
        let made = made.into_iter();
        let made = made.map(|default| self.ensure_default(default));
        // Many at once share few commits of the store.
        let at_once = self.server.in_flight.available_permits().clamp(1, 256);
        let made = stream::iter(made).buffer_unordered(at_once);
        made.try_collect().await
    }

    /// Makes the APIService that says that this server itself answers for what nodes and pods use, where it does.
    pub async fn bootstrap_metrics(&self) -> Result<(), BootstrapError> {
        if !self.server.serves_metrics() {
            return Ok(());
        }
        let name = "v1beta1.metrics.k8s.io";
        let object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1",
                "groupPriorityMinimum": 100, "versionPriority": 100,
            },
        });
        let path = "/apis/apiregistration.k8s.io/v1/apiservices";
        self.ensure(path, name, object, false).await
    }

    async fn ensure_default(&self, default: DefaultObject) -> Result<(), BootstrapError> {
        let DefaultObject {
            part,
            namespace,
            name,
            object,
        } = default;
        let plural = part.plural();
        let scope = match namespace.is_empty() {
            true => String::new(),
            false => format!("namespaces/{namespace}/"),
        };
        let path = format!("/apis/{}/v1/{scope}{plural}", rbac::GROUP);
        let own = format!("{path}/{name}");
        let failed = |message: String| BootstrapError {
            what: own.clone(),
            message,
        };
        let found = self.server.find(rbac::GROUP, plural, &namespace, &name);
        let found = found.await.map_err(|error| failed(error.to_string()))?;
        let existing = found.map(|entry| entry.object());
        let writes = match rbac::reconcile(&object, existing.as_ref()) {
            Step::Keep => return Ok(()),
            Step::Create => vec![(Method::POST, &path, object.into_value())],
            Step::Update(object) => vec![(Method::PUT, &own, object.into_value())],
            Step::Recreate => vec![
                (Method::DELETE, &own, Value::Null),
                (Method::POST, &path, object.into_value()),
            ],
        };
        for (method, path, object) in writes {
            let (status, message) = self.send(method, path, &object).await;
            // Somebody else who starts the same cluster may be faster.
            if !status.is_success() && status != StatusCode::CONFLICT {
                return Err(failed(message));
            }
        }
        Ok(())
    }

    /// Makes the ServiceCIDR `kubernetes`, which shows the cluster's own range.
    pub async fn bootstrap_service_range(&self) -> Result<(), BootstrapError> {
        let path = "/apis/networking.k8s.io/v1/servicecidrs";
        let ranges = self.server.allocators.own_ranges().iter();
        let ranges: Vec<String> = ranges.map(ToString::to_string).collect();
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ranges},
        });
        self.ensure(path, "kubernetes", object.clone(), false)
            .await?;
        self.widen_service_range(&object).await?;
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": crate::metadata::time_stamp(self.server.clock()),
        });
        let mut ready = object;
        ready["status"] = json!({"conditions": [condition]});
        let own = format!("{path}/kubernetes/status");
        let (found, text) = self.send(Method::GET, &own, &Value::Null).await;
        if found.is_success() && text.contains(r#""type":"Ready""#) {
            return Ok(());
        }
        let (status, message) = self.send(Method::PUT, &own, &ready).await;
        if status.is_success() {
            Ok(())
        } else {
            Err(BootstrapError { what: own, message })
        }
    }

    /// A cluster that has got a second family has it in the object too; other differences are the user's to solve, as
    /// upstream has it.
    async fn widen_service_range(&self, wanted: &Value) -> Result<(), BootstrapError> {
        let what = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes".to_owned();
        let (_, text) = self.send(Method::GET, &what, &Value::Null).await;
        let mut range: Value = from_kept_json(text.as_bytes()).unwrap_or_default();
        let (had, wants) = (&range["spec"]["cidrs"], &wanted["spec"]["cidrs"]);
        let count = |cidrs: &Value| cidrs.as_array().map_or(0, Vec::len);
        if (count(had), count(wants)) != (1, 2) || had[0] != wants[0] {
            if had != wants {
                tracing::warn!(%had, %wants, "the ServiceCIDR kubernetes is not what the server was started with");
            }
            return Ok(());
        }
        range["spec"]["cidrs"] = wants.clone();
        let (status, message) = self.send(Method::PUT, &what, &range).await;
        if status.is_success() {
            Ok(())
        } else {
            Err(BootstrapError { what, message })
        }
    }

    /// Makes the cluster's ServiceCIDR, the Service `kubernetes` at `cluster_ip`, and the Endpoints and
    /// EndpointSlice that lead it to `address` and `port`. What is there already is corrected.
    pub async fn bootstrap_kubernetes_service(
        &self,
        cluster_ip: IpAddr,
        address: IpAddr,
        port: u16,
    ) -> Result<(), BootstrapError> {
        self.bootstrap_service_range().await?;
        let ip = cluster_ip.to_string();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
                "ipFamilies": [if cluster_ip.is_ipv4() { "IPv4" } else { "IPv6" }], "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            },
        });
        self.ensure(SERVICES, "kubernetes", service.clone(), false)
            .await?;
        self.correct_kubernetes_service(&service).await?;
        let mirrored = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": mirrored},
            "subsets": [{
                "addresses": [{"ip": address.to_string()}],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }],
        });
        let endpoints = self.ensure(
            "/api/v1/namespaces/default/endpoints",
            "kubernetes",
            endpoints,
            true,
        );
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        let slice = self.ensure(slices, "kubernetes", slice, true);
        self.together([endpoints, slice]).await
    }

    /// Puts type, ports and affinity right, as upstream does at start: the port may be another one than last time. The first
    /// family of a cluster stays what it was; everything that was made follows it.
    async fn correct_kubernetes_service(&self, wanted: &Value) -> Result<(), BootstrapError> {
        let what = format!("{SERVICES}/kubernetes");
        let (found, text) = self.send(Method::GET, &what, &Value::Null).await;
        let mut service: Value = match from_kept_json(text.as_bytes()) {
            Ok(service) if found.is_success() => service,
            _ => {
                return Err(BootstrapError {
                    what,
                    message: text,
                });
            }
        };
        let (has, wants) = (&service["spec"]["clusterIP"], &wanted["spec"]["clusterIP"]);
        let is_v6 = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
        if is_v6(has) != is_v6(wants) {
            let message = format!(
                "it is at {has} and cannot move to {wants}, which is of the other family: start the cluster with the \
                 families in the order in which it was made, or make another one in a folder of its own"
            );
            return Err(BootstrapError { what, message });
        }
        let mut right = true;
        for field in ["type", "ports", "sessionAffinity"] {
            right &= service["spec"][field] == wanted["spec"][field];
            service["spec"][field] = wanted["spec"][field].clone();
        }
        if right {
            return Ok(());
        }
        let (status, message) = self.send(Method::PUT, &what, &service).await;
        if status.is_success() {
            Ok(())
        } else {
            Err(BootstrapError { what, message })
        }
    }

    /// Writes that need nothing of each other share commits, as many at once as the server takes.
    pub(crate) async fn together<F>(
        &self,
        writes: impl IntoIterator<Item = F>,
    ) -> Result<(), BootstrapError>
    where
        F: Future<Output = Result<(), BootstrapError>>,
    {
        let at_once = self.server.in_flight.available_permits().clamp(1, 8);
        let writes = stream::iter(writes).buffer_unordered(at_once);
        writes.try_collect().await
    }

    /// Creates the object when it is missing; with `replace`, puts it over one that is there.
    async fn ensure(
        &self,
        path: &str,
        name: &str,
        object: Value,
        replace: bool,
    ) -> Result<(), BootstrapError> {
        let own = format!("{path}/{name}");
        // Looked for first: a create would ask for an address that the existing Service holds.
        let (found, _) = self.send(Method::GET, &own, &Value::Null).await;
        let (status, message) = match found {
            StatusCode::OK if !replace => return Ok(()),
            StatusCode::OK => self.send(Method::PUT, &own, &object).await,
            _ => self.send(Method::POST, path, &object).await,
        };
        if status.is_success() {
            Ok(())
        } else {
            Err(BootstrapError { what: own, message })
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        object: &Value,
    ) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(USER_AGENT, "kube-apiserver")
            .extension(Identity::new("system:apiserver", [MASTERS]))
            .body(body::full(to_json(object)))
            .expect("a well-formed request");
        let response = self.handle(request).await;
        let status = response.status();
        let text = body::read(response.into_body()).await.unwrap_or_default();
        (status, String::from_utf8_lossy(&text).into_owned())
    }
}
