use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{
    IPAddress, IPAddressSpec, ParentReference, ServiceCIDR, ServiceCIDRSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::reconcile::{
    ClaimWorld, Finding, GRACE, Repair, ServiceWorld, Verdict, reconcile_claim, reconcile_service,
};
use crate::fixtures::{labels, meta};

fn service(name: &str, addresses: &[&str]) -> Arc<Service> {
    let mut service = crate::fixtures::service(name, IntOrString::Int(80));
    let spec = service.spec.as_mut().expect("a spec");
    spec.cluster_ips = Some(addresses.iter().map(|ip| (*ip).to_owned()).collect());
    Arc::new(service)
}

/// A claim of the allocator's for a Service in `default`.
fn claim(address: &str, service: &str) -> IPAddress {
    let family = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    let labels = labels(&[
        ("ipaddress.kubernetes.io/ip-family", family),
        ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"),
    ]);
    IPAddress {
        metadata: ObjectMeta {
            namespace: None,
            labels: Some(labels),
            ..meta(address)
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                resource: "services".into(),
                namespace: Some("default".into()),
                name: service.into(),
                ..Default::default()
            },
        },
    }
}

fn findings(
    service: Arc<Service>,
    claims: &[IPAddress],
    holders: Vec<Arc<Service>>,
) -> Vec<Finding> {
    let named = |claim: &IPAddress| {
        let name = claim.metadata.name.clone().expect("a name");
        (name, Arc::new(claim.clone()))
    };
    let cidrs = Some(vec!["10.96.0.0/16".into(), "fd00::/64".into()]);
    let range = ServiceCIDR {
        spec: Some(ServiceCIDRSpec { cidrs }),
        ..Default::default()
    };
    reconcile_service(&ServiceWorld {
        service,
        claims: claims.iter().map(named).collect::<BTreeMap<_, _>>(),
        holders,
        ranges: vec![Arc::new(range)],
    })
}

fn told(findings: &[Finding]) -> Vec<(&str, &str)> {
    findings
        .iter()
        .map(|finding| (finding.reason, finding.message.as_str()))
        .collect()
}

#[test]
fn what_agrees_stays() {
    let both = service("a", &["10.96.0.7", "fd00::7"]);
    let claims = [claim("10.96.0.7", "a"), claim("fd00::7", "a")];
    assert_eq!(findings(both.clone(), &claims, vec![both]), []);
    for without in [&["None"][..], &[], &[""]] {
        assert_eq!(findings(service("a", without), &[], Vec::new()), []);
    }
}

#[test]
fn a_service_without_its_claim_gets_one() {
    let found = findings(
        service("a", &["10.96.0.7", "fd00::7"]),
        &[claim("10.96.0.7", "a")],
        Vec::new(),
    );
    let message = "Cluster IP [IPv6]: fd00::7 is not allocated; repairing";
    assert_eq!(told(&found), [("ClusterIPNotAllocated", message)]);
    let Repair::Claim(new) = &found[0].repair else {
        panic!("{found:?}");
    };
    let made = claim("fd00::7", "a");
    assert_eq!(
        (&new.spec, &new.metadata.labels),
        (&made.spec, &made.metadata.labels)
    );
}

#[test]
fn a_claim_of_somebody_else_is_replaced_unless_both_have_the_address() {
    let one = service("a", &["10.96.0.7"]);
    let wrong =
        "the ClusterIP [IPv4]: 10.96.0.7 for Service default/a has a wrong reference; repairing";
    let mut gateway = claim("10.96.0.7", "g");
    gateway.spec.parent_ref.resource = "gateways".into();
    for (claim, holders) in [
        (claim("10.96.0.7", "gone"), Vec::new()),
        (claim("10.96.0.7", "b"), vec![service("b", &["10.96.0.8"])]),
        (gateway, Vec::new()),
    ] {
        let found = findings(one.clone(), &[claim], holders);
        assert_eq!(told(&found), [("ClusterIPNotAllocated", wrong)]);
        assert!(matches!(found[0].repair, Repair::Replace { .. }));
    }
    let found = findings(
        one,
        &[claim("10.96.0.7", "b")],
        vec![service("b", &["10.96.0.7"])],
    );
    let both =
        "Cluster IP [IPv4]:10.96.0.7 was assigned to multiple services; please recreate service";
    assert_eq!(told(&found), [("ClusterIPAlreadyAllocated", both)]);
    assert_eq!(found[0].repair, Repair::Tell);
}

#[test]
fn a_claim_with_the_wrong_family_is_made_anew_and_nothing_is_told() {
    let mut odd = claim("10.96.0.7", "a");
    odd.metadata
        .labels
        .as_mut()
        .expect("labels")
        .insert("ipaddress.kubernetes.io/ip-family".into(), "IPv6".into());
    let mut bare = claim("10.96.0.7", "a");
    bare.metadata.labels = None;
    for claim in [odd, bare] {
        let found = findings(service("a", &["10.96.0.7"]), &[claim], Vec::new());
        assert!(matches!(found[0].repair, Repair::Replace { .. }));
        assert_eq!(found[0].message, "");
    }
}

#[test]
fn addresses_that_no_range_holds_are_told() {
    for (address, reason, message) in [
        (
            "10.97.0.1",
            "ClusterIPOutOfRange",
            "Cluster IP [IPv4]: 10.97.0.1 is not within any configured Service CIDR; please recreate service",
        ),
        (
            "x",
            "ClusterIPNotValid",
            "Cluster IP x is not a valid IP; please recreate Service",
        ),
    ] {
        let found = findings(service("a", &[address]), &[], Vec::new());
        assert_eq!(told(&found), [(reason, message)]);
        assert_eq!(found[0].repair, Repair::Tell);
    }
}

#[test]
fn a_claim_without_its_service_is_given_back_after_a_grace() {
    let judge = |claim: IPAddress, service: Option<Arc<Service>>, seconds: u64| {
        reconcile_claim(&ClaimWorld {
            claim: Arc::new(claim),
            service,
            idle_for: Duration::from_secs(seconds),
        })
    };
    let own = || claim("10.96.0.7", "a");
    assert_eq!(
        judge(own(), Some(service("a", &["10.96.0.7"])), 900),
        Verdict::Keep
    );
    assert_eq!(
        judge(own(), None, 20),
        Verdict::Wait(GRACE - Duration::from_secs(20))
    );
    let dropped = |verdict: Verdict| match verdict {
        Verdict::Drop(finding) => (finding.reason, finding.message),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        dropped(judge(own(), None, 60)),
        (
            "IPAddressNotAllocated",
            "IPAddress: 10.96.0.7 for Service default/a appears to have leaked: cleaning up"
                .to_owned()
        )
    );
    let other = Some(service("a", &["10.96.0.8"]));
    assert_eq!(
        dropped(judge(own(), other, 60)),
        (
            "IPAddressWrongReference",
            "IPAddress: 10.96.0.7 for Service default/a has a wrong reference; cleaning up"
                .to_owned()
        )
    );
    let mut foreign = own();
    foreign.metadata.labels = None;
    assert_eq!(judge(foreign, None, 900), Verdict::Keep);
    let mut gateway = own();
    gateway.spec.parent_ref.resource = "gateways".into();
    assert_eq!(dropped(judge(gateway, None, 0)).0, "IPAddressNotAllocated");
}
