//! `hosts.toml`: mirrors, authorities, plain HTTP.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::server::{Fault, TestRegistry};
use crate::{Node, wasm};

/// What a registry that calls itself `localhost` needs for TLS, and its certificate.
pub(crate) fn tls() -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate.pem())
}

pub(crate) fn hosts(folder: &Path, registry: &str, text: &str) {
    let folder = folder.join(registry);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
}

fn node(folder: &Path) -> Node {
    Node::with(1 << 20, Some(folder.to_owned()))
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_when_they_fail() {
    let (registry, mirror) = (TestRegistry::start().await, TestRegistry::start().await);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry.address, mirror.address
    );
    hosts(folder.path(), "registry.example.com", &text);
    let node = node(folder.path());
    registry.artifact("app", "1", &wasm(10));
    mirror.artifact("app", "2", &wasm(20));
    mirror.artifact("app", "3", &wasm(30));
    node.pull("registry.example.com/app:1").await.unwrap();
    assert!(mirror.asked("/manifests/1")[0].contains("ns=registry.example.com"));
    node.pull("registry.example.com/app:2").await.unwrap();
    assert!(registry.asked("/manifests/2").is_empty());

    // A blob that the mirror breaks off is ended by the registry.
    registry.blob("x", &wasm(30));
    mirror.fails(
        "/blobs/",
        &[Fault::Truncate(0), Fault::Truncate(0), Fault::Truncate(0)],
    );
    registry.blob("x", b"{}");
    node.pull("registry.example.com/app:3").await.unwrap();

    let error = node.error("registry.example.com/none:1").await;
    for place in [&registry, &mirror] {
        assert!(error.contains(&place.address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    hosts(folder.path(), "r.example.com", "server = 5");
    let error = node(folder.path()).error("r.example.com/app:1").await;
    assert!(
        error.contains("hosts.toml: server is not a text"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_with_its_own_authority_is_trusted_when_a_file_says_so() {
    let (tls, certificate) = tls();
    let registry = TestRegistry::listen(Some(tls)).await;
    registry.artifact("app", "1", &wasm(10));
    let (place, folder) = (
        format!("localhost:{}", registry.address.port()),
        tempfile::tempdir().unwrap(),
    );
    let node = node(folder.path());
    let image = format!("{place}/app:1");

    // Without a file a registry on this machine is asked without TLS.
    assert!(node.pull(&image).await.is_err());
    let server = format!("server = \"https://{place}\"\n");
    // Whatever authorities this system has, the test's is not among them.
    let other = KeyPair::generate().unwrap();
    let mut stranger = CertificateParams::new(vec!["x".to_owned()]).unwrap();
    let name = &mut stranger.distinguished_name;
    name.push(rcgen::DnType::CommonName, "a stranger");
    let stranger = stranger.self_signed(&other).unwrap();
    std::fs::create_dir_all(folder.path().join(&place)).unwrap();
    std::fs::write(folder.path().join(&place).join("other.pem"), stranger.pem()).unwrap();
    hosts(
        folder.path(),
        &place,
        &format!("{server}ca = \"other.pem\""),
    );
    let error = node.error(&image).await;
    assert!(error.contains("signed by an unknown authority"), "{error}");
    hosts(folder.path(), &place, &format!("{server}ca = \"ca.pem\""));
    let error = node.error(&image).await;
    assert!(error.contains("ca.pem"), "{error}");
    std::fs::write(folder.path().join(&place).join("ca.pem"), certificate).unwrap();
    node.pull(&image).await.unwrap();

    hosts(
        folder.path(),
        &place,
        &format!("{server}skip_verify = true"),
    );
    registry.artifact("app", "2", &wasm(20));
    node.pull(&format!("{place}/app:2")).await.unwrap();
}

#[tokio::test]
async fn tls_that_meets_none_says_what_to_write() {
    let registry = TestRegistry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"https://{}\"\nskip_verify = true",
        registry.address
    );
    hosts(folder.path(), "r.example.com", &text);
    let error = node(folder.path()).error("r.example.com/app:1").await;
    assert!(error.contains("does not speak TLS"), "{error}");
}
