//! What is asked of one repository on behalf of one credential.

mod ask;
mod blob;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, HeaderName};
use ::http::{Method, Response};
use bytes::Bytes;
use coracle_clock::Clock;
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::error::RegistryError;
use super::hosts::{Endpoint, endpoints};
use super::http::{Http, Patience, SharedHttp};
use crate::digest::Digest;
use crate::keyring::{Credential, Keyring};
use crate::reference::Name;
use crate::spec::{MAX_DOCUMENT_BYTES, media};

/// Attempts at one request, or at one blob without any progress.
const ATTEMPTS: u32 = 4;

/// What every session shares.
#[derive(Clone)]
pub(crate) struct Registry {
    http: SharedHttp,
    hosts: Option<PathBuf>,
    clock: Clock,
}

impl Registry {
    /// Registries that are reached as the files in `hosts` say.
    pub(crate) fn new(hosts: Option<PathBuf>, patience: Patience, clock: Clock) -> Self {
        let http = Arc::new(Http::new(patience));
        Self { http, hosts, clock }
    }

    /// A session for `name`. `mirrors` has credentials for hosts other than the registry.
    pub(crate) fn session(
        &self,
        name: &Name,
        credential: Option<Credential>,
        mirrors: &Keyring,
    ) -> Result<Session, RegistryError> {
        let places = endpoints(self.hosts.as_deref(), &name.registry)
            .map_err(|error| RegistryError::Local(error.to_string()))?;
        let credentials = places.iter().map(|place| match place.mirror {
            false => credential.clone(),
            true => {
                let repository = format!("{}/{}", place.authority, name.repository);
                mirrors.lookup(&repository).into_iter().next()
            }
        });
        Ok(Session {
            credentials: credentials.collect(),
            http: self.http.clone(),
            clock: self.clock.clone(),
            registry: name.registry.clone(),
            repository: name.repository.clone(),
            places,
            tokens: Mutex::default(),
        })
    }
}

/// See the module.
pub(crate) struct Session {
    pub(super) http: SharedHttp,
    clock: Clock,
    /// The registry as references name it.
    registry: String,
    pub(super) repository: String,
    pub(super) places: Vec<Endpoint>,
    /// One per place.
    credentials: Vec<Option<Credential>>,
    /// Values of `Authorization` by place and by whether they allow to push.
    tokens: Mutex<HashMap<(usize, bool), String>>,
}

/// One request.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// After the place's base, or a whole URL.
    pub(super) target: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Payload,
    /// Whether the token has to allow to push.
    pub(super) push: bool,
}

/// What is sent along.
#[derive(Clone)]
pub(super) enum Payload {
    Nothing,
    Bytes(Bytes),
    File(PathBuf, u64),
}

impl Ask {
    pub(super) fn get(target: String) -> Self {
        Self {
            method: Method::GET,
            target,
            headers: Vec::new(),
            body: Payload::Nothing,
            push: false,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A manifest or index as it came.
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Session {
    /// The digest that `reference` (a tag or a digest) stands for now, without its manifest. `None`
    /// when the registry does not tell.
    pub(crate) async fn resolve(&self, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let (said, _) = self.look_anywhere(reference, Method::HEAD).await?;
        Ok(said)
    }

    /// The manifest that `reference` (a tag or a digest) stands for now; verified when it is a digest.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Document, RegistryError> {
        let (_, document) = self.look_anywhere(reference, Method::GET).await?;
        Ok(document)
    }

    /// What one place says of a manifest: its digest, and the manifest if that is asked for.
    async fn look(
        &self,
        place: usize,
        reference: &str,
        method: Method,
    ) -> Result<(Option<Digest>, Document), RegistryError> {
        let mut ask = Ask::get(self.path("manifests", reference)).with(ACCEPT, media::ACCEPT);
        ask.method = method.clone();
        let answer = self.check(place, self.ask(place, &ask).await?).await?;
        let said = said_digest(&answer);
        let host = &self.places[place].authority;
        let body = answer.into_body();
        let bytes = self.http.read(host, body, MAX_DOCUMENT_BYTES).await?;
        let digest = Digest::of(&bytes);
        let wanted = reference.parse::<Digest>().ok().or(said);
        match wanted.filter(|wanted| method == Method::GET && *wanted != digest) {
            Some(wanted) => Err(RegistryError::Wrong {
                host: host.clone(),
                problem: format!("the manifest {reference} has the digest {digest}, not {wanted}"),
            }),
            None => Ok((said, Document { bytes, digest })),
        }
    }

    /// Asks the places in turn, each several times while its failure may pass.
    async fn look_anywhere(
        &self,
        reference: &str,
        method: Method,
    ) -> Result<(Option<Digest>, Document), RegistryError> {
        let by_digest = reference.parse::<Digest>().is_ok();
        let mut before: Option<RegistryError> = None;
        for (place, endpoint) in self.places.iter().enumerate() {
            let can = endpoint.can;
            if !(can.resolve || by_digest && can.pull) {
                continue;
            }
            let mut failures = 0;
            let failed = loop {
                match self.look(place, reference, method.clone()).await {
                    Ok(found) => return Ok(found),
                    Err(error) => {
                        failures += 1;
                        if endpoint.mirror || !self.pause(&error, failures).await {
                            break error;
                        }
                    }
                }
            };
            before = Some(joined(before, failed, endpoint.mirror));
        }
        Err(before.unwrap_or_else(|| self.nobody("resolve")))
    }

    /// Waits before another attempt; false when there is to be none.
    pub(super) async fn pause(&self, error: &RegistryError, failures: u32) -> bool {
        let patience = &self.http.patience;
        if !error.is_passing() || failures >= ATTEMPTS {
            return false;
        }
        let doubled = patience.first_pause * 2u32.pow(failures - 1);
        let asked = error.retry_after().unwrap_or(Duration::ZERO);
        if asked > patience.longest_pause {
            return false;
        }
        // Not all nodes at once.
        let most = u64::try_from(doubled.as_millis() / 4).unwrap_or(0) + 1;
        let jitter = Duration::from_millis(self.clock.random_below(most));
        tracing::debug!(%error, "will be asked again");
        self.clock.sleep(doubled.max(asked) + jitter).await;
        true
    }

    fn nobody(&self, what: &str) -> RegistryError {
        RegistryError::Local(format!(
            "no host of the registry's hosts.toml has the capability {what:?}"
        ))
    }

    pub(super) fn path(&self, kind: &str, what: &str) -> String {
        format!("/{}/{kind}/{what}", self.repository)
    }
}

fn said_digest(answer: &Response<Incoming>) -> Option<Digest> {
    let said = answer.headers().get("docker-content-digest")?;
    said.to_str().ok()?.parse().ok()
}

/// The failure of one place after that of others. The last one is what counts.
fn joined(before: Option<RegistryError>, last: RegistryError, mirror: bool) -> RegistryError {
    if mirror {
        tracing::warn!(error = %last, "a mirror failed, the next host is asked");
    }
    match (before, last) {
        (None, last) => last,
        (
            Some(before),
            RegistryError::Refused {
                host,
                status,
                words,
                retry_after,
            },
        ) => RegistryError::Refused {
            words: format!("{words} (before that, {before})"),
            host,
            status,
            retry_after,
        },
        (Some(before), RegistryError::Unreachable { host, problem }) => {
            let problem = format!("{problem} (before that, {before})");
            RegistryError::Unreachable { host, problem }
        }
        (Some(_), last) => last,
    }
}

fn local(error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Local(format!("image store: {error}"))
}
