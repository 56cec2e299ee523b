use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::approver::{NODE_CLIENT, SELF_NODE_CLIENT, is_open, ways};
use super::cleaner::is_over;
use super::signer::{Decision, decide};
use super::{CertificateRequest, rules};
use crate::fixtures::{meta, now};

const KUBELET: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
const SERVING: [&str; 2] = ["server auth", "digital signature"];

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A request for `signer` with conditions that were set at `now`, and perhaps a certificate.
fn csr(signer: &str, usages: &[&str], conditions: &[&str]) -> CertificateSigningRequest {
    let condition = |type_: &&str| CertificateSigningRequestCondition {
        type_: (*type_).to_owned(),
        status: "True".to_owned(),
        last_update_time: Some(Time(now())),
        ..Default::default()
    };
    CertificateSigningRequest {
        metadata: meta("a"),
        spec: CertificateSigningRequestSpec {
            signer_name: signer.to_owned(),
            usages: Some(owned(usages)),
            username: Some("system:node:a".to_owned()),
            ..Default::default()
        },
        status: Some(CertificateSigningRequestStatus {
            conditions: Some(conditions.iter().map(condition).collect()),
            certificate: None,
        }),
    }
}

fn issued(mut csr: CertificateSigningRequest) -> CertificateSigningRequest {
    csr.status.get_or_insert_default().certificate = Some(ByteString(b"pem".to_vec()));
    csr
}

fn node(name: &str) -> CertificateRequest {
    CertificateRequest {
        common_name: name.to_owned(),
        organizations: owned(&["system:nodes"]),
        ..Default::default()
    }
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + seconds).expect("in range")
}

#[test]
fn every_signer_has_its_rules() {
    let serving = CertificateRequest {
        addresses: owned(&["10.0.0.1"]),
        ..node("system:node:a")
    };
    let with = |change: fn(&mut CertificateRequest)| {
        let mut request = serving.clone();
        change(&mut request);
        request
    };
    let client = CertificateRequest::default();
    let masters = CertificateRequest {
        organizations: owned(&["dev", "system:masters"]),
        ..CertificateRequest::default()
    };
    let kubelet = node("system:node:a");
    let usages = "usages did not match [client auth digital signature key encipherment]";
    for (signer, request, usages, wanted) in [
        (rules::CLIENT, &client, &["client auth"][..], Ok(())),
        (rules::CLIENT, &client, &KUBELET, Ok(())),
        (
            rules::CLIENT,
            &masters,
            &KUBELET,
            Err(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
            ),
        ),
        (
            rules::CLIENT,
            &client,
            &["client auth", "server auth"],
            Err("invalid usage for client certificate: server auth"),
        ),
        (
            rules::CLIENT,
            &client,
            &["digital signature"],
            Err("missing required usage for client certificate: client auth"),
        ),
        (rules::KUBELET_CLIENT, &kubelet, &KUBELET, Ok(())),
        (
            rules::KUBELET_CLIENT,
            &kubelet,
            &["client auth", "digital signature"],
            Ok(()),
        ),
        (
            rules::KUBELET_CLIENT,
            &kubelet,
            &["client auth"],
            Err(usages),
        ),
        (
            rules::KUBELET_CLIENT,
            &node("jane"),
            &["client auth"],
            Err("subject common name does not begin with system:node:"),
        ),
        (
            rules::KUBELET_CLIENT,
            &client,
            &KUBELET,
            Err("subject organization is not system:nodes"),
        ),
        (
            rules::KUBELET_CLIENT,
            &serving,
            &KUBELET,
            Err("IP subjectAltNames are not allowed"),
        ),
        (rules::KUBELET_SERVING, &serving, &SERVING, Ok(())),
        (
            rules::KUBELET_SERVING,
            &kubelet,
            &SERVING,
            Err("DNS or IP subjectAltName is required"),
        ),
        (
            rules::KUBELET_SERVING,
            &with(|r| r.uris = owned(&["spiffe://a"])),
            &SERVING,
            Err("URI subjectAltNames are not allowed"),
        ),
        (
            rules::KUBELET_SERVING,
            &with(|r| r.emails = owned(&["a@b"])),
            &SERVING,
            Err("Email subjectAltNames are not allowed"),
        ),
        (
            rules::KUBELET_SERVING,
            &serving,
            &KUBELET,
            Err("usages did not match [digital signature key encipherment server auth]"),
        ),
        (
            rules::KUBELET_SERVING,
            &with(|r| r.common_name = "a".to_owned()),
            &SERVING,
            Err("subject common name does not begin with system:node:"),
        ),
        (rules::LEGACY, &client, &["code signing"], Ok(())),
    ] {
        let found = rules::check(signer, request, &owned(usages));
        assert_eq!(
            found,
            Some(wanted.map_err(str::to_owned)),
            "{signer} {request:?} {usages:?}"
        );
    }
    assert_eq!(rules::check("example.com/x", &client, &[]), None);
}

#[test]
fn kubelets_are_approved_by_the_rights_they_have() {
    let of = |signer: &str| csr(signer, &KUBELET, &[]).spec;
    let spec = of(rules::KUBELET_CLIENT);
    assert_eq!(
        ways(&spec, &node("system:node:a")),
        [SELF_NODE_CLIENT, NODE_CLIENT]
    );
    assert_eq!(ways(&spec, &node("system:node:b")), [NODE_CLIENT]);
    assert_eq!(ways(&spec, &node("jane")), []);
    assert_eq!(ways(&of(rules::CLIENT), &node("system:node:a")), []);
    for (conditions, open) in [
        (&[][..], true),
        (&["Failed"], true),
        (&["Approved"], false),
        (&["Denied"], false),
    ] {
        assert_eq!(is_open(&csr(rules::CLIENT, &KUBELET, conditions)), open);
    }
    assert!(!is_open(&issued(csr(rules::CLIENT, &KUBELET, &[]))));
}

#[test]
fn only_what_is_approved_and_unanswered_is_signed() {
    let decision = |csr: &CertificateSigningRequest| decide(csr, Ok(node("jane")), now());
    let approved = csr(rules::CLIENT, &KUBELET, &["Approved"]);
    assert!(matches!(decision(&approved), Decision::Sign(_)));
    for left in [
        csr(rules::CLIENT, &KUBELET, &[]),
        csr(rules::CLIENT, &KUBELET, &["Approved", "Denied"]),
        csr(rules::CLIENT, &KUBELET, &["Approved", "Failed"]),
        csr("example.com/x", &KUBELET, &["Approved"]),
        issued(approved.clone()),
    ] {
        assert_eq!(decision(&left), Decision::Leave, "{left:?}");
    }
    let why = "invalid usage for client certificate: server auth";
    let refused = decision(&csr(rules::CLIENT, &SERVING[..1], &["Approved"]));
    assert_eq!(refused, Decision::Refuse(why.to_owned()));
    let unreadable = decide(&approved, Err("what".to_owned()), now());
    assert_eq!(unreadable, Decision::Refuse("what".to_owned()));
}

#[test]
fn a_wished_life_lies_between_ten_minutes_and_a_year() {
    let year = 365 * 86_400;
    for (wished, end) in [
        (None, year - 300),
        (Some(i32::MAX), year - 300),
        (Some(600), 600),
        (Some(1), 600),
        (Some(-1), 600),
        (Some(8 * 3600 - 1), 8 * 3600 - 1),
        (Some(8 * 3600), 8 * 3600 - 300),
    ] {
        let mut csr = csr(rules::CLIENT, &KUBELET, &["Approved"]);
        csr.spec.expiration_seconds = wished;
        let Decision::Sign(terms) = decide(&csr, Ok(node("jane")), now()) else {
            panic!("not signed: {wished:?}");
        };
        assert_eq!(
            (terms.not_before, terms.not_after),
            (after(-300), after(end)),
            "{wished:?}"
        );
    }
}

#[test]
fn requests_go_when_they_are_done_with() {
    let (hour, day) = (3600, 86_400);
    let plain = |conditions: &[&str]| csr(rules::CLIENT, &KUBELET, conditions);
    for (csr, age) in [
        (plain(&[]), day),
        (plain(&["Approved"]), day),
        (plain(&["Denied"]), hour),
        (plain(&["Approved", "Failed"]), hour),
        (issued(plain(&["Approved"])), hour),
    ] {
        assert!(!is_over(&csr, None, after(age)), "{csr:?}");
        assert!(is_over(&csr, None, after(age + 1)), "{csr:?}");
    }
    let short = issued(plain(&["Approved"]));
    assert!(is_over(&short, Some(after(10)), after(11)));
    assert!(!is_over(&short, Some(after(10)), after(10)));
    let foreign = issued(plain(&[]));
    assert!(!is_over(
        &foreign,
        Some(now()),
        now() + Duration::from_secs(5)
    ));
}
