//! Who is believed and who decides, as the flags and their files say.
//!
//! ```text
//! flags, files ─▶ Identity::read ─▶ the server's Config ─▶ Identity::follow: files that change are read again
//! ```
//!
//! Without any of the flags nothing here is built, and requests meet nothing of it.

mod args;
mod outside;
mod reload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coracle_clock::Clock;
use coracle_server::Config;
use coracle_server::authn::{ConfiguredAuthentication, PRIVATE_AUDIENCE, TokenWebhook};
use coracle_server::authz::{ConfiguredAuthorization, Mode};
use coracle_server::config::{AuthorizationConfiguration, Authorizer, WebhookAuthorizer};
use coracle_server::outgoing::{Outside, Webhook};
use tokio_util::sync::CancellationToken;

pub use args::{AuthorizationMode, IdentityArgs, WebhookVersion};
use outside::Host;
use reload::Followed;

/// How long a webhook that the flags name may take; upstream's.
const WITHIN: Duration = Duration::from_secs(30);

/// What the flags ask for, read and judged.
pub struct Identity {
    authentication: Option<(PathBuf, String, Arc<ConfiguredAuthentication>)>,
    authorization: Option<Arc<ConfiguredAuthorization>>,
    /// The file of that, if it is one.
    authorization_file: Option<(PathBuf, String)>,
    webhook: Option<TokenWebhook>,
    anonymous: bool,
    clock: Clock,
}

impl Identity {
    /// Reads the files. Errors name the file, and say what is wrong in it. Must be called within a tokio runtime.
    pub fn read(args: &IdentityArgs, clock: &Clock) -> Result<Self> {
        let outside: Arc<dyn Outside> = Arc::new(Host);
        let mut anonymous = args.anonymous_auth.unwrap_or(true);
        let mut authentication = None;
        if let Some(path) = &args.authentication_config {
            let text = text_of("authentication", path)?;
            let disallowed = vec![PRIVATE_AUDIENCE.to_owned()];
            let outside = Arc::clone(&outside);
            let built = ConfiguredAuthentication::new(&text, disallowed, outside, clock.clone());
            let built = built.with_context(|| unusable("authentication", path))?;
            if built.says_who_may_be_anonymous() && args.anonymous_auth.is_some() {
                bail!(
                    "--anonymous-auth flag cannot be set when anonymous field is configured in authentication configuration file"
                );
            }
            authentication = Some((path.clone(), text, built));
        }
        let webhook = token_webhook(args, &outside, clock)?;
        let (authorization, authorization_file) = authorization(args, &outside, clock)?;
        if authorization.as_ref().is_some_and(|all| all.allows_all()) {
            if let Some((path, _, configured)) = &mut authentication {
                let barred = configured.bar_strangers();
                barred.with_context(|| unusable("authentication", path))?;
            }
            if anonymous {
                tracing::warn!(
                    "strangers are not let in, because everybody may do everything (AlwaysAllow)"
                );
            }
            anonymous = false;
        }
        Ok(Self {
            authentication: authentication.map(|(path, text, all)| (path, text, Arc::new(all))),
            authorization,
            authorization_file,
            webhook,
            anonymous,
            clock: clock.clone(),
        })
    }

    /// Puts what was read into the server's configuration.
    pub fn apply(&mut self, server: &mut Config) {
        let authentication = &mut server.authentication;
        authentication.anonymous = self.anonymous;
        authentication.webhook = self.webhook.take();
        if let Some((_, _, configured)) = &self.authentication {
            authentication.configured = Some(Arc::clone(configured));
        }
        if let Some(configured) = &self.authorization {
            server.authorizers = vec![Mode::Configured(Arc::clone(configured))];
        }
    }

    /// The tasks that read files again when they change, until `stop`.
    pub fn follow(self, stop: &CancellationToken) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let mut followed = Vec::new();
        if let Some((path, text, configured)) = self.authentication {
            followed.push(Followed {
                what: "authentication",
                path,
                text,
                replace: Box::new(move |text| configured.replace(text)),
                problem: None,
            });
        }
        if let (Some((path, text)), Some(configured)) =
            (self.authorization_file, self.authorization)
        {
            followed.push(Followed {
                what: "authorization",
                path,
                text,
                replace: Box::new(move |text| configured.replace(text, &look)),
                problem: None,
            });
        }
        let clock = self.clock;
        let tasks = followed.into_iter().map(|followed| {
            let (clock, stop) = (clock.clone(), stop.clone());
            async move {
                let _ = stop.run_until_cancelled(followed.run(clock)).await;
            }
        });
        tasks.collect()
    }
}

fn token_webhook(
    args: &IdentityArgs,
    outside: &Arc<dyn Outside>,
    clock: &Clock,
) -> Result<Option<TokenWebhook>> {
    let Some(path) = &args.authentication_token_webhook_config_file else {
        return Ok(None);
    };
    let webhook = Webhook::load(path, WITHIN, outside, clock);
    let webhook = webhook.context("--authentication-token-webhook-config-file")?;
    Ok(Some(TokenWebhook::new(
        webhook,
        args.authentication_token_webhook_version.name(),
        args.authentication_token_webhook_cache_ttl,
        clock.clone(),
    )))
}

type Authorization = (
    Option<Arc<ConfiguredAuthorization>>,
    Option<(PathBuf, String)>,
);

fn authorization(
    args: &IdentityArgs,
    outside: &Arc<dyn Outside>,
    clock: &Clock,
) -> Result<Authorization> {
    let outside = Arc::clone(outside);
    if let Some(path) = &args.authorization_config {
        let text = text_of("authorization", path)?;
        let built = ConfiguredAuthorization::parse(&text, &look, outside, clock.clone());
        let built = built.with_context(|| unusable("authorization", path))?;
        return Ok((Some(Arc::new(built)), Some((path.clone(), text))));
    }
    if args.authorization_mode.is_empty() {
        return Ok((None, None));
    }
    let configuration = of_modes(args)?;
    let built = ConfiguredAuthorization::new(configuration, outside, clock.clone());
    let built = built.context("--authorization-webhook-config-file")?;
    Ok((Some(Arc::new(built)), None))
}

/// What the flags say, as a file would.
fn of_modes(args: &IdentityArgs) -> Result<AuthorizationConfiguration> {
    let mut authorizers = Vec::new();
    let mut seen = Vec::new();
    for mode in &args.authorization_mode {
        if seen.contains(mode) {
            bail!("--authorization-mode has the mode {mode:?} specified more than once");
        }
        seen.push(*mode);
        authorizers.push(match mode {
            AuthorizationMode::Node => Authorizer::Node,
            AuthorizationMode::Rbac => Authorizer::Rbac,
            AuthorizationMode::AlwaysAllow => Authorizer::AlwaysAllow,
            AuthorizationMode::AlwaysDeny => Authorizer::AlwaysDeny,
            AuthorizationMode::Webhook => {
                let Some(kubeconfig) = &args.authorization_webhook_config_file else {
                    bail!(
                        "authorization-mode Webhook's authorization config file not passed: give --authorization-webhook-config-file"
                    );
                };
                Authorizer::Webhook(Box::new(WebhookAuthorizer {
                    name: "default".to_owned(),
                    timeout: WITHIN,
                    authorized: args.authorization_webhook_cache_authorized_ttl,
                    unauthorized: args.authorization_webhook_cache_unauthorized_ttl,
                    version: args.authorization_webhook_version.name().to_owned(),
                    denies_on_failure: false,
                    kubeconfig: kubeconfig.clone(),
                    conditions: Vec::new(),
                }))
            }
        });
    }
    if args.authorization_webhook_config_file.is_some()
        && !seen.contains(&AuthorizationMode::Webhook)
    {
        bail!("cannot specify --authorization-webhook-config-file without mode Webhook");
    }
    Ok(AuthorizationConfiguration { authorizers })
}

/// What is wrong with a path that should be a regular file.
fn look(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Err(error) => Some(format!("error loading file: {error}")),
        Ok(metadata) if !metadata.is_file() => Some("must be a regular file".to_owned()),
        Ok(_) => None,
    }
}

fn text_of(what: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the {what} configuration {}", path.display()))
}

fn unusable(what: &str, path: &Path) -> String {
    format!("the {what} configuration {} is not usable", path.display())
}

#[cfg(test)]
mod tests;
