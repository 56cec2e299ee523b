//! Whom clients of TLS believe: the authorities of this host, or anybody.
//!
//! Servers of all kinds are asked from here: registries, pods, issuers of tokens, whatever guests ask for. Each asker
//! has settings of its own; what they have in common is here, once. There is no I/O here but the reading of the host's
//! authorities, and nothing about Kubernetes.

mod unverified;

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

/// A client's settings in the making: TLS 1.2 and 1.3 by ring, and no opinion yet on whom to believe.
pub fn client() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of both versions")
}

/// A client that takes every certificate: for servers whose certificates nobody can check, such as pods, which are
/// reached by address and sign for themselves. It is safe from whoever reads along, and not from impostors.
pub fn client_of_anybody() -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let client = client();
    let schemes = client
        .crypto_provider()
        .signature_verification_algorithms
        .supported_schemes();
    client
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(unverified::Anybody::new(schemes)))
}

/// The host has no authority that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host has no certificate authorities (Debian's package ca-certificates has them, and SSL_CERT_FILE can name \
     a bundle){}",
    .0.iter().map(|error| format!("; {error}")).collect::<String>()
)]
pub struct NoAuthorities(Vec<String>);

/// The authorities that the host's programs believe: on Linux what `SSL_CERT_FILE`, `SSL_CERT_DIR` or the
/// distribution's folder hold. Reads files, so it blocks for some milliseconds. What cannot be read among them is passed
/// over as long as something is left, as other programs do.
pub fn host_authorities() -> Result<RootCertStore, NoAuthorities> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        false => Ok(roots),
        true => {
            let errors = found.errors.iter().map(ToString::to_string);
            Err(NoAuthorities(errors.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_authorities_is_told_what_to_do() {
        let none = NoAuthorities(Vec::new()).to_string();
        assert!(none.ends_with("SSL_CERT_FILE can name a bundle)"), "{none}");
        let why = NoAuthorities(vec!["/etc: denied".to_owned()]).to_string();
        assert!(why.ends_with("bundle); /etc: denied"), "{why}");
    }
}
