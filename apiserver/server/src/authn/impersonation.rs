//! `Impersonate-*` headers: an administrator acts as someone else.

use http::HeaderMap;

use super::{AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED};
use crate::status::{ApiError, Result};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Who the request acts as. Only `system:masters` may impersonate until roles can say otherwise.
pub fn impersonate(headers: &HeaderMap, asking: Identity) -> Result<Identity> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let user = text(USER);
    let extra_headers = headers
        .keys()
        .filter(|name| name.as_str().starts_with(EXTRA));
    if user.is_empty() {
        if headers.contains_key(GROUP) || headers.contains_key(UID) || extra_headers.count() > 0 {
            return Err(ApiError::internal(
                "requested uid/groups/extra without impersonating a user",
            ));
        }
        return Ok(asking);
    }
    if !asking.is_in(MASTERS) {
        let (resource, group) = if user.starts_with("system:serviceaccount:") {
            ("serviceaccounts", "")
        } else {
            ("users", "")
        };
        let message = format!(
            "{resource} {user:?} is forbidden: User {:?} cannot impersonate resource {resource:?} in API group {group:?} \
             at the cluster scope",
            asking.user
        );
        return Err(ApiError::new(403, "Forbidden", message));
    }
    let mut groups = all(GROUP);
    let anonymous = user == super::ANONYMOUS;
    let implied = if anonymous {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if let Some(account) = user.strip_prefix("system:serviceaccount:")
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".to_owned());
        if let Some((namespace, _)) = account.split_once(':') {
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
    }
    if !groups
        .iter()
        .any(|group| group == implied || group == UNAUTHENTICATED)
    {
        groups.push(implied.to_owned());
    }
    let extra = extra_headers
        .map(|name| (name.as_str()[EXTRA.len()..].to_owned(), all(name.as_str())))
        .collect();
    Ok(Identity {
        user,
        uid: text(UID),
        groups,
        extra,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(user: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER, user.parse().expect("a header"));
        headers
    }

    #[test]
    fn administrators_act_as_others() {
        let admin = Identity::new("admin", [MASTERS]);
        let jane = impersonate(&headers("jane"), admin.clone()).expect("allowed");
        assert_eq!(
            (jane.user.as_str(), jane.groups.as_slice()),
            ("jane", &[AUTHENTICATED.to_owned()][..])
        );
        assert_eq!(
            impersonate(&HeaderMap::new(), admin.clone()).expect("nothing to do"),
            admin
        );
    }

    #[test]
    fn others_may_not() {
        let error =
            impersonate(&headers("jane"), Identity::new("joe", ["devs"])).expect_err("refused");
        assert_eq!(error.code(), 403);
    }
}
