//! What the cluster's authority signs for others: requests through the API, and users' certificates.
//!
//! A certificate says what upstream's signer lets it say (`pkg/controller/certificates/authority`): the subject and the
//! alternative names of the request, the usages that were approved, and that it signs nothing itself. Everything else
//! that a request asks for is left out.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use coracle_clock::{Clock, Timestamp};
use coracle_controllers::{CertificateAuthority, CertificateRequest, Terms};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::x509::X509Name;

use super::{Credential, der, usages};

/// Attributes of a subject that a certificate keeps, in upstream's order: C, O, OU, L, ST, street, postal code, CN, serial
/// number. All but the common name and the serial number may be there more than once.
const SUBJECT: [u8; 9] = [6, 10, 11, 7, 8, 9, 17, COMMON_NAME, 5];
const COMMON_NAME: u8 = 3;
const ORGANIZATION: u8 = 10;

/// The authority's key, ready to sign.
pub struct Authority {
    /// The subject of the authority's certificate, encoded.
    issuer: Vec<u8>,
    /// The identifier of its key, if its certificate has one.
    key_id: Option<Vec<u8>>,
    /// When its certificate ends.
    pub(super) not_after: Timestamp,
    key: KeyPair,
    clock: Clock,
}

/// What a certificate is made of besides the authority and the terms.
struct Subject {
    /// The distinguished name, encoded.
    name: Vec<u8>,
    /// The public key with its algorithm, encoded.
    public_key: Vec<u8>,
    /// Alternative names, each encoded.
    alternatives: Vec<Vec<u8>>,
    /// Whether the name says nothing.
    is_nameless: bool,
}

impl Authority {
    /// Reads the authority's certificate and key in PEM form.
    pub fn new(ca: &Credential, clock: Clock) -> Result<Self> {
        let key = KeyPair::from_pem(&ca.key).context("failed to read the authority's key")?;
        let der = CertificateDer::from_pem_slice(ca.certificate.as_bytes())
            .map_err(|error| anyhow!("failed to read the authority's certificate: {error}"))?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .map_err(|error| anyhow!("failed to read the authority's certificate: {error}"))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            bail!("the authority's key is not the one of its certificate");
        }
        let key_id = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }
        });
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
            .context("the authority's certificate ends at no possible time")?;
        algorithm(&key)?;
        Ok(Self {
            issuer: certificate.subject().as_raw().to_vec(),
            key_id,
            not_after,
            key,
            clock,
        })
    }

    /// A certificate and a new key for a user of groups.
    pub fn issue_client(&self, user: &str, groups: &[String], terms: &Terms) -> Result<Credential> {
        let key = KeyPair::generate().context("failed to generate the user's key")?;
        let mut attributes: Vec<(u8, String)> = groups
            .iter()
            .map(|group| (ORGANIZATION, group.clone()))
            .collect();
        attributes.push((COMMON_NAME, user.to_owned()));
        let subject = Subject {
            name: der::name(&attributes),
            public_key: key.subject_public_key_info(),
            alternatives: Vec::new(),
            is_nameless: false,
        };
        Ok(Credential {
            certificate: self.sign(&subject, terms).map_err(anyhow::Error::msg)?,
            key: key.serialize_pem(),
        })
    }

    /// A certificate and a new key for a server of these DNS names and addresses; at least one.
    pub fn issue_server(&self, names: &[String], terms: &Terms) -> Result<Credential> {
        let key = KeyPair::generate().context("failed to generate the server's key")?;
        let alternative = |name: &String| match name.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => der::value(0x87, &ip.octets()),
            Ok(IpAddr::V6(ip)) => der::value(0x87, &ip.octets()),
            Err(_) => der::value(0x82, name.as_bytes()),
        };
        let first = names.first().context("a server needs a name")?;
        let mut attributes = Vec::new();
        // A common name has 64 characters at most, and nobody reads it beside the others.
        if first.len() <= 64 {
            attributes.push((COMMON_NAME, first.clone()));
        }
        let subject = Subject {
            is_nameless: attributes.is_empty(),
            name: der::name(&attributes),
            public_key: key.subject_public_key_info(),
            alternatives: names.iter().map(alternative).collect(),
        };
        Ok(Credential {
            certificate: self.sign(&subject, terms).map_err(anyhow::Error::msg)?,
            key: key.serialize_pem(),
        })
    }

    /// The terms of a server's certificate that is good from now on, for so long.
    pub(super) fn server_terms(&self, life: std::time::Duration) -> Terms {
        let now = self.clock.now();
        Terms {
            usages: ["server auth", "digital signature"]
                .map(str::to_owned)
                .to_vec(),
            // So that a client whose clock is a little late believes it.
            not_before: now - std::time::Duration::from_secs(60),
            not_after: now + life,
        }
    }

    /// The certificate in PEM form.
    fn sign(&self, subject: &Subject, terms: &Terms) -> Result<String, String> {
        let now = self.clock.now();
        if now >= self.not_after || terms.not_before >= self.not_after {
            return Err(format!(
                "the signer has expired: NotAfter={}",
                self.not_after
            ));
        }
        let algorithm = algorithm(&self.key).map_err(|error| format!("{error:#}"))?;
        let mut serial = [0; 16];
        self.clock.random_bytes(&mut serial);
        // Positive, and of full length.
        serial[0] = serial[0] & 0x7f | 0x40;
        let contents = der::sequence(&[
            // Version 3.
            der::value(0xa0, &der::integer(&[2])),
            der::integer(&serial),
            algorithm.clone(),
            self.issuer.clone(),
            der::sequence(&[
                der::time(terms.not_before),
                der::time(terms.not_after.min(self.not_after)),
            ]),
            subject.name.clone(),
            subject.public_key.clone(),
            der::value(0xa3, &der::sequence(&self.extensions(subject, terms)?)),
        ]);
        let signature = self.key.sign(&contents);
        let signature =
            signature.map_err(|error| format!("failed to sign certificate: {error}"))?;
        let certificate = der::sequence(&[contents, algorithm, der::bits(&signature)]);
        Ok(pem(&certificate))
    }

    fn extensions(&self, subject: &Subject, terms: &Terms) -> Result<Vec<Vec<u8>>, String> {
        let usages = usages::of(&terms.usages)?;
        let mut all = Vec::new();
        if usages.key != 0 {
            all.push(der::extension(
                &[0x55, 0x1d, 0x0f],
                true,
                &der::named_bits(usages.key),
            ));
        }
        if !usages.extended.is_empty() {
            let purposes: Vec<Vec<u8>> = usages.extended.iter().map(|id| der::oid(id)).collect();
            let content = der::sequence(&purposes);
            all.push(der::extension(&[0x55, 0x1d, 0x25], false, &content));
        }
        // Basic constraints: no authority.
        all.push(der::extension(
            &[0x55, 0x1d, 0x13],
            true,
            &der::sequence(&[]),
        ));
        if let Some(id) = &self.key_id {
            let content = der::sequence(&[der::value(0x80, id)]);
            all.push(der::extension(&[0x55, 0x1d, 0x23], false, &content));
        }
        if !subject.alternatives.is_empty() {
            let content = der::sequence(&subject.alternatives);
            let critical = subject.is_nameless;
            all.push(der::extension(&[0x55, 0x1d, 0x11], critical, &content));
        }
        Ok(all)
    }
}

impl CertificateAuthority for Authority {
    fn read(&self, request: &[u8]) -> Result<CertificateRequest, String> {
        let bytes = request_bytes(request)?;
        let request = parse_request(&bytes)?;
        let subject = &request.certification_request_info.subject;
        let mut read = CertificateRequest {
            common_name: common_name(subject).unwrap_or_default(),
            organizations: texts(subject, ORGANIZATION),
            ..Default::default()
        };
        for name in alternative_names(&request) {
            match name {
                GeneralName::DNSName(name) => read.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => read.emails.push((*name).to_owned()),
                GeneralName::URI(name) => read.uris.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => read.addresses.push(address(octets)?),
                _ => {}
            }
        }
        Ok(read)
    }

    fn issue(&self, request: &[u8], terms: &Terms) -> Result<Vec<u8>, String> {
        let bytes = request_bytes(request)?;
        let request = parse_request(&bytes)?;
        request
            .verify_signature()
            .map_err(|error| format!("unable to verify certificate request signature: {error}"))?;
        let info = &request.certification_request_info;
        let attributes: Vec<(u8, String)> = SUBJECT
            .iter()
            .flat_map(|attribute| {
                let texts = match *attribute {
                    COMMON_NAME => common_name(&info.subject).into_iter().collect(),
                    attribute => texts(&info.subject, attribute),
                };
                texts.into_iter().map(|text| (*attribute, text))
            })
            .collect();
        let mut alternatives = Vec::new();
        for name in alternative_names(&request) {
            alternatives.extend(match name {
                GeneralName::RFC822Name(name) => Some(der::value(0x81, name.as_bytes())),
                GeneralName::DNSName(name) => Some(der::value(0x82, name.as_bytes())),
                GeneralName::URI(name) => Some(der::value(0x86, name.as_bytes())),
                GeneralName::IPAddress(octets) => {
                    address(octets)?;
                    Some(der::value(0x87, octets))
                }
                _ => None,
            });
        }
        let subject = Subject {
            is_nameless: attributes.is_empty(),
            name: der::name(&attributes),
            public_key: info.subject_pki.raw.to_vec(),
            alternatives,
        };
        self.sign(&subject, terms).map(String::into_bytes)
    }

    fn expiry(&self, certificate: &[u8]) -> Result<Timestamp, String> {
        let der = CertificateDer::from_pem_slice(certificate)
            .map_err(|error| format!("unable to parse certificate data: {error}"))?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .map_err(|error| format!("unable to parse certificate data: {error}"))?;
        let end = certificate.validity().not_after.timestamp();
        Timestamp::from_second(end).map_err(|error| error.to_string())
    }
}

pub(super) fn request_bytes(pem: &[u8]) -> Result<CertificateSigningRequestDer<'static>, String> {
    CertificateSigningRequestDer::from_pem_slice(pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())
}

fn parse_request(der: &[u8]) -> Result<X509CertificationRequest<'_>, String> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], request)) => Ok(request),
        Ok(_) => Err("x509: trailing data after the certificate request".to_owned()),
        Err(error) => Err(format!("x509: malformed certificate request: {error}")),
    }
}

/// The alternative names of all extension requests.
fn alternative_names<'a>(
    request: &'a X509CertificationRequest<'a>,
) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let names = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten()
}

/// Of several common names the last one counts, as in Go; the certificate names no other.
fn common_name(subject: &X509Name<'_>) -> Option<String> {
    texts(subject, COMMON_NAME).pop()
}

/// The values of the attribute `2.5.4.x`.
fn texts(subject: &X509Name<'_>, attribute: u8) -> Vec<String> {
    subject
        .iter_attributes()
        .filter(|found| found.attr_type().as_bytes() == [0x55, 0x04, attribute])
        .filter_map(|found| found.as_str().ok().map(str::to_owned))
        .collect()
}

fn address(octets: &[u8]) -> Result<String, String> {
    let address = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    };
    let count = octets.len();
    address
        .map(|address| address.to_string())
        .ok_or_else(|| format!("x509: cannot parse IP address of length {count}"))
}

/// The AlgorithmIdentifier of what the key signs with.
fn algorithm(key: &KeyPair) -> Result<Vec<u8>> {
    let found = key.algorithm();
    for (known, id) in [
        (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02][..],
        ),
        (
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
        ),
        (&rcgen::PKCS_ED25519, &[0x2b, 0x65, 0x70]),
    ] {
        if found == known {
            return Ok(der::sequence(&[der::oid(id)]));
        }
    }
    if found == &rcgen::PKCS_RSA_SHA256 {
        let id = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
        return Ok(der::sequence(&[der::oid(&id), vec![0x05, 0x00]]));
    }
    bail!("the authority's key is of a kind that cannot sign here: use ECDSA, Ed25519 or RSA")
}

pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
