//! TLS settings by what is trusted. The system's authorities are read when the first pull needs them
//! and dropped after the last one: an idle node has no use for them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::hosts::Trust;

/// Settings in use, by what is trusted.
#[derive(Default)]
pub(crate) struct TlsConfigs(Mutex<HashMap<Trust, Weak<ClientConfig>>>);

impl TlsConfigs {
    /// The settings for `trust`, or what is wrong with its files.
    pub(crate) async fn get(&self, trust: &Trust) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.0.lock().get(trust).and_then(Weak::upgrade) {
            return Ok(config);
        }
        let wanted = trust.clone();
        let made = tokio::task::spawn_blocking(move || make(&wanted)).await;
        let config = Arc::new(made.map_err(|error| error.to_string())??);
        let mut configs = self.0.lock();
        configs.retain(|_, config| config.strong_count() > 0);
        configs.insert(trust.clone(), Arc::downgrade(&config));
        Ok(config)
    }
}

fn make(trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if trust.skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(&trust.authorities)?)
    };
    let Some((certificate, key)) = &trust.client else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("the client's key {}: {error}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, key)
        .map_err(|error| {
            format!(
                "the client's certificate {}: {error}",
                certificate.display()
            )
        })
}

/// The system's authorities and those of `files`.
fn roots(files: &[std::path::PathBuf]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for path in files {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| format!("the authority {}: {error}", path.display()))?;
        }
    }
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        let why: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
        return Err(format!(
            "this system has no authorities for certificates (Debian's package ca-certificates has \
             them){}{}",
            if why.is_empty() { "" } else { ": " },
            why.join("; ")
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |problem: String| format!("the certificates of {}: {problem}", path.display());
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(error.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    match all.is_empty() {
        true => Err(wrong("no certificate in PEM form".to_owned())),
        false => Ok(all),
    }
}

/// Takes every certificate, because a `hosts.toml` says `skip_verify`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
