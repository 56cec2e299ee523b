//! The flags, named as upstream's.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use coracle_api::duration;

/// Who is believed, and who decides.
#[derive(Debug, Clone, Args)]
pub struct IdentityArgs {
    /// Believe token issuers, and let strangers in, as this apiserver.config.k8s.io
    /// AuthenticationConfiguration says; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,

    /// Ask the service of this kubeconfig file whose a token is (TokenReview)
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,

    /// How long its answers are remembered; 0 is not at all
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = length_of_time,
          requires = "authentication_token_webhook_config_file")]
    pub authentication_token_webhook_cache_ttl: Duration,

    /// The version of the TokenReviews that it is sent
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "v1beta1",
        requires = "authentication_token_webhook_config_file"
    )]
    pub authentication_token_webhook_version: WebhookVersion,

    /// Whether requests without credentials are answered, as system:anonymous [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub anonymous_auth: Option<bool>,

    /// Decide on requests as this apiserver.config.k8s.io AuthorizationConfiguration says; read
    /// again when it changes
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    pub authorization_config: Option<PathBuf>,

    /// Who decides on requests, in order [default: Node,RBAC]
    #[arg(long, value_name = "MODE,…", value_delimiter = ',')]
    pub authorization_mode: Vec<AuthorizationMode>,

    /// The kubeconfig file of the service that mode Webhook asks (SubjectAccessReview)
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,

    /// The version of the SubjectAccessReviews that it is sent
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "v1beta1",
        requires = "authorization_webhook_config_file"
    )]
    pub authorization_webhook_version: WebhookVersion,

    /// How long it is remembered that somebody may
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = length_of_time,
          requires = "authorization_webhook_config_file")]
    pub authorization_webhook_cache_authorized_ttl: Duration,

    /// How long it is remembered that somebody may not
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = length_of_time,
          requires = "authorization_webhook_config_file")]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

/// Who can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthorizationMode {
    /// Kubelets may do what their pods need
    #[value(name = "Node")]
    Node,
    /// Roles and bindings
    #[value(name = "RBAC")]
    Rbac,
    /// A service is asked
    #[value(name = "Webhook")]
    Webhook,
    /// Everybody may do everything
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    /// Nobody may do anything
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
}

/// The version of what a webhook is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookVersion {
    /// The stable one
    #[value(name = "v1")]
    V1,
    /// The one before
    #[value(name = "v1beta1")]
    V1beta1,
}

impl WebhookVersion {
    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1beta1 => "v1beta1",
        }
    }
}

/// A length of time in Go's form.
fn length_of_time(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok());
    let wanted = || "expected a time such as 90s, 2m or 1h30m".to_owned();
    nanos.map(Duration::from_nanos).ok_or_else(wanted)
}
