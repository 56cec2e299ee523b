//! What a file says about who decides, and may say otherwise later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use coracle_clock::Clock;
use parking_lot::RwLock;

use super::always::{AlwaysAllow, AlwaysDeny};
use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::webhook::{Asked, WebhookMetrics};
use super::{Attributes, Authorizer, Decision, Reasons, Rules};
use crate::authn::Identity;
use crate::config::{self, AuthorizationConfiguration, ConfigError};
use crate::outgoing::Outside;

/// An AuthorizationConfiguration that is in force. It is replaced as a whole while requests are answered.
pub struct ConfiguredAuthorization {
    current: RwLock<Arc<Vec<Part>>>,
    /// What it had to begin with, webhooks left out: a later file has to have the same.
    kinds: BTreeSet<&'static str>,
    /// Set once, when the server starts.
    builtin: OnceLock<Builtin>,
    metrics: Arc<WebhookMetrics>,
    outside: Arc<dyn Outside>,
    clock: Clock,
}

/// Those whose indexes live as long as the server.
struct Builtin {
    rbac: Arc<Rbac>,
    node: Option<NodeAuthorizer>,
}

enum Part {
    Node,
    Rbac,
    Other(Box<dyn Authorizer>),
}

impl ConfiguredAuthorization {
    /// Begins with a configuration; webhooks' kubeconfig files are read here.
    pub fn new(
        configuration: AuthorizationConfiguration,
        outside: Arc<dyn Outside>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let metrics = Arc::default();
        let kinds = configuration.kinds();
        let parts = build(configuration, &metrics, &outside, &clock)?;
        Ok(Self {
            current: RwLock::new(Arc::new(parts)),
            kinds,
            builtin: OnceLock::new(),
            metrics,
            outside,
            clock,
        })
    }

    /// Begins with the text of a file.
    pub fn parse(
        text: &str,
        look: &dyn Fn(&Path) -> Option<String>,
        outside: Arc<dyn Outside>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        Self::new(
            AuthorizationConfiguration::parse(text, look)?,
            outside,
            clock,
        )
    }

    /// Goes on with another text; a wrong one changes nothing. What webhooks have said before is forgotten.
    pub fn replace(
        &self,
        text: &str,
        look: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let configuration = AuthorizationConfiguration::parse(text, look)?;
        let kinds = configuration.kinds();
        let missing: Vec<&str> = self.kinds.difference(&kinds).copied().collect();
        if !missing.is_empty() {
            let missing = missing.join(" ");
            return Err(ConfigError::Invalid(format!(
                "missing required types: [{missing}]"
            )));
        }
        // Whether strangers may come in was settled at start, when nobody was to have everything.
        if let Some(kind) = ["Node", "RBAC", "AlwaysAllow"]
            .iter()
            .find(|kind| kinds.contains(*kind) && !self.kinds.contains(*kind))
        {
            return Err(ConfigError::Invalid(format!(
                "authorizer type {kind} is not allowed if it was not enabled at initial server startup"
            )));
        }
        let parts = build(configuration, &self.metrics, &self.outside, &self.clock)?;
        *self.current.write() = Arc::new(parts);
        Ok(())
    }

    /// Whether everybody may do everything, in which case strangers must not be let in.
    pub fn allows_all(&self) -> bool {
        self.kinds.contains("AlwaysAllow")
    }

    /// Hands over what the server has; `node` is asked only if it is needed.
    pub(super) fn begin(&self, rbac: &Arc<Rbac>, node: impl Fn() -> NodeAuthorizer) {
        let node = self.kinds.contains("Node").then(node);
        let rbac = Arc::clone(rbac);
        // A configuration is for one server; a second one would share the first one's roles.
        let _ = self.builtin.set(Builtin { rbac, node });
    }

    pub(crate) fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// The authorizer of a part; `None` before the server has started.
    fn part<'p>(&'p self, part: &'p Part) -> Option<&'p dyn Authorizer> {
        let builtin = self.builtin.get();
        match part {
            Part::Other(other) => Some(other.as_ref()),
            Part::Rbac => builtin.map(|builtin| &builtin.rbac as &dyn Authorizer),
            Part::Node => builtin?.node.as_ref().map(|node| node as &dyn Authorizer),
        }
    }
}

fn build(
    configuration: AuthorizationConfiguration,
    metrics: &Arc<WebhookMetrics>,
    outside: &Arc<dyn Outside>,
    clock: &Clock,
) -> Result<Vec<Part>, ConfigError> {
    let parts = configuration.authorizers.into_iter().map(|authorizer| {
        Ok(match authorizer {
            config::Authorizer::Node => Part::Node,
            config::Authorizer::Rbac => Part::Rbac,
            config::Authorizer::AlwaysAllow => Part::Other(Box::new(AlwaysAllow)),
            config::Authorizer::AlwaysDeny => Part::Other(Box::new(AlwaysDeny)),
            config::Authorizer::Webhook(webhook) => {
                let asked = Asked::new(*webhook, metrics, outside, clock);
                let asked = asked.map_err(|error| ConfigError::Invalid(error.to_string()))?;
                Part::Other(Box::new(asked))
            }
        })
    });
    parts.collect()
}

#[async_trait]
impl Authorizer for Arc<ConfiguredAuthorization> {
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        let parts = Arc::clone(&self.current.read());
        let mut reasons = Reasons::default();
        for authorizer in parts.iter().filter_map(|part| self.part(part)) {
            if let Some(decision) = reasons.add(authorizer.authorize(asked).await) {
                return decision;
            }
        }
        reasons.decision()
    }

    async fn rules(&self, identity: &Identity, namespace: &str) -> Rules {
        let parts = Arc::clone(&self.current.read());
        let mut all = Rules::default();
        for authorizer in parts.iter().filter_map(|part| self.part(part)) {
            all.add(authorizer.rules(identity, namespace).await);
        }
        all
    }
}
