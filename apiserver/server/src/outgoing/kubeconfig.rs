//! Webhooks as kubeconfig files describe them: the cluster is the service that is called, the user is this server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_api::At;
use coracle_api::schema::{self, SchemaRef};
use coracle_clock::Clock;
use http::{HeaderValue, Method};
use rustls::pki_types::ServerName;
use serde_json::Value;

use super::token_file::TokenFile;
use super::{
    Backoff, Call, CallError, Client, Outside, Reply, Target, certificates_in, may_try_again, tls,
};

/// Most bytes of a webhook's answer.
const MOST: usize = 1 << 20;

/// Why a kubeconfig describes no webhook. Secrets in it are not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kubeconfig {path}: {why}")]
pub struct KubeconfigError {
    path: String,
    why: String,
}

/// A service that is asked in JSON, and answers in JSON.
pub struct Webhook {
    client: Client,
    target: Target,
    authorization: Option<HeaderValue>,
    /// In the place of that, if the token is in a file.
    token_file: Option<TokenFile>,
    within: Duration,
}

impl Webhook {
    /// Reads the file of that path. Each call may take `within`, its repetitions not counted.
    pub fn load(
        path: &Path,
        within: Duration,
        outside: &Arc<dyn Outside>,
        clock: &Clock,
    ) -> Result<Self, KubeconfigError> {
        let wrong = |why: String| KubeconfigError {
            path: path.display().to_string(),
            why,
        };
        let text = outside
            .read(path)
            .map_err(|error| wrong(error.to_string()))?;
        let decoded = schema::decode_yaml(&text, &SchemaRef::any());
        // What the reader says may quote the file, which has secrets.
        let value = decoded.map_err(|_| wrong("is no YAML".to_owned()))?.value;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = File {
            root: &value,
            folder,
            outside: outside.as_ref(),
        };
        file.webhook(within, outside, clock).map_err(wrong)
    }

    /// Asks, and again after a while if that may help. The body is a whole answer of status 2xx.
    pub async fn ask(&self, question: Bytes) -> Result<Reply, CallError> {
        let mut backoff = Backoff::default();
        loop {
            let outcome = self.once(question.clone()).await;
            if may_try_again(&outcome) {
                let asked = outcome.as_ref().ok().and_then(|reply| reply.retry_after);
                let clock = self.client.clock();
                if let Some(wait) = backoff.next(asked, clock) {
                    tracing::debug!(webhook = %self.target, "a webhook is asked again");
                    clock.sleep(wait).await;
                    continue;
                }
            }
            return match outcome {
                Ok(reply) if !reply.status.is_success() => Err(CallError::Broken {
                    at: self.target.to_string(),
                    why: format!("the server answered {}", reply.status),
                }),
                outcome => outcome,
            };
        }
    }

    async fn once(&self, question: Bytes) -> Result<Reply, CallError> {
        let authorization = match &self.token_file {
            Some(file) => {
                let header = file.header(self.client.clock()).await;
                Some(header.map_err(|why| CallError::Connect {
                    at: self.target.to_string(),
                    why,
                })?)
            }
            None => self.authorization.clone(),
        };
        let call = Call {
            method: Method::POST,
            body: Some(("application/json", question)),
            authorization,
            within: self.within,
            most: MOST,
        };
        self.client.send(&self.target, call).await
    }
}

struct File<'a> {
    root: &'a Value,
    /// Where relative paths begin.
    folder: &'a Path,
    outside: &'a dyn Outside,
}

type Found<T> = Result<T, String>;

impl File<'_> {
    fn webhook(
        &self,
        within: Duration,
        outside: &Arc<dyn Outside>,
        clock: &Clock,
    ) -> Found<Webhook> {
        let root = At::root(self.root, "");
        let context = self.named(
            &root,
            "contexts",
            "context",
            root.key("current-context").str(),
        )?;
        let cluster = self.named(&root, "clusters", "cluster", context.key("cluster").str())?;
        let user = match context.key("user").str() {
            "" => At::maybe(None, "users"),
            name => self.named(&root, "users", "user", name)?,
        };
        if cluster.key("insecure-skip-tls-verify").is_true() {
            return Err(
                "insecure-skip-tls-verify is not supported: give certificate-authority".to_owned(),
            );
        }
        for unsupported in ["exec", "auth-provider", "as", "proxy-url"] {
            if user.key(unsupported).exists() || cluster.key(unsupported).exists() {
                return Err(format!("{unsupported} is not supported for webhooks"));
            }
        }
        let target =
            Target::parse(cluster.key("server").str()).map_err(|error| error.to_string())?;
        let roots = match self.data(&cluster, "certificate-authority")? {
            Some(pem) => Arc::new(certificates_in(&pem).map_err(|error| error.to_string())?),
            None => outside.roots()?,
        };
        let identity = match (
            self.data(&user, "client-certificate")?,
            self.data(&user, "client-key")?,
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("client-certificate and client-key go together".to_owned()),
        };
        let identity = identity
            .as_ref()
            .map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        let config = tls::config(roots, identity).map_err(|error| error.to_string())?;
        let name = match cluster.key("tls-server-name").str() {
            "" => None,
            name => Some(ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?),
        };
        let token_file = user
            .key("tokenFile")
            .as_str()
            .filter(|path| !path.is_empty());
        Ok(Webhook {
            client: Client::with(Arc::clone(outside), config, name, clock.clone()),
            target,
            authorization: authorization(&user)?,
            token_file: token_file
                .map(|path| TokenFile::new(self.folder.join(path), Arc::clone(outside))),
            within,
        })
    }

    /// The entry of a list of named things; without a name, the only one.
    fn named<'v>(&self, root: &At<'v>, list: &str, field: &str, name: &str) -> Found<At<'v>> {
        let list_at = root.key(list);
        let mut entries = list_at
            .items()
            .filter(|entry| name.is_empty() || entry.key("name").str() == name);
        match (entries.next(), entries.next(), name) {
            (Some(one), None, "") => Ok(one.key(field)),
            (Some(one), _, name) if !name.is_empty() => Ok(one.key(field)),
            (Some(_), _, _) => Err(format!("several {list} and no current-context")),
            (None, ..) => Err(format!("no {field} {name:?}")),
        }
    }

    /// What is in the field, or in the file that it names; `FIELD-data` is the former, in base64.
    fn data(&self, of: &At<'_>, field: &str) -> Found<Option<Vec<u8>>> {
        let inline = of.key(&format!("{field}-data"));
        if !inline.str().is_empty() {
            let decoded = STANDARD.decode(inline.str());
            return decoded
                .map(Some)
                .map_err(|_| format!("{field}-data is no base64"));
        }
        let path = of.key(field);
        if path.str().is_empty() {
            return Ok(None);
        }
        let path = self.folder.join(path.str());
        let read = self.outside.read(&path);
        read.map(Some)
            .map_err(|error| format!("{field} {}: {error}", path.display()))
    }
}

fn authorization(user: &At<'_>) -> Found<Option<HeaderValue>> {
    let text = |field: &str| user.key(field).str();
    let header = match (text("token"), text("username")) {
        ("", "") => return Ok(None),
        ("", name) => {
            let pair = STANDARD.encode(format!("{name}:{}", text("password")));
            secret(&format!("Basic {pair}"))
        }
        (token, _) => bearer(token),
    };
    header
        .map(Some)
        .ok_or_else(|| "the user's token cannot be sent".to_owned())
}

/// The header with the token; `None` if it cannot be sent.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {}", token.trim()))
}

/// A header that nothing prints.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
