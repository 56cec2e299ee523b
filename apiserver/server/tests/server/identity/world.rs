//! A world of hosts and files, without sockets.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use coracle_server::Connection;
use coracle_server::outgoing::{Outside, certificates_in};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// What a host answers to a path and a body.
type Answers = dyn Fn(&str, Value) -> (u16, String) + Send + Sync;

/// A host; it counts what it is asked.
pub(super) struct Host {
    answers: Box<Answers>,
    asked: AtomicUsize,
}

impl Host {
    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Everything outside of the server.
pub(super) struct World {
    files: Mutex<HashMap<PathBuf, Vec<u8>>>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    tls: Arc<ServerConfig>,
    /// Who vouches for all hosts.
    pub(super) authority: String,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        let names = ["a.test", "b.test", "c.test", "hook.test"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
            .expect("they fit");
        Arc::new(Self {
            files: Mutex::default(),
            hosts: Mutex::default(),
            tls: Arc::new(tls),
            authority: made.cert.pem(),
        })
    }

    pub(super) fn outside(self: &Arc<Self>) -> Arc<dyn Outside> {
        Arc::clone(self) as Arc<dyn Outside>
    }

    /// Opens a host, or replaces it for new connections.
    pub(super) fn host(
        &self,
        name: &str,
        answers: impl Fn(&str, Value) -> (u16, String) + Send + Sync + 'static,
    ) -> Arc<Host> {
        let host = Arc::new(Host {
            answers: Box::new(answers),
            asked: AtomicUsize::new(0),
        });
        self.hosts.lock().insert(name.to_owned(), Arc::clone(&host));
        host
    }

    /// Nobody is there any more.
    pub(super) fn close(&self, name: &str) {
        self.hosts.lock().remove(name);
    }

    /// Writes the kubeconfig of a webhook at `hook.test`.
    pub(super) fn kubeconfig(&self, path: &str) {
        let config = json!({
            "clusters": [{"name": "c", "cluster": {"server": "https://hook.test/review", "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {"token": "hook-secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        let path = Path::new(path);
        let mut files = self.files.lock();
        files.insert(path.to_owned(), config.to_string().into_bytes());
        let authority = path.with_file_name("ca.pem");
        files.insert(authority, self.authority.clone().into_bytes());
    }
}

#[async_trait]
impl Outside for World {
    async fn connect(&self, host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
        let host = self.hosts.lock().get(host).cloned();
        let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        tokio::spawn(async move {
            // A client that does not believe the certificate goes away.
            let Ok(stream) = acceptor.accept(theirs).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let host = Arc::clone(&host);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await?.to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    host.asked.fetch_add(1, Ordering::SeqCst);
                    let (status, text) = (host.answers)(&path, body);
                    let response = Response::builder().status(status);
                    let response = response.body(Full::new(Bytes::from(text)));
                    Ok::<_, hyper::Error>(response.expect("an answer"))
                }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        Ok(Box::new(ours))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let roots = certificates_in(self.authority.as_bytes());
        roots.map(Arc::new).map_err(|error| error.to_string())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = self.files.lock().get(path).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
