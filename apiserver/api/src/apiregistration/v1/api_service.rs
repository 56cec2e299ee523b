//! APIService: which server answers for a group and version.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::default_value;
use crate::strategy::ALL_METADATA;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Requester, Resource, Strategy};

/// What the pipeline knows of API services.
pub static RESOURCE: Resource = Resource {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    short_names: &[],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ApiService,
};

/// APIService: which server answers for a group and version.
///
/// One without a Service is this server's own, and available from the start.
pub struct ApiService;

impl Strategy for ApiService {
    fn default(&self, object: &mut Object) {
        let service = object.get_mut("spec.service");
        if let Some(service) = service.and_then(Value::as_object_mut) {
            default_value(service, "port", || json!(443));
        }
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn record_request(&self, new: &mut Object, old: Option<&Object>, request: &Requester<'_>) {
        if old.is_none() && !new.at("spec.service").exists() {
            let available = json!({
                "type": "Available",
                "status": "True",
                "lastTransitionTime": request.now,
                "reason": "Local",
                "message": "Local APIServices are always available",
            });
            new.set("status.conditions", vec![available]);
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let (group, version) = (spec.key("group"), spec.key("version"));
        let name = new.at("metadata.name");
        let wanted = format!("{}.{}", version.str(), group.str());
        let legal = names::path_segment(name.str(), false).is_empty();
        if !name.is_empty() && legal && name.str() != wanted {
            errors.invalid(
                &name,
                format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"),
            );
        }
        if !group.is_empty() {
            errors.text(&group, names::dns1123_subdomain);
        } else if version.str() != "v1" {
            errors.required(
                &group,
                "only v1 may have an empty group and it better be legacy kube",
            );
        }
        errors.text(&version, names::dns1035_label);
        priority(&spec.key("groupPriorityMinimum"), 20_000, errors);
        priority(&spec.key("versionPriority"), 1000, errors);
        server(&spec, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        for condition in new.at("status.conditions").items() {
            errors.one_of(&condition.key("status"), &["True", "False", "Unknown"]);
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let service = object.at("spec.service");
        let place = match service.value() {
            None => "Local".to_owned(),
            Some(_) => format!(
                "{}/{}",
                service.key("namespace").str(),
                service.key("name").str()
            ),
        };
        let conditions = object.at("status.conditions");
        let available = conditions
            .items()
            .find(|condition| condition.key("type").str() == "Available");
        let available = match &available {
            None => "Unknown".to_owned(),
            Some(found) => match (found.key("status").str(), found.key("reason").str()) {
                (status @ "True", _) | (status, "") => status.to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            },
        };
        vec![
            object.name().into(),
            place.into(),
            available.into(),
            age(object, now),
        ]
    }
}

fn priority(at: &At<'_>, most: i64, errors: &mut FieldErrors) {
    let number = at.as_i64().unwrap_or(0);
    if !(1..=most).contains(&number) {
        let detail = format!("must be positive and less than {most}");
        errors.push(ErrorType::Invalid, at.path(), Some(number.into()), detail);
    }
}

/// The Service that answers, and whether its certificate is looked at.
fn server(spec: &At<'_>, errors: &mut FieldErrors) {
    let (service, bundle, insecure) = (
        spec.key("service"),
        spec.key("caBundle"),
        spec.key("insecureSkipTLSVerify"),
    );
    if !service.exists() {
        if !bundle.is_empty() {
            let bytes = BASE64.decode(bundle.str()).map_or(0, |bytes| bytes.len());
            let shown = Some(Value::from(format!("{bytes} bytes")));
            let detail = "local APIServices may not have a caBundle";
            errors.push(ErrorType::Invalid, bundle.path(), shown, detail);
        }
        if insecure.is_true() {
            errors.invalid(
                &insecure,
                "local APIServices may not have insecureSkipTLSVerify",
            );
        }
        return;
    }
    for field in ["namespace", "name"] {
        if service.key(field).is_empty() {
            errors.required(&service.key(field), "");
        }
    }
    let port = service.key("port");
    if !(1..=65535).contains(&port.as_i64().unwrap_or(0)) {
        errors.invalid(
            &port,
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    if insecure.is_true() && !bundle.is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Service",
        "The reference to the service that hosts this API endpoint.",
    ),
    Column::string("Available", "Whether this service is available."),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "v1.example.com"}, "spec": spec});
        let mut object = Object::from_value(object).expect("an object");
        ApiService.default(&mut object);
        let mut errors = FieldErrors::default();
        ApiService.validate(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_name_says_version_and_group() {
        let good = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        assert!(findings(good).is_empty());
        assert_eq!(
            findings(
                json!({"version": "v2", "groupPriorityMinimum": 1, "versionPriority": 1001, "service": {}})
            ),
            [
                "metadata.name: Invalid value: \"v1.example.com\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
            ]
        );
    }
}
