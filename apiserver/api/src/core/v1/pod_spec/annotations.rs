//! The annotations that mean something for pods (upstream's `ValidatePodSpecificAnnotations` and its like for updates).

use crate::{At, FieldErrors};

/// What the API shows of a pod that the node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How much it costs to delete this pod rather than one of its kind.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The form that AppArmor profiles once had; the container's name follows.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Reports what is wrong with annotations of a pod with this spec.
pub fn annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    let mirror = annotations.entry(MIRROR);
    if mirror.exists() && spec.key("nodeName").str().is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&mirror, detail);
    }
    let cost = annotations.entry(DELETION_COST);
    if cost.exists() && !is_cost(cost.str()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
}

/// Whether it is an integer without a plus and without zeros in front.
fn is_cost(text: &str) -> bool {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '-' | '1'..='9'));
    plain && text.parse::<i32>().is_ok()
}

/// Reports annotations that a pod keeps as it was made with them.
pub fn changes(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, was) in old.entries() {
        let now = new.entry(key);
        if let (Some(kind), true) = (fixed(key), now.value() != was.value()) {
            errors.forbidden(&now, format!("may not remove or update {kind}"));
        }
    }
    for (key, _) in new.entries() {
        if let (Some(kind), false) = (fixed(key), old.entry(key).exists()) {
            errors.forbidden(&new.entry(key), format!("may not add {kind}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(value: &Value) -> At<'_> {
        At::maybe(Some(value), "a")
    }

    fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mirror_has_a_node_and_a_cost_is_a_number() {
        for (given, spec, finding) in [
            (json!({MIRROR: "x"}), json!({"nodeName": "n"}), ""),
            (
                json!({MIRROR: "x"}),
                json!({}),
                "a[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            ),
            (json!({DELETION_COST: "-10"}), json!({}), ""),
            (json!({DELETION_COST: "0"}), json!({}), ""),
            (
                json!({DELETION_COST: "+1"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
            ),
            (
                json!({DELETION_COST: "08"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"08\": must be a 32bit integer",
            ),
            (
                json!({DELETION_COST: "2147483648"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"2147483648\": must be a 32bit integer",
            ),
        ] {
            let mut errors = FieldErrors::default();
            annotations(&at(&given), &at(&spec), &mut errors);
            assert_eq!(texts(&errors).join("; "), finding, "{given}");
        }
    }

    #[test]
    fn what_a_pod_was_made_with_stays() {
        let armor = format!("{APP_ARMOR}c");
        let old = json!({MIRROR: "x", "other": "1"});
        for (new, finding) in [
            (json!({MIRROR: "x"}), ""),
            (
                json!({MIRROR: "y"}),
                "a[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
            ),
            (
                json!({}),
                "a[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
            ),
            (
                json!({MIRROR: "x", armor: "unconfined"}),
                "a[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations",
            ),
        ] {
            let mut errors = FieldErrors::default();
            changes(&at(&new), &at(&old), &mut errors);
            assert_eq!(texts(&errors).join("; "), finding, "{new}");
        }
    }
}
