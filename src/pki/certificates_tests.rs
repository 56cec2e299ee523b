use std::time::Duration;

use coracle_clock::Clock;
use coracle_controllers::{CertificateAuthority, CertificateRequest, Terms};
use coracle_server::authn::identity_from_certificate;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};

use super::{Authority, Credential, Pki, parse_certificate};

fn authority(clock: &Clock) -> (tempfile::TempDir, Authority, Pki) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pki = Pki::ensure(folder.path(), &["localhost".to_owned()], clock).expect("made");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("there");
    let ca = Credential {
        certificate: read("ca.crt"),
        key: read("ca.key"),
    };
    let authority = Authority::new(&ca, clock.clone()).expect("an authority");
    (folder, authority, pki)
}

fn terms(clock: &Clock) -> Terms {
    Terms {
        usages: vec!["client auth".to_owned(), "digital signature".to_owned()],
        not_before: clock.now() - Duration::from_secs(300),
        not_after: clock.now() + Duration::from_secs(3600),
    }
}

fn request() -> Vec<u8> {
    let mut params = CertificateParams::new(["a.example".to_owned(), "10.0.0.1".to_owned()])
        .expect("legal names");
    params
        .subject_alt_names
        .push(SanType::URI("spiffe://a".try_into().expect("ascii")));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "dev");
    // Something that no certificate of ours carries.
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
    let key = KeyPair::generate().expect("a key");
    let request = params.serialize_request(&key).expect("a request");
    request.pem().expect("as PEM").into_bytes()
}

/// Whether the server's own verifier takes it for a client's certificate.
fn is_accepted(pki: &Pki, certificate: &str, clock: &Clock) -> bool {
    use rustls::pki_types::UnixTime;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(parse_certificate(&pki.ca).expect("read"))
        .expect("a root");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .expect("a verifier");
    let now = u64::try_from(clock.now().as_second()).expect("after 1970");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let certificate = parse_certificate(certificate).expect("read");
    verifier.verify_client_cert(&certificate, &[], now).is_ok()
}

#[tokio::test]
async fn a_request_is_read_and_signed() {
    let clock = Clock::fake(1);
    let (_folder, authority, pki) = authority(&clock);
    let wanted = CertificateRequest {
        common_name: "jane".to_owned(),
        organizations: vec!["dev".to_owned()],
        dns_names: vec!["a.example".to_owned()],
        addresses: vec!["10.0.0.1".to_owned()],
        uris: vec!["spiffe://a".to_owned()],
        emails: Vec::new(),
    };
    let request = request();
    assert_eq!(authority.read(&request), Ok(wanted));
    let terms = terms(&clock);
    let issued = authority.issue(&request, &terms).expect("signed");
    // Certificates know whole seconds.
    let end = authority.expiry(&issued).expect("an end");
    assert_eq!(end.as_second(), terms.not_after.as_second());
    let issued = String::from_utf8(issued).expect("text");
    assert!(is_accepted(&pki, &issued, &clock));
    let der = parse_certificate(&issued).expect("read");
    let identity = identity_from_certificate(&der).expect("an identity");
    assert_eq!(identity, coracle_server::Identity::new("jane", ["dev"]));
    assert!(!String::from_utf8_lossy(&der).contains("localhost"));
}

#[tokio::test]
async fn a_server_certificate_is_no_clients() {
    let clock = Clock::fake(1);
    let (_folder, authority, pki) = authority(&clock);
    let mut terms = terms(&clock);
    terms.usages = vec!["server auth".to_owned()];
    let issued = authority.issue(&request(), &terms).expect("signed");
    let issued = String::from_utf8(issued).expect("text");
    assert!(!is_accepted(&pki, &issued, &clock));
}

#[tokio::test]
async fn a_user_has_many_groups() {
    let clock = Clock::fake(1);
    let (_folder, authority, pki) = authority(&clock);
    let groups = ["dev", "ops", "größe"].map(str::to_owned);
    let issued = authority
        .issue_client("jane", &groups, &terms(&clock))
        .expect("signed");
    assert!(is_accepted(&pki, &issued.certificate, &clock));
    let der = parse_certificate(&issued.certificate).expect("read");
    let identity = identity_from_certificate(&der).expect("an identity");
    assert_eq!(identity, coracle_server::Identity::new("jane", groups));
}

#[tokio::test(start_paused = true)]
async fn nothing_outlives_the_authority() {
    let clock = Clock::fake(1);
    let (_folder, authority, _) = authority(&clock);
    let mut terms = terms(&clock);
    terms.not_after = clock.now() + Duration::from_secs(20 * 365 * 86_400);
    let issued = authority.issue(&request(), &terms).expect("signed");
    assert_eq!(authority.expiry(&issued), Ok(authority.not_after));
    clock.sleep(super::CA_LIFE + Duration::from_secs(1)).await;
    let why = authority.issue(&request(), &terms).expect_err("refused");
    assert!(why.starts_with("the signer has expired"), "{why}");
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused() {
    let clock = Clock::fake(1);
    let (_folder, authority, _) = authority(&clock);
    let wrong = "PEM block type must be CERTIFICATE REQUEST";
    assert_eq!(authority.read(b"junk"), Err(wrong.to_owned()));
    let empty = b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
    let why = authority.read(empty).expect_err("refused");
    assert!(why.contains("malformed"), "{why}");
    // The name is changed after the maker signed it.
    let bytes = super::authority::request_bytes(&request())
        .expect("read")
        .to_vec();
    let at = bytes
        .windows(4)
        .position(|four| four == b"jane")
        .expect("there");
    let mut forged = bytes;
    forged[at] = b'x';
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(forged);
    let pem =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    assert!(authority.read(pem.as_bytes()).is_ok());
    let why = authority
        .issue(pem.as_bytes(), &terms(&clock))
        .expect_err("refused");
    assert!(why.starts_with("unable to verify"), "{why}");
}
