//! What is wrong with an autoscaler.

use std::cmp::Ordering;

use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::quantity::Quantity;
use crate::validation::{names, numbers};
use crate::{At, FieldErrors};

/// Longest window in which the past counts, and longest period of a policy, in seconds.
const LONGEST_WINDOW: i64 = 3600;
const LONGEST_PERIOD: i64 = 1800;

/// The kinds of metrics and the fields that describe them, in the order in which they are looked at.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// Reports what is wrong with the spec; an update may keep a few old ways.
pub(super) fn spec(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut FieldErrors) {
    let (least, most) = (spec.key("minReplicas"), spec.key("maxReplicas"));
    let had_zero = old.is_some_and(|old| old.key("minReplicas").as_i64() == Some(0));
    let bound = if had_zero { 0 } else { 1 };
    if least.as_i64().is_some_and(|number| number < bound) {
        errors.invalid(&least, format!("must be greater than or equal to {bound}"));
    }
    let maximum = most.as_i64().unwrap_or(0);
    if maximum == 0 {
        errors.required(&most, "must be set and greater than 0");
    } else if maximum < 0 {
        errors.invalid(&most, "must be greater than 0");
    }
    if least.as_i64().is_some_and(|least| maximum < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid_as(&most, maximum.into(), detail);
    }
    let target = spec.key("scaleTargetRef");
    reference(&target, errors);
    let version = target.key("apiVersion");
    let kept = old.is_some_and(|old| old.at("scaleTargetRef.apiVersion").str() == version.str());
    if !kept {
        api_group(&target, &version, errors);
    }
    let metrics = spec.key("metrics");
    for at in metrics.items() {
        metric(&at, errors);
    }
    let outside = metrics
        .items()
        .any(|metric| matches!(metric.key("type").str(), "Object" | "External"));
    if least.as_i64() == Some(0) && !outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&metrics, detail);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.key("behavior").key(direction);
        if rules.exists() {
            scaling_rules(&rules, errors);
        }
    }
}

fn segment(at: &At<'_>, missing: &str, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, missing);
    } else {
        errors.text(at, |text| names::path_segment(text, false));
    }
}

fn reference(at: &At<'_>, errors: &mut FieldErrors) {
    segment(&at.key("kind"), "", errors);
    segment(&at.key("name"), "", errors);
}

/// What is scaled is named with its group; only the oldest of all has none.
fn api_group(target: &At<'_>, version: &At<'_>, errors: &mut FieldErrors) {
    let text = version.str();
    if text.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {text}");
        return errors.invalid_as(version, text.into(), detail);
    }
    let replication_controller =
        target.key("kind").str() == "ReplicationController" && text == "v1";
    let group = text.split_once('/').map_or("", |(group, _)| group);
    if group.is_empty() && !replication_controller {
        errors.invalid_as(version, text.into(), "apiVersion must specify API group");
    }
}

fn scaling_rules(rules: &At<'_>, errors: &mut FieldErrors) {
    let window = rules.key("stabilizationWindowSeconds");
    if window.as_i64().is_some_and(|seconds| seconds < 0) {
        errors.invalid(&window, "must be greater than or equal to zero");
    }
    if window
        .as_i64()
        .is_some_and(|seconds| seconds > LONGEST_WINDOW)
    {
        errors.invalid(
            &window,
            format!("must be less than or equal to {LONGEST_WINDOW}"),
        );
    }
    let select = rules.key("selectPolicy");
    if select.exists() {
        errors.one_of(&select, &["Disabled", "Max", "Min"]);
    }
    let policies = rules.key("policies");
    if policies.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        errors.one_of(&policy.key("type"), &["Percent", "Pods"]);
        let period = policy.key("periodSeconds");
        for at in [&policy.key("value"), &period] {
            if at.as_i64().unwrap_or(0) <= 0 {
                numbers::number_invalid(at, "must be greater than zero", errors);
            }
        }
        if period.as_i64().unwrap_or(0) > LONGEST_PERIOD {
            errors.invalid(
                &period,
                format!("must be less than or equal to {LONGEST_PERIOD}"),
            );
        }
    }
    let tolerance = rules.key("tolerance");
    if sign(&tolerance) == Some(Ordering::Less) {
        errors.invalid(&tolerance, "must be greater than or equal to 0");
    }
}

fn metric(at: &At<'_>, errors: &mut FieldErrors) {
    let kind = at.key("type");
    let supported = [
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
    ];
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    errors.one_of(&kind, &supported);
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| at.key(field).exists())
        .collect();
    // Only the first of several is looked into.
    if let Some(first) = present.first() {
        source(first, &at.key(first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.str());
    match expected {
        Some((_, field)) if !at.key(field).exists() => {
            let detail = "must populate information for the given metric source";
            errors.required(&at.key(field), detail);
        }
        Some(_) => {}
        None => errors.one_of(&kind, &supported),
    }
    if present.len() > 1 {
        let others = present
            .iter()
            .filter(|field| expected.is_none_or(|(_, own)| own != *field));
        for field in others {
            errors.forbidden(&at.key(field), "must populate the given metric source only");
        }
    }
}

fn source(field: &str, at: &At<'_>, errors: &mut FieldErrors) {
    let wanted = at.key("target");
    let has = |field: &str| wanted.key(field).exists();
    match field {
        "object" => {
            reference(&at.key("describedObject"), errors);
            identifier(&at.key("metric"), errors);
            target(&wanted, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value or averageValue";
                errors.required(&wanted.key("averageValue"), detail);
            }
        }
        "external" => {
            identifier(&at.key("metric"), errors);
            target(&wanted, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value for metric or a per-pod target";
                errors.required(&wanted.key("averageValue"), detail);
            }
            if has("value") && has("averageValue") {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&wanted.key("value"), detail);
            }
        }
        "pods" => {
            identifier(&at.key("metric"), errors);
            target(&wanted, errors);
            if !has("averageValue") {
                let detail = "must specify a positive target averageValue";
                errors.required(&wanted.key("averageValue"), detail);
            }
        }
        _ => {
            let name = at.key("name");
            if name.is_empty() {
                errors.required(&name, "must specify a resource name");
            } else if field == "containerResource" {
                container_resource_name(&name, errors);
            }
            if field == "containerResource" {
                let container = at.key("container");
                if container.is_empty() {
                    errors.required(&container, "must specify a container");
                } else {
                    errors.text(&container, names::dns1123_label);
                }
            }
            target(&wanted, errors);
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(&wanted.key("averageUtilization"), detail);
            }
            if has("averageUtilization") && has("averageValue") {
                let detail = "may not set both a target raw value and a target utilization";
                errors.forbidden(&wanted.key("averageValue"), detail);
            }
        }
    }
}

fn identifier(at: &At<'_>, errors: &mut FieldErrors) {
    segment(&at.key("name"), "must specify a metric name", errors);
}

fn target(at: &At<'_>, errors: &mut FieldErrors) {
    let kind = at.key("type");
    if kind.is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid_as(&kind, kind.str().into(), detail);
    }
    for field in ["value", "averageValue"] {
        let amount = at.key(field);
        if sign(&amount).is_some_and(|sign| sign != Ordering::Greater) {
            errors.invalid(&amount, "must be positive");
        }
    }
    let share = at.key("averageUtilization");
    if share.as_i64().is_some_and(|percent| percent < 1) {
        errors.invalid(&share, "must be greater than 0");
    }
}

fn sign(at: &At<'_>) -> Option<Ordering> {
    let quantity: Quantity = match at.value()? {
        Value::String(text) => text.parse().ok()?,
        other => other.to_string().parse().ok()?,
    };
    Some(if quantity.is_zero() {
        Ordering::Equal
    } else if quantity.is_negative() {
        Ordering::Less
    } else {
        Ordering::Greater
    })
}

fn container_resource_name(at: &At<'_>, errors: &mut FieldErrors) {
    let name = at.str();
    errors.text(at, names::qualified_name);
    let standard =
        ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if name.contains('/') || standard {
        return;
    }
    for detail in [
        "must be a standard resource type or fully qualified",
        "must be a standard resource for containers",
    ] {
        errors.push(ErrorType::Invalid, at.path(), Some(name.into()), detail);
    }
}
