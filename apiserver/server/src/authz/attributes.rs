//! What an authorizer is asked: may this user do this to that.

use std::borrow::Cow;

use coracle_api::selector::FieldSelector;

use crate::authn::Identity;
use crate::request_info::RequestInfo;

/// One question. About a resource, or about a path that names none.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub identity: &'a Identity,
    /// What they do: `get`, `list`, …, or any word that rules know (`bind`, `impersonate`, `approve`).
    pub verb: &'a str,
    /// Whether this is about a resource; the fields from `group` on are for resources only.
    pub is_resource: bool,
    /// The path, of requests that are about no resource.
    pub path: &'a str,
    /// API group; empty for the core group.
    pub group: &'a str,
    /// API version, or empty; no role knows it.
    pub version: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Name, or empty; for `list` and `watch` the name that the field selector asks for.
    pub name: Cow<'a, str>,
    /// What the field selector of `list`, `watch` and `deletecollection` asks for.
    pub fields: FieldSelector,
    /// Their label selector as it was written; whoever looks at it reads it.
    pub labels: Cow<'a, str>,
}

impl<'a> Attributes<'a> {
    /// What a request asks.
    ///
    /// A selector that cannot be read selects nothing in particular: its error is the verb's to report. Rule:
    /// `RequestInfoFactory.NewRequestInfo` of `k8s.io/apiserver`.
    pub fn of(identity: &'a Identity, info: &'a RequestInfo) -> Self {
        if !info.is_resource {
            return Self::path(identity, info.verb, &info.path);
        }
        let selects = matches!(info.verb, "list" | "watch" | "deletecollection");
        let selector = info.query.get("fieldSelector").filter(|_| selects);
        let fields: FieldSelector = selector.and_then(|s| s.parse().ok()).unwrap_or_default();
        let one = fields.exact("metadata.name").filter(|name| {
            let fits = !matches!(*name, "." | "..") && !name.contains(['/', '%']);
            fits && info.verb != "deletecollection" && info.name.is_empty()
        });
        let labels = info.query.get("labelSelector").filter(|_| selects);
        Self {
            version: &info.version,
            labels: Cow::Borrowed(labels.unwrap_or_default()),
            namespace: &info.namespace,
            subresource: &info.subresource,
            name: match one {
                Some(name) => Cow::Owned(name.to_owned()),
                None => Cow::Borrowed(&info.name),
            },
            fields,
            ..Self::resource(identity, info.verb, &info.group, &info.resource)
        }
    }

    /// Whether `identity` may do `verb` to a path.
    pub fn path(identity: &'a Identity, verb: &'a str, path: &'a str) -> Self {
        Self {
            identity,
            verb,
            is_resource: false,
            path,
            group: "",
            version: "",
            namespace: "",
            resource: "",
            subresource: "",
            name: Cow::Borrowed(""),
            fields: FieldSelector::default(),
            labels: Cow::Borrowed(""),
        }
    }

    /// Whether `identity` may do `verb` to a whole resource, at the cluster scope.
    pub fn resource(
        identity: &'a Identity,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
    ) -> Self {
        Self {
            is_resource: true,
            group,
            resource,
            ..Self::path(identity, verb, "")
        }
    }

    /// `resource/subresource`.
    pub fn resource_path(&self) -> Cow<'a, str> {
        if self.subresource.is_empty() {
            Cow::Borrowed(self.resource)
        } else {
            Cow::Owned(format!("{}/{}", self.resource, self.subresource))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(method: &str, uri: &str) -> String {
        let info = RequestInfo::parse(
            &method.parse().expect("a method"),
            &uri.parse().expect("a uri"),
        );
        Attributes::of(&Identity::anonymous(), &info)
            .name
            .into_owned()
    }

    #[test]
    fn a_list_of_one_object_is_about_its_name() {
        let pods = "/api/v1/namespaces/a/pods";
        for (method, query, name) in [
            ("GET", "fieldSelector=metadata.name%3Dx", "x"),
            ("GET", "fieldSelector=metadata.name%3Dx&watch=1", "x"),
            ("GET", "fieldSelector=metadata.name%21%3Dx", ""),
            ("GET", "fieldSelector=metadata.name%3D..", ""),
            ("GET", "fieldSelector=broken", ""),
            ("DELETE", "fieldSelector=metadata.name%3Dx", ""),
        ] {
            assert_eq!(
                name_in(method, &format!("{pods}?{query}")),
                name,
                "{method} {query}"
            );
        }
        assert_eq!(
            name_in(
                "GET",
                &format!("{pods}/y?fieldSelector=metadata.name%3Dx&watch=1")
            ),
            "y"
        );
    }
}
