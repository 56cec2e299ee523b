//! What a token of a service account says.

use coracle_api::Object;
use coracle_clock::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// The life of the token that pods mount by themselves, in seconds; asking for exactly this is how such a token is
/// known.
pub(crate) const WARN_AFTER_SECONDS: i64 = 3607;

/// An object that a token is bound to.
pub(crate) enum Bound<'a> {
    /// Nothing: the token lives as long as its account.
    Nothing,
    /// A pod, and the name and UID of its node; the UID is empty when the node is not known.
    Pod(&'a Object, Option<(String, String)>),
    /// A Secret.
    Secret(&'a Object),
    /// A node.
    Node(&'a Object),
}

/// What a token is to say.
pub(crate) struct Grant<'a> {
    /// Whose it is.
    pub(crate) account: &'a Object,
    /// What it is bound to.
    pub(crate) bound: Bound<'a>,
    /// Whom it is for.
    pub(crate) audiences: &'a [String],
    /// When it was made.
    pub(crate) now: Timestamp,
    /// How long it is good, in seconds.
    pub(crate) seconds: i64,
    /// After how many seconds its use is stale, if before its end.
    pub(crate) warn_after: Option<i64>,
    /// Its own identifier.
    pub(crate) id: String,
}

/// The claims of a token, their keys sorted as upstream's are.
pub(super) fn write(issuer: &str, grant: &Grant<'_>) -> Value {
    let now = grant.now.as_second();
    let named = |object: &Object| json!({"name": object.name(), "uid": object.uid()});
    let (namespace, name) = (grant.account.namespace(), grant.account.name());
    let mut own = Map::new();
    own.insert("namespace".to_owned(), namespace.into());
    match &grant.bound {
        Bound::Nothing => {}
        Bound::Pod(pod, node) => {
            if let Some((name, uid)) = node {
                let mut node = json!({"name": name});
                if !uid.is_empty() {
                    node["uid"] = uid.as_str().into();
                }
                own.insert("node".to_owned(), node);
            }
            own.insert("pod".to_owned(), named(pod));
        }
        Bound::Secret(secret) => {
            own.insert("secret".to_owned(), named(secret));
        }
        Bound::Node(node) => {
            own.insert("node".to_owned(), named(node));
        }
    }
    own.insert("serviceaccount".to_owned(), named(grant.account));
    if let Some(after) = grant.warn_after {
        own.insert("warnafter".to_owned(), (now + after).into());
    }
    json!({
        "aud": grant.audiences,
        "exp": now.saturating_add(grant.seconds),
        "iat": now,
        "iss": issuer,
        "jti": grant.id,
        "kubernetes.io": own,
        "nbf": now,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

/// The claims of a token that somebody showed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    pub(super) aud: Audiences,
    pub(super) exp: Option<f64>,
    pub(super) nbf: Option<f64>,
    pub(super) iat: Option<f64>,
    pub(super) jti: String,
    pub(super) sub: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) own: Own,
}

/// The claims that are Kubernetes' own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Own {
    pub(super) namespace: String,
    pub(super) serviceaccount: Named,
    pub(super) pod: Option<Named>,
    pub(super) secret: Option<Named>,
    pub(super) node: Option<Named>,
    pub(super) warnafter: Option<f64>,
}

/// An object that a token names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) uid: String,
}

/// One audience or several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Audiences(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Audiences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            Several(Vec<String>),
            None(()),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::One(one) => vec![one],
            Either::Several(several) => several,
            Either::None(()) => Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Object {
        let value =
            json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")}});
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn the_claims_are_upstreams() {
        let (account, pod) = (object("robot"), object("web"));
        let grant = Grant {
            account: &account,
            bound: Bound::Pod(&pod, Some(("node-a".to_owned(), "uid-node".to_owned()))),
            audiences: &["api".to_owned()],
            now: Timestamp::from_second(1000).expect("a time"),
            seconds: 600,
            warn_after: Some(60),
            id: "id".to_owned(),
        };
        let expected = concat!(
            r#"{"aud":["api"],"exp":1600,"iat":1000,"iss":"me","jti":"id","#,
            r#""kubernetes.io":{"namespace":"ns","node":{"name":"node-a","uid":"uid-node"},"#,
            r#""pod":{"name":"web","uid":"uid-web"},"serviceaccount":{"name":"robot","uid":"uid-robot"},"warnafter":1060},"#,
            r#""nbf":1000,"sub":"system:serviceaccount:ns:robot"}"#
        );
        assert_eq!(write("me", &grant).to_string(), expected);
    }

    #[test]
    fn audiences_are_one_or_several() {
        let read = |text: &str| {
            serde_json::from_str::<Claims>(text)
                .map(|claims| claims.aud.0)
                .ok()
        };
        assert_eq!(read(r#"{"aud":"a"}"#), Some(vec!["a".to_owned()]));
        assert_eq!(read(r#"{"aud":["a","b"]}"#).map(|all| all.len()), Some(2));
        assert_eq!(read("{}"), Some(vec![]));
        assert_eq!(read(r#"{"aud":1}"#), None);
    }
}
