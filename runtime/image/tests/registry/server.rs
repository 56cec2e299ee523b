//! A registry of this process that can be made to fail.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coracle_image::{Descriptor, Digest, Manifest, media};
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What happens to one request instead of its answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another answer: status, header, body.
    Status(u16, Option<(&'static str, &'static str)>, &'static str),
    /// The connection ends after so many bytes of the body.
    Truncate(usize),
    /// No byte comes after so many.
    Stall(usize),
    /// Other bytes of the same number.
    Damage,
    /// More bytes than there are.
    Longer,
}

/// Whom the registry answers.
#[derive(Clone, Debug, Default)]
pub(crate) enum Auth {
    /// Everybody.
    #[default]
    Open,
    /// Who has this name and password.
    Basic(&'static str),
    /// Who has a token, which its own token server gives for this name and password.
    Token(&'static str),
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    manifests: HashMap<String, (String, Bytes)>,
    faults: Vec<(String, VecDeque<Fault>)>,
    auth: Auth,
    log: Vec<String>,
    /// A range makes no difference.
    ignores_ranges: bool,
}

/// The registry; ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct TestRegistry {
    state: Arc<Mutex<State>>,
    pub(crate) address: SocketAddr,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    pub(crate) async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Self {
            state: Arc::default(),
            address,
        };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (registry, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let registry = registry.clone();
                        async move { Ok::<_, Infallible>(registry.answer(request)) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else {
                                return;
                            };
                            http.serve_connection(TokioIo::new(stream), service).await
                        }
                    };
                });
            }
        });
        registry
    }

    /// The reference of `repository:tag` here.
    pub(crate) fn image(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub(crate) fn blob(&self, kind: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        let mut state = self.state.lock().unwrap();
        let kept = Bytes::copy_from_slice(bytes);
        state.blobs.insert(digest.to_string(), kept);
        Descriptor {
            media_type: kind.to_owned(),
            digest,
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        }
    }

    /// Puts a manifest under a tag and its digest.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, manifest: &Manifest) -> Descriptor {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let kind = manifest.media_type().to_owned();
        let descriptor = Descriptor {
            media_type: kind.clone(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        let mut state = self.state.lock().unwrap();
        for reference in [tag, &descriptor.digest.to_string()] {
            let path = format!("/v2/{repository}/manifests/{reference}");
            let value = (kind.clone(), Bytes::from(bytes.clone()));
            state.manifests.insert(path, value);
        }
        descriptor
    }

    /// A wasm artifact with one layer.
    pub(crate) fn artifact(&self, repository: &str, tag: &str, program: &[u8]) -> Descriptor {
        let manifest = Manifest {
            schema_version: 2,
            config: Some(self.blob(media::WASM_CONFIG, b"{}")),
            layers: vec![self.blob(media::WASM, program)],
            ..Manifest::default()
        };
        self.manifest(repository, tag, &manifest)
    }

    /// Lets the next requests whose path has `part` fail, one fault each.
    pub(crate) fn fails(&self, part: &str, faults: &[Fault]) {
        let faults = faults.iter().cloned().collect();
        self.state
            .lock()
            .unwrap()
            .faults
            .push((part.to_owned(), faults));
    }

    pub(crate) fn auth(&self, auth: Auth) {
        self.state.lock().unwrap().auth = auth;
    }

    pub(crate) fn ignores_ranges(&self) {
        self.state.lock().unwrap().ignores_ranges = true;
    }

    /// Requests so far whose line has `part`: method, path, range.
    pub(crate) fn asked(&self, part: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state
            .log
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let header = |name: &str| {
            let value = request.headers().get(name);
            value
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (range, authorization) = (header("range"), header("authorization"));
        let mut state = self.state.lock().unwrap();
        state
            .log
            .push(format!("{method} {} {range}", request.uri()));
        let fault = state
            .faults
            .iter_mut()
            .filter(|(part, _)| path.contains(part.as_str()))
            .find_map(|(_, faults)| faults.pop_front());
        if let Some(Fault::Status(code, header, body)) = &fault {
            let mut answer = Response::builder().status(*code);
            if let Some((name, value)) = header {
                answer = answer.header(*name, *value);
            }
            return answer.body(full(body)).unwrap();
        }
        if let Some(denied) = self.refuse(&state.auth, &path, &authorization) {
            return denied;
        }
        let found = match path.rsplit_once("/blobs/") {
            Some((_, digest)) => {
                let bytes = state.blobs.get(digest).cloned();
                bytes.map(|bytes| ("application/octet-stream".to_owned(), bytes))
            }
            None => state.manifests.get(&path).cloned(),
        };
        let Some((kind, bytes)) = found else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return Response::builder().status(404).body(full(body)).unwrap();
        };
        let mut answer = Response::builder().header("content-type", kind);
        if path.contains("/manifests/") {
            answer = answer.header("docker-content-digest", Digest::of(&bytes).to_string());
        }
        if method == hyper::Method::HEAD {
            return answer.body(full("")).unwrap();
        }
        let mut body = bytes.clone();
        let first = range
            .strip_prefix("bytes=")
            .and_then(|r| r.strip_suffix('-'));
        if let Some(first) = first.and_then(|first| first.parse::<usize>().ok())
            && !state.ignores_ranges
        {
            body = bytes.slice(first..);
            let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
            answer = answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header("content-range", range);
        }
        let length = body.len();
        answer.body(faulty(fault, body, length)).unwrap()
    }

    fn refuse(&self, auth: &Auth, path: &str, authorization: &str) -> Option<Response<Body>> {
        use base64::Engine as _;
        let basic = |who: &str| {
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(who)
            )
        };
        let denied = |challenge: String| {
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            let answer = Response::builder()
                .status(401)
                .header("www-authenticate", challenge);
            Some(answer.body(full(body)).unwrap())
        };
        match auth {
            Auth::Open => None,
            Auth::Basic(who) if authorization == basic(who) => None,
            Auth::Basic(_) => denied("Basic realm=\"test\"".to_owned()),
            Auth::Token(who) if path == "/token" => {
                let (code, body) = match authorization == basic(who) {
                    true => (200, r#"{"token":"good"}"#),
                    false => (401, r#"{"details":"incorrect username or password"}"#),
                };
                Some(Response::builder().status(code).body(full(body)).unwrap())
            }
            Auth::Token(_) if authorization == "Bearer good" => None,
            Auth::Token(_) => denied(format!(
                "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:app:pull\"",
                self.address
            )),
        }
    }
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned()))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn faulty(fault: Option<Fault>, body: Bytes, length: usize) -> Body {
    let stream = |parts: Vec<Result<Bytes, std::io::Error>>, stalls: bool| {
        let sent = futures::stream::iter(parts).map(|part| part.map(Frame::data));
        match stalls {
            true => StreamBody::new(sent.chain(futures::stream::pending())).boxed_unsync(),
            false => StreamBody::new(sent).boxed_unsync(),
        }
    };
    match fault {
        None | Some(Fault::Status(..)) => Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
        Some(Fault::Truncate(at)) => {
            let sent = futures::stream::iter([Ok(Frame::data(body.slice(..at.min(length))))]);
            let broken = futures::stream::once(async {
                // The server would throw away what it has not sent yet.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(std::io::Error::other("broken"))
            });
            StreamBody::new(sent.chain(broken)).boxed_unsync()
        }
        Some(Fault::Stall(at)) => stream(vec![Ok(body.slice(..at.min(length)))], true),
        Some(Fault::Damage) => {
            let mut other = body.to_vec();
            other[length / 2] ^= 1;
            stream(vec![Ok(other.into())], false)
        }
        Some(Fault::Longer) => stream(vec![Ok(body), Ok(Bytes::from_static(b"more"))], false),
    }
}
