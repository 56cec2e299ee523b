//! TLS: whose certificate is shown, and what is spoken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_client::CancellationToken;
use http::Response;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::{World, full, read};
use crate::certificates::{Certificates, FallbackCertificates, Resolver, SecretProblem};
use crate::connection::Door;
use crate::settings::Settings;
use crate::table::Table;

/// An authority whose certificates say for which names they were made, and when.
#[derive(Default)]
struct Authority(AtomicU64);

impl FallbackCertificates for Authority {
    fn issue(&self, names: &[String]) -> Result<(String, String), String> {
        let made = rcgen::generate_simple_self_signed(names.to_vec());
        let made = made.map_err(|error| error.to_string())?;
        Ok((made.cert.pem(), made.signing_key.serialize_pem()))
    }

    fn generation(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A Secret with a certificate of its own for a name.
fn secret(name: &str) -> k8s_openapi::api::core::v1::Secret {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    let data = [
        ("tls.crt", made.cert.pem()),
        ("tls.key", made.signing_key.serialize_pem()),
    ];
    let data =
        data.map(|(key, value)| (key.to_owned(), k8s_openapi::ByteString(value.into_bytes())));
    k8s_openapi::api::core::v1::Secret {
        data: Some(data.into()),
        ..Default::default()
    }
}

struct Tls {
    world: World,
    door: Arc<Door>,
    resolver: Arc<Resolver>,
    authority: Arc<Authority>,
}

impl Tls {
    fn new() -> Self {
        let world = World::with(Settings::default());
        let authority = Arc::new(Authority::default());
        let resolver = Arc::new(Resolver::new(authority.clone()));
        let door = Arc::new(Door {
            proxy: world.proxy.clone(),
            tls: Some(crate::server_config(resolver.clone())),
            port: 8443,
            stop: CancellationToken::new(),
        });
        Self {
            world,
            door,
            resolver,
            authority,
        }
    }

    fn show(&self, certificates: Certificates, table: Table) {
        self.resolver
            .replace(Arc::new(certificates), Arc::new(table));
    }

    async fn connect(&self, name: &str, alpn: &str) -> TlsStream<tokio::io::DuplexStream> {
        let (near, far) = tokio::io::duplex(16 << 10);
        let door = self.door.clone();
        let client = "192.0.2.7:5000".parse().expect("an address");
        tokio::spawn(async move { door.serve(far, client).await });
        // Whom to believe is not what is tested.
        let mut config: ClientConfig = coracle_tls::client_of_anybody().with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, near)
            .await;
        connected.expect("a handshake")
    }

    /// The certificate that a client is shown who asks for a name.
    async fn shown(&self, name: &str) -> CertificateDer<'static> {
        let stream = self.connect(name, "http/1.1").await;
        let chain = stream
            .get_ref()
            .1
            .peer_certificates()
            .expect("a certificate");
        chain[0].clone().into_owned()
    }
}

/// Whether a certificate is good for a name, as clients see it.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let parsed = rustls::server::ParsedCertificate::try_from(certificate).expect("parsed");
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

#[tokio::test(start_paused = true)]
async fn http2_is_spoken_with_who_asks_for_it() {
    let tls = Tls::new();
    tls.world.serve_at("web", &[2]);
    tls.world
        .backend(2, |request: http::Request<_>| async move {
            let headers = request.headers();
            let proto = headers["x-forwarded-proto"]
                .to_str()
                .expect("text")
                .to_owned();
            let port = headers["x-forwarded-port"]
                .to_str()
                .expect("text")
                .to_owned();
            Response::new(full(format!("{proto} {port}")))
        });
    let stream = tls.connect("web.localhost", "h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(driver);
    let request = http::Request::builder().uri("https://web.localhost:8443/");
    let request = request.body(full("")).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(read(answer).await, (200, "https 8443".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_certificate_is_the_one_for_the_name_and_follows_its_secret() {
    let tls = Tls::new();
    let (own, wild, any) = (secret("own"), secret("wild"), secret("any"));
    let show = |own: &k8s_openapi::api::core::v1::Secret| {
        let mut certificates = Certificates::default();
        let read = |secret| crate::certificates::read(secret).expect("usable");
        certificates.add(&["web.example".to_owned()], &read(own));
        certificates.add(&["*.example".to_owned()], &read(&wild));
        certificates.add(&[], &read(&any));
        tls.show(certificates, Table::default());
    };
    show(&own);
    for (name, wanted) in [
        ("web.example", "own"),
        ("WEB.example", "own"),
        ("api.example", "wild"),
        ("a.api.example", "any"),
        ("other.test", "any"),
        ("127.0.0.1", "any"),
    ] {
        assert!(is_for(&tls.shown(name).await, wanted), "{name}");
    }
    show(&secret("rotated"));
    assert!(is_for(&tls.shown("web.example").await, "rotated"));
}

#[tokio::test(start_paused = true)]
async fn the_authority_serves_names_of_ingresses_without_a_certificate() {
    let tls = Tls::new();
    let mut table = Table::default();
    let world_target = tls.world.target();
    table.add("web.localhost", crate::table::Match::Prefix, &world_target);
    table.add(
        "*.apps.localhost",
        crate::table::Match::Prefix,
        &world_target,
    );
    tls.show(Certificates::default(), table);
    for name in ["web.localhost", "a.apps.localhost"] {
        assert!(is_for(&tls.shown(name).await, name), "{name}");
    }
    // Names that nobody wrote down are not certified.
    for name in ["other.localhost", "bank.example", "127.0.0.1"] {
        let shown = tls.shown(name).await;
        assert!(
            is_for(&shown, "localhost") && !is_for(&shown, "bank.example"),
            "{name}"
        );
    }
    let before = tls.shown("web.localhost").await;
    assert_eq!(tls.shown("web.localhost").await, before, "made once");
    tls.authority.0.store(1, Ordering::SeqCst);
    assert_ne!(
        tls.shown("web.localhost").await,
        before,
        "another authority"
    );
}

#[test]
fn what_is_wrong_with_a_secret_is_told() {
    let good = secret("a");
    let other = secret("b");
    let with = |key: &str, value: Option<&[u8]>| {
        let mut secret = good.clone();
        let data = secret.data.as_mut().expect("data");
        match value {
            Some(value) => {
                drop(data.insert(key.to_owned(), k8s_openapi::ByteString(value.to_vec())))
            }
            None => drop(data.remove(key)),
        }
        secret
    };
    let other_key = other.data.as_ref().expect("data")["tls.key"].0.clone();
    for (secret, part) in [
        (with("tls.key", None), "tls.key is missing"),
        (with("tls.crt", Some(b"")), "tls.crt is missing"),
        (
            with("tls.crt", Some(b"no pem")),
            "no certificate in tls.crt",
        ),
        (with("tls.key", Some(b"no pem")), "tls.key cannot be read"),
        (
            with("tls.key", Some(&other_key)),
            "tls.key is not the key of tls.crt",
        ),
    ] {
        match crate::certificates::read(&secret) {
            Err(SecretProblem::Invalid(why)) => assert!(why.contains(part), "{why}"),
            other => panic!("{part}: {other:?}"),
        }
    }
    crate::certificates::read(&good).expect("usable");
}
