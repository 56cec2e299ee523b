//! Authorization: may they.
//!
//! Until roles are served, administrators and Coracle's own components may do everything, and everybody may read
//! health and version. The refusal is worded as upstream words it.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::authn::{Identity, MASTERS};
use crate::request_info::RequestInfo;
use crate::status::ApiError;

/// The answer of an [`Authorizer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow,
    /// They may not, whatever another authorizer says.
    Deny(String),
    /// Not this authorizer's business; without anyone's `Allow` it is a refusal.
    NoOpinion(String),
}

/// Decides whether a request may happen.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides on one request.
    async fn authorize(&self, identity: &Identity, request: &RequestInfo) -> Decision;

    /// All that this authorizer lets somebody do in a namespace.
    async fn rules(&self, _identity: &Identity, _namespace: &str) -> Rules {
        Rules::default()
    }
}

/// What somebody may do, as `SelfSubjectRulesReview` tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Rules about resources.
    pub resources: Vec<Value>,
    /// Rules about other paths.
    pub others: Vec<Value>,
    /// Whether there may be more than is told.
    pub incomplete: bool,
}

/// Administrators and our own components may do everything; anybody may read health and version.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltinAuthorizer;

/// Users that are parts of the control plane.
const COMPONENTS: &[&str] = &[
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
];

#[async_trait]
impl Authorizer for BuiltinAuthorizer {
    async fn rules(&self, identity: &Identity, _namespace: &str) -> Rules {
        let all = json!(["*"]);
        let public = json!({"verbs": ["get"], "nonResourceURLs": PUBLIC});
        let mut rules = Rules {
            others: vec![public],
            ..Rules::default()
        };
        if identity.is_in(MASTERS) || is_component(identity) {
            rules.resources = vec![json!({"verbs": all, "apiGroups": all, "resources": all})];
            rules.others = vec![json!({"verbs": all, "nonResourceURLs": all})];
        }
        rules
    }

    async fn authorize(&self, identity: &Identity, request: &RequestInfo) -> Decision {
        if identity.is_in(MASTERS) || is_component(identity) || is_public(request) {
            Decision::Allow
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

fn is_component(identity: &Identity) -> bool {
    let user = identity.user.as_str();
    COMPONENTS.contains(&user)
        || user.starts_with("system:coracle:")
        || user.starts_with("system:node:") && identity.is_in("system:nodes")
        || user.starts_with("system:serviceaccount:kube-system:")
            && identity.is_in("system:serviceaccounts:kube-system")
}

fn is_public(request: &RequestInfo) -> bool {
    let path = request.path.trim_end_matches('/');
    let health = ["/healthz", "/livez", "/readyz"];
    matches!(request.verb, "get" | "head")
        && !request.is_resource
        && (path == "/version"
            || health.iter().any(|p| {
                path == *p
                    || path
                        .strip_prefix(p)
                        .is_some_and(|rest| rest.starts_with('/'))
            }))
}

/// What [`is_public`] comes to, as a rule says it.
const PUBLIC: &[&str] = &[
    "/healthz",
    "/healthz/*",
    "/livez",
    "/livez/*",
    "/readyz",
    "/readyz/*",
    "/version",
    "/version/",
];

/// The authorizers in order.
pub struct Authorization {
    authorizers: Vec<Box<dyn Authorizer>>,
}

impl Authorization {
    /// Asks `authorizers` in order; the first that has an opinion decides.
    pub fn new(authorizers: Vec<Box<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }

    /// Passes, or the 403 in upstream's words.
    pub async fn authorize(
        &self,
        identity: &Identity,
        request: &RequestInfo,
    ) -> Result<(), ApiError> {
        match self.decide(identity, request).await {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(refusal(identity, request, &reason))
            }
        }
    }

    /// What the authorizers say together, with all their reasons.
    pub async fn decide(&self, identity: &Identity, request: &RequestInfo) -> Decision {
        let mut reasons = Vec::new();
        let mut denied = false;
        for authorizer in &self.authorizers {
            match authorizer.authorize(identity, request).await {
                Decision::Allow => return Decision::Allow,
                Decision::Deny(reason) => {
                    reasons.push(reason);
                    denied = true;
                    break;
                }
                Decision::NoOpinion(reason) => reasons.push(reason),
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        let reasons = reasons.join(", ");
        if denied {
            Decision::Deny(reasons)
        } else {
            Decision::NoOpinion(reasons)
        }
    }

    /// All that somebody may do in a namespace.
    pub async fn rules(&self, identity: &Identity, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.authorizers {
            let rules = authorizer.rules(identity, namespace).await;
            all.resources.extend(rules.resources);
            all.others.extend(rules.others);
            all.incomplete |= rules.incomplete;
        }
        all
    }
}

fn refusal(identity: &Identity, request: &RequestInfo, reason: &str) -> ApiError {
    let user = &identity.user;
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    if !request.is_resource {
        let message = format!(
            "forbidden: User {user:?} cannot {} path {:?}{because}",
            request.verb, request.path
        );
        return ApiError::new(403, "Forbidden", message).with_plain_details("", "", "");
    }
    let RequestInfo {
        verb,
        group,
        namespace,
        name,
        resource,
        ..
    } = request;
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let qualified = if group.is_empty() {
        resource.clone()
    } else {
        format!("{resource}.{group}")
    };
    let named = if name.is_empty() {
        qualified
    } else {
        format!("{qualified} {name:?}")
    };
    let message = format!(
        "{named} is forbidden: User {user:?} cannot {verb} resource {:?} in API group {group:?} {place}{because}",
        request.resource_path()
    );
    ApiError::new(403, "Forbidden", message).with_plain_details(group, resource, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(
            &method.parse().expect("a method"),
            &uri.parse().expect("a uri"),
        )
    }

    async fn ask(identity: Identity, request: &RequestInfo) -> Result<(), ApiError> {
        Authorization::new(vec![Box::new(BuiltinAuthorizer)])
            .authorize(&identity, request)
            .await
    }

    #[tokio::test]
    async fn refusals_are_worded_as_upstream_words_them() {
        let jane = || Identity::new("jane", ["devs"]);
        let list = request("GET", "/api/v1/namespaces/default/pods");
        assert_eq!(
            ask(jane(), &list).await.expect_err("refused").to_string(),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let scale = request(
            "PATCH",
            "/apis/apps/v1/namespaces/default/deployments/web/scale",
        );
        assert_eq!(
            ask(jane(), &scale).await.expect_err("refused").to_string(),
            r#"deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments/scale" in API group "apps" in the namespace "default""#
        );
        let nodes = request("GET", "/api/v1/nodes");
        assert_eq!(
            ask(jane(), &nodes).await.expect_err("refused").to_string(),
            r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            ask(Identity::anonymous(), &request("GET", "/x"))
                .await
                .expect_err("refused")
                .to_string(),
            r#"forbidden: User "system:anonymous" cannot get path "/x""#
        );
    }

    #[tokio::test]
    async fn anybody_may_read_health_and_version_and_nothing_else() {
        for path in ["/healthz", "/livez/ping", "/readyz?verbose", "/version"] {
            assert_eq!(
                ask(Identity::anonymous(), &request("GET", path)).await,
                Ok(()),
                "{path}"
            );
        }
        for path in ["/metrics", "/api", "/healthzz", "/api/v1/pods"] {
            assert!(
                ask(Identity::anonymous(), &request("GET", path))
                    .await
                    .is_err(),
                "{path}"
            );
        }
        assert!(
            ask(Identity::anonymous(), &request("POST", "/healthz"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn components_and_administrators_may_do_everything() {
        let write = request("DELETE", "/api/v1/nodes/a");
        assert_eq!(
            ask(Identity::component("system:kube-scheduler"), &write).await,
            Ok(())
        );
        assert_eq!(
            ask(Identity::new("system:node:a", ["system:nodes"]), &write).await,
            Ok(())
        );
        assert_eq!(
            ask(Identity::new("anyone", [MASTERS]), &write).await,
            Ok(())
        );
        assert!(
            ask(Identity::new("system:node:a", [] as [&str; 0]), &write)
                .await
                .is_err()
        );
    }
}
