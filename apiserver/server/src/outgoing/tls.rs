//! Whom a client believes, and who it says it is.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why TLS cannot be spoken as it was configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// No certificate in a text that should have one.
    #[error("data does not contain any valid RSA or ECDSA certificates")]
    NoCertificates,
    /// The system's authorities are not there.
    #[error("the system's certificate authorities cannot be read: {0}")]
    NoRoots(String),
    /// The client's own certificate or key cannot be used.
    #[error("the client certificate and its key cannot be used: {0}")]
    Identity(String),
}

/// The certificates of a PEM text that can be authorities; upstream's error if there are none.
pub fn certificates_in(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TlsError::NoCertificates)?;
        roots
            .add(certificate)
            .map_err(|_| TlsError::NoCertificates)?;
    }
    match roots.is_empty() {
        true => Err(TlsError::NoCertificates),
        false => Ok(roots),
    }
}

/// A client that believes `roots`, and shows a certificate if it has one: certificate and key in PEM form.
pub(super) fn config(
    roots: Arc<RootCertStore>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<ClientConfig, TlsError> {
    let wrong = |why: String| TlsError::Identity(why);
    let builder = coracle_tls::client().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| wrong(error.to_string()))?;
            // What is wrong with a key may have the key in it.
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| wrong("there is no private key in PEM form".to_owned()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(error.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
