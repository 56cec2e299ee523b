//! Which certificate a client is shown: by the name that it asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::table::Table;

/// How many certificates of the cluster's authority are kept.
const MADE: usize = 1024;

/// Why a Secret gives no certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SecretProblem {
    /// It does not exist.
    Missing,
    /// What is in it is not usable; the text says why.
    Invalid(String),
}

impl fmt::Display for SecretProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("was not found"),
            Self::Invalid(why) => write!(f, "has no usable certificate: {why}"),
        }
    }
}

/// The certificate and key in a Secret, whatever its type.
pub(crate) fn read(secret: &Secret) -> Result<Arc<CertifiedKey>, SecretProblem> {
    let invalid = |why: String| SecretProblem::Invalid(why);
    let field = |name: &str| {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        let found = found.filter(|value| !value.0.is_empty());
        found.ok_or_else(|| invalid(format!("{name} is missing")))
    };
    let (certificate, key) = (field("tls.crt")?, field("tls.key")?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate.0).collect();
    let chain = chain.map_err(|error| invalid(format!("tls.crt cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(invalid("there is no certificate in tls.crt".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&key.0)
        .map_err(|error| invalid(format!("tls.key cannot be read: {error}")))?;
    certified(chain, key).map_err(invalid)
}

/// Joins a chain and its key; the error is in words.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, String> {
    let provider: CryptoProvider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map(Arc::new)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "tls.key is not the key of tls.crt".to_owned(),
            other => other.to_string(),
        })
}

/// Certificates by the names that Ingresses give them.
#[derive(Default)]
pub(crate) struct Certificates {
    hosts: HashMap<String, Arc<CertifiedKey>>,
    /// By what comes after `*.`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    /// For whom no name says otherwise.
    any: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Shows the certificate to who asks for one of the hosts (in lower case; empty, or none at all: any), unless they
    /// have one.
    pub(crate) fn add(&mut self, hosts: &[String], certificate: &Arc<CertifiedKey>) {
        if hosts.is_empty() {
            self.any.get_or_insert_with(|| certificate.clone());
        }
        for host in hosts {
            match (host.as_str(), host.strip_prefix("*.")) {
                ("", _) => drop(self.any.get_or_insert_with(|| certificate.clone()).clone()),
                (_, Some(domain)) => {
                    let known = self.wildcards.entry(domain.to_owned());
                    known.or_insert_with(|| certificate.clone());
                }
                _ => {
                    let known = self.hosts.entry(host.clone());
                    known.or_insert_with(|| certificate.clone());
                }
            }
        }
    }

    /// The certificate for a name (in lower case); that for any, if no name was asked for.
    pub(crate) fn get(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            self.hosts.get(name).or_else(|| {
                let (_, domain) = name.split_once('.')?;
                self.wildcards.get(domain)
            })
        });
        named.or(self.any.as_ref())
    }
}

/// Makes certificates for hosts without one.
pub trait FallbackCertificates: Send + Sync + 'static {
    /// A certificate for these DNS names and addresses in PEM form, with the chain that clients need, and its key.
    fn issue(&self, names: &[String]) -> Result<(String, String), String>;

    /// Changes when what was made before should be made anew.
    fn generation(&self) -> u64 {
        0
    }
}

/// What TLS asks: names first to the Secrets of Ingresses, then to the authority.
pub(crate) struct Resolver {
    known: RwLock<Arc<Certificates>>,
    table: RwLock<Arc<Table>>,
    fallback: Arc<dyn FallbackCertificates>,
    /// What the authority has made, by name; empty: for whoever asks for no name.
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    generation: u64,
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    pub(crate) fn new(fallback: Arc<dyn FallbackCertificates>) -> Self {
        Self {
            known: RwLock::default(),
            table: RwLock::default(),
            fallback,
            made: Mutex::default(),
        }
    }

    /// Shows these from now on; open connections keep theirs.
    pub(crate) fn replace(&self, certificates: Arc<Certificates>, table: Arc<Table>) {
        *self.known.write() = certificates;
        *self.table.write() = table;
    }

    /// Forgets what the authority made: it is to make them anew.
    pub(crate) fn forget(&self) {
        self.made.lock().certificates.clear();
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        if let Some(known) = self.known.read().get(name.as_deref()) {
            return Some(known.clone());
        }
        // Anybody may ask for any name: only those that somebody wrote into an Ingress get one of their own.
        let is_ours = |name: &&str| self.table.read().knows(name);
        let name = name.as_deref().filter(is_ours).unwrap_or_default();
        let generation = self.fallback.generation();
        let mut made = self.made.lock();
        if made.generation != generation {
            made.certificates.clear();
            made.generation = generation;
        }
        if let Some(made) = made.certificates.get(name) {
            return Some(made.clone());
        }
        drop(made);
        let names = match name {
            "" => ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec(),
            name => vec![name.to_owned()],
        };
        match self.make(&names) {
            Ok(certificate) => {
                let mut made = self.made.lock();
                if made.certificates.len() >= MADE {
                    made.certificates.clear();
                }
                made.certificates
                    .insert(name.to_owned(), certificate.clone());
                Some(certificate)
            }
            Err(error) => {
                tracing::warn!(name, error, "no certificate could be made for an Ingress");
                None
            }
        }
    }

    fn make(&self, names: &[String]) -> Result<Arc<CertifiedKey>, String> {
        let (chain, key) = self.fallback.issue(names)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        certified(chain, key.map_err(|error| error.to_string())?)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}
