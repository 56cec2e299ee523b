//! A service that decides: it is asked with a SubjectAccessReview.
//!
//! ```text
//! asked ▶ conditions ─ false ▶ no opinion
//!            │ true                         ┌ allowed, denied, neither
//!            ▼                              │
//!         remembered? ── no ▶ the service ──┤
//!                                           └ no answer ▶ failurePolicy
//! ```
//!
//! Rules: `k8s.io/apiserver/plugin/pkg/authorizer/webhook` and `k8s.io/apiserver/pkg/authorization/cel`.

mod metrics;
mod question;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::At;
use coracle_api::cel::eval::{COST_LIMIT, Value as Cel, Variables};
use coracle_clock::Clock;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use metrics::Evaluation;
pub(crate) use metrics::WebhookMetrics;

use super::{Attributes, Authorizer, Decision, Rules, together};
use crate::authn::Identity;
use crate::config::WebhookAuthorizer;
use crate::expiring::Expiring;
use crate::outgoing::{KubeconfigError, Outside, Webhook};

/// Most answers that are remembered.
const MOST_REMEMBERED: usize = 8192;
/// Answers to questions in which the asker has written more than this, in bytes, are not remembered.
const LARGEST_REMEMBERED: usize = 10_000;

/// A service that is asked.
pub(super) struct Asked {
    configured: WebhookAuthorizer,
    webhook: Webhook,
    remembered: Expiring<Decision>,
    metrics: Arc<WebhookMetrics>,
    clock: Clock,
}

impl Asked {
    /// Reads where the service is.
    pub(super) fn new(
        configured: WebhookAuthorizer,
        metrics: &Arc<WebhookMetrics>,
        outside: &Arc<dyn Outside>,
        clock: &Clock,
    ) -> Result<Self, KubeconfigError> {
        let webhook = Webhook::load(&configured.kubeconfig, configured.timeout, outside, clock)?;
        Ok(Self {
            configured,
            webhook,
            remembered: Expiring::new(MOST_REMEMBERED),
            metrics: Arc::clone(metrics),
            clock: clock.clone(),
        })
    }

    /// Whether the question is one for the service; what went wrong when that cannot be said.
    fn concerns(&self, spec: &Value) -> Result<bool, String> {
        let mut errors = Vec::new();
        for condition in &self.configured.conditions {
            let variables = Variables::default().with("request", spec);
            match condition.evaluate(&variables, COST_LIMIT) {
                // One that is false decides, whatever went wrong with others.
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(Cel::Bool(true)) => {}
                Ok(other) => errors.push(format!(
                    "cel evaluation error: expression '{}' eval result type should be bool but got {}",
                    condition.source(),
                    other.type_name()
                )),
                Err(error) => errors.push(format!(
                    "cel evaluation error: expression '{}' resulted in error: {error}",
                    condition.source()
                )),
            }
        }
        match errors.is_empty() {
            true => Ok(true),
            false => Err(together(&errors)),
        }
    }

    fn failed(&self, error: String) -> Decision {
        Decision::Failed {
            denied: self.configured.denies_on_failure,
            error,
        }
    }

    async fn ask(&self, asked: &Attributes<'_>) -> Decision {
        let spec = question::spec(asked);
        let started = self.clock.monotonic();
        let name = self.configured.name.as_str();
        if !self.configured.conditions.is_empty() {
            match self.concerns(&question::whole(spec.clone())) {
                Ok(true) => {}
                Ok(false) => {
                    self.metrics.excluded(name);
                    return Decision::NoOpinion(String::new());
                }
                Err(error) => {
                    self.metrics.condition_failed(name);
                    return self.failed(error);
                }
            }
        }
        let key = Sha256::digest(spec.to_string()).into();
        if let Some(known) = self.remembered.get(&key, started) {
            return known;
        }
        let version = self.configured.version.as_str();
        let question = question::review(spec, version);
        let reply = self.webhook.ask(Bytes::from(question.to_string())).await;
        let took = self.clock.monotonic().saturating_sub(started);
        let answer = reply
            .map_err(|error| error.to_string())
            .and_then(|reply| question::answer(&reply.body, version));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let evaluation = Evaluation::Failed {
                    open: !self.configured.denies_on_failure,
                };
                self.metrics.evaluated(name, evaluation, took);
                tracing::warn!(
                    webhook = name,
                    error,
                    "a webhook that decides did not answer"
                );
                return self.failed(error);
            }
        };
        self.metrics.evaluated(name, Evaluation::Success, took);
        let (decision, allowed) = judge(&At::root(&answer, "").key("status"));
        let life = match allowed {
            true => self.configured.authorized,
            false => self.configured.unauthorized,
        };
        if life > Duration::ZERO && question::written_by_asker(asked) < LARGEST_REMEMBERED {
            self.remembered
                .put(key, decision.clone(), started, started + life);
        }
        decision
    }
}

/// What the service says, and whether it allows it.
fn judge(status: &At<'_>) -> (Decision, bool) {
    let reason = status.key("reason").str().to_owned();
    let (allowed, denied) = (
        status.key("allowed").is_true(),
        status.key("denied").is_true(),
    );
    let decision = match (allowed, denied) {
        (true, true) => Decision::Failed {
            denied: true,
            error: "webhook subject access review returned both allow and deny response".to_owned(),
        },
        (_, true) => Decision::Deny(reason),
        (true, _) => Decision::Allow(reason),
        _ => Decision::NoOpinion(reason),
    };
    (decision, allowed)
}

#[async_trait]
impl Authorizer for Asked {
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        self.ask(asked).await
    }

    async fn rules(&self, _identity: &Identity, _namespace: &str) -> Rules {
        Rules {
            incomplete: true,
            errors: vec!["webhook authorizer does not support user rule resolution".to_owned()],
            ..Rules::default()
        }
    }
}
