//! What is asked of one repository on behalf of one credential.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
    RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use ::http::{Method, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use coracle_clock::Clock;
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::auth::{self, Challenge};
use super::error::{RegistryError, words};
use super::hosts::{Endpoint, Trust, endpoints, is_loopback};
use super::http::{Body, Http, Patience, Place, SharedHttp, empty, full};
use crate::digest::Digest;
use crate::keyring::{Credential, Keyring};
use crate::reference::Name;
use crate::spec::{Descriptor, MAX_DOCUMENT_BYTES, media};
use crate::store::BlobWriter;

/// Attempts at one request, or at one blob without any progress.
const ATTEMPTS: u32 = 4;
/// Bytes of a blob after which its failures are counted anew.
const RESTARTS_PATIENCE: u64 = 64 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Bytes of an error that are read.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Bytes that are collected before they go to the disk.
const CHUNK: usize = 256 << 10;

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

    /// Fetches the blob of `wanted` into `writer`, going on where it is. Tells `progress` how many
    /// bytes are there. The writer has verified the digest when this returns.
    pub(crate) async fn blob(
        &self,
        wanted: &Descriptor,
        mut writer: BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let path = self.path("blobs", &wanted.digest.to_string());
        let mut before: Option<RegistryError> = None;
        for (place, endpoint) in self.places.iter().enumerate() {
            if !endpoint.can.pull {
                continue;
            }
            let mut failures = 0;
            loop {
                let had = writer.len();
                let failed = match self.blob_from(place, &path, wanted, writer, progress).await {
                    (_, Ok(())) => return Ok(()),
                    (back, Err(error)) => {
                        match back {
                            Some(back) => writer = back,
                            // The disk's fault; another place would not help.
                            None => return Err(error),
                        }
                        error
                    }
                };
                let is_progress = writer.len() >= had + RESTARTS_PATIENCE;
                failures = if is_progress { 1 } else { failures + 1 };
                if endpoint.mirror || !self.pause(&failed, failures).await {
                    before = Some(joined(before, failed, endpoint.mirror));
                    break;
                }
            }
        }
        Err(before.unwrap_or_else(|| self.nobody("pull")))
    }

    /// One attempt at a blob at one place. Gives the writer back when it can go on.
    async fn blob_from(
        &self,
        place: usize,
        path: &str,
        wanted: &Descriptor,
        mut writer: BlobWriter,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> (Option<BlobWriter>, Result<(), RegistryError>) {
        let host = self.places[place].authority.clone();
        let mut ask = Ask::get(path.to_owned());
        if writer.len() > 0 && writer.len() < wanted.size {
            ask = ask.with(RANGE, format!("bytes={}-", writer.len()));
        }
        let answer = match self.ask(place, &ask).await {
            Ok(answer) => answer,
            Err(error) => return (Some(writer), Err(error)),
        };
        let resumes = answer.status() == StatusCode::PARTIAL_CONTENT
            && starts_at(&answer) == Some(writer.len());
        if !resumes && (writer.len() > 0 || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE) {
            // It has no ranges, or another idea of the blob.
            match writer.restart().await {
                Ok(fresh) => writer = fresh,
                Err(error) => return (None, Err(local(error))),
            }
        }
        let mut body = match self.check(place, answer).await {
            Ok(answer) => answer.into_body(),
            Err(error) => return (Some(writer), Err(error)),
        };
        let mut window = self.http.window();
        let mut pending: Vec<u8> = Vec::with_capacity(CHUNK);
        let outcome = loop {
            let next = self.http.next(&host, &mut body, &mut window).await;
            if let Ok(Some(data)) = &next {
                pending.extend_from_slice(data);
            }
            let total = writer.len() + pending.len() as u64;
            if total > wanted.size {
                break Err(RegistryError::Wrong {
                    host: host.clone(),
                    problem: format!(
                        "blob {} is longer than the {} bytes that its manifest says",
                        wanted.digest, wanted.size
                    ),
                });
            }
            let is_last = !matches!(next, Ok(Some(_)));
            if pending.len() >= CHUNK || is_last && !pending.is_empty() {
                let chunk = std::mem::replace(&mut pending, Vec::with_capacity(CHUNK));
                match writer.write(chunk).await {
                    Ok(back) => writer = back,
                    Err(error) => return (None, Err(local(error))),
                }
                progress(writer.len());
            }
            match next {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = outcome {
            if matches!(error, RegistryError::Wrong { .. }) {
                // Nothing of it can be trusted to be a beginning.
                return match writer.restart().await {
                    Ok(fresh) => (Some(fresh), Err(error)),
                    Err(disk) => (None, Err(local(disk))),
                };
            }
            return (Some(writer), Err(error));
        }
        if writer.len() < wanted.size {
            let problem = format!(
                "blob {} ended after {} of {} bytes",
                wanted.digest,
                writer.len(),
                wanted.size
            );
            return (
                Some(writer),
                Err(RegistryError::Unreachable { host, problem }),
            );
        }
        match writer.finish().await {
            Ok(Ok(())) => (None, Ok(())),
            Ok(Err((fresh, found))) => {
                let problem = format!(
                    "blob {} has the digest {found}: it was damaged or replaced",
                    wanted.digest
                );
                (Some(fresh), Err(RegistryError::Wrong { host, problem }))
            }
            Err(error) => (None, Err(local(error))),
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

    /// Sends a request, with a token if the place wants one, through redirects if it says so.
    pub(super) async fn ask(
        &self,
        place: usize,
        ask: &Ask,
    ) -> Result<Response<Incoming>, RegistryError> {
        let answer = self.send(place, ask).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::of(challenges.iter().filter_map(|value| value.to_str().ok()));
        match self.authorize(place, challenge, ask.push).await? {
            Some(authorization) => {
                self.tokens.lock().insert((place, ask.push), authorization);
                self.send(place, ask).await
            }
            None => Ok(answer),
        }
    }

    /// The value of `Authorization` that satisfies `challenge`; `None` when there is nothing new to say.
    async fn authorize(
        &self,
        place: usize,
        challenge: Option<Challenge>,
        push: bool,
    ) -> Result<Option<String>, RegistryError> {
        let credential = self.credentials[place].as_ref();
        if let Some(token) = credential
            .map(|c| &c.registry_token)
            .filter(|t| !t.is_empty())
        {
            return Ok(Some(format!("Bearer {token}")));
        }
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(credential.map(auth::basic)),
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let actions = if push { "pull,push" } else { "pull" };
                let ours = format!("repository:{}:{actions}", self.repository);
                // What the registry names is what it will check.
                let scope = scope.unwrap_or(ours);
                let token = self
                    .token(place, &realm, service.as_deref(), &scope, credential)
                    .await?;
                Ok(Some(format!("Bearer {token}")))
            }
        }
    }

    async fn token(
        &self,
        place: usize,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<String, RegistryError> {
        let endpoint = &self.places[place];
        let wrong = |problem: String| RegistryError::Wrong {
            host: endpoint.authority.clone(),
            problem,
        };
        let (server, path) = target(realm, endpoint)
            .ok_or_else(|| wrong(format!("names the token server {realm:?}, which is no URL")))?;
        if credential.is_some() && !may_have_password(&server, endpoint) {
            return Err(wrong(format!(
                "names the token server {realm:?}, which has no TLS; no password is sent there"
            )));
        }
        let refresh = credential.filter(|c| !c.identity_token.is_empty());
        let request = match refresh {
            Some(credential) => {
                let form = auth::refresh_form(service, scope, &credential.identity_token);
                Request::post(path)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(full(form.into()))
            }
            None => {
                let query = auth::token_query(service, scope, credential);
                let joint = if path.contains('?') { '&' } else { '?' };
                let mut request = Request::get(format!("{path}{joint}{query}"));
                if let Some(credential) = credential {
                    request = request.header(AUTHORIZATION, auth::basic(credential));
                }
                request.body(empty())
            }
        };
        let request = request.map_err(|error| wrong(format!("token request: {error}")))?;
        let answer = self.http.send(&server, request).await?;
        let (head, body) = answer.into_parts();
        let host = server.authority;
        let body = self.http.read(&host, body, MAX_DOCUMENT_BYTES).await?;
        if !head.status.is_success() {
            return Err(RegistryError::Refused {
                host,
                status: head.status,
                words: words(&body),
                retry_after: retry_after(&head.headers),
            });
        }
        auth::token_of(&body).ok_or_else(|| RegistryError::Wrong {
            host,
            problem: "the token server answered without a token".to_owned(),
        })
    }

    /// Sends a request and follows redirects, which lose what only the registry may see.
    async fn send(&self, index: usize, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        let endpoint = &self.places[index];
        let wrong = |problem: String| RegistryError::Wrong {
            host: endpoint.authority.clone(),
            problem,
        };
        let url = match ask.target.starts_with('/') {
            // Mirrors of several registries go by the query, as containerd has it.
            true if endpoint.mirror => {
                format!("{}{}?ns={}", endpoint.base, ask.target, self.registry)
            }
            true => format!("{}{}", endpoint.base, ask.target),
            false => ask.target.clone(),
        };
        let (mut place, mut path) = target(&url, endpoint)
            .ok_or_else(|| wrong(format!("names {url:?}, which is no URL")))?;
        if endpoint.tls && !place.tls {
            return Err(wrong(format!(
                "names {url:?}, which has no TLS although the registry has"
            )));
        }
        let authorization = self.tokens.lock().get(&(index, ask.push)).cloned();
        for _ in 0..=REDIRECTS {
            let is_home = place.authority == endpoint.authority && place.tls == endpoint.tls;
            let mut request = Request::builder()
                .method(ask.method.clone())
                .uri(&path)
                .header(USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION")));
            for (name, value) in &ask.headers {
                request = request.header(name, value);
            }
            if is_home {
                for (name, value) in &endpoint.headers {
                    request = request.header(name, value);
                }
                if let Some(value) = &authorization {
                    let mut value = HeaderValue::from_str(value)
                        .map_err(|_| wrong("the credential cannot be sent".to_owned()))?;
                    value.set_sensitive(true);
                    request = request.header(AUTHORIZATION, value);
                }
            }
            let body = payload(&ask.body).await?;
            let request = request
                .body(body)
                .map_err(|error| wrong(format!("request: {error}")))?;
            let answer = self.http.send(&place, request).await?;
            let is_read = matches!(ask.method, Method::GET | Method::HEAD);
            if !is_read || !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let Some(location) = location else {
                return Ok(answer);
            };
            let (next, next_path) = follow(location, &place, endpoint)
                .ok_or_else(|| wrong(format!("redirects to {location:?}, which is no URL")))?;
            if place.tls && !next.tls {
                return Err(wrong(format!("redirects from TLS to {location:?} without")));
            }
            (place, path) = (next, next_path);
        }
        Err(wrong(format!("more than {REDIRECTS} redirects")))
    }

    /// The answer, if it is one of success; otherwise what the registry said.
    pub(super) async fn check(
        &self,
        place: usize,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, RegistryError> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let host = self.places[place].authority.clone();
        let (head, body) = answer.into_parts();
        // Words are a courtesy: without them there is still the status.
        let body = self.http.read(&host, body, MAX_ERROR_BYTES).await;
        let mut said = words(&body.unwrap_or_default());
        let retry_after = retry_after(&head.headers);
        if let Some(pause) = retry_after {
            said.push_str(&format!(" (asks for a pause of {}s)", pause.as_secs()));
        }
        Err(RegistryError::Refused {
            host,
            status: head.status,
            words: said,
            retry_after,
        })
    }
}

async fn payload(payload: &Payload) -> Result<Body, RegistryError> {
    match payload {
        Payload::Nothing => Ok(empty()),
        Payload::Bytes(bytes) => Ok(full(bytes.clone())),
        Payload::File(path, size) => super::push::file(path, *size).await.map_err(|error| {
            RegistryError::Local(format!("failed to read {}: {error}", path.display()))
        }),
    }
}

/// Whether a token server that the registry at `endpoint` names gets the password. In the clear it
/// crosses a network only to a registry that was itself configured to be reached so.
fn may_have_password(server: &Place, endpoint: &Endpoint) -> bool {
    let is_registry = !endpoint.tls && server.authority.eq_ignore_ascii_case(&endpoint.authority);
    server.tls || is_registry || is_loopback(&server.authority)
}

/// Place and path of a URL, or of a path at `endpoint`.
fn target(url: &str, endpoint: &Endpoint) -> Option<(Place, String)> {
    let home = Place {
        tls: endpoint.tls,
        authority: endpoint.authority.clone(),
        trust: endpoint.trust.clone(),
    };
    follow(url, &home, endpoint)
}

/// Where `location`, said by `from`, leads. Authorities and certificates of files count for their
/// host alone.
fn follow(location: &str, from: &Place, endpoint: &Endpoint) -> Option<(Place, String)> {
    let uri: Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let place = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) => {
            let is_home = authority.as_str() == endpoint.authority;
            Place {
                tls: scheme == "https",
                authority: authority.as_str().to_owned(),
                trust: match is_home {
                    true => endpoint.trust.clone(),
                    false => Trust {
                        client: None,
                        skip_verify: false,
                        ..endpoint.trust.clone()
                    },
                },
            }
        }
        (None, None) if path.starts_with('/') => from.clone(),
        _ => return None,
    };
    Some((place, path.to_owned()))
}

fn said_digest(answer: &Response<Incoming>) -> Option<Digest> {
    let said = answer.headers().get("docker-content-digest")?;
    said.to_str().ok()?.parse().ok()
}

/// Where the bytes of a partial answer begin.
fn starts_at(answer: &Response<Incoming>) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.parse().ok()
}

/// Seconds; the form with a date is rare and not worth a clock.
fn retry_after(headers: &::http::HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::hosts::parse;

    #[test]
    fn passwords_go_in_the_clear_to_the_registry_itself_at_most() {
        let endpoint = |url: &str| {
            let text = format!("server = \"{url}\"");
            let folder = std::path::Path::new("/");
            let endpoints = parse(&text, folder, "r.example").unwrap();
            endpoints.into_iter().next_back().unwrap()
        };
        for (registry, realm, expected) in [
            ("https://r.example", "https://auth.example/token", true),
            ("https://r.example", "http://r.example/token", false),
            ("https://r.example", "http://127.0.0.1:5000/token", true),
            ("http://r.example", "https://auth.example/token", true),
            ("http://r.example", "http://auth.example/token", false),
            ("http://r.example", "http://r.example:81/token", false),
            ("http://r.example:5000", "http://R.example:5000/token", true),
            ("http://r.example:5000", "/token", true),
            ("http://r.example", "http://localhost:5000/token", true),
            ("http://127.0.0.1:5000", "http://auth.example/token", false),
        ] {
            let endpoint = endpoint(registry);
            let (server, _) = target(realm, &endpoint).unwrap();
            let may = may_have_password(&server, &endpoint);
            assert_eq!(may, expected, "{registry} names {realm}");
        }
    }
}
