//! What validating and mutating webhooks have in common.

use serde_json::{Map, Value, json};

use super::matching::{self, MATCH_POLICIES};
use crate::cel::Environment;
use crate::field_errors::ErrorType;
use crate::object::{default_value, each_object};
use crate::validation::names;
use crate::validation::selectors::label_selector;
use crate::{At, FieldErrors, Object};

/// What happens when a webhook does not answer, or a policy cannot be evaluated.
pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];

/// Fills in what a webhook leaves out.
pub(super) fn default_webhooks(object: &mut Object, more: impl Fn(&mut Map<String, Value>)) {
    each_object(object.root_mut(), "webhooks", |hook| {
        default_value(hook, "failurePolicy", || json!("Fail"));
        default_value(hook, "matchPolicy", || json!("Equivalent"));
        matching::default_selectors(hook);
        default_value(hook, "timeoutSeconds", || json!(10));
        matching::default_scopes(hook, "rules");
        let service = hook
            .get_mut("clientConfig")
            .and_then(|config| config.get_mut("service"));
        if let Some(service) = service.and_then(Value::as_object_mut) {
            default_value(service, "port", || json!(443));
        }
        more(hook);
    });
}

/// Reports what is wrong with the webhooks of a configuration.
pub(super) fn webhooks(new: &Object, mutating: bool, errors: &mut FieldErrors) {
    let mut seen: Vec<&str> = Vec::new();
    for hook in new.at("webhooks").items() {
        webhook(&hook, mutating, errors);
        review_versions(&hook.key("admissionReviewVersions"), errors);
        let name = hook.key("name");
        if !name.is_empty() && seen.contains(&name.str()) {
            errors.duplicate(&name);
        }
        seen.push(name.str());
    }
}

fn webhook(hook: &At<'_>, mutating: bool, errors: &mut FieldErrors) {
    qualified_domain(&hook.key("name"), errors);
    for rule in hook.key("rules").items() {
        matching::rule(&rule, errors);
    }
    let mut one_of = |field: &str, supported: &[&str], required: Option<&str>| {
        let at = hook.key(field);
        match required {
            Some(detail) if !at.exists() => errors.required(&at, detail),
            None if !at.exists() => {}
            _ => errors.one_of(&at, supported),
        }
    };
    one_of("failurePolicy", FAILURE_POLICIES, None);
    one_of("matchPolicy", MATCH_POLICIES, None);
    one_of(
        "sideEffects",
        &["None", "NoneOnDryRun"],
        Some("must specify one of None, NoneOnDryRun"),
    );
    let timeout = hook.key("timeoutSeconds");
    if timeout
        .as_i64()
        .is_some_and(|seconds| !(1..=30).contains(&seconds))
    {
        errors.invalid(
            &timeout,
            "the timeout value must be between 1 and 30 seconds",
        );
    }
    label_selector(&hook.key("namespaceSelector"), errors);
    label_selector(&hook.key("objectSelector"), errors);
    let reinvocation = hook.key("reinvocationPolicy");
    if mutating && reinvocation.exists() {
        errors.one_of(&reinvocation, &["IfNeeded", "Never"]);
    }
    let config = hook.key("clientConfig");
    let (url, service) = (config.key("url"), config.key("service"));
    match (url.exists(), service.exists()) {
        (true, false) => self::url(&url, true, errors),
        (false, true) => self::service(&service, errors),
        _ => errors.required(&config, "exactly one of url or service is required"),
    }
    let environment = Environment::admission(false, true);
    matching::conditions(&hook.key("matchConditions"), &environment, errors);
}

/// A name with at least two dots, as a domain of one's own has.
fn qualified_domain(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
        return;
    }
    let problems = names::dns1123_subdomain(at.str());
    if !problems.is_empty() {
        errors.invalid(at, problems.join(","));
    } else if at.str().split('.').count() < 3 {
        errors.invalid(
            at,
            "should be a domain with at least three segments separated by dots",
        );
    }
}

fn review_versions(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in at.items() {
        if seen.contains(&version.str()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.str());
        errors.text(&version, names::dns1035_label);
    }
    if !seen.contains(&"v1") && !seen.contains(&"v1beta1") {
        errors.invalid(at, "must include at least one of v1, v1beta1");
    }
}

/// The parts of a URL, as far as rules look at them.
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.chars().any(|c| c.is_ascii_control()) {
            return refuse("net/url: invalid control character in URL");
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        };
        let (scheme, rest) = match rest.split_once(':') {
            Some(("", _)) => return refuse("missing protocol scheme"),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            Some((first, _)) if !first.contains('/') => {
                return refuse("first path segment in URL cannot contain colon");
            }
            _ => ("", rest),
        };
        let authority = rest.strip_prefix("//").unwrap_or_default();
        let authority = authority.split('/').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if host.contains(' ') {
            return refuse("invalid character \" \" in host name");
        }
        Ok(Self {
            scheme,
            user,
            host,
            query,
            fragment,
        })
    }
}

/// Reports a URL that is not plain https to a host and a path.
pub(crate) fn url(at: &At<'_>, https: bool, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match Url::parse(at.str()) {
        Ok(url) => url,
        Err(why) => {
            errors.required(at, format!("url must be a valid URL: {why}{FORM}"));
            return;
        }
    };
    let mut bad = |value: &str, detail: String| {
        errors.push(ErrorType::Invalid, at.path(), Some(value.into()), detail);
    };
    if https && url.scheme != "https" {
        bad(
            url.scheme,
            format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    if url.host.is_empty() {
        bad("", format!("host must be specified{FORM}"));
    }
    if let Some(user) = url.user {
        bad(
            user,
            "user information is not permitted in the URL".to_owned(),
        );
    }
    if !url.fragment.is_empty() {
        bad(
            url.fragment,
            "fragments are not permitted in the URL".to_owned(),
        );
    }
    if !url.query.is_empty() {
        bad(
            url.query,
            "query parameters are not permitted in the URL".to_owned(),
        );
    }
}

/// Reports a reference to a Service that lacks a name, or whose path is no path.
pub(crate) fn service(at: &At<'_>, errors: &mut FieldErrors) {
    for field in ["name", "namespace"] {
        if at.key(field).is_empty() {
            errors.required(&at.key(field), format!("service {field} is required"));
        }
    }
    let port = at.key("port");
    if !(1..=65535).contains(&port.as_i64().unwrap_or(0)) {
        errors.invalid(
            &port,
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    let path = at.key("path");
    let text = path.str();
    match text {
        "" | "/" => return,
        "//" => {
            errors.invalid(&path, "segment[0] may not be empty");
            return;
        }
        _ => {}
    }
    if !text.starts_with('/') {
        errors.invalid(&path, "must start with a '/'");
    }
    let mut characters = text.chars();
    characters.next();
    let rest = characters.as_str();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (index, segment) in rest.split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(&path, format!("segment[{index}] may not be empty"));
            continue;
        }
        for why in names::dns1123_subdomain(segment) {
            errors.invalid(&path, format!("segment[{index}]: {why}"));
        }
    }
}
