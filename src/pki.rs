//! The cluster's own certificate authority, and the certificates of the server and its first user.
//!
//! ```text
//! pki/ca.{crt,key} ──signs──▶ pki/apiserver.{crt,key}   the server, for every name that reaches it
//!                        └──▶ pki/admin.{crt,key}       CN kubernetes-admin, O system:masters
//!                        └──▶ requests that the API approved ([`Authority`])
//! pki/ca-previous.crt, pki/ca-cross.crt                 while the authority is replaced ([`rotation`])
//! pki/sa.key ──signs──▶ tokens of service accounts ◀──verifies── pki/sa.pub
//! ```
//!
//! Everything is kept between runs; a certificate is made anew when it is missing, names other
//! addresses than are asked for, or has less than [`RENEW_BEFORE`] of its life left.
//!
//! `sa.pub` holds every key that tokens are believed by, the current one first. Whoever removes `sa.key`, or puts another
//! key there, rotates it: the next start signs with the new key and believes the earlier ones until they are taken out.

mod authority;
#[cfg(test)]
mod certificates_tests;
pub mod command;
mod der;
mod reload;
mod rotation;
mod usages;

use std::cell::Cell;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use coracle_clock::{Clock, Timestamp};
use coracle_server::authn::{AnyClient, ClientAuthorities, PublicKey, SigningKey, TokenKeys};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::files;

pub use authority::Authority;
pub(crate) use authority::pem;
pub use reload::{CurrentAuthority, ServerCertificate};

/// Life of the authority.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of a certificate that the authority signs.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// A certificate with less life left than this is made anew at start.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// A certificate and its key in PEM form.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The files below `pki/`, all present and valid.
pub struct Pki {
    /// The authority's certificate in PEM form; after it those of earlier ones that are still believed.
    pub ca: String,
    /// The API server's certificate and key.
    pub server: Credential,
    /// The first user's certificate and key.
    pub admin: Credential,
    /// What tokens of service accounts are signed and verified with.
    pub tokens: Arc<TokenKeys>,
    /// The authority's key, which signs what the API approves.
    pub authority: Arc<Authority>,
}

impl Pki {
    /// Loads `folder`, making what is missing or due; `names` are the DNS names and addresses that
    /// the server answers for.
    pub fn ensure(folder: &Path, names: &[String], clock: &Clock) -> Result<Self> {
        files::make_private_folder(folder)?;
        let folder = Folder::new(folder, clock);
        let authority = folder.authority()?;
        let server = folder.leaf(&authority, "apiserver", Leaf::server(names))?;
        let admin = folder.leaf(
            &authority,
            "admin",
            Leaf::client("kubernetes-admin", "system:masters"),
        )?;
        let tokens = folder.token_keys()?;
        let signer = Authority::new(&authority.current, clock.clone())?;
        if folder.changed.get() {
            files::sync_folder(&folder.path)?;
        }
        Ok(Self {
            ca: authority.bundle(),
            server,
            admin,
            tokens: Arc::new(tokens),
            authority: Arc::new(signer),
        })
    }

    /// Makes the certificates of the server and its first user anew, for the names they have; everything else in `folder`
    /// stays. What is missing there, the authority above all, is an error.
    pub fn renew(folder: &Path, clock: &Clock) -> Result<Self> {
        let names = Self::server_names(folder)?;
        read(folder, "ca.crt")?;
        read(folder, "ca.key")?;
        for name in ["apiserver", "admin"] {
            let path = folder.join(format!("{name}.crt"));
            crate::data_dir::remove_if_there(&path)?;
        }
        Self::ensure(folder, &names, clock)
    }

    /// The names that the server's certificate in `folder` has.
    fn server_names(folder: &Path) -> Result<Vec<String>> {
        let der = parse_certificate(&read(folder, "apiserver.crt")?)?;
        let (_, server) = X509Certificate::from_der(&der)
            .map_err(|error| anyhow!("failed to read apiserver.crt: {error}"))?;
        Ok(subject_names(&server))
    }
}

/// Believes the client certificates that an authority of the bundle (PEM) signed.
pub fn client_authorities(bundle: &str) -> Result<ClientAuthorities> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(bundle)? {
        roots.add(certificate)?;
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder(roots.into()).build();
    verifier.context("failed to build the verifier of client certificates")
}

/// The TLS configuration of the API server: its certificate, and client certificates welcome but not required (tokens are
/// another way in). Clients are told the authorities of `bundle` (PEM); the API server judges what they show.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    bundle: &str,
) -> Result<rustls::ServerConfig> {
    let verifier = Arc::new(AnyClient::new(client_authorities(bundle)?));
    let mut config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// All certificates of a PEM text; at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| anyhow!("failed to read certificates: {error}"))?;
    if all.is_empty() {
        bail!("there is no certificate in it");
    }
    Ok(all)
}

fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("failed to read a certificate: {error}"))
}

/// The authority, and what is left of earlier ones.
struct Authorities {
    current: Credential,
    /// Certificates of earlier ones that are still believed, in PEM form, the latest first.
    previous: String,
    /// Certificates by which earlier ones vouch for the later, in PEM form, the latest first. They go beside every
    /// certificate that the current one signs.
    crosses: String,
}

impl Authorities {
    /// All who are believed, in PEM form, the current one first.
    fn bundle(&self) -> String {
        format!("{}{}", self.current.certificate, self.previous)
    }
}

/// What a certificate says besides its key.
struct Leaf {
    common_name: String,
    organization: Option<String>,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
}

impl Leaf {
    fn server(names: &[String]) -> Self {
        Self {
            common_name: "kube-apiserver".into(),
            organization: None,
            names: names.to_vec(),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    fn client(user: &str, group: &str) -> Self {
        Self {
            common_name: user.into(),
            organization: Some(group.into()),
            names: Vec::new(),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}

struct Folder {
    path: PathBuf,
    clock: Clock,
    /// Whether something was saved.
    changed: Cell<bool>,
}

impl Folder {
    fn new(path: &Path, clock: &Clock) -> Self {
        Self {
            path: path.to_owned(),
            clock: clock.clone(),
            changed: Cell::new(false),
        }
    }

    fn authority(&self) -> Result<Authorities> {
        let current = match (self.read("ca.crt")?, self.read("ca.key")?) {
            (Some(certificate), Some(key)) => Credential { certificate, key },
            (None, None) => self.new_authority()?,
            // A new authority in the place of a known one would shut out all whom that one has signed.
            (there, _) => {
                let (missing, there) = match there {
                    Some(_) => ("ca.key", "ca.crt"),
                    None => ("ca.crt", "ca.key"),
                };
                bail!(
                    "{} is missing beside {there}: put it back, or remove {there} for a new authority",
                    self.path.join(missing).display()
                );
            }
        };
        if !fits(&current) {
            bail!(
                "{} is not the key of ca.crt: run `coracle pki renew --ca`, or put the right one there",
                self.path.join("ca.key").display()
            );
        }
        Ok(Authorities {
            current,
            previous: self.read(rotation::PREVIOUS)?.unwrap_or_default(),
            crosses: self.read(rotation::CROSSES)?.unwrap_or_default(),
        })
    }

    fn new_authority(&self) -> Result<Credential> {
        let key = KeyPair::generate().context("failed to generate the authority's key")?;
        let params = self.authority_params("coracle-ca");
        let certificate = params
            .self_signed(&key)
            .context("failed to sign the authority")?;
        self.save(
            "ca",
            Credential {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            },
        )
    }

    fn authority_params(&self, name: &str) -> CertificateParams {
        let mut params = self.params(CA_LIFE);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    fn leaf(&self, authority: &Authorities, name: &str, leaf: Leaf) -> Result<Credential> {
        if let Some(found) = self.load(name)?
            && self.is_good(&found, authority, &leaf)
        {
            return Ok(found);
        }
        let issuer = issuer(&authority.current)?;
        let key =
            KeyPair::generate().with_context(|| format!("failed to generate the key of {name}"))?;
        let mut params = self.params(LEAF_LIFE);
        params.subject_alt_names = CertificateParams::new(leaf.names)?.subject_alt_names;
        params
            .distinguished_name
            .push(DnType::CommonName, leaf.common_name);
        if let Some(organization) = leaf.organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![leaf.usage];
        let certificate = params
            .signed_by(&key, &issuer)
            .with_context(|| format!("failed to sign {name}"))?;
        self.save(
            name,
            Credential {
                certificate: format!("{}{}", certificate.pem(), authority.crosses),
                key: key.serialize_pem(),
            },
        )
    }

    fn params(&self, life: Duration) -> CertificateParams {
        let now = self.clock.now();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // A minute back, so that a peer whose clock is a little late accepts it.
        params.not_before = offset(now - Duration::from_secs(60));
        params.not_after = offset(now + life);
        let mut serial = [0; 16];
        self.clock.random_bytes(&mut serial);
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params
    }

    /// Whether a certificate is of this authority, has the right ones beside it, lives long enough and names exactly what
    /// is asked.
    fn is_good(&self, found: &Credential, authority: &Authorities, leaf: &Leaf) -> bool {
        let (Ok(chain), Ok(ca)) = (
            certificates(&found.certificate),
            parse_certificate(&authority.current.certificate),
        ) else {
            return false;
        };
        let der = &chain[0];
        if chain[1..] != certificates(&authority.crosses).unwrap_or_default() {
            return false;
        }
        let (Ok((_, certificate)), Ok((_, ca))) = (
            X509Certificate::from_der(der),
            X509Certificate::from_der(&ca),
        ) else {
            return false;
        };
        let due = (self.clock.now() + RENEW_BEFORE).as_second();
        let mut named = subject_names(&certificate);
        let mut wanted = leaf.names.clone();
        named.sort();
        wanted.sort();
        // Two processes that make it anew at once may leave one's key beside the other's certificate.
        fits(found)
            && certificate.validity().not_after.timestamp() > due
            && certificate.verify_signature(Some(ca.public_key())).is_ok()
            && named == wanted
    }

    fn token_keys(&self) -> Result<TokenKeys> {
        let path = |name: &str| self.path.join(name).display().to_string();
        let private = match self.read("sa.key")? {
            Some(pem) => pem,
            None => {
                let key = KeyPair::generate().context("failed to generate the key of tokens")?;
                let pem = key.serialize_pem();
                files::write_secret(&self.path.join("sa.key"), pem.as_bytes())?;
                self.changed.set(true);
                pem
            }
        };
        let signer = SigningKey::from_pem(&private)
            .with_context(|| format!("failed to read {}", path("sa.key")))?;
        let known = self.read("sa.pub")?;
        let mut previous = match &known {
            Some(pem) => PublicKey::all_from_pem(pem)
                .with_context(|| format!("failed to read {}", path("sa.pub")))?,
            None => Vec::new(),
        };
        previous.retain(|key| key != signer.public());
        let all = [signer.public()].into_iter().chain(&previous);
        let pem: String = all.map(PublicKey::to_pem).collect();
        if known.as_deref() != Some(pem.as_str()) {
            files::write_public(&self.path.join("sa.pub"), pem.as_bytes())?;
            self.changed.set(true);
        }
        Ok(TokenKeys::new(signer, previous))
    }

    fn load(&self, name: &str) -> Result<Option<Credential>> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        Ok(match (self.read(&certificate)?, self.read(&key)?) {
            (Some(certificate), Some(key)) => Some(Credential { certificate, key }),
            _ => None,
        })
    }

    /// A file's text; `None` when it is not there.
    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    /// The key goes first, so that nobody finds a certificate that nobody can use.
    fn save(&self, name: &str, credential: Credential) -> Result<Credential> {
        files::write_secret(
            &self.path.join(format!("{name}.key")),
            credential.key.as_bytes(),
        )?;
        files::write_public(
            &self.path.join(format!("{name}.crt")),
            credential.certificate.as_bytes(),
        )?;
        self.changed.set(true);
        Ok(credential)
    }
}

/// Whether the key is that of the certificate.
fn fits(credential: &Credential) -> bool {
    let Ok(der) = parse_certificate(&credential.certificate) else {
        return false;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else {
        return false;
    };
    KeyPair::from_pem(&credential.key)
        .is_ok_and(|key| key.subject_public_key_info() == certificate.public_key().raw)
}

fn issuer(authority: &Credential) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&authority.key).context("failed to read the authority's key")?;
    Issuer::from_ca_cert_pem(&authority.certificate, key)
        .context("failed to read the authority's certificate")
}

fn offset(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn subject_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match *octets {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            _ => <[u8; 16]>::try_from(*octets)
                .ok()
                .map(|octets| IpAddr::from(octets).to_string()),
        },
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(text)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(more: &[&str]) -> Vec<String> {
        ["localhost", "127.0.0.1"]
            .iter()
            .chain(more)
            .map(|s| (*s).to_owned())
            .collect()
    }

    #[tokio::test]
    async fn certificates_are_kept_until_their_names_change() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::fake(1);
        let first = Pki::ensure(folder.path(), &names(&[]), &clock).expect("made");
        let again = Pki::ensure(folder.path(), &names(&[]), &clock).expect("loaded");
        assert_eq!(first.server.certificate, again.server.certificate);
        let moved = Pki::ensure(folder.path(), &names(&["10.0.0.1"]), &clock).expect("made anew");
        assert_ne!(first.server.certificate, moved.server.certificate);
        assert_eq!(
            (first.ca, first.admin.certificate),
            (moved.ca, moved.admin.certificate)
        );
    }

    #[tokio::test]
    async fn half_an_authority_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::fake(1);
        let ensure = || Pki::ensure(folder.path(), &names(&[]), &clock);
        let first = ensure().expect("made").ca;
        for (missing, there) in [("ca.key", "ca.crt"), ("ca.crt", "ca.key")] {
            let path = folder.path().join(missing);
            let text = fs::read_to_string(&path).expect("there");
            fs::remove_file(&path).expect("removed");
            let error = ensure().err().map(|error| error.to_string());
            let expected = format!(
                "{} is missing beside {there}: put it back, or remove {there} for a new authority",
                path.display()
            );
            assert_eq!(error, Some(expected));
            assert!(!path.exists(), "nothing was made");
            fs::write(&path, text).expect("put back");
            assert_eq!(ensure().expect("as before").ca, first);
        }
    }

    #[tokio::test]
    async fn the_key_of_tokens_is_kept_and_rotates() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::fake(1);
        let ensure = || Pki::ensure(folder.path(), &names(&[]), &clock).expect("keys");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("there");
        ensure();
        let (key, public) = (read("sa.key"), read("sa.pub"));
        ensure();
        assert_eq!((&read("sa.key"), &read("sa.pub")), (&key, &public));
        fs::remove_file(folder.path().join("sa.key")).expect("removed");
        ensure();
        assert_ne!(read("sa.key"), key);
        let both = read("sa.pub");
        assert!(
            both.ends_with(&public) && both.len() > public.len(),
            "{both}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_near_its_end_is_renewed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Clock::fake(1);
        let first = Pki::ensure(folder.path(), &names(&[]), &clock).expect("made");
        clock
            .sleep(LEAF_LIFE - RENEW_BEFORE + Duration::from_secs(60))
            .await;
        let later = Pki::ensure(folder.path(), &names(&[]), &clock).expect("renewed");
        assert_ne!(first.admin.certificate, later.admin.certificate);
        assert_eq!(first.ca, later.ca);
    }
}
