//! TLS for guests that send `https` requests: whose certificates are believed.
//!
//! ```text
//! a name of the cluster's API server ─▶ the cluster's authority, and nobody else
//! any other name                     ─▶ the host's authorities
//! ```
//!
//! A guest that brings TLS of its own speaks it over a socket, and believes what it likes.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whose certificates guests' `https` requests believe. Shared by all pods of a node.
#[derive(Debug, Default)]
pub struct TlsTrust {
    cluster: RwLock<Option<Cluster>>,
    /// The host's authorities; read when a guest first asks for a server elsewhere.
    host: OnceCell<Arc<ClientConfig>>,
}

/// Servers with an authority of their own.
#[derive(Debug)]
struct Cluster {
    names: Vec<String>,
    config: Arc<ClientConfig>,
}

/// A bundle of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTrust {
    /// The text is not PEM.
    #[error("failed to read the authorities: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// A certificate that no authority can have.
    #[error("an authority cannot be trusted: {0}")]
    Authority(#[source] rustls::Error),
    /// The bundle has no certificate.
    #[error("the bundle of authorities is empty")]
    Empty,
}

/// Why no encrypted connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the server's certificate is not trusted: {0}")]
    Certificate(String),
    #[error("the server refused: TLS alert {text}")]
    Alert { id: u8, text: String },
    #[error("TLS failed: {0}")]
    Protocol(String),
    #[error("the connection broke in the TLS handshake: {0}")]
    Closed(std::io::Error),
    #[error("{0}")]
    Trust(String),
}

impl TlsTrust {
    /// Believes the authorities that the host's programs believe (on Linux what `SSL_CERT_FILE`, `SSL_CERT_DIR` or
    /// the distribution's folder hold). They are read once, at the first request that needs them.
    pub fn host() -> Self {
        Self::default()
    }

    /// From now on servers of these names and addresses are believed by the authorities in `bundle` (PEM), and by no
    /// other; replaces what was set before. Open connections stay.
    pub fn set_cluster(
        &self,
        names: impl IntoIterator<Item = String>,
        bundle: &str,
    ) -> Result<(), BadTrust> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let certificate = certificate.map_err(BadTrust::Pem)?;
            roots.add(certificate).map_err(BadTrust::Authority)?;
        }
        if roots.is_empty() {
            return Err(BadTrust::Empty);
        }
        *self.cluster.write() = Some(Cluster {
            names: names.into_iter().map(|name| plain(&name)).collect(),
            config: config(roots),
        });
        Ok(())
    }

    /// Speaks TLS over `stream` with the server that the guest calls `host`, and checks that it is that one.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, TlsError> {
        let host = plain(host);
        let name = ServerName::try_from(host.clone())
            .map_err(|_| TlsError::Certificate(format!("{host:?} is no name of a server")))?;
        let config = self.config_for(&host).await.map_err(TlsError::Trust)?;
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| {
            let tls = error.get_ref().and_then(|e| e.downcast_ref());
            match tls {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    TlsError::Certificate(why.to_string())
                }
                Some(rustls::Error::AlertReceived(alert)) => TlsError::Alert {
                    id: u8::from(*alert),
                    text: format!("{alert:?}"),
                },
                Some(other) => TlsError::Protocol(other.to_string()),
                None => TlsError::Closed(error),
            }
        })
    }

    async fn config_for(&self, host: &str) -> Result<Arc<ClientConfig>, String> {
        if let Some(cluster) = &*self.cluster.read()
            && cluster.names.iter().any(|name| name == host)
        {
            return Ok(cluster.config.clone());
        }
        let read = || async {
            tokio::task::spawn_blocking(host_authorities)
                .await
                .map_err(|error| error.to_string())?
        };
        self.host.get_or_try_init(read).await.cloned()
    }
}

fn host_authorities() -> Result<Arc<ClientConfig>, String> {
    let roots = coracle_tls::host_authorities();
    roots.map(config).map_err(|why| why.to_string())
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let client = coracle_tls::client().with_root_certificates(roots);
    let mut config = client.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A name as certificates have it: lower case, without the last dot and the brackets of an IPv6 address.
fn plain(name: &str) -> String {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// An authority's certificate in PEM form, and a server that it vouches for.
    fn server(names: &[&str]) -> (String, TlsAcceptor) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let own = params.signed_by(&key, &issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key)
            .expect("a server");
        (authority, TlsAcceptor::from(Arc::new(config)))
    }

    /// What became of a connection to `host`.
    async fn outcome(trust: &TlsTrust, host: &str, server: &TlsAcceptor) -> Result<(), TlsError> {
        let (near, far) = tokio::io::duplex(1 << 14);
        let (accepted, connected) = tokio::join!(server.accept(far), trust.connect(host, near));
        drop(accepted);
        connected.map(drop)
    }

    #[tokio::test]
    async fn servers_of_the_cluster_are_believed_by_its_authority_alone() {
        let (authority, good) = server(&["api.local", "10.96.0.1", "fd00::1"]);
        let (other_authority, other) = server(&["api.local", "elsewhere.example"]);
        let trust = TlsTrust::host();
        let names = ["api.local", "10.96.0.1", "fd00::1", "unnamed.local"].map(str::to_owned);
        trust.set_cluster(names.clone(), &authority).expect("set");
        for host in [
            "api.local",
            "API.local.",
            "10.96.0.1",
            "[fd00::1]",
            "fd00::1",
        ] {
            let outcome = outcome(&trust, host, &good).await;
            assert!(outcome.is_ok(), "{host}: {outcome:?}");
        }
        // Its certificate does not carry this one; and another authority's server does not pass for it.
        for (host, server) in [("unnamed.local", &good), ("api.local", &other)] {
            let outcome = outcome(&trust, host, server).await;
            assert!(matches!(outcome, Err(TlsError::Certificate(_))), "{host}");
        }
        // What is elsewhere is not the authority's to vouch for: no host trusts it.
        let (_, elsewhere) = server(&["elsewhere.example"]);
        let refused = outcome(&trust, "elsewhere.example", &elsewhere).await;
        assert!(
            matches!(refused, Err(TlsError::Certificate(_) | TlsError::Trust(_))),
            "{refused:?}"
        );
        let both = format!("{authority}{other_authority}");
        trust.set_cluster(names, &both).expect("both");
        for server in [&good, &other] {
            let outcome = outcome(&trust, "api.local", server).await;
            assert!(outcome.is_ok(), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn bundles_that_cannot_be_used_change_nothing() {
        let (authority, good) = server(&["api.local"]);
        let trust = TlsTrust::host();
        let names = || ["api.local".to_owned()];
        trust.set_cluster(names(), &authority).expect("set");
        assert!(matches!(
            trust.set_cluster(names(), ""),
            Err(BadTrust::Empty)
        ));
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let refused = trust.set_cluster(names(), junk);
        assert!(
            matches!(refused, Err(BadTrust::Authority(_))),
            "{refused:?}"
        );
        assert!(outcome(&trust, "api.local", &good).await.is_ok());
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_is_told_apart() {
        let (authority, _) = server(&["api.local"]);
        let trust = TlsTrust::host();
        trust
            .set_cluster(["api.local".to_owned()], &authority)
            .expect("set");
        let (near, mut far) = tokio::io::duplex(1 << 14);
        let plain = async {
            use tokio::io::AsyncWriteExt as _;
            let _ = far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        };
        let ((), outcome) = tokio::join!(plain, trust.connect("api.local", near));
        assert!(matches!(outcome, Err(TlsError::Protocol(_))), "{outcome:?}");
        let (near, far) = tokio::io::duplex(1 << 14);
        drop(far);
        let outcome = trust.connect("api.local", near).await;
        assert!(matches!(outcome, Err(TlsError::Closed(_))), "{outcome:?}");
    }
}
