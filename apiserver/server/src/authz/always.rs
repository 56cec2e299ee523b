//! Those who always say the same.

use async_trait::async_trait;
use serde_json::json;

use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::Identity;

/// Everybody may do everything.
pub(super) struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _asked: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }

    async fn rules(&self, _identity: &Identity, _namespace: &str) -> Rules {
        Rules {
            resources: vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
            others: vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            ..Rules::default()
        }
    }
}

/// Nobody may do anything.
pub(super) struct AlwaysDeny;

#[async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _asked: &Attributes<'_>) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".to_owned())
    }
}
