//! What a file says about who is believed, and may say otherwise later.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_clock::Clock;
use parking_lot::RwLock;

use super::oidc::Issuer;
use super::token::{Authenticated, Rejection, Remarks, TokenAuthenticator, intersection};
use crate::config::{Anonymous, AuthenticationConfiguration, ConfigError};
use crate::outgoing::Outside;
use crate::server::Server;

/// An AuthenticationConfiguration that is in force. It is replaced as a whole while requests are answered.
pub struct ConfiguredAuthentication {
    current: RwLock<Arc<Current>>,
    /// Issuers that a file may not have.
    disallowed: Vec<String>,
    /// Whether no file may let strangers in.
    strangers_barred: bool,
    outside: Arc<dyn Outside>,
    clock: Clock,
}

struct Current {
    issuers: Vec<Issuer>,
    anonymous: Option<Anonymous>,
}

impl ConfiguredAuthentication {
    /// Begins with the text of a file. `disallowed`: the issuers of service accounts' tokens. Must be called within a
    /// tokio runtime, where the issuers' keys are looked for.
    pub fn new(
        text: &str,
        disallowed: Vec<String>,
        outside: Arc<dyn Outside>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        let configuration = AuthenticationConfiguration::parse(text, &disallowed)?;
        let current = build(configuration, &[], &outside, &clock)?;
        Ok(Self {
            current: RwLock::new(Arc::new(current)),
            disallowed,
            strangers_barred: false,
            outside,
            clock,
        })
    }

    /// Lets no strangers in, because everybody may do everything: neither may the file say otherwise now (the error), nor
    /// any later one.
    pub fn bar_strangers(&mut self) -> Result<(), ConfigError> {
        no_strangers(self.current.read().anonymous.as_ref())?;
        self.strangers_barred = true;
        Ok(())
    }

    /// Goes on with another text; a wrong one changes nothing. Issuers that stay keep their keys; those of new ones have
    /// to be found before their tokens are good.
    pub fn replace(&self, text: &str) -> Result<(), ConfigError> {
        let before = Arc::clone(&self.current.read());
        let (outside, clock) = (&self.outside, &self.clock);
        let configuration = AuthenticationConfiguration::parse(text, &self.disallowed)?;
        if self.strangers_barred {
            no_strangers(configuration.anonymous.as_ref())?;
        }
        let new = build(configuration, &before.issuers, outside, clock)?;
        *self.current.write() = Arc::new(new);
        Ok(())
    }

    /// Whether strangers may ask for the path; `default`: what the flags say.
    pub(super) fn is_open(&self, path: &str, default: bool) -> bool {
        match &self.current.read().anonymous {
            None => default,
            Some(anonymous) => {
                let here = anonymous.paths.iter().any(|open| open == path);
                anonymous.enabled && (anonymous.paths.is_empty() || here)
            }
        }
    }

    /// Whether it says anything about strangers. Upstream forbids the flag then.
    pub fn says_who_may_be_anonymous(&self) -> bool {
        self.current.read().anonymous.is_some()
    }
}

fn no_strangers(anonymous: Option<&Anonymous>) -> Result<(), ConfigError> {
    match anonymous {
        Some(anonymous) if anonymous.enabled => Err(ConfigError::Invalid(
            "anonymous.enabled: strangers cannot be let in, because everybody may do everything (AlwaysAllow): \
             set it to false, or authorize with other modes"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

fn build(
    configuration: AuthenticationConfiguration,
    before: &[Issuer],
    outside: &Arc<dyn Outside>,
    clock: &Clock,
) -> Result<Current, ConfigError> {
    let mut issuers = Vec::new();
    for jwt in configuration.jwt {
        let url = jwt.issuer.url.clone();
        let issuer = Issuer::start(jwt, before, outside, clock);
        let issuer =
            issuer.map_err(|error| ConfigError::Invalid(format!("issuer {url:?}: {error}")))?;
        issuers.push((url, issuer));
    }
    let believed = |(url, issuer)| {
        tracing::info!(issuer = url, "tokens of an issuer are believed");
        issuer
    };
    let issuers = issuers.into_iter().map(believed).collect();
    Ok(Current {
        issuers,
        anonymous: configuration.anonymous,
    })
}

#[async_trait]
impl TokenAuthenticator for ConfiguredAuthentication {
    /// Issuers' tokens are for us if their own audiences say so; then they are good for all of ours.
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection> {
        let trusted = intersection(&server.authentication.api_audiences, audiences);
        let Some(audiences) = trusted else {
            return Ok(None);
        };
        let current = Arc::clone(&self.current.read());
        for issuer in &current.issuers {
            if let Some(identity) = issuer.authenticate(token, &self.clock).await? {
                return Ok(Some(Authenticated {
                    identity,
                    audiences,
                    remarks: Remarks::default(),
                }));
            }
        }
        Ok(None)
    }
}
