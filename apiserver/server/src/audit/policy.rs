//! The audit policy: which requests are recorded, and how much of each (`audit.k8s.io/v1`).

use coracle_api::schema::{self, SchemaRef};
use serde::Deserialize;

use crate::authn::Identity;
use crate::request_info::RequestInfo;

/// How much of a request is recorded; each level includes those before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize,
)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and how it ended.
    Metadata,
    /// The request's body too.
    Request,
    /// The answer's body too.
    RequestResponse,
}

/// The moments at which a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Stage {
    /// It is about to be handled.
    RequestReceived,
    /// The head of a long answer, such as a watch, was sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

/// What the policy says of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// How much is recorded.
    pub level: Level,
    /// When it is not.
    pub omit_stages: Vec<Stage>,
    /// Whether recorded objects come without `metadata.managedFields`.
    pub omit_managed_fields: bool,
}

/// A policy as read from its file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "upstream allows it, and nothing reads it")]
    metadata: Option<serde_json::Value>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// The first rule that fits a request decides. What a rule leaves out fits everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// Resources whose bodies are secrets or tokens: never recorded beyond [`Level::Metadata`], whatever a policy says.
/// Upstream leaves that to the policy.
const CONFIDENTIAL: &[(&str, &str, &str)] = &[
    ("", "secrets", ""),
    ("", "serviceaccounts", "token"),
    ("authentication.k8s.io", "tokenreviews", ""),
    ("authentication.k8s.io", "tokenrequests", ""),
];

impl Policy {
    /// Reads a policy from YAML or JSON. The error says what is wrong, and in which rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        let decoded = schema::decode_yaml(text.as_bytes(), &SchemaRef::any());
        let value = decoded.map_err(|error| error.to_string())?.value;
        let policy: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "expected a Policy of audit.k8s.io/v1, not a {} of {}",
                policy.kind, policy.api_version
            ));
        }
        if policy.rules.is_empty() {
            return Err("the policy has no rules, so nothing would be recorded".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}]{why}"))?;
        }
        Ok(policy)
    }

    /// What is recorded of a request.
    pub fn verdict(&self, identity: &Identity, request: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(identity, request)) else {
            return Verdict::default();
        };
        let mut level = rule.level.unwrap_or_default();
        if is_confidential(request) {
            level = level.min(Level::Metadata);
        }
        let omit_stages = [self.omit_stages.as_slice(), &rule.omit_stages].concat();
        Verdict {
            level,
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn is_confidential(request: &RequestInfo) -> bool {
    request.is_resource
        && CONFIDENTIAL.iter().any(|(group, resource, subresource)| {
            (request.group == *group && request.resource == *resource)
                && (subresource.is_empty() || request.subresource == *subresource)
        })
}

impl Rule {
    /// Upstream's `ValidatePolicy`, for one rule.
    fn check(&self) -> Result<(), String> {
        if self.level.is_none() {
            return Err(".level: Required value".to_owned());
        }
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if about_resources && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            return Err(format!(".nonResourceURLs: Invalid value: {why}"));
        }
        for (index, url) in self.non_resource_urls.iter().enumerate() {
            let why = match url.as_str() {
                "*" => continue,
                url if !url.starts_with('/') => {
                    "non-resource URL rules must begin with a '/' character"
                }
                url if url[..url.len() - 1].contains('*') => {
                    "non-resource URL wildcards '*' must be the final character of the rule"
                }
                _ => continue,
            };
            return Err(format!(
                ".nonResourceURLs[{index}]: Invalid value: {url:?}: {why}"
            ));
        }
        let named_only =
            |entry: &GroupResources| !entry.resource_names.is_empty() && entry.resources.is_empty();
        match self.resources.iter().position(named_only) {
            Some(index) => Err(format!(
                ".resources[{index}].resourceNames: Invalid value: using resourceNames requires at least one resource"
            )),
            None => Ok(()),
        }
    }

    fn fits(&self, identity: &Identity, request: &RequestInfo) -> bool {
        let any = |list: &[String], value: &str| {
            list.is_empty() || list.iter().any(|entry| entry == value)
        };
        let in_group = self.user_groups.is_empty()
            || self.user_groups.iter().any(|group| identity.is_in(group));
        if !any(&self.users, &identity.user) || !in_group || !any(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource
                && any(&self.namespaces, &request.namespace)
                && (self.resources.is_empty()
                    || self.resources.iter().any(|entry| entry.fits(request)));
        }
        if !self.non_resource_urls.is_empty() {
            return !request.is_resource
                && self
                    .non_resource_urls
                    .iter()
                    .any(|url| match url.strip_suffix('*') {
                        Some(prefix) => request.path.starts_with(prefix),
                        None => request.path == *url,
                    });
        }
        true
    }
}

impl GroupResources {
    fn fits(&self, request: &RequestInfo) -> bool {
        if self.group != request.group {
            return false;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&request.name);
        let whole = request.resource_path();
        let is = |entry: &String| {
            entry == "*"
                || *entry == whole
                || entry
                    .strip_prefix("*/")
                    .is_some_and(|name| name == request.subresource)
                || entry
                    .strip_suffix("/*")
                    .is_some_and(|name| name == request.resource)
        };
        self.resources.is_empty() || (named && self.resources.iter().any(is))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn level(policy: &str, user: &str, method: Method, uri: &str) -> Level {
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{policy}");
        let policy = Policy::parse(&policy).expect("a valid policy");
        let request = RequestInfo::parse(&method, &uri.parse().expect("a path"));
        policy.verdict(&Identity::new(user, ["g"]), &request).level
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = r#"
- {level: None, users: [quiet]}
- {level: Request, verbs: [create], resources: [{group: "", resources: [pods, "*/binding", "services/*"]}]}
- {level: Metadata, namespaces: [kube-system]}
- {level: RequestResponse, resources: [{group: apps, resources: ["*"], resourceNames: [x]}, {group: batch}]}
- {level: Metadata, userGroups: [g], nonResourceURLs: ["/healthz*", "/version"]}
"#;
        let pods = "/api/v1/namespaces/a/pods";
        for (user, method, uri, expected) in [
            ("quiet", Method::POST, pods, Level::None),
            ("u", Method::POST, pods, Level::Request),
            ("u", Method::GET, pods, Level::None),
            (
                "u",
                Method::POST,
                "/api/v1/namespaces/a/pods/p/binding",
                Level::Request,
            ),
            (
                "u",
                Method::POST,
                "/api/v1/namespaces/a/pods/p/eviction",
                Level::None,
            ),
            (
                "u",
                Method::POST,
                "/api/v1/namespaces/a/services/s/proxy",
                Level::Request,
            ),
            (
                "u",
                Method::GET,
                "/api/v1/namespaces/kube-system/pods",
                Level::Metadata,
            ),
            (
                "u",
                Method::GET,
                "/apis/apps/v1/namespaces/a/deployments/x",
                Level::RequestResponse,
            ),
            (
                "u",
                Method::GET,
                "/apis/apps/v1/namespaces/a/deployments/y",
                Level::None,
            ),
            (
                "u",
                Method::GET,
                "/apis/batch/v1/jobs",
                Level::RequestResponse,
            ),
            ("u", Method::GET, "/healthz/ping", Level::Metadata),
            ("u", Method::GET, "/version", Level::Metadata),
            ("u", Method::GET, "/version/x", Level::None),
        ] {
            assert_eq!(
                level(policy, user, method.clone(), uri),
                expected,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn secrets_and_tokens_are_never_recorded_whole() {
        let all = "- {level: RequestResponse}";
        for uri in [
            "/api/v1/secrets",
            "/api/v1/namespaces/a/secrets/x",
            "/api/v1/namespaces/a/serviceaccounts/x/token",
            "/apis/authentication.k8s.io/v1/tokenreviews",
        ] {
            assert_eq!(level(all, "u", Method::POST, uri), Level::Metadata, "{uri}");
        }
        let account = "/api/v1/namespaces/a/serviceaccounts/x";
        assert_eq!(
            level(all, "u", Method::GET, account),
            Level::RequestResponse
        );
    }

    #[test]
    fn wrong_policies_are_explained() {
        let wrong = |rules: &str| {
            Policy::parse(&format!(
                "apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}"
            ))
            .expect_err(rules)
        };
        assert!(wrong("rules: []").contains("no rules"));
        assert!(wrong("rules: [{level: All}]").contains("unknown variant `All`"));
        assert!(wrong("rules: [{}]").contains("rules[0].level: Required value"));
        assert!(wrong("rules: [{level: None, user: x}]").contains("unknown field `user`"));
        let both = "rules: [{level: None}, {level: None, namespaces: [a], nonResourceURLs: [/x]}]";
        assert!(
            wrong(both).contains("rules[1].nonResourceURLs: Invalid value: rules cannot apply")
        );
        let star = "rules: [{level: None, nonResourceURLs: ['/*/x']}]";
        assert!(wrong(star).contains("must be the final character"));
        let names = "rules: [{level: None, resources: [{resourceNames: [a]}]}]";
        assert!(wrong(names).contains("requires at least one resource"));
        assert!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: []").is_err());
        assert!(Policy::parse("- a").is_err());
    }
}
