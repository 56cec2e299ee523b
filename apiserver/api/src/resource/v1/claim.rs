//! What is asked for: the spec of a claim, alone or in a template.

use serde_json::{Map, Value, json};

use super::parts::{MOST_ITEMS, each, each_once, fully_qualified, opaque, selectors, tolerations};
use crate::object::{default_int, default_text, each_object};
use crate::validation::names;
use crate::{At, FieldErrors};

/// Most requests of a claim.
pub(super) const MOST_REQUESTS: usize = 32;
/// Most alternatives of a request.
const MOST_ALTERNATIVES: usize = 8;
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest \
                          separated by '/'";

/// Fills in modes, counts and operators of the claim spec in `spec`.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    let Some(devices) = spec.get_mut("devices").and_then(Value::as_object_mut) else {
        return;
    };
    each_object(devices, "requests", |request| {
        if let Some(exactly) = request.get_mut("exactly").and_then(Value::as_object_mut) {
            default_request(exactly);
        }
        each_object(request, "firstAvailable", default_request);
    });
}

fn default_request(request: &mut Map<String, Value>) {
    default_text(request, "allocationMode", "ExactCount");
    if request.get("allocationMode") == Some(&json!("ExactCount")) {
        default_int(request, "count", 1);
    }
    each_object(request, "tolerations", |toleration| {
        default_text(toleration, "operator", "Equal");
    });
}

/// Whether a claim has a request, or an alternative of one, of this name.
pub(super) fn has_request(devices: &At<'_>, name: &str) -> bool {
    let (name, below) = match name.split_once('/') {
        Some((name, below)) => (name, Some(below)),
        None => (name, None),
    };
    let requests = devices.key("requests");
    requests.items().any(|request| {
        request.key("name").str() == name
            && below.is_none_or(|below| {
                let alternatives = request.key("firstAvailable");
                alternatives
                    .items()
                    .any(|one| one.key("name").str() == below)
            })
    })
}

/// Reports a reference to no request of the claim.
pub(super) fn request_ref(at: &At<'_>, devices: &At<'_>, errors: &mut FieldErrors) {
    let segments: Vec<&str> = at.str().split('/').collect();
    if segments.len() > 2 {
        errors.invalid(at, NO_REQUEST);
        return;
    }
    for segment in segments {
        let value = Value::from(segment);
        errors.text(&At::root(&value, at.path()), names::dns1123_label);
    }
    if !has_request(devices, at.str()) {
        errors.invalid(at, NO_REQUEST);
    }
}

/// The references of a constraint or a configuration.
pub(super) fn request_refs(at: &At<'_>, devices: &At<'_>, errors: &mut FieldErrors) {
    let own = |item: &At<'_>| item.str().to_owned();
    each_once(at, MOST_REQUESTS, errors, own, |item, errors| {
        request_ref(item, devices, errors);
    });
}

/// Reports what is wrong with a claim's spec.
pub(super) fn spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let devices = spec.key("devices");
    let name = |item: &At<'_>| item.key("name").str().to_owned();
    each_once(
        &devices.key("requests"),
        MOST_REQUESTS,
        errors,
        name,
        request,
    );
    each(
        &devices.key("constraints"),
        MOST_ITEMS,
        errors,
        |at, errors| {
            request_refs(&at.key("requests"), &devices, errors);
            let (same, distinct) = (at.key("matchAttribute"), at.key("distinctAttribute"));
            if same.exists() {
                fully_qualified(&same, errors);
            } else if distinct.exists() {
                fully_qualified(&distinct, errors);
            } else {
                errors.required(
                at,
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            );
            }
        },
    );
    each(
        &devices.key("config"),
        MOST_ITEMS,
        errors,
        |config, errors| {
            request_refs(&config.key("requests"), &devices, errors);
            opaque(config, errors);
        },
    );
}

fn request(request: &At<'_>, errors: &mut FieldErrors) {
    errors.text(&request.key("name"), names::dns1123_label);
    let (exactly, alternatives) = (request.key("exactly"), request.key("firstAvailable"));
    match (exactly.exists(), !alternatives.is_empty()) {
        (false, false) => errors.required(
            request,
            "exactly one of `exactly` or `firstAvailable` is required",
        ),
        (true, true) => {
            let place = At::maybe(None, request.path());
            errors.invalid(
                &place,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            );
        }
        (true, false) => device_request(&exactly, errors),
        (false, true) => {
            let name = |item: &At<'_>| item.key("name").str().to_owned();
            each_once(
                &alternatives,
                MOST_ALTERNATIVES,
                errors,
                name,
                |one, errors| {
                    errors.text(&one.key("name"), names::dns1123_label);
                    device_request(one, errors);
                },
            );
        }
    }
}

fn device_request(request: &At<'_>, errors: &mut FieldErrors) {
    let class = request.key("deviceClassName");
    if class.is_empty() {
        errors.required(&class, "");
    } else {
        errors.text(&class, names::dns1123_subdomain);
    }
    selectors(&request.key("selectors"), errors);
    let (mode, count) = (request.key("allocationMode"), request.key("count"));
    let number = count.as_i64().unwrap_or(0);
    match mode.str() {
        "All" if number != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'")
        }
        "All" => {}
        "ExactCount" if number <= 0 => errors.invalid(&count, "must be greater than zero"),
        "ExactCount" => {}
        _ => errors.not_supported(&mode, &["All", "ExactCount"]),
    }
    tolerations(&request.key("tolerations"), errors);
}
