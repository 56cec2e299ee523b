//! TLS settings by what is trusted. The system's authorities are read when the first pull needs them
//! and dropped after the last one: an idle node has no use for them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
    let builder = match trust.skip_verify {
        true => coracle_tls::client_of_anybody(),
        false => coracle_tls::client().with_root_certificates(roots(&trust.authorities)?),
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
    match coracle_tls::host_authorities() {
        Ok(host) => roots.extend(host.roots),
        Err(why) if roots.is_empty() => return Err(why.to_string()),
        Err(_) => {}
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
