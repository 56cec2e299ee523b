//! Public keys: read from PEM or from a JSON Web Key, written as one, and verifying signatures.

use p521::ecdsa::signature::Verifier;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{decode, encode};

/// The headers of a `SubjectPublicKeyInfo` (RFC 5280) up to the point of the curve, for the three curves.
const P256_HEADER: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_HEADER: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const P521_HEADER: &[u8] = &[
    0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
    0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
];
/// `SEQUENCE { OID rsaEncryption, NULL }`.
const RSA_ALGORITHM: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// No PEM block of a key.
    #[error("there is no key in PEM form")]
    NoPem,
    /// A key of a type or size that is not served.
    #[error(
        "the key is none of RSA from 2048 bits and ECDSA over P-256, P-384 and P-521 (as PKCS #8, or PKCS #1 for RSA)"
    )]
    Unsupported,
    /// No randomness.
    #[error("failed to generate a key")]
    Random,
}

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    material: Material,
    id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// The uncompressed point on P-256.
    P256(Vec<u8>),
    /// The uncompressed point on P-384.
    P384(Vec<u8>),
    /// The uncompressed point on P-521.
    P521(Vec<u8>),
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

/// The algorithms that tokens may be signed with, sorted.
pub(crate) const ALGORITHMS: [&str; 9] = [
    "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
];

/// Whether somebody may sign with the algorithm.
pub(super) fn is_algorithm(name: &str) -> bool {
    ALGORITHMS.contains(&name)
}

impl PublicKey {
    pub(super) fn new(material: Material) -> Self {
        let id = encode(Sha256::digest(material.spki()));
        Self { material, id }
    }

    /// Every public key (`PUBLIC KEY` blocks) of a PEM text.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| KeyError::NoPem)?;
        if keys.is_empty() {
            return Err(KeyError::NoPem);
        }
        keys.iter().map(|der| Self::from_spki(der)).collect()
    }

    /// Reads a `SubjectPublicKeyInfo`.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(point) = der.strip_prefix(P256_HEADER).filter(|p| p.len() == 65) {
            return Ok(Self::new(Material::P256(point.to_vec())));
        }
        if let Some(point) = der.strip_prefix(P384_HEADER).filter(|p| p.len() == 97) {
            return Ok(Self::new(Material::P384(point.to_vec())));
        }
        if let Some(point) = der.strip_prefix(P521_HEADER).filter(|p| p.len() == 133) {
            return Ok(Self::new(Material::P521(point.to_vec())));
        }
        let (_, parsed) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Unsupported)?;
        match parsed.parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => Ok(Self::new(Material::Rsa(
                trimmed(rsa.modulus),
                trimmed(rsa.exponent),
            ))),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// Reads a JSON Web Key (RFC 7517) that may verify signatures; its `kid` replaces the key's own identifier.
    pub fn from_jwk(jwk: &Value) -> Result<Self, KeyError> {
        let text = |name: &str| jwk[name].as_str().unwrap_or_default();
        let number = |name: &str| decode(text(name)).ok_or(KeyError::Unsupported);
        if !matches!(text("use"), "" | "sig") {
            return Err(KeyError::Unsupported);
        }
        let point = |size: usize| {
            let (x, y) = (number("x")?, number("y")?);
            if x.len() > size || y.len() > size {
                return Err(KeyError::Unsupported);
            }
            let mut point = vec![0; 1 + 2 * size];
            point[0] = 4;
            point[1 + size - x.len()..1 + size].copy_from_slice(&x);
            point[1 + 2 * size - y.len()..].copy_from_slice(&y);
            Ok(point)
        };
        let mut key = Self::new(match (text("kty"), text("crv")) {
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            ("EC", "P-521") => Material::P521(point(66)?),
            ("RSA", _) => Material::Rsa(trimmed(&number("n")?), trimmed(&number("e")?)),
            _ => return Err(KeyError::Unsupported),
        });
        if !text("kid").is_empty() {
            key.id = text("kid").to_owned();
        }
        Ok(key)
    }

    /// The key's identifier: the base64url of the SHA-256 of its DER form, as upstream derives it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The algorithm that this key's owner signs service accounts' tokens with.
    pub fn algorithm(&self) -> &'static str {
        match self.material {
            Material::P256(_) => "ES256",
            Material::P384(_) => "ES384",
            Material::P521(_) => "ES512",
            Material::Rsa(..) => "RS256",
        }
    }

    /// The key as a JSON Web Key, its members in upstream's order.
    pub fn to_jwk(&self) -> Value {
        let (kid, alg) = (self.id(), self.algorithm());
        let ec = |curve: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at((point.len() - 1) / 2);
            json!({"use": "sig", "kty": "EC", "kid": kid, "crv": curve, "alg": alg, "x": encode(x), "y": encode(y)})
        };
        match &self.material {
            Material::P256(point) => ec("P-256", point),
            Material::P384(point) => ec("P-384", point),
            Material::P521(point) => ec("P-521", point),
            Material::Rsa(n, e) => {
                json!({"use": "sig", "kty": "RSA", "kid": kid, "alg": alg, "n": encode(n), "e": encode(e)})
            }
        }
    }

    /// The key in PEM form.
    pub fn to_pem(&self) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(self.material.spki());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }

    /// Whether `signature` is this key's over `message`, by an algorithm that fits the key.
    pub(super) fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let ec = |algorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point)
                .verify(message, signature)
                .is_ok()
        };
        match (&self.material, algorithm) {
            (Material::P256(point), "ES256") => ec(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), "ES384") => ec(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::P521(point), "ES512") => verifies_p521(point, message, signature),
            (Material::Rsa(n, e), name) => {
                let algorithm = match name {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }
                    .verify(algorithm, message, signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

impl Material {
    /// The key's `SubjectPublicKeyInfo`.
    fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(point) => [P256_HEADER, point].concat(),
            Self::P384(point) => [P384_HEADER, point].concat(),
            Self::P521(point) => [P521_HEADER, point].concat(),
            Self::Rsa(n, e) => {
                let key = der(0x30, &[integer(n), integer(e)].concat());
                let bits = der(0x03, &[&[0], key.as_slice()].concat());
                der(0x30, &[RSA_ALGORITHM, &bits].concat())
            }
        }
    }
}

/// Ring has no P-521.
fn verifies_p521(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    match (key, signature) {
        (Ok(key), Ok(signature)) => key.verify(message, &signature).is_ok(),
        _ => false,
    }
}

/// Without leading zeros.
fn trimmed(number: &[u8]) -> Vec<u8> {
    let from = number.iter().position(|byte| *byte != 0);
    number[from.unwrap_or(number.len())..].to_vec()
}

/// A DER integer of a positive number.
fn integer(number: &[u8]) -> Vec<u8> {
    match number.first() {
        Some(first) if *first < 0x80 => der(0x02, number),
        _ => der(0x02, &[&[0], number].concat()),
    }
}

/// A DER value: tag, length, contents.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = trimmed(&length.to_be_bytes());
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend_from_slice(contents);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxyitP1qFjKzb2q9Sgwps
vsnV1mTOuFx/Siv75qmkkw0M8dJJLW+0vVELgpwBGzyhOlwSES2//UklOSYMp2+X
PvgI1EgNAx9FNx/LtP7pNAj4unwJ+douRuGaVMmDi2ffRD3+NNlkzmDPRYL073fc
PJchBZzXVUolpz95AP7+/1JELdgI1DnEWa9OjVbmozKq2GfFpWtaaSHsdpuq0fx8
g65ctBu6twTGQIAjE7lw4Qc6GWpav7nlanirVHNlFQICYc0Pl6Q04gwHl+ODvhWY
CSGDV4Bouqh4F8jHmt2A2vykBnK0uvJ2dN8Z1Xs8v7lP8UtlCDjvCqayXcrX6ThW
aQIDAQAB
-----END PUBLIC KEY-----
";
    const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE6O7R0sOnAasnQXhQ67f/PKMBuv6jqb4k
g1ZMnOrnQ8pF3Tr2bT5IxJSQCQ0sl/73P21xaQIN3Z16Kp43UX2upZGc8Rj3U+Ra
f6Q242RUuEB0JWYRm9eevYpU6ud0Ag4q
-----END PUBLIC KEY-----
";

    const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAaTXFve96n9qLJ3kIMs9z5jmGcwvB
y3EWiBiw3emz5eNMBtHOxFWigNPGD+ZgLI4gykvK7XBNvsRlU1nWJHNN8tIABsA5
rQYFAMWME1bNEx7iHPqqW6V//HmrRD5IKRn0qFmJNUrWxN5J5q+3qDGLUjIZAI/n
R43je7Fk6jIFtsJriJ4=
-----END PUBLIC KEY-----
";

    #[test]
    fn keys_survive_pem_and_jwk() {
        for (pem, algorithm, id) in [
            (RSA, "RS256", "oyGckSgmQz-65NV6Kd8QYb8Mqlfn8f4BibPJWWJ6zxk"),
            (P384, "ES384", "CgJyxG3ksvIl0GaiPOLvE5NxIv9SzIKcy2K_CTogYQ0"),
            (P521, "ES512", "RPWZx1sWZsfK-01AQuhqaBSwTxMmqEK_epOuj_YGsuU"),
        ] {
            let keys = PublicKey::all_from_pem(pem).expect("a key");
            assert_eq!((keys[0].algorithm(), keys[0].id()), (algorithm, id));
            assert_eq!(keys[0].to_pem(), pem);
            assert_eq!(PublicKey::from_jwk(&keys[0].to_jwk()), Ok(keys[0].clone()));
        }
        let both = PublicKey::all_from_pem(&format!("{RSA}{P384}")).expect("two keys");
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn rsa_signatures_are_verified() {
        let key = &PublicKey::all_from_pem(RSA).expect("a key")[0];
        let signature = decode(
            "hh3A3hGxX2B7PIo-OfnjRWprfp5jdY7Rh-v6m7mTSb353V3bTwNH39vClRDVQoUXjP7dEDuJMsdZltGzI7HM1aO4LNcEfQAv\
             p8spHV3YvbcVcRRI1LOKYYw99hpWbVv7KuhIoEAWt21_aC2BpNGgxBcLhMoHrfS3EGTOqaVDlN8ysMjlv1Oq5tHMwtFxlp3X\
             ztCxjhMm1EJbvxpnzBKo4LeMLaaNRR63-2uoLZobppttWfdwPn_b72d6K4HC3y7EkWYqAijqH5ulb00h9wM6NBRKvrJzclwG\
             NaHaXZnggE-bUNzbicpP1TACK8x5XAeCNHNK4sg6MVy8LoMkNQXang",
        ).expect("base64url");
        assert!(key.verifies("RS256", b"message", &signature));
        assert!(!key.verifies("RS256", b"massage", &signature));
        assert!(!key.verifies("RS384", b"message", &signature));
        assert!(!key.verifies("ES256", b"message", &signature));
    }

    #[test]
    fn signatures_over_p521_are_verified() {
        let key = &PublicKey::all_from_pem(P521).expect("a key")[0];
        let mut signature = decode(
            "AAP6ON0m_GG66nYZufjJuNGWlTyRDUIK2FrjumhoEIJgk-xf0AeApHITzPD_1rO471KWDMzBgtiBf6H1xPot346pAKHptnfdjjKMFb6j\
             1PeHcn_95XwkZkuVaTKmDWEywv8mmntbps85qrt1sbffpCFyRuNPbFpJUxygO__umpTHe6-F",
        )
        .expect("base64url");
        assert!(key.verifies("ES512", b"message", &signature));
        assert!(!key.verifies("ES512", b"massage", &signature));
        assert!(!key.verifies("ES384", b"message", &signature));
        assert!(!key.verifies("ES512", b"message", &signature[1..]));
        assert!(!key.verifies("ES512", b"message", &[0; 132]));
        signature[131] ^= 1;
        assert!(!key.verifies("ES512", b"message", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(PublicKey::all_from_pem("junk"), Err(KeyError::NoPem));
        assert_eq!(PublicKey::from_spki(b"junk"), Err(KeyError::Unsupported));
        for jwk in [
            json!({}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "!", "y": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": encode([1; 33]), "y": "AA"}),
            json!({"kty": "EC", "crv": "P-521", "x": encode([1; 67]), "y": "AA"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "use": "enc"}),
        ] {
            assert_eq!(
                PublicKey::from_jwk(&jwk),
                Err(KeyError::Unsupported),
                "{jwk}"
            );
        }
    }
}
