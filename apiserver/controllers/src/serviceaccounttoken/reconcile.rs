//! What a Secret for a token lacks.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use crate::ClusterTrust;

/// The type of Secrets that hold a token.
const TYPE: &str = "kubernetes.io/service-account-token";
/// Whose token it is.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// Which account of that name.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) secret: Arc<Secret>,
    /// The account that the Secret names.
    pub(crate) account: Option<Arc<ServiceAccount>>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Replace(Box<Secret>),
    Delete(Arc<Secret>),
}

/// Whether the Secret is for a token.
pub(crate) fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

/// The name of the Secret's account.
pub(crate) fn account_name(secret: &Secret) -> Option<&str> {
    annotation(secret, ACCOUNT).filter(|name| !name.is_empty())
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let annotations = secret.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// The write that makes the Secret what it should be. The error says why no token could be signed.
pub(crate) fn reconcile(world: &World, trust: &ClusterTrust) -> Result<Option<Change>, String> {
    let World { secret, account } = world;
    if secret.metadata.deletion_timestamp.is_some() || account_name(secret).is_none() {
        return Ok(None);
    }
    let uid = annotation(secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let account = account.as_ref().filter(|account| {
        // An account of the same name that was made later is another one.
        uid.is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid))
    });
    let Some(account) = account else {
        return Ok(Some(Change::Delete(Arc::clone(secret))));
    };
    let mut filled = Secret::clone(secret);
    let data = filled.data.get_or_insert_default();
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let authority = trust.authority();
    for (key, value) in [
        ("ca.crt", authority.as_bytes()),
        ("namespace", namespace.as_bytes()),
    ] {
        if data.get(key).map(|bytes| bytes.0.as_slice()) != Some(value) {
            data.insert(key.to_owned(), ByteString(value.to_vec()));
        }
    }
    if data.get("token").is_none_or(|token| token.0.is_empty()) {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let token = (trust.sign)(account, name)?;
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    if uid.is_none() {
        let annotations = filled.metadata.annotations.get_or_insert_default();
        let uid = account.metadata.uid.clone().unwrap_or_default();
        annotations.insert(ACCOUNT_UID.to_owned(), uid);
    }
    Ok((filled != **secret).then(|| Change::Replace(Box::new(filled))))
}
