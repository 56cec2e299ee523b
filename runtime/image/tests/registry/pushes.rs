//! Images given to a registry that fails, or that is not to be trusted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_cri::ImageError;
use coracle_image::{
    Build, Digest, ImageStore, Manifest, Patience, Reference, RegistryConfig, RegistrySource,
};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::mirrors::{hosts, tls};
use crate::server::{Fault, TestRegistry};
use crate::wasm;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(500);

/// A store with one image, of one layer.
struct Pusher {
    folder: tempfile::TempDir,
    store: ImageStore,
    image: Digest,
    manifest: Manifest,
}

impl Pusher {
    fn new(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("images"), Clock::system()).unwrap();
        let program = folder.path().join("app.wasm");
        std::fs::write(&program, wasm(size)).unwrap();
        let build = Build {
            program,
            ..Build::default()
        };
        let image = build.run(&store, "app:1").unwrap().digest;
        let manifest = store.describe(&image).unwrap().unwrap().manifest;
        Self {
            folder,
            store,
            image,
            manifest,
        }
    }

    async fn push(&self, place: &str, hosts: Option<PathBuf>) -> Result<Digest, ImageError> {
        let patience = Patience {
            first_pause: Duration::from_millis(1),
            answer: ANSWER,
            ..Patience::default()
        };
        let config = RegistryConfig {
            hosts,
            credentials: None,
            patience,
        };
        let Ok(Reference::Named(name)) = format!("{place}/app:1").parse() else {
            panic!("it is a name");
        };
        let source = RegistrySource::new(config, Clock::system());
        source
            .push(&self.store, &self.image, &name, None, None)
            .await
    }

    /// Gives the registry what a push would give it.
    fn is_at(&self, registry: &TestRegistry) {
        for blob in self.manifest.config.iter().chain(&self.manifest.layers) {
            let bytes = self.store.get(&blob.digest).unwrap().unwrap();
            registry.blob(&blob.media_type, &bytes);
        }
        registry.manifest("app", "1", &self.manifest);
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_for_what_it_has() {
    let (registry, pusher) = (TestRegistry::start().await, Pusher::new(100));
    pusher.is_at(&registry);
    registry.fails("/blobs/", &[Fault::Status(503, None, "")]);
    let pushed = pusher.push(&registry.address.to_string(), None).await;
    assert_eq!(pushed.unwrap(), pusher.image);
    assert_eq!(registry.asked("HEAD").len(), 3);
}

/// A registry that has nothing, and takes a blob bit by bit with pauses that are together longer
/// than an answer is waited for.
async fn slow_registry() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let (head, mut body) = request.into_parts();
                let answer = Response::builder();
                let answer = match head.method.as_str() {
                    "HEAD" => answer.status(404),
                    "POST" => answer.status(202).header("location", "/upload"),
                    _ => {
                        let (mut taken, mut next_pause) = (0, 4 << 20);
                        while let Some(frame) = body.frame().await {
                            taken += frame?.data_ref().map_or(0, Bytes::len);
                            if taken >= next_pause {
                                next_pause += 4 << 20;
                                tokio::time::sleep(ANSWER * 2 / 5).await;
                            }
                        }
                        answer.status(201)
                    }
                };
                Ok::<_, hyper::Error>(answer.body(Empty::<Bytes>::new()).unwrap())
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer_while_it_moves() {
    let (address, pusher) = (slow_registry().await, Pusher::new(32 << 20));
    let pushed = pusher.push(&address.to_string(), None).await;
    assert_eq!(pushed.unwrap(), pusher.image);
}

#[tokio::test]
async fn an_upload_does_not_leave_tls() {
    let (tls, certificate) = tls();
    let (registry, listener) = (
        TestRegistry::listen(Some(tls)).await,
        TestRegistry::start().await,
    );
    let pusher = Pusher::new(100);
    let place = format!("localhost:{}", registry.address.port());
    let folder = pusher.folder.path();
    let server = format!("server = \"https://{place}\"\nca = \"ca.pem\"");
    hosts(folder, &place, &server);
    std::fs::write(folder.join(&place).join("ca.pem"), certificate).unwrap();
    let elsewhere = format!("http://{}/upload", listener.address).leak();
    let begun = Fault::Status(202, Some(("location", elsewhere)), "");
    registry.fails("/blobs/uploads/", &[begun]);
    let error = pusher.push(&place, Some(folder.to_owned())).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("has no TLS"), "{error}");
    assert_eq!(listener.asked(""), [""; 0]);
}
