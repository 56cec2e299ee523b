//! A device of a slice: attributes, capacities, taints, and where it can be used.

use serde_json::Value;

use super::parts::{EFFECTS, binding_conditions, each, each_once, qualified_text};
use crate::core::v1::pod_spec::scheduling::node_selector;
use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::validation::names;
use crate::validation::selectors::label_key;
use crate::{At, FieldErrors};

/// Most attributes and capacities of a device together.
const MOST_FACTS: usize = 32;
/// Most taints of a device.
const MOST_TAINTS: usize = 16;
/// Most counter sets that a device draws on.
const MOST_CONSUMPTIONS: usize = 2;
/// Most counters of a set.
pub(super) const MOST_COUNTERS: usize = 32;
/// Longest text of an attribute.
const MOST_VALUE: usize = 64;

/// Reports what is wrong with a device. `per_device` says that each tells by itself where it can be used.
pub(super) fn device(device: &At<'_>, per_device: bool, errors: &mut FieldErrors) {
    errors.text(&device.key("name"), names::dns1123_label);
    let (attributes, capacity) = (device.key("attributes"), device.key("capacity"));
    let facts = attributes.len() + capacity.len();
    if facts > MOST_FACTS {
        let shown = Some(Value::from(facts));
        let detail =
            format!("the total number of attributes and capacities must not exceed {MOST_FACTS}");
        errors.push(ErrorType::Invalid, device.path(), shown, detail);
    }
    for (name, value) in attributes.entries() {
        qualified_text(name, attributes.path(), errors);
        attribute(&value, errors);
    }
    let shared = device.key("allowMultipleAllocations").is_true();
    for (name, value) in capacity.entries() {
        qualified_text(name, capacity.path(), errors);
        if value.key("requestPolicy").exists() && !shared {
            errors.forbidden(
                &value.key("requestPolicy"),
                "allowMultipleAllocations must be true",
            );
        }
    }
    each(&device.key("taints"), MOST_TAINTS, errors, taint);
    let set = |item: &At<'_>| item.key("counterSet").str().to_owned();
    let consumed = device.key("consumesCounters");
    each_once(&consumed, MOST_CONSUMPTIONS, errors, set, |item, errors| {
        counters(item, "counterSet", errors);
    });
    where_usable(device, per_device, errors);
    binding_conditions(device, errors);
}

/// A set of counters under a name, which stands in the field `name`.
pub(super) fn counters(at: &At<'_>, name: &str, errors: &mut FieldErrors) {
    let (name, counters) = (at.key(name), at.key("counters"));
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.text(&name, names::dns1123_label);
    }
    if counters.is_empty() {
        errors.required(&counters, "");
    } else if counters.len() > MOST_COUNTERS {
        errors.too_many(&counters, MOST_COUNTERS);
    } else {
        for (key, _) in counters.entries() {
            let value = Value::from(key);
            errors.text(&At::root(&value, counters.path()), names::dns1123_label);
        }
    }
}

fn attribute(at: &At<'_>, errors: &mut FieldErrors) {
    let (string, version) = (at.key("string"), at.key("version"));
    if string.str().len() > MOST_VALUE {
        errors.too_long(&string, MOST_VALUE);
    }
    if version.exists() {
        if !is_semver(version.str()) {
            errors.invalid(
                &version,
                "must be a string compatible with semver.org spec 2.0.0",
            );
        }
        if version.str().len() > MOST_VALUE {
            errors.too_long(&version, MOST_VALUE);
        }
    }
    let given = at.value().and_then(Value::as_object);
    let values = given.map_or(0, |map| {
        map.values().filter(|value| !value.is_null()).count()
    });
    if values != 1 {
        let shown = match values {
            0 => Value::from(""),
            _ => internal_form("io.k8s.api.resource.v1.DeviceAttribute", at.value()),
        };
        let detail = "exactly one value must be specified";
        errors.push(ErrorType::Invalid, at.path(), Some(shown), detail);
    }
}

/// `1.2.3-alpha.1+build`: three numbers, then identifiers; no number begins with a zero.
fn is_semver(text: &str) -> bool {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| {
            pre.split('.')
                .all(|part| word(part) && (!digits(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(taint: &At<'_>, errors: &mut FieldErrors) {
    label_key(&taint.key("key"), errors);
    errors.text(&taint.key("value"), names::label_value);
    let effect = taint.key("effect");
    if effect.is_empty() {
        errors.required(&effect, "");
    } else {
        errors.one_of(&effect, EFFECTS);
    }
}

fn where_usable(device: &At<'_>, per_device: bool, errors: &mut FieldErrors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                       `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let (name, selector, all) = (
        device.key("nodeName"),
        device.key("nodeSelector"),
        device.key("allNodes"),
    );
    if !per_device {
        if name.exists() || selector.exists() || all.exists() {
            errors.invalid(
                &At::maybe(None, device.path()),
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                 in the ResourceSlice spec",
            );
        }
        return;
    }
    let mut set: Vec<&str> = Vec::new();
    if name.exists() {
        if name.is_empty() {
            errors.invalid(&name, "must not be empty");
        } else {
            set.push("`nodeName`");
            errors.text(&name, names::dns1123_subdomain);
        }
    }
    if selector.exists() {
        set.push("`nodeSelector`");
        node_selector(&selector, errors);
    }
    if all.exists() {
        if all.is_true() {
            set.push("`allNodes`");
        } else {
            errors.invalid(&all, "must be either unset or set to true");
        }
    }
    match set.len() {
        0 => errors.required(device, ONE),
        1 => {}
        _ => {
            let shown = Some(Value::from(format!("{{{}}}", set.join(", "))));
            errors.push(ErrorType::Invalid, device.path(), shown, ONE);
        }
    }
}
