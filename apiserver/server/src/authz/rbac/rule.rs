//! One rule of a role, and what it allows.
//!
//! Rules: `k8s.io/kubernetes/pkg/apis/rbac/v1/evaluation_helpers.go`.

use coracle_api::At;
use serde_json::{Map, Value};

use crate::authz::Attributes;

/// A rule of a role: some verbs on some resources, or on some paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What may be done; `*` is everything.
    pub verbs: Vec<String>,
    /// API groups; `*` is all.
    pub api_groups: Vec<String>,
    /// `resource`, `resource/subresource`, `*/subresource` or `*`.
    pub resources: Vec<String>,
    /// Names of objects; none are all.
    pub resource_names: Vec<String>,
    /// Paths that name no resource; a `*` at the end stands for the rest.
    pub urls: Vec<String>,
}

impl Rule {
    /// Reads a rule of a stored role.
    pub fn read(rule: &At<'_>) -> Self {
        let texts = |field: &str| {
            let field = rule.key(field);
            field.items().map(|item| item.str().to_owned()).collect()
        };
        Self {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// The rule as objects and reviews show it: verbs first, what is empty left out.
    pub fn to_value(&self) -> Value {
        let mut value = Map::new();
        let mut put = |field: &str, texts: &[String]| {
            if !texts.is_empty() || field == "verbs" {
                value.insert(field.to_owned(), texts.into());
            }
        };
        put("verbs", &self.verbs);
        put("apiGroups", &self.api_groups);
        put("resources", &self.resources);
        put("resourceNames", &self.resource_names);
        put("nonResourceURLs", &self.urls);
        Value::Object(value)
    }

    /// Whether the rule lets somebody do that.
    pub fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.is_resource {
            return self.urls.iter().any(|url| url_covers(url, asked.path));
        }
        has_or_all(&self.api_groups, asked.group)
            && self.resources.iter().any(|r| resource_matches(r, asked))
            && (self.resource_names.is_empty() || has(&self.resource_names, &asked.name))
    }
}

/// Whether `texts` has `text`.
pub(super) fn has(texts: &[String], text: &str) -> bool {
    texts.iter().any(|t| t == text)
}

/// Whether `texts` has `text` or `*`.
pub(super) fn has_or_all(texts: &[String], text: &str) -> bool {
    texts.iter().any(|t| t == text || t == "*")
}

/// Whether a URL of a rule covers a path.
pub(super) fn url_covers(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

fn resource_matches(rule: &str, asked: &Attributes<'_>) -> bool {
    if rule == "*" {
        return true;
    }
    if asked.subresource.is_empty() {
        return rule == asked.resource;
    }
    rule.split_once('/').is_some_and(|(resource, subresource)| {
        subresource == asked.subresource && (resource == "*" || resource == asked.resource)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::Identity;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Rule {
            verbs: words(verbs),
            api_groups: groups.split(' ').map(str::to_owned).collect(),
            resources: words(resources),
            resource_names: words(names),
            urls: Vec::new(),
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        let jane = Identity::new("jane", ["devs"]);
        for (rule, asked, allowed) in [
            (rule("get list", "", "pods", ""), "get  pods", true),
            (rule("get list", "", "pods", ""), "watch  pods", false),
            (rule("get", "", "pods", ""), "get apps pods", false),
            (rule("get", "", "pods", ""), "get  pods/log", false),
            (rule("get", "", "pods/log", ""), "get  pods/log", true),
            (rule("get", "", "pods/log", ""), "get  pods", false),
            (rule("get", "", "*", ""), "get  pods/log", true),
            (rule("get", "", "*/log", ""), "get  pods/log", true),
            (rule("get", "", "*/log", ""), "get  pods/status", false),
            (rule("get", "", "*/log", ""), "get  pods", false),
            (rule("*", "*", "*", ""), "fly apps birds/wings", true),
            (rule("get", " apps", "pods", ""), "get  pods", true),
            (rule("get", "", "pods", "x y"), "get  pods  y", true),
            (rule("get", "", "pods", "x y"), "get  pods  z", false),
            (rule("list", "", "pods", "x"), "list  pods", false),
        ] {
            let parts: Vec<&str> = asked.split(' ').collect();
            let (resource, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
            let attributes = Attributes {
                subresource,
                name: parts
                    .last()
                    .filter(|_| parts.len() > 3)
                    .copied()
                    .unwrap_or_default()
                    .into(),
                ..Attributes::resource(&jane, parts[0], parts[1], resource)
            };
            assert_eq!(rule.allows(&attributes), allowed, "{rule:?} {asked}");
        }
    }

    #[test]
    fn paths_are_covered_by_themselves_and_by_stars() {
        for (url, path, covered) in [
            ("*", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/v1", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("/healthz*", "/healthz/ping", true),
        ] {
            assert_eq!(url_covers(url, path), covered, "{url} {path}");
        }
    }
}
