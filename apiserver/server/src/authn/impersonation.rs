//! `Impersonate-*` headers: somebody acts as someone else.
//!
//! ```text
//! headers ▶ wanted user ▶ associated-node │ arbitrary-node │ serviceaccount │ user-info │ legacy   (the first that may)
//! ```
//!
//! The first four are constrained: `impersonate:MODE` on the user, and `impersonate-on:MODE:VERB` on what the request is
//! about. The last is `impersonate` on every part of the user alone. Rules: `k8s.io/apiserver`'s
//! `endpoints/filters/impersonation` (KEP-5284); its caches of decisions are not needed here, where a decision is a look
//! into an index.

use coracle_api::validation::names::{dns1123_label, dns1123_subdomain};
use http::HeaderMap;

use super::{ANONYMOUS, AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED, header_text};
use crate::authz::{Attributes, Authorization, refusal};
use crate::request_info::{RequestInfo, percent_decode};
use crate::status::{ApiError, Result};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// The group of what is not of the core group here.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// The group of nodes.
const NODES: &str = "system:nodes";
/// Where a service account's token says which node it is used on.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Who the request acts as: the user that the headers name if `asking` may be them, `asking` without such headers.
pub async fn impersonate(
    headers: &HeaderMap,
    asking: Identity,
    info: &RequestInfo,
    authorization: &Authorization,
) -> Result<Identity> {
    let Some(wanted) = wanted(headers)? else {
        return Ok(asking);
    };
    let mut first_refusal = None;
    for mode in MODES {
        if !mode.is_for(&wanted, &asking) {
            continue;
        }
        match mode.check(&wanted, &asking, info, authorization).await {
            Ok(acting) => return Ok(acting),
            Err(refusal) => {
                first_refusal.get_or_insert(refusal);
            }
        }
    }
    // The legacy mode is for everybody, so somebody has refused.
    Err(first_refusal.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

/// The user that the headers name, as they name them.
fn wanted(headers: &HeaderMap) -> Result<Option<Identity>> {
    let text = |name: &str| match headers.get(name) {
        Some(value) => header_text(name, value).map(str::to_owned),
        None => Ok(String::new()),
    };
    let all = |name: &str| -> Result<Vec<String>> {
        let values = headers.get_all(name).into_iter();
        let texts = values.map(|value| header_text(name, value).map(str::to_owned));
        texts.collect()
    };
    let extras = headers.keys().filter_map(|name| {
        let key = name.as_str().strip_prefix(EXTRA)?;
        Some(all(name.as_str()).map(|values| (percent_decode(key), values)))
    });
    let wanted = Identity {
        user: text(USER)?,
        uid: text(UID)?,
        groups: all(GROUP)?,
        extra: extras.collect::<Result<_>>()?,
    };
    if !wanted.user.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty() {
        return Ok(None);
    }
    Err(ApiError::bad_request(format!(
        "requested {} without impersonating a user name",
        go_form(&wanted)
    )))
}

/// How Go prints the user, in [`wanted`]'s error.
fn go_form(wanted: &Identity) -> String {
    let list = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = match wanted.groups.is_empty() {
        true => "[]string(nil)".to_owned(),
        false => list(&wanted.groups),
    };
    let mut extra: Vec<String> = (wanted.extra.iter())
        .map(|(key, values)| format!("{key:?}:{}", list(values)))
        .collect();
    extra.sort();
    let extra = match extra.is_empty() {
        true => "(nil)".to_owned(),
        false => format!("{{{}}}", extra.join(", ")),
    };
    format!(
        "&user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        wanted.uid
    )
}

/// A way to be allowed to act as somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A service account acts as the node that it runs on.
    AssociatedNode,
    /// As any node.
    ArbitraryNode,
    /// As a service account.
    ServiceAccount,
    /// As anybody else.
    UserInfo,
    /// As anybody, for whatever the request does.
    Legacy,
}

const MODES: [Mode; 5] = [
    Mode::AssociatedNode,
    Mode::ArbitraryNode,
    Mode::ServiceAccount,
    Mode::UserInfo,
    Mode::Legacy,
];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    /// Whether the mode is about such users at all.
    fn is_for(self, wanted: &Identity, asking: &Identity) -> bool {
        let only_named =
            wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node(&wanted.user), account(&wanted.user));
        match self {
            Self::AssociatedNode => {
                let own = asking.extra.iter().find(|(key, _)| key == NODE_NAME);
                let own = own.and_then(|(_, values)| match &values[..] {
                    [one] => Some(one.as_str()),
                    _ => None,
                });
                only_named && node.is_some() && node == own && self::account(&asking.user).is_some()
            }
            Self::ArbitraryNode => only_named && node.is_some(),
            Self::ServiceAccount => only_named && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }

    async fn check(
        self,
        wanted: &Identity,
        asking: &Identity,
        info: &RequestInfo,
        authorization: &Authorization,
    ) -> Result<Identity> {
        let constrained = self != Self::Legacy;
        let verb = match constrained {
            true => {
                let mut on = Attributes::of(asking, info);
                let verb = format!("impersonate-on:{}:{}", self.name(), on.verb);
                on.verb = &verb;
                permit(authorization, &on).await?;
                format!("impersonate:{}", self.name())
            }
            false => "impersonate".to_owned(),
        };
        // Of the legacy mode's resources, some are of the core group.
        let group = if constrained { AUTHENTICATION } else { "" };
        let mut acting = wanted.clone();
        let mut user = Attributes {
            name: wanted.user.as_str().into(),
            ..Attributes::resource(asking, &verb, group, "users")
        };
        if let Some(node) = node(&wanted.user).filter(|_| constrained) {
            user.resource = "nodes";
            // The right is to be one's own node, whichever it is.
            user.name = if self == Self::AssociatedNode {
                "*"
            } else {
                node
            }
            .into();
            acting.groups = vec![NODES.to_owned()];
        }
        if let Some((namespace, name)) = account(&wanted.user) {
            user.resource = "serviceaccounts";
            user.namespace = namespace;
            user.name = name.into();
            if wanted.groups.is_empty() {
                acting.groups = vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
        }
        permit(authorization, &user).await?;
        if !wanted.uid.is_empty() {
            let uid = Attributes {
                name: wanted.uid.as_str().into(),
                ..Attributes::resource(asking, &verb, AUTHENTICATION, "uids")
            };
            permit(authorization, &uid).await?;
        }
        let groups = Attributes::resource(asking, &verb, group, "groups");
        self.permit_groups(&wanted.groups, groups, authorization)
            .await?;
        let extra = Attributes::resource(asking, &verb, AUTHENTICATION, "userextras");
        self.permit_extra(&wanted.extra, extra, authorization)
            .await?;
        let implied = if acting.user == ANONYMOUS {
            UNAUTHENTICATED
        } else {
            AUTHENTICATED
        };
        if !acting.is_in(implied) && !acting.is_in(UNAUTHENTICATED) {
            acting.groups.push(implied.to_owned());
        }
        Ok(acting)
    }

    async fn permit_groups<'a>(
        self,
        groups: &'a [String],
        mut asked: Attributes<'a>,
        authorization: &Authorization,
    ) -> Result<()> {
        if self != Self::Legacy {
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(refusal(&asked, why));
            }
            if groups.iter().any(|group| group == MASTERS) {
                asked.name = MASTERS.into();
                let why = "impersonating the system:masters group is not allowed";
                return Err(refusal(&asked, why));
            }
        }
        for group in groups {
            asked.name = group.as_str().into();
            permit(authorization, &asked).await?;
        }
        Ok(())
    }

    async fn permit_extra<'a>(
        self,
        extra: &'a [(String, Vec<String>)],
        mut asked: Attributes<'a>,
        authorization: &Authorization,
    ) -> Result<()> {
        if self != Self::Legacy
            && let Some(why) = extra.iter().find_map(wrong_extra)
        {
            return Err(refusal(&asked, &why));
        }
        for (key, values) in extra {
            asked.subresource = key;
            for value in values {
                asked.name = value.as_str().into();
                permit(authorization, &asked).await?;
            }
        }
        Ok(())
    }
}

/// What constrained impersonation has against further facts.
fn wrong_extra((key, values): &(String, Vec<String>)) -> Option<String> {
    let why = if key.is_empty() {
        "impersonating the empty string key in extra is not allowed".to_owned()
    } else if key.chars().any(char::is_uppercase) {
        format!("impersonating a non-lowercase key in extra is not allowed: {key:?}")
    } else if values.is_empty() {
        "impersonating empty values in extra is not allowed".to_owned()
    } else if values.iter().any(String::is_empty) {
        "impersonating the empty string value in extra is not allowed".to_owned()
    } else {
        return None;
    };
    Some(why)
}

async fn permit(authorization: &Authorization, asked: &Attributes<'_>) -> Result<()> {
    authorization.authorize(asked).await
}

/// The namespace and name of the service account whose user name that is.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let legal = dns1123_label(namespace).is_empty() && dns1123_subdomain(name).is_empty();
    legal.then_some((namespace, name))
}

/// The node whose user name that is.
fn node(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:node:")?;
    dns1123_subdomain(name).is_empty().then_some(name)
}

#[cfg(test)]
mod tests;
