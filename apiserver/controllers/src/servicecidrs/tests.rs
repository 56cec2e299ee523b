use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{
    IPAddress, IPAddressSpec, ParentReference, ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::reconcile::{Change, FINALIZER, World, reconcile};
use crate::fixtures::{labels, meta, now};

/// A guarded range; `told` is how long ago it was told to go.
fn range(name: &str, cidrs: &[&str], told: Option<i64>) -> ServiceCIDR {
    let told = told.map(|seconds| Time(now() - jiff::SignedDuration::from_secs(seconds)));
    ServiceCIDR {
        metadata: ObjectMeta {
            namespace: None,
            finalizers: Some(vec![FINALIZER.into()]),
            deletion_timestamp: told,
            ..meta(name)
        },
        spec: Some(ServiceCIDRSpec {
            cidrs: Some(cidrs.iter().map(|cidr| (*cidr).to_owned()).collect()),
        }),
        status: None,
    }
}

fn address(name: &str, managed: bool) -> Arc<IPAddress> {
    let by = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
    let metadata = ObjectMeta {
        namespace: None,
        labels: managed.then(|| labels(&[by])),
        ..meta(name)
    };
    let parent_ref = ParentReference::default();
    Arc::new(IPAddress {
        metadata,
        spec: IPAddressSpec { parent_ref },
    })
}

/// The changes of the first range, beside the others.
fn changes(ranges: &[ServiceCIDR], addresses: &[&str]) -> Vec<Change> {
    let ranges: Vec<_> = ranges.iter().cloned().map(Arc::new).collect();
    reconcile(&World {
        range: ranges[0].clone(),
        ranges,
        addresses: addresses.iter().map(|name| address(name, true)).collect(),
        now: now(),
    })
}

fn goes(changes: &[Change]) -> bool {
    changes == [Change::SetFinalizers(Vec::new())]
}

#[test]
fn a_new_range_is_guarded_and_ready() {
    let mut new = range("new", &["10.0.0.0/24"], None);
    new.metadata.finalizers = Some(vec!["example.com/other".into()]);
    let first = changes(std::slice::from_ref(&new), &[]);
    let [
        Change::SetFinalizers(finalizers),
        Change::SetCondition(condition),
    ] = first.as_slice()
    else {
        panic!("{first:?}");
    };
    assert_eq!(finalizers, &["example.com/other", FINALIZER]);
    assert_eq!(
        (condition.status.as_str(), condition.message.as_str()),
        ("True", "Kubernetes Service CIDR is ready")
    );
    new.metadata.finalizers = Some(finalizers.clone());
    new.status = Some(ServiceCIDRStatus {
        conditions: Some(vec![Condition::clone(condition)]),
    });
    assert_eq!(changes(&[new], &[]), []);
}

#[test]
fn a_range_goes_once_no_address_depends_on_it() {
    const OWN: &[&str] = &["10.0.0.0/24"];
    let told = |name, cidrs| range(name, cidrs, Some(60));
    let kept = |name, cidrs| range(name, cidrs, None);
    // (the range and others, claimed addresses, whether it goes)
    for (ranges, addresses, expected) in [
        (vec![told("a", OWN)], &[][..], true),
        (vec![told("a", OWN)], &["10.0.0.7"][..], false),
        (vec![told("a", OWN)], &["10.0.1.7", "fd00::1"][..], true),
        (
            vec![told("a", OWN), kept("b", OWN)],
            &["10.0.0.7"][..],
            true,
        ),
        (
            vec![told("a", OWN), kept("b", &["10.0.0.0/16"])],
            &["10.0.0.7"][..],
            true,
        ),
        (
            vec![told("a", OWN), kept("b", &["10.0.0.0/25"])],
            &["10.0.0.7"][..],
            true,
        ),
        (
            vec![told("a", OWN), kept("b", &["10.0.0.0/25"])],
            &["10.0.0.200"][..],
            false,
        ),
        // Of two alike that both go, one stays; so does the wider one.
        (
            vec![told("a", OWN), told("b", OWN)],
            &["10.0.0.7"][..],
            false,
        ),
        (
            vec![told("b", OWN), told("a", OWN)],
            &["10.0.0.7"][..],
            true,
        ),
        (
            vec![told("a", OWN), told("b", &["10.0.0.0/25"])],
            &["10.0.0.7"][..],
            false,
        ),
        (
            vec![told("b", &["10.0.0.0/25"]), told("a", OWN)],
            &["10.0.0.7"][..],
            true,
        ),
        // Both families count.
        (
            vec![told("a", &["10.0.0.0/24", "fd00::/64"]), kept("b", OWN)],
            &["fd00::7"][..],
            false,
        ),
        (
            vec![told("a", &["10.0.0.0/24", "fd00::/64"]), kept("b", OWN)],
            &["10.0.0.7"][..],
            true,
        ),
    ] {
        let changes = changes(&ranges, addresses);
        assert_eq!(
            goes(&changes),
            expected,
            "{ranges:?} {addresses:?}: {changes:?}"
        );
    }
}

#[test]
fn a_range_in_use_says_why_it_stays() {
    let mut held = range("a", &["10.0.0.0/24"], Some(60));
    let first = changes(std::slice::from_ref(&held), &["10.0.0.7"]);
    let [Change::SetCondition(condition)] = first.as_slice() else {
        panic!("{first:?}");
    };
    assert_eq!(
        (
            condition.status.as_str(),
            condition.reason.as_str(),
            condition.message.as_str()
        ),
        (
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
        )
    );
    held.status = Some(ServiceCIDRStatus {
        conditions: Some(vec![Condition::clone(condition)]),
    });
    assert_eq!(changes(&[held], &["10.0.0.7"]), []);
}

#[test]
fn allocators_get_a_moment_and_foreign_claims_do_not_count() {
    let fresh = range("a", &["10.0.0.0/24"], Some(3));
    assert_eq!(
        changes(&[fresh], &[]),
        [Change::Wait(Duration::from_secs(7))]
    );
    let told = Arc::new(range("a", &["10.0.0.0/24"], Some(60)));
    let world = World {
        range: told.clone(),
        ranges: vec![told],
        addresses: vec![address("10.0.0.7", false)],
        now: now(),
    };
    assert!(goes(&reconcile(&world)));
    let mut free = range("a", &["10.0.0.0/24"], Some(60));
    free.metadata.finalizers = Some(vec!["example.com/other".into()]);
    assert_eq!(changes(&[free], &[]), []);
}
