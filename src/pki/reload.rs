//! A server certificate and an authority that can be replaced while connections are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use coracle_clock::Timestamp;
use coracle_controllers::{CertificateAuthority, CertificateRequest, Terms};
use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use super::{Authority, Credential, certificates};

/// The certificate that new connections are shown; those that are open keep theirs.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// Begins with this certificate.
    pub fn new(credential: &Credential) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(RwLock::new(certified(credential)?))))
    }

    /// Shows another one from now on. One that does not fit its key is an error, and changes nothing.
    pub fn replace(&self, credential: &Credential) -> Result<()> {
        let new = certified(credential)?;
        *self.0.write() = new;
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// The authority that signs what the API approves from now on; one under way is finished by the one before.
pub struct CurrentAuthority(RwLock<Arc<Authority>>, AtomicU64);

/// How long a certificate lasts that is made for a server of this process.
const SERVER_LIFE: Duration = Duration::from_secs(7 * 86_400);

impl CurrentAuthority {
    /// Begins with this one.
    pub fn new(authority: Arc<Authority>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(authority), AtomicU64::new(0)))
    }

    /// A certificate and a new key for a server of these DNS names and addresses, good for some days.
    pub fn issue_server(&self, names: &[String]) -> Result<Credential> {
        let authority = self.current();
        authority.issue_server(names, &authority.server_terms(SERVER_LIFE))
    }

    /// Counts how often another one came: what was signed before should be made anew.
    pub fn generation(&self) -> u64 {
        self.1.load(Ordering::Acquire)
    }

    /// Another one signs from now on.
    pub fn replace(&self, authority: Arc<Authority>) {
        *self.0.write() = authority;
        self.1.fetch_add(1, Ordering::Release);
    }

    fn current(&self) -> Arc<Authority> {
        Arc::clone(&self.0.read())
    }
}

impl CertificateAuthority for CurrentAuthority {
    fn read(&self, request: &[u8]) -> Result<CertificateRequest, String> {
        self.current().read(request)
    }

    fn issue(&self, request: &[u8], terms: &Terms) -> Result<Vec<u8>, String> {
        self.current().issue(request, terms)
    }

    fn expiry(&self, certificate: &[u8]) -> Result<Timestamp, String> {
        self.current().expiry(certificate)
    }
}

fn certified(credential: &Credential) -> Result<Arc<CertifiedKey>> {
    let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes())
        .map_err(|error| anyhow!("failed to read the API server's key: {error}"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .context("failed to read the API server's key")?;
    let certified = CertifiedKey::new(certificates(&credential.certificate)?, key);
    certified
        .keys_match()
        .context("the API server's key is not the one of its certificate")?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Pki, parse_certificate, server_config};
    use coracle_clock::Clock;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    /// The certificate that a new connection is shown.
    fn shown(server: &Arc<ServerConfig>, ca: &str) -> Vec<u8> {
        let mut roots = RootCertStore::empty();
        roots
            .add(parse_certificate(ca).expect("read"))
            .expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).expect("written");
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                server.read_tls(&mut sent).expect("read");
                server.process_new_packets().expect("understood");
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).expect("written");
            }
            let mut sent = bytes.as_slice();
            while !sent.is_empty() {
                client.read_tls(&mut sent).expect("read");
                client.process_new_packets().expect("understood");
            }
        }
        client.peer_certificates().expect("shown")[0].to_vec()
    }

    #[tokio::test]
    async fn certificates_are_replaced_under_a_running_server() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::system();
        let old = Pki::ensure(folder.path(), &["localhost".to_owned()], &clock).expect("made");
        let certificate = ServerCertificate::new(&old.server).expect("fits");
        let server = Arc::new(server_config(certificate.clone(), &old.ca).expect("a server"));
        let first = shown(&server, &old.ca);
        let new = Pki::renew(folder.path(), &clock).expect("renewed");
        let mut mixed = new.server.clone();
        mixed.key = old.server.key.clone();
        assert!(certificate.replace(&mixed).is_err());
        assert_eq!(shown(&server, &old.ca), first);
        certificate.replace(&new.server).expect("fits");
        assert_ne!(shown(&server, &old.ca), first);
    }
}
