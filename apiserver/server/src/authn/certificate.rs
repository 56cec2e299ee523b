//! Client certificates: the common name is the user, the organisations are the groups.
//!
//! The TLS handshake only proves that the client has the certificate's key ([`AnyClient`]); whose signature counts is
//! judged here, once per connection and again when the authorities change, so that a certificate of another authority is answered with 401 rather than with a
//! broken handshake, as upstream does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::Timestamp;
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Identity;

/// The authorities whose certificates name a user.
pub type ClientAuthorities = Arc<dyn ClientCertVerifier>;

/// What became of a connection's client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Signed by an authority that counts, until the second `until`. Without a common name it is nobody's.
    Verified {
        identity: Option<Arc<Identity>>,
        until: i64,
    },
    /// Another authority's, expired, or not for clients.
    Rejected,
}

impl Peer {
    /// Judges a chain, the client's own certificate first.
    pub(crate) fn judge(
        chain: &[CertificateDer<'_>],
        authorities: &dyn ClientCertVerifier,
        now: Timestamp,
    ) -> Self {
        let Some((own, between)) = chain.split_first() else {
            return Self::Rejected;
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match authorities.verify_client_cert(own, between, now) {
            Ok(_) => Self::of(own),
            Err(error) => {
                tracing::debug!(target: "coracle::access", %error, "a client certificate was refused");
                Self::Rejected
            }
        }
    }

    /// Of a certificate that was verified.
    pub(crate) fn of(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::Rejected;
        };
        Self::Verified {
            identity: identity_from_certificate(der).map(Arc::new),
            until: certificate.validity().not_after.timestamp(),
        }
    }
}

/// The identity that a verified client certificate (DER) names; `None` when it has no common name.
pub fn identity_from_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|organisation| organisation.as_str().ok())
        .map(str::to_owned)
        .collect();
    (!user.is_empty()).then(|| Identity::new(user, groups))
}

/// Authorities that others can take the place of while connections are served. A connection is judged when it comes, and
/// again at its first request after they have changed.
#[derive(Debug)]
pub struct SharedAuthorities {
    current: RwLock<ClientAuthorities>,
    generation: AtomicU64,
}

impl SharedAuthorities {
    /// Begins with these.
    pub fn new(authorities: ClientAuthorities) -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(authorities),
            generation: AtomicU64::new(0),
        })
    }

    /// Believes these from now on, and no others.
    pub fn set(&self, authorities: ClientAuthorities) {
        *self.current.write() = authorities;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often they have changed. Whoever reads it first and judges then, judges by these or later ones.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn current(&self) -> ClientAuthorities {
        Arc::clone(&self.current.read())
    }
}

impl ClientCertVerifier for SharedAuthorities {
    /// None: hints are given by the TLS configuration, which is made anew when the authorities change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(own, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let authorities = self.current();
        authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let authorities = self.current();
        authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

/// Lets every client certificate through the handshake, as long as the client has its key; to be used only with
/// [`AuthenticationOptions::client_authorities`](super::AuthenticationOptions::client_authorities), which judges it.
#[derive(Debug)]
pub struct AnyClient(ClientAuthorities);

impl AnyClient {
    /// Asks clients for certificates of `authorities`, and takes any.
    pub fn new(authorities: ClientAuthorities) -> Self {
        Self(authorities)
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        authorities: ClientAuthorities,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).expect("signed");
            let mut roots = RootCertStore::empty();
            roots.add(certificate.der().clone()).expect("a root");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let authorities =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            Self {
                issuer: Issuer::new(params, key),
                authorities: authorities.expect("a verifier"),
            }
        }

        fn sign(&self, user: &str, end: i32) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            if !user.is_empty() {
                params.distinguished_name.push(DnType::CommonName, user);
            }
            params
                .distinguished_name
                .push(DnType::OrganizationName, "system:masters");
            params.not_after = rcgen::date_time_ymd(end, 1, 1);
            let key = KeyPair::generate().expect("a key");
            let signed = params.signed_by(&key, &self.issuer).expect("signed");
            signed.der().clone()
        }
    }

    #[test]
    fn certificates_are_judged_by_their_authority_and_time() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let now = Timestamp::from_second(1_780_000_000).expect("a time");
        let shared = SharedAuthorities::new(theirs.authorities.clone());
        let authorities = shared.as_ref();
        let both = ours.sign("jane", 2100);
        assert_eq!(
            Peer::judge(std::slice::from_ref(&both), authorities, now),
            Peer::Rejected
        );
        shared.set(ours.authorities.clone());
        assert_ne!(Peer::judge(&[both], authorities, now), Peer::Rejected);
        let judge = |der: CertificateDer<'static>| Peer::judge(&[der], authorities, now);
        let Peer::Verified { identity, until } = judge(ours.sign("jane", 2100)) else {
            panic!("it is ours");
        };
        let jane = Identity::new("jane", ["system:masters"]);
        assert_eq!(identity.as_deref(), Some(&jane));
        assert_eq!(until, 4_102_444_800);
        assert_eq!(judge(theirs.sign("jane", 2100)), Peer::Rejected);
        assert_eq!(judge(ours.sign("jane", 2020)), Peer::Rejected);
        assert_eq!(judge(b"junk".to_vec().into()), Peer::Rejected);
        assert_eq!(Peer::judge(&[], authorities, now), Peer::Rejected);
        assert!(matches!(
            judge(ours.sign("", 2100)),
            Peer::Verified { identity: None, .. }
        ));
    }
}
