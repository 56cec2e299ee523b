//! How objects get from one version to another.

use serde_json::{Value, json};

use crate::admissionregistration::v1::webhook;
use crate::object::default_value;
use crate::validation::names;
use crate::{At, FieldErrors, Object};

/// Fills in the port of the webhook's Service.
pub(super) fn default(object: &mut Object) {
    let service = object.get_mut("spec.conversion.webhook.clientConfig.service");
    if let Some(service) = service.and_then(Value::as_object_mut) {
        default_value(service, "port", || json!(443));
    }
}

/// Reports what is wrong with a conversion; paths are those of upstream's own type.
pub(super) fn conversion(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.exists() {
        return;
    }
    let strategy = at.key("strategy");
    let client = At::maybe(
        at.at("webhook.clientConfig").value(),
        at.key("webhookClientConfig").path(),
    );
    let versions = At::maybe(
        at.at("webhook.conversionReviewVersions").value(),
        at.key("conversionReviewVersions").path(),
    );
    if strategy.is_empty() {
        errors.required(&strategy, "");
    } else {
        errors.one_of(&strategy, &["None", "Webhook"]);
    }
    if strategy.str() != "Webhook" {
        const UNWANTED: &str = "should not be set when strategy is not set to Webhook";
        if client.exists() {
            errors.forbidden(&client, UNWANTED);
        }
        if !versions.is_empty() {
            errors.forbidden(&versions, UNWANTED);
        }
        return;
    }
    let (url, service) = (client.key("url"), client.key("service"));
    match (client.exists(), url.exists(), service.exists()) {
        (false, ..) => errors.required(&client, "required when strategy is set to Webhook"),
        (true, true, false) => webhook::url(&url, true, errors),
        (true, false, true) => webhook::service(&service, errors),
        _ => errors.required(&client, "exactly one of url or service is required"),
    }
    review_versions(&versions, errors);
}

fn review_versions(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in at.items() {
        if seen.contains(&version.str()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.str());
        let problems = names::dns1035_label(version.str());
        if !problems.is_empty() {
            errors.invalid(&version, problems.join(","));
        }
    }
    if !seen.contains(&"v1") && !seen.contains(&"v1beta1") {
        errors.invalid(at, "must include at least one of v1, v1beta1");
    }
}
