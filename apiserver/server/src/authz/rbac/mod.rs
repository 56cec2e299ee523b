//! RBAC: rules in roles, and bindings that make them somebody's.
//!
//! ```text
//! watch caches ──each change, decoded──▶ Policy ◀── authorize · rules · escalation checks
//! ```
//!
//! [`Policy`] is a pure index; this module keeps it equal to the caches. A write to a role is answered when the policy
//! has it: whoever was given a right may use it at once, and whoever lost one has lost it.

mod covers;
mod defaults;
pub(crate) mod escalation;
mod policy;
mod reconcile;
mod rule;

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Object, Registry};
use parking_lot::RwLock;

pub use defaults::{DefaultObject, default_policy, default_rules, metrics_policy};
pub use policy::{Grant, Part, Policy, RoleError, RoleRef};
pub use reconcile::{Step, reconcile};
pub use rule::Rule;

use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::Identity;
use crate::cache::{Caches, Observer};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Decides by roles and bindings.
#[derive(Default)]
pub struct Rbac {
    policy: RwLock<Policy>,
}

impl Rbac {
    /// Follows the roles and bindings of `caches`.
    pub fn follow(caches: &Caches, registry: &Registry) -> Arc<Self> {
        let rbac = Arc::new(Self::default());
        for part in Part::ALL {
            let cache = registry
                .by_plural(GROUP, "v1", part.plural())
                .and_then(|resource| caches.of(resource));
            if let Some(cache) = cache {
                let rbac = Arc::clone(&rbac);
                cache.observe(Arc::new(Follower { rbac, part }));
            }
        }
        rbac
    }

    /// Everything that is `identity`'s in `namespace`, and what is wrong with their bindings.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> (Vec<Rule>, Vec<RoleError>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        let policy = self.policy.read();
        let _ = policy.visit(identity, namespace, &mut |grant| {
            match grant {
                Ok(grant) => rules.push(grant.rule.clone()),
                Err(error) => errors.push(error),
            }
            ControlFlow::Continue(())
        });
        (rules, errors)
    }

    /// The rules of the role that a binding in `namespace` names.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, RoleError> {
        let policy = self.policy.read();
        policy.rules_of(role, namespace).cloned()
    }

    /// Decides; see [`Authorizer::authorize`].
    pub fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let mut allowed = None;
        let mut errors = Vec::new();
        let policy = self.policy.read();
        let _ = policy.visit(asked.identity, asked.namespace, &mut |grant| match grant {
            Ok(grant) if grant.rule.allows(asked) => {
                allowed = Some(format!("RBAC: allowed by {grant}"));
                ControlFlow::Break(())
            }
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                errors.push(error.to_string());
                ControlFlow::Continue(())
            }
        });
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => Decision::NoOpinion(format!("RBAC: {}", super::together(&errors))),
        }
    }
}

#[async_trait]
impl Authorizer for Arc<Rbac> {
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        self.decide(asked)
    }

    async fn rules(&self, identity: &Identity, namespace: &str) -> Rules {
        let (found, errors) = self.rules_for(identity, namespace);
        let mut rules = Rules::default();
        for rule in &found {
            if !rule.resources.is_empty() {
                let rule = Rule {
                    urls: Vec::new(),
                    ..rule.clone()
                };
                rules.resources.push(rule.to_value());
            }
            if !rule.urls.is_empty() {
                let rule = Rule {
                    verbs: rule.verbs.clone(),
                    urls: rule.urls.clone(),
                    ..Rule::default()
                };
                rules.others.push(rule.to_value());
            }
        }
        if !errors.is_empty() {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            rules.errors.push(super::together(&errors));
        }
        rules
    }
}

/// Keeps one part of the policy up to date.
struct Follower {
    rbac: Arc<Rbac>,
    part: Part,
}

impl Observer for Follower {
    fn changed(&self, key: &str, object: Option<&Object>) {
        self.rbac.policy.write().set(self.part, key, object);
    }
}

#[cfg(test)]
mod default_tests;
#[cfg(test)]
mod tests;
