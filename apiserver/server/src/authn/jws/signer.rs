//! A private key that signs tokens.

use p521::ecdsa::signature::Signer;
use p521::pkcs8::DecodePrivateKey;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_SHA256,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::encode;
use super::key::{KeyError, Material, PublicKey};

/// A key that signs: RSA (RS256), ECDSA P-256 (ES256), P-384 (ES384) or P-521 (ES512).
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    P521(Box<p521::ecdsa::SigningKey>),
    Rsa(rsa::KeyPair),
}

impl SigningKey {
    /// A new P-256 key that lives in this process only.
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(document.map_err(|_| KeyError::Random)?.as_ref())
    }

    /// Reads the first private key of a PEM text: PKCS #8, or PKCS #1 for RSA.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => Self::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => {
                let pair = rsa::KeyPair::from_der(der.secret_pkcs1_der());
                Self::from_rsa(pair.map_err(|_| KeyError::Unsupported)?)
            }
            Ok(_) => Err(KeyError::Unsupported),
            Err(_) => Err(KeyError::NoPem),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &random);
        if let Ok(pair) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING) {
            let public = Material::P256(pair.public_key().as_ref().to_vec());
            return Ok(Self::new(Pair::Ecdsa(pair), public));
        }
        if let Ok(pair) = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING) {
            let public = Material::P384(pair.public_key().as_ref().to_vec());
            return Ok(Self::new(Pair::Ecdsa(pair), public));
        }
        if let Ok(secret) = p521::SecretKey::from_pkcs8_der(der) {
            let pair = p521::ecdsa::SigningKey::from(&secret);
            let point = pair.verifying_key().to_sec1_point(false);
            let public = Material::P521(point.as_bytes().to_vec());
            return Ok(Self::new(Pair::P521(Box::new(pair)), public));
        }
        let pair = rsa::KeyPair::from_pkcs8(der).map_err(|_| KeyError::Unsupported)?;
        Self::from_rsa(pair)
    }

    fn from_rsa(pair: rsa::KeyPair) -> Result<Self, KeyError> {
        let components = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
        let public = Material::Rsa(components.n, components.e);
        Ok(Self::new(Pair::Rsa(pair), public))
    }

    fn new(pair: Pair, public: Material) -> Self {
        let public = PublicKey::new(public);
        Self { pair, public }
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The compact token of `claims`.
    pub fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let header = json!({"alg": self.public.algorithm(), "kid": self.public.id()});
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, signed.as_bytes());
                signature.map_err(|_| KeyError::Random)?.as_ref().to_vec()
            }
            // By RFC 6979, without randomness.
            Pair::P521(pair) => {
                let signature: p521::ecdsa::Signature = pair.sign(signed.as_bytes());
                signature.to_bytes().to_vec()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    signed.as_bytes(),
                    &mut signature,
                )
                .map_err(|_| KeyError::Random)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", encode(signature)))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SigningKey({})", self.public.id())
    }
}
