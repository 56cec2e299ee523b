//! Authorization: may they.
//!
//! ```text
//! system:masters ▶ Node ▶ RBAC ▶ others, in the order of the configuration; nobody's opinion is a refusal
//! ```
//!
//! One authorizer is one file or folder. Refusals are worded as upstream words them.

mod always;
mod attributes;
mod configured;
pub mod node;
pub mod rbac;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

pub use attributes::Attributes;
pub use configured::ConfiguredAuthorization;
use node::NodeAuthorizer;
use rbac::Rbac;

use crate::authn::{Identity, MASTERS};
use crate::status::ApiError;

/// The answer of an [`Authorizer`], with its reason, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Allow(String),
    /// They may not, whatever another authorizer says.
    Deny(String),
    /// Not this authorizer's business; without anyone's `Allow` it is a refusal.
    NoOpinion(String),
    /// It cannot be said; without anyone's `Allow` the request fails.
    Failed {
        /// Whether nobody else is asked either.
        denied: bool,
        /// What went wrong.
        error: String,
    },
}

/// Decides whether a request may happen.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides on one request.
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision;

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
    /// What went wrong on the way.
    pub errors: Vec<String>,
}

/// One of the authorizers, as the configuration names them.
pub enum Mode {
    /// Kubelets may do what their pods need.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Those of a file, in its order.
    Configured(Arc<ConfiguredAuthorization>),
    /// Another one.
    Other(Box<dyn Authorizer>),
}

/// The authorizers in order.
pub struct Authorization {
    authorizers: Vec<Box<dyn Authorizer>>,
    /// One of them, for its metrics.
    configured: Option<Arc<ConfiguredAuthorization>>,
}

/// Passes, or the 403 in upstream's words.
pub(crate) fn settle(asked: &Attributes<'_>, decision: Decision) -> Result<(), ApiError> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(refusal(asked, &reason)),
        Decision::Failed { error, .. } => Err(ApiError::new(
            500,
            "InternalError",
            format!("Internal Server Error: {error}"),
        )),
    }
}

/// What authorizers have said who did not decide.
#[derive(Default)]
struct Reasons {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Reasons {
    /// Takes note of a decision, or gives it back if nobody else is to be asked.
    fn add(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) => self.reasons.push(reason),
            Decision::Failed {
                denied: false,
                error,
            } => self.errors.push(error),
            decision => return Some(decision),
        }
        None
    }

    /// What they say together.
    fn decision(mut self) -> Decision {
        if !self.errors.is_empty() {
            return Decision::Failed {
                denied: false,
                error: together(&self.errors),
            };
        }
        self.reasons.retain(|reason| !reason.is_empty());
        Decision::NoOpinion(self.reasons.join("\n"))
    }
}

impl Rules {
    fn add(&mut self, rules: Self) {
        self.resources.extend(rules.resources);
        self.others.extend(rules.others);
        self.incomplete |= rules.incomplete;
        self.errors.extend(rules.errors);
    }
}

impl Authorization {
    /// Asks `modes` in order; the first that has an opinion decides.
    pub fn new(modes: Vec<Mode>, rbac: &Arc<Rbac>, node: impl Fn() -> NodeAuthorizer) -> Self {
        let mut told = None;
        let authorizers = modes.into_iter().map(|mode| match mode {
            Mode::Node => Box::new(node()) as Box<dyn Authorizer>,
            Mode::Rbac => Box::new(Arc::clone(rbac)),
            Mode::Configured(configured) => {
                configured.begin(rbac, &node);
                told = Some(Arc::clone(&configured));
                Box::new(configured)
            }
            Mode::Other(other) => other,
        });
        let authorizers = authorizers.collect();
        Self {
            authorizers,
            configured: told,
        }
    }

    /// What webhooks cost, as `/metrics` tells it; mostly nothing.
    pub(crate) fn metrics(&self) -> String {
        let configured = self.configured.as_ref();
        configured
            .map(|configured| configured.metrics())
            .unwrap_or_default()
    }

    /// Does that where there are no roles and no pods.
    #[cfg(test)]
    pub(crate) fn of(modes: Vec<Mode>) -> Self {
        Self::new(modes, &Arc::default(), || {
            unreachable!("there are no nodes")
        })
    }

    /// Passes, or the 403 in upstream's words.
    pub async fn authorize(&self, asked: &Attributes<'_>) -> Result<(), ApiError> {
        settle(asked, self.decide(asked).await)
    }

    /// What the authorizers say together, with all their reasons.
    pub async fn decide(&self, asked: &Attributes<'_>) -> Decision {
        // Administrators need no role, or nobody could repair roles.
        if asked.identity.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Reasons::default();
        for authorizer in &self.authorizers {
            if let Some(decision) = reasons.add(authorizer.authorize(asked).await) {
                return decision;
            }
        }
        reasons.decision()
    }

    /// Whether they may.
    pub async fn allows(&self, asked: &Attributes<'_>) -> bool {
        matches!(self.decide(asked).await, Decision::Allow(_))
    }

    /// All that somebody may do in a namespace.
    pub async fn rules(&self, identity: &Identity, namespace: &str) -> Rules {
        let mut all = Rules::default();
        for authorizer in &self.authorizers {
            all.add(authorizer.rules(identity, namespace).await);
        }
        all
    }
}

/// Several errors as one text, as Go's `Aggregate` writes them.
pub(crate) fn together(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => {
            let mut said = Vec::new();
            for error in several {
                if !said.contains(&error.as_str()) {
                    said.push(error.as_str());
                }
            }
            match said[..] {
                [one] => one.to_owned(),
                _ => format!("[{}]", said.join(", ")),
            }
        }
    }
}

/// The 403 that says what was asked, and why not.
pub(crate) fn refusal(asked: &Attributes<'_>, reason: &str) -> ApiError {
    let user = &asked.identity.user;
    let because = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let Attributes {
        verb,
        path,
        group,
        namespace,
        resource,
        ref name,
        ..
    } = *asked;
    if !asked.is_resource {
        let message = format!("forbidden: User {user:?} cannot {verb} path {path:?}{because}");
        return ApiError::new(403, "Forbidden", message).with_plain_details("", "", "");
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let qualified = if group.is_empty() {
        resource.to_owned()
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
        asked.resource_path()
    );
    ApiError::new(403, "Forbidden", message).with_plain_details(group, resource, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::RequestInfo;

    fn request(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::parse(
            &method.parse().expect("a method"),
            &uri.parse().expect("a uri"),
        )
    }

    async fn refused(identity: Identity, method: &str, uri: &str) -> String {
        let authorization = Authorization::of(vec![Mode::Rbac]);
        let request = request(method, uri);
        let asked = Attributes::of(&identity, &request);
        let refusal = authorization.authorize(&asked).await;
        refusal.expect_err("nobody has a role here").to_string()
    }

    #[tokio::test]
    async fn refusals_are_worded_as_upstream_words_them() {
        let jane = || Identity::new("jane", ["devs"]);
        for (identity, method, uri, text) in [
            (
                jane(),
                "GET",
                "/api/v1/namespaces/default/pods",
                r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                jane(),
                "PATCH",
                "/apis/apps/v1/namespaces/default/deployments/web/scale",
                r#"deployments.apps "web" is forbidden: User "jane" cannot patch resource "deployments/scale" in API group "apps" in the namespace "default""#,
            ),
            (
                jane(),
                "GET",
                "/api/v1/nodes",
                r#"nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#,
            ),
            (
                jane(),
                "GET",
                "/api/v1/nodes?fieldSelector=metadata.name%3Da&watch=true",
                r#"nodes "a" is forbidden: User "jane" cannot watch resource "nodes" in API group "" at the cluster scope"#,
            ),
            (
                Identity::anonymous(),
                "GET",
                "/x",
                r#"forbidden: User "system:anonymous" cannot get path "/x""#,
            ),
        ] {
            assert_eq!(refused(identity, method, uri).await, text);
        }
    }

    /// Always says the same.
    struct Always(Decision);

    #[async_trait]
    impl Authorizer for Always {
        async fn authorize(&self, _asked: &Attributes<'_>) -> Decision {
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn the_first_opinion_decides_and_reasons_are_collected() {
        let no = |why: &str| Decision::NoOpinion(why.to_owned());
        let (yes, never) = (
            Decision::Allow("y".to_owned()),
            Decision::Deny("d".to_owned()),
        );
        for (chain, decision) in [
            (vec![no("a"), no(""), no("b")], no("a\nb")),
            (vec![no("a"), yes.clone(), never.clone()], yes.clone()),
            (vec![no("a"), never.clone(), yes], never.clone()),
            (vec![], no("")),
        ] {
            let modes = chain.into_iter().map(|d| Mode::Other(Box::new(Always(d))));
            let authorization = Authorization::of(modes.collect());
            let jane = Identity::new("jane", ["devs"]);
            let asked = Attributes::path(&jane, "get", "/x");
            assert_eq!(authorization.decide(&asked).await, decision);
        }
        let refusing = Authorization::of(vec![Mode::Other(Box::new(Always(never)))]);
        let admin = Identity::new("anyone", [MASTERS]);
        assert!(
            refusing
                .allows(&Attributes::path(&admin, "get", "/x"))
                .await
        );
    }
}
