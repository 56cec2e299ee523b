//! Connections: TLS, client certificates, HTTP/1.1 and HTTP/2 over any byte stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_server::Identity;
use coracle_server::authn::{AnyClient, HeaderNames, RequestHeader, SharedAuthorities};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsConnector;

use crate::support::{CONFIG_MAPS, TestServer};

/// A chain of certificates and the key of the first.
type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority, and what it signed.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self {
            certificate,
            issuer: rcgen::Issuer::new(parameters, key),
        }
    }

    fn issue(&self, names: &[&str], user: &str, group: &str) -> Credential {
        self.issue_until(names, user, group, 4_102_444_800)
    }

    /// Good until that second of Unix time.
    fn issue_until(&self, names: &[&str], user: &str, group: &str, end: u64) -> Credential {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).expect("legal names");
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, user);
        parameters
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, group);
        parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        (
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        Arc::new(roots)
    }

    /// Verifies the certificates that this one signed for clients.
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiClientVerifier::builder_with_provider(self.roots(), provider)
            .allow_unauthenticated()
            .build()
            .expect("a verifier")
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.server_with(self.verifier())
    }

    fn server_with(&self, verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self.issue(&["localhost"], "server", "servers");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("a configuration");
        Arc::new(config)
    }

    fn client(&self, identity: Option<(&str, &str)>) -> Arc<ClientConfig> {
        self.client_with(identity.map(|(user, group)| self.issue(&[], user, group)))
    }

    fn client_with(&self, identity: Option<Credential>) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots());
        Arc::new(match identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .expect("a configuration"),
            None => builder.with_no_client_auth(),
        })
    }
}

fn request() -> Request<Empty<Bytes>> {
    let mut request = Request::get(format!("https://localhost{CONFIG_MAPS}"))
        .body(Empty::new())
        .expect("a request");
    // Extensions do not travel; this one shows that nothing of the kind is believed either.
    request
        .extensions_mut()
        .insert(Identity::new("admin", ["system:masters"]));
    request
}

/// Status and body of a list of ConfigMaps, asked for over TLS.
async fn ask(
    server: &TestServer,
    authority: &Authority,
    identity: Option<(&str, &str)>,
    http2: bool,
) -> (StatusCode, String) {
    let (tls, client) = (authority.server(), authority.client(identity));
    ask_over(server, tls, client, request(), http2).await
}

async fn ask_over(
    server: &TestServer,
    tls: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    request: Request<Empty<Bytes>>,
    http2: bool,
) -> (StatusCode, String) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let api = server.api.clone();
    let serving = tokio::spawn(async move { api.serve(far, Some(tls), None).await });
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(client)
        .connect(name, near)
        .await
        .expect("a handshake");
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    };
    assert!(response.headers().contains_key("audit-id"));
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    serving.abort();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_names_user_and_groups() {
    let (server, authority) = (TestServer::start().await, Authority::new());
    let (status, _) = ask(&server, &authority, Some(("jane", "system:masters")), false).await;
    assert_eq!(status, 200);
    let (status, body) = ask(&server, &authority, Some(("jane", "devs")), false).await;
    assert_eq!(status, 403);
    assert!(body.contains(r#"User \"jane\""#), "{body}");
}

#[tokio::test(start_paused = true)]
async fn the_server_judges_certificates_and_believes_proxies() {
    let (ours, proxies, theirs) = (Authority::new(), Authority::new(), Authority::new());
    let server = TestServer::start_with(|config| {
        config.authentication.client_authorities = Some(SharedAuthorities::new(ours.verifier()));
        config.authentication.request_header = Some(RequestHeader {
            authorities: proxies.verifier(),
            allowed_names: vec!["front-proxy".to_owned()],
            headers: HeaderNames::default(),
        });
    })
    .await;
    let tls = ours.server_with(Arc::new(AnyClient::new(ours.verifier())));
    let forwarded = || {
        let mut request = request();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-group", "system:masters"),
        ] {
            let value = value.parse().expect("a header");
            request.headers_mut().insert(name, value);
        }
        request
    };
    for (signer, user, expected, forwards) in [
        (&ours, "jane", 403, 403),
        // Without a common name the certificate is nobody's.
        (&ours, "", 403, 403),
        (&theirs, "jane", 401, 401),
        (&theirs, "front-proxy", 401, 401),
        (&ours, "front-proxy", 403, 403),
        (&proxies, "front-proxy", 401, 200),
        (&proxies, "another", 401, 401),
    ] {
        let credential = signer.issue(&[], user, "devs");
        let (chain, key) = credential;
        for (request, expected) in [(request(), expected), (forwarded(), forwards)] {
            let client = ours.client_with(Some((chain.clone(), key.clone_key())));
            let answer = ask_over(&server, tls.clone(), client, request, false).await;
            assert_eq!(answer.0, expected, "{user}: {}", answer.1);
        }
    }
}

/// A connection over which one request after another is sent.
struct Open {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
}

impl Open {
    async fn new(server: &TestServer, tls: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let api = server.api.clone();
        tokio::spawn(async move { api.serve(far, Some(tls), None).await });
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(client).connect(name, near).await;
        let io = TokioIo::new(stream.expect("a handshake"));
        let connected = hyper::client::conn::http1::handshake(io).await;
        let (sender, connection) = connected.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { sender }
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> StatusCode {
        self.sender.ready().await.expect("it is open");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        response.into_body().collect().await.expect("a body");
        status
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_end_while_their_connection_is_open() {
    let (ours, proxies) = (Authority::new(), Authority::new());
    let mut clock = None;
    let server = TestServer::start_with(|config| {
        clock = Some(config.clock.clone());
        config.authentication.client_authorities = Some(SharedAuthorities::new(ours.verifier()));
        config.authentication.request_header = Some(RequestHeader {
            authorities: proxies.verifier(),
            allowed_names: Vec::new(),
            headers: HeaderNames::default(),
        });
    })
    .await;
    let clock = clock.expect("the server has one");
    let tls = ours.server_with(Arc::new(AnyClient::new(ours.verifier())));
    let end = u64::try_from(clock.now().as_second()).expect("after 1970") + 10;
    let forwarded = || {
        let mut request = request();
        let headers = request.headers_mut();
        headers.insert("x-remote-user", "jane".parse().expect("a header"));
        headers.insert(
            "x-remote-group",
            "system:masters".parse().expect("a header"),
        );
        request
    };
    let by = |signer: &Authority, group: &str| {
        ours.client_with(Some(signer.issue_until(&[], "front", group, end)))
    };
    let mut user = Open::new(&server, tls.clone(), by(&ours, "system:masters")).await;
    let mut proxy = Open::new(&server, tls, by(&proxies, "proxies")).await;
    for status in [200, 401] {
        assert_eq!(user.ask(request()).await, status);
        assert_eq!(proxy.ask(forwarded()).await, status);
        clock.sleep(Duration::from_secs(15)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn open_connections_follow_the_authorities() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let authorities = SharedAuthorities::new(ours.verifier());
    let server = TestServer::start_with(|config| {
        config.authentication.client_authorities = Some(Arc::clone(&authorities));
    })
    .await;
    let tls = ours.server_with(Arc::new(AnyClient::new(ours.verifier())));
    let client = ours.client(Some(("jane", "system:masters")));
    let mut jane = Open::new(&server, tls, client).await;
    assert_eq!(jane.ask(request()).await, 200);
    authorities.set(theirs.verifier());
    assert_eq!(jane.ask(request()).await, 401);
    authorities.set(ours.verifier());
    assert_eq!(jane.ask(request()).await, 200);
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_certificate_are_anonymous() {
    let (server, authority) = (TestServer::start().await, Authority::new());
    for http2 in [false, true] {
        let (status, body) = ask(&server, &authority, None, http2).await;
        assert_eq!(status, 403);
        assert!(body.contains("system:anonymous"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_header_makes_somebody_of_a_caller_from_the_network() {
    let server = TestServer::start().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let api = server.api.clone();
    let serving = tokio::spawn(async move { api.serve(far, None, None).await });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .expect("HTTP/1.1");
    tokio::spawn(connection);
    // Neither what a trusted proxy might send, nor what in-process callers are told by, nor another user's name.
    let attempts: [&[(&str, &str)]; 7] = [
        &[
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
        ],
        &[
            ("x-remote-user", "system:apiserver"),
            ("x-remote-extra-a", "b"),
        ],
        &[
            ("identity", "system:kube-controller-manager"),
            ("user", "system:kube-scheduler"),
        ],
        &[(
            "x-forwarded-client-cert",
            "Subject=\"O=system:masters,CN=admin\"",
        )],
        &[
            ("x-forwarded-user", "admin"),
            ("x-forwarded-groups", "system:masters"),
        ],
        &[
            ("impersonate-user", "system:apiserver"),
            ("impersonate-group", "system:masters"),
        ],
        &[
            ("user-agent", "kube-apiserver"),
            ("host", "kubernetes.default.svc"),
        ],
    ];
    for headers in attempts {
        let mut spoofed = request();
        for (name, value) in headers {
            let name = http::HeaderName::from_static(name);
            spoofed
                .headers_mut()
                .append(name, value.parse().expect("a header"));
        }
        let response = sender.send_request(spoofed).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{headers:?}");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(
            body.contains(r#"User \"system:anonymous\""#),
            "{headers:?}: {body}"
        );
    }
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed() {
    let (server, authority) = (TestServer::start().await, Authority::new());
    let (_near, far) = tokio::io::duplex(1024);
    let error = server
        .api
        .serve(far, Some(authority.server()), None)
        .await
        .expect_err("too slow");
    assert_eq!(error.to_string(), "the TLS handshake took too long");
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_idle_connections() {
    let server = TestServer::start().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let api = server.api.clone();
    let serving = tokio::spawn(async move { api.serve(far, None, None).await });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .expect("HTTP/1.1");
    tokio::spawn(connection);
    let response = sender.send_request(request()).await.expect("an answer");
    assert_eq!(response.status(), 403);
    response.into_body().collect().await.expect("a body");
    server.api.stop();
    serving.await.expect("no panic").expect("a clean end");
}
