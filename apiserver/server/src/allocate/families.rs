//! Which families of addresses a Service gets: what `ipFamilies`, `ipFamilyPolicy` and `clusterIPs` say together.
//!
//! Upstream: `initIPFamilyFields` in `pkg/registry/core/service/storage/alloc.go`.

use std::net::IpAddr;

use coracle_api::core::v1::service;
use coracle_api::field_errors::ErrorType;
use coracle_api::{At, FieldErrors, Object};
use serde_json::{Value, json};

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family's name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of that name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::V4, Self::V6]
            .into_iter()
            .find(|family| family.name() == name)
    }

    /// The family of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

/// Fills in policy and families of a Service that has addresses or is headless, and drops what a change to one family
/// releases; `configured` are the cluster's families, the default one first. What does not fit is reported, in the
/// order in which upstream finds it: the first group of errors ends the search.
pub(super) fn settle(
    new: &mut Object,
    old: Option<&Object>,
    configured: &[Family],
    errors: &mut FieldErrors,
) {
    if old.is_some_and(|old| keeps_preference(new, old)) {
        return;
    }
    if !new.at(POLICY).exists() {
        let before = old.map(policy).filter(|policy| !policy.is_empty());
        let policy = match before {
            Some(before) => before,
            None if is_free(new) => "RequireDualStack",
            None => "SingleStack",
        };
        new.set(POLICY, policy);
    }
    service::validate_cluster_ips(new, errors);
    if !errors.is_empty() {
        return;
    }
    if let Some(old) = old {
        reduce(new, old, errors);
    }
    agree_with_policy(new, errors);
    infer(new, configured, errors);
    if !errors.is_empty() {
        return;
    }
    let first = configured.first().copied().unwrap_or(Family::V4);
    let wants_both = policy(new) != "SingleStack";
    if is_free(new) {
        // Whoever names the endpoints himself may name addresses that the cluster does not have.
        complete(new, first, wants_both);
        return;
    }
    if policy(new) == "RequireDualStack" && configured.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&new.at(POLICY), detail);
    }
    for family in new.at(FAMILIES).items() {
        if !Family::of_name(family.str()).is_some_and(|family| configured.contains(&family)) {
            errors.invalid(&family, "not configured on this cluster");
        }
    }
    if errors.is_empty() {
        complete(new, first, wants_both && configured.len() == 2);
    }
}

const POLICY: &str = "spec.ipFamilyPolicy";
const FAMILIES: &str = "spec.ipFamilies";
const ADDRESSES: &str = "spec.clusterIPs";

fn policy(service: &Object) -> &str {
    service.at(POLICY).str()
}

/// Whether somebody else names the endpoints, and there is no address of its own.
pub(super) fn is_free(service: &Object) -> bool {
    service.at("spec.clusterIP").str() == "None" && service.at("spec.selector").is_empty()
}

/// Whether a Service prefers both families and nothing about it changes: then a cluster that got or lost a family
/// leaves it as it is.
pub(super) fn keeps_preference(new: &Object, old: &Object) -> bool {
    let prefers = |service: &Object| policy(service) == "PreferDualStack";
    let same = |path: &str| texts(&new.at(path)).eq(texts(&old.at(path)));
    prefers(new)
        && prefers(old)
        && new.at("spec.type").str() == old.at("spec.type").str()
        && same(ADDRESSES)
        && same(FAMILIES)
}

/// An update to one family keeps the first; one to fewer has to say so.
fn reduce(new: &mut Object, old: &Object, errors: &mut FieldErrors) {
    for (path, what) in [(ADDRESSES, "cluster IP"), (FAMILIES, "IP family")] {
        let (now, before) = (new.at(path).len(), old.at(path).len());
        if policy(new) == "SingleStack" {
            if now > 1 && texts(&new.at(path)).eq(texts(&old.at(path))) {
                let first = new.at(path).index(0).str().to_owned();
                new.set(path, json!([first]));
            }
        } else if now > 0 && before > now {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.invalid(&new.at(POLICY), detail);
        }
    }
}

fn agree_with_policy(new: &Object, errors: &mut FieldErrors) {
    if policy(new) != "SingleStack" {
        return;
    }
    for (path, what) in [(ADDRESSES, "cluster IPs"), (FAMILIES, "IP families")] {
        if new.at(path).len() == 2 {
            let detail = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            errors.invalid(&new.at(POLICY), detail);
        }
    }
}

/// An address says its family.
fn infer(new: &mut Object, configured: &[Family], errors: &mut FieldErrors) {
    let mut families: Vec<String> = texts(&new.at(FAMILIES)).map(str::to_owned).collect();
    let had = families.len();
    for (index, address) in new.at(ADDRESSES).items().enumerate() {
        let Ok(address) = address.str().parse::<IpAddr>() else {
            break;
        };
        if index < families.len() {
            continue;
        }
        let family = Family::of(address);
        if configured.contains(&family) {
            families.push(family.name().to_owned());
        } else {
            let path = format!("{ADDRESSES}[{index}]");
            let detail = format!("{} is not configured on this cluster", family.name());
            let shown = new.at(ADDRESSES).value().cloned();
            errors.push(ErrorType::Invalid, &path, shown, detail);
        }
    }
    if families.len() > had {
        new.set(FAMILIES, Value::from(families));
    }
}

/// One family at least, and both if they are wanted.
fn complete(new: &mut Object, first: Family, both: bool) {
    let mut families: Vec<Family> = texts(&new.at(FAMILIES))
        .filter_map(Family::of_name)
        .collect();
    if families.is_empty() {
        families.push(first);
    }
    if both && families.len() == 1 {
        families.push(families[0].other());
    }
    let names: Vec<&str> = families.into_iter().map(Family::name).collect();
    new.set(FAMILIES, json!(names));
}

fn texts<'a>(list: &At<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let texts: Vec<&str> = list.items().map(|item| item.str()).collect();
    texts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLE: &[Family] = &[Family::V4];
    const DUAL: &[Family] = &[Family::V4, Family::V6];

    fn service(mut spec: Value) -> Object {
        if spec.get("type").is_none() {
            spec["type"] = "ClusterIP".into();
        }
        if let Some(first) = spec["clusterIPs"].get(0).cloned() {
            spec["clusterIP"] = first;
        }
        if spec["clusterIPs"].is_null() {
            spec.as_object_mut().expect("a map").remove("clusterIPs");
        }
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).expect("an object")
    }

    /// Policy, families and addresses as they are settled, or the errors.
    fn settled(
        new: Value,
        old: Option<Value>,
        configured: &[Family],
    ) -> Result<Value, Vec<String>> {
        let (mut new, old) = (service(new), old.map(service));
        let mut errors = FieldErrors::default();
        settle(&mut new, old.as_ref(), configured, &mut errors);
        if !errors.is_empty() {
            return Err(errors.iter().map(ToString::to_string).collect());
        }
        let list = |path: &str| texts(&new.at(path)).collect::<Vec<_>>().join(" ");
        Ok(json!([policy(&new), list(FAMILIES), list(ADDRESSES)]))
    }

    #[test]
    fn new_services_get_what_they_ask_for() {
        let headless = json!({"clusterIPs": ["None"]});
        let selecting = json!({"clusterIPs": ["None"], "selector": {"a": "b"}});
        for (spec, single, dual) in [
            (json!({}), "SingleStack IPv4", "SingleStack IPv4"),
            (
                json!({"ipFamilyPolicy": "PreferDualStack"}),
                "PreferDualStack IPv4",
                "PreferDualStack IPv4 IPv6",
            ),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                "",
                "RequireDualStack IPv4 IPv6",
            ),
            (json!({"ipFamilies": ["IPv6"]}), "", "SingleStack IPv6"),
            (
                json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "PreferDualStack"}),
                "",
                "PreferDualStack IPv6 IPv4",
            ),
            (json!({"clusterIPs": ["fd00::7"]}), "", "SingleStack IPv6"),
            (
                headless,
                "RequireDualStack IPv4 IPv6",
                "RequireDualStack IPv4 IPv6",
            ),
            (selecting, "SingleStack IPv4", "SingleStack IPv4"),
            (
                json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["fd00::7", "10.96.0.7"]}),
                "",
                "PreferDualStack IPv6 IPv4",
            ),
        ] {
            for (expected, configured) in [(single, SINGLE), (dual, DUAL)] {
                let settled = settled(spec.clone(), None, configured).map(|found| {
                    let text = |index: usize| found[index].as_str().unwrap_or_default().to_owned();
                    format!("{} {}", text(0), text(1))
                });
                assert_eq!(
                    settled.clone().unwrap_or_default(),
                    expected,
                    "{spec}: {settled:?}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let policy = "spec.ipFamilyPolicy: Invalid value";
        for (spec, configured, expected) in [
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                SINGLE,
                format!("{policy}: \"RequireDualStack\": this cluster is not configured for dual-stack services"),
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                SINGLE,
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster".to_owned(),
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                DUAL,
                format!(
                    "{policy}: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"
                ),
            ),
            (
                json!({"clusterIPs": ["10.96.0.7", "fd00::7"]}),
                DUAL,
                format!(
                    "{policy}: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"
                ),
            ),
            (
                json!({"clusterIPs": ["fd00::7"]}),
                SINGLE,
                "spec.clusterIPs[0]: Invalid value: [\"fd00::7\"]: IPv6 is not configured on this cluster".to_owned(),
            ),
        ] {
            let errors = settled(spec.clone(), None, configured).expect_err("refused");
            assert_eq!(errors, [expected], "{spec}");
        }
    }

    #[test]
    fn services_get_a_second_family_and_give_it_back() {
        let both = json!({
            "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.96.0.7", "fd00::7"],
        });
        let one = json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.7"]});
        let with = |base: &Value, field: &str, value: Value| {
            let mut changed = base.clone();
            changed[field] = value;
            changed
        };
        let upgraded = with(&one, "ipFamilyPolicy", "RequireDualStack".into());
        assert_eq!(
            settled(upgraded, Some(one.clone()), DUAL),
            Ok(json!(["RequireDualStack", "IPv4 IPv6", "10.96.0.7"]))
        );
        let downgraded = with(&both, "ipFamilyPolicy", "SingleStack".into());
        assert_eq!(
            settled(downgraded, Some(both.clone()), DUAL),
            Ok(json!(["SingleStack", "IPv4", "10.96.0.7"]))
        );
        let fewer = with(&both, "clusterIPs", json!(["10.96.0.7"]));
        assert_eq!(
            settled(fewer, Some(both.clone()), DUAL),
            Err(vec!["spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the \
                      secondary cluster IP"
                .to_owned()])
        );
        // A cluster that has got a second family changes nobody by itself.
        let preferred = with(&one, "ipFamilyPolicy", "PreferDualStack".into());
        assert_eq!(
            settled(preferred.clone(), Some(preferred), DUAL),
            Ok(json!(["PreferDualStack", "IPv4", "10.96.0.7"]))
        );
    }
}
