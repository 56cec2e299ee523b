//! JSON Web Signatures in their compact form: three parts of base64url, the last of which signs the others.
//!
//! Only asymmetric algorithms exist here, each bound to the type of the key: a token cannot choose how it is verified,
//! and `alg: none` and HMACs over public keys are no algorithms at all.

mod key;
mod signer;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) use key::ALGORITHMS;
pub use key::{KeyError, PublicKey};
pub use signer::SigningKey;

/// What the first part says.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    /// The algorithm.
    pub(crate) alg: String,
    /// Which key signed; empty when the token does not say.
    #[serde(default)]
    pub(crate) kid: String,
    /// Extensions that whoever verifies must understand; we understand none.
    crit: Option<serde_json::Value>,
}

/// A token that is well-formed and not verified.
#[derive(Debug)]
pub(crate) struct Jws<'a> {
    /// The first part.
    pub(crate) header: Header,
    payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Reads a compact token; `None` when it is none, or asks for what is not served here.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.crit.is_some() || !key::is_algorithm(&header.alg) {
            return None;
        }
        Some(Self {
            header,
            payload: decode(payload)?,
            signed,
            signature: decode(signature)?,
        })
    }

    /// The claims, once one of `keys` has verified the signature; `None` when none has.
    pub(crate) fn verified<'k, T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Option<T> {
        let good = keys
            .into_iter()
            .any(|key| key.verifies(&self.header.alg, self.signed.as_bytes(), &self.signature));
        good.then(|| serde_json::from_slice(&self.payload).ok())
            .flatten()
    }

    /// The claims as they stand: whoever made the token may have written anything.
    pub(crate) fn unverified<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.payload).ok()
    }
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn signed(key: &SigningKey, claims: &Value) -> String {
        key.sign(claims).expect("signed")
    }

    #[test]
    fn only_the_key_that_signed_verifies() {
        let (ours, theirs) = (SigningKey::generate(), SigningKey::generate());
        let (ours, theirs) = (ours.expect("a key"), theirs.expect("a key"));
        let claims = json!({"sub": "a"});
        let token = signed(&ours, &claims);
        let jws = Jws::parse(&token).expect("well-formed");
        assert_eq!(jws.header.kid, ours.public().id());
        assert_eq!(jws.verified::<Value>([ours.public()]), Some(claims.clone()));
        assert_eq!(
            jws.verified::<Value>([theirs.public(), ours.public()]),
            Some(claims)
        );
        assert_eq!(jws.verified::<Value>([theirs.public()]), None);
        assert_eq!(jws.verified::<Value>([]), None);
    }

    #[test]
    fn a_changed_part_is_noticed() {
        let key = SigningKey::generate().expect("a key");
        let token = signed(&key, &json!({"sub": "a"}));
        let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token} has not three parts");
        };
        let other = encode(r#"{"sub":"b"}"#);
        let mut bits = decode(signature).expect("base64");
        bits[5] ^= 1;
        for bad in [
            format!("{header}.{other}.{signature}"),
            format!("{header}.{payload}.{}", encode(bits)),
            format!("{header}.{payload}."),
        ] {
            let jws = Jws::parse(&bad).expect("well-formed");
            assert_eq!(jws.verified::<Value>([key.public()]), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_signed_token_is_refused() {
        let header = |text: &str| format!("{}.e30.AAAA", encode(text));
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            "e30.e30".to_owned(),
            "eyJhbGciOiJub25lIn0.e30.".to_owned(),
            header(r#"{"alg":"none"}"#),
            header(r#"{"alg":"HS256"}"#),
            header(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#),
            format!("{}=.e30.AAAA", encode(r#"{"alg":"ES256"}"#)),
        ] {
            assert!(Jws::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_algorithm_belongs_to_the_key() {
        let key = SigningKey::generate().expect("a key");
        let token = signed(&key, &json!({}));
        let (_, rest) = token.split_once('.').expect("a header");
        for algorithm in ["ES384", "RS256", "PS256"] {
            let bad = format!("{}.{rest}", encode(format!(r#"{{"alg":"{algorithm}"}}"#)));
            let jws = Jws::parse(&bad).expect("well-formed");
            assert_eq!(jws.verified::<Value>([key.public()]), None, "{algorithm}");
        }
    }
}
