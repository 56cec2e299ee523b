//! In which order groups and versions are told: clients take the first that has what they look for.
//!
//! Upstream gives each built-in group a number and sorts by it, then by name; the numbers below are in that order.
//! Groups that are not built in come last. Versions go from the most stable to the least, `v2` before `v1` before
//! `v1beta1`.

use std::cmp::{Ordering, Reverse};

/// The built-in groups, the preferred one first.
const GROUPS: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Sorts groups, the preferred one first.
pub(crate) fn groups(names: &mut [&str]) {
    let rank = |name: &str| GROUPS.iter().position(|known| *known == name);
    names.sort_by(|a, b| match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    });
}

/// Sorts versions, the preferred one first.
pub(crate) fn versions(names: &mut [&str]) {
    names.sort_by(|a, b| compare_versions(a, b));
}

/// Whether version `a` is preferred (`Less`) to `b`: released, then beta, then alpha, each from the highest number
/// down; names that are no versions come last, by alphabet.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability (2 released, 1 beta, 0 alpha), major and minor number.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| -> Option<u64> {
        let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            let minor = if minor.is_empty() { 0 } else { number(minor)? };
            return Some((stability, number(major)?, minor));
        }
    }
    Some((2, number(rest)?, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_groups_come_first_and_in_their_order() {
        let mut names = ["b.example.com", "batch", "a.example.com", "apps"];
        groups(&mut names);
        assert_eq!(names, ["apps", "batch", "a.example.com", "b.example.com"]);
    }

    #[test]
    fn stable_and_high_versions_are_preferred() {
        let mut names = [
            "v1alpha1", "foo", "v1", "v1beta2", "v10", "v2", "v1beta1", "v2alpha1", "bar",
        ];
        versions(&mut names);
        assert_eq!(
            names,
            [
                "v10", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha1", "bar", "foo"
            ]
        );
    }
}
