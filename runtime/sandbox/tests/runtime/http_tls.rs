//! Requests of guests to servers that speak TLS.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use coracle_network::{NamespaceConfig, NetworkNamespace};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use crate::http_streams::{Client, GUESTS, data, fed, nothing, reads, serve};
use crate::node::Node;

/// An authority's certificate in PEM form, and a server `name` that it vouches for.
fn server(name: &str) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let own = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    (authority, TlsAcceptor::from(Arc::new(config)))
}

/// Answers with the body of the request, over TLS, at 10.240.0.`last`:443.
fn listen(node: &Node, last: u8, tls: TlsAcceptor) -> Arc<NetworkNamespace> {
    let address = [10, 240, 0, last];
    let config = NamespaceConfig::new("default/outside", address.into(), "outside");
    let namespace = node.fabric.create_namespace(config).unwrap();
    let listener = namespace
        .scope()
        .listen_tcp((address, 443).into(), 16)
        .unwrap();
    tokio::spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else {
                    return;
                };
                let echo = |request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(Response::new(request.into_body()))
                };
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(echo))
                    .await;
            });
        }
    });
    namespace
}

#[tokio::test]
async fn guests_stream_to_servers_that_are_trusted_and_to_no_others() {
    let node = Node::start();
    // The pods' hosts file has both names.
    let (authority, trusted) = server("store");
    let (_, stranger) = server("api");
    let _held = (listen(&node, 5, trusted), listen(&node, 3, stranger));
    let names = ["store", "api"].map(str::to_owned);
    node.trust.set_cluster(names, &authority).unwrap();
    for (last, wasm) in (10..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        let mut client = Client::open(&node, last, true).await;
        let (feed, body) = fed();
        let answer = client.send("/relay?https://store/", body);
        feed.send(data("one")).await.unwrap();
        let mut answer = answer.await.unwrap();
        reads(answer.body_mut(), "one").await;
        feed.send(data("two")).await.unwrap();
        reads(answer.body_mut(), "two").await;
        drop(feed);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            Bytes::new()
        );

        let refused = client.send("/relay?https://api/", nothing()).await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_GATEWAY, "{wasm}");
        let said = node.until(|| async {
            let log = node.log(&id, 0);
            let why = "request to https://api/ failed: the server's certificate is not trusted";
            log.iter().any(|line| line.contains(why)).then_some(())
        });
        said.await
            .unwrap_or_else(|| panic!("{wasm}: {:?}", node.log(&id, 0)));
    }
}
