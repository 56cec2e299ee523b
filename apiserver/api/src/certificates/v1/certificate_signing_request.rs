//! CertificateSigningRequest: someone asks for a certificate, someone approves, a signer answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::pem::{self, Shape};
use crate::field_errors::ErrorType;
use crate::kinds::{
    AGE, ALL_VERBS, APPROVAL, Column, NAME, NameRule, STATUS, Storage, age, human_duration,
};
use crate::validation::names;
use crate::{At, FieldErrors, Object, Requester, Resource, Strategy};

/// What the pipeline knows of certificate signing requests.
pub static RESOURCE: Resource = Resource {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[APPROVAL, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CertificateSigningRequest,
};

/// CertificateSigningRequest: someone asks for a certificate, someone approves, a signer answers.
///
/// The spec never changes after the creation, and who asked is taken from the request itself. Approval and denial are
/// conditions that only the subresource `approval` sets; the certificate comes through `status`.
pub struct CertificateSigningRequest;

/// Conditions that are True or absent, and that stay.
const LASTING: &[&str] = &["Approved", "Denied", "Failed"];

impl Strategy for CertificateSigningRequest {
    fn default(&self, object: &mut Object) {
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        new.restore(old, "spec");
    }

    fn prepare_for_subresource_update(&self, _approval: &str, new: &mut Object, old: &Object) {
        new.restore(old, "status.certificate");
    }

    fn record_request(&self, new: &mut Object, old: Option<&Object>, request: &Requester<'_>) {
        match old {
            None => record_requester(new, request),
            Some(old) if !request.subresource.is_empty() => stamp_conditions(new, old, request.now),
            Some(_) => {}
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let request = spec.key("request");
        if let Err(why) = check_request(request.str()) {
            errors.invalid(&request, why);
        }
        let usages = spec.key("usages");
        if usages.is_empty() {
            errors.required(&usages, "");
        }
        for usage in usages.items() {
            errors.one_of(&usage, USAGES);
        }
        let mut seen: Vec<&str> = Vec::new();
        for usage in usages.items() {
            match seen.contains(&usage.str()) {
                true => errors.duplicate(&usage),
                false => seen.push(usage.str()),
            }
        }
        let signer = spec.key("signerName");
        match signer.str() {
            "kubernetes.io/legacy-unknown" => errors.invalid(
                &signer,
                "the legacy signerName is not allowed via this API version",
            ),
            _ => signer_name(&signer, errors),
        }
        let seconds = spec.key("expirationSeconds");
        if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
            errors.invalid(
                &seconds,
                "may not specify a duration less than 600 seconds (10 minutes)",
            );
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        conditions(new, old, errors);
        check_certificate(new, old, errors);
        keep_conditions(new, old, errors);
        for kind in ["Approved", "Denied"] {
            let (before, after) = (of_type(old, kind), of_type(new, kind));
            let place = "status.conditions";
            if after.len() > before.len() {
                let detail = format!("updates may not add a condition of type {kind:?}");
                errors.push(ErrorType::Forbidden, place, None, detail);
            } else if after.len() == before.len() && after != before {
                // Upstream shows Go's rendering of the difference too.
                let detail = format!("updates may not modify a condition of type {kind:?}");
                errors.push(ErrorType::Forbidden, place, None, detail);
            }
        }
        let (certificate, before) = (new.at("status.certificate"), old.at("status.certificate"));
        if !before.is_empty() && certificate.str() != before.str() {
            errors.forbidden(
                &certificate,
                "updates may not modify existing certificate content",
            );
        }
    }

    fn validate_subresource_update(
        &self,
        _approval: &str,
        new: &Object,
        old: &Object,
        errors: &mut FieldErrors,
    ) {
        conditions(new, old, errors);
        keep_conditions(new, old, errors);
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let signer = object.at("spec.signerName").str().to_owned();
        vec![("spec.signerName", signer)]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let duration = spec.key("expirationSeconds").as_i64().map(human_duration);
        let is = |kind: &str| !of_type(object, kind).is_empty();
        let mut condition = match (is("Denied"), is("Approved")) {
            (true, _) => "Denied",
            (false, true) => "Approved",
            (false, false) => "Pending",
        }
        .to_owned();
        if is("Failed") {
            condition.push_str(",Failed");
        }
        if !object.at("status.certificate").is_empty() {
            condition.push_str(",Issued");
        }
        vec![
            object.name().into(),
            age(object, now),
            spec.key("signerName").str().into(),
            spec.key("username").str().into(),
            duration.unwrap_or_else(|| "<none>".to_owned()).into(),
            condition.into(),
        ]
    }
}

/// Whatever the client says about who asks, the request knows better.
fn record_requester(new: &mut Object, request: &Requester<'_>) {
    let spec = new.map_mut("spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.shift_remove(field);
    }
    spec.insert("username".to_owned(), request.user.into());
    if !request.uid.is_empty() {
        spec.insert("uid".to_owned(), request.uid.into());
    }
    if !request.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(request.groups));
    }
    if !request.extra.is_empty() {
        let extra = request
            .extra
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)));
        spec.insert("extra".to_owned(), Value::Object(extra.collect()));
    }
}

/// Fills in the times of conditions; a transition is kept while type and status stay.
fn stamp_conditions(new: &mut Object, old: &Object, now: &str) {
    let before = old.at("status.conditions");
    let conditions = new
        .get_mut("status.conditions")
        .and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let Some(condition) = condition.as_object_mut() else {
            continue;
        };
        let absent = |value: Option<&Value>| value.is_none_or(Value::is_null);
        if absent(condition.get("lastUpdateTime")) {
            condition.insert("lastUpdateTime".to_owned(), now.into());
        }
        if absent(condition.get("lastTransitionTime")) {
            let same = before.items().find(|old| {
                ["type", "status"]
                    .iter()
                    .all(|field| old.key(field).value() == condition.get(*field))
                    && old.key("lastTransitionTime").exists()
            });
            let time = same.map_or(now, |old| old.key("lastTransitionTime").str());
            condition.insert("lastTransitionTime".to_owned(), time.into());
        }
    }
}

fn of_type<'a>(object: &'a Object, kind: &str) -> Vec<&'a Value> {
    let conditions = object.at("status.conditions");
    let found = conditions
        .items()
        .filter(|condition| condition.key("type").str() == kind);
    found.filter_map(|condition| condition.value()).collect()
}

/// Conditions by themselves. What was wrong before the change is borne.
fn conditions(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let both = |object: &Object| {
        !of_type(object, "Approved").is_empty() && !of_type(object, "Denied").is_empty()
    };
    let types = |object: &Object| -> Vec<String> {
        let conditions = object.at("status.conditions");
        let types = conditions.items().map(|c| c.key("type").str().to_owned());
        types.collect()
    };
    let old_types = types(old);
    let had_duplicates = (1..old_types.len()).any(|at| old_types[..at].contains(&old_types[at]));
    let mut seen: Vec<&str> = Vec::new();
    let all = new.at("status.conditions");
    for condition in all.items() {
        let (kind, status) = (condition.key("type"), condition.key("status"));
        if kind.is_empty() && !old_types.iter().any(String::is_empty) {
            errors.required(&kind, "");
        }
        let supported: &[&str] = match LASTING.contains(&kind.str()) {
            true => &["True"],
            false => &["False", "True", "Unknown"],
        };
        if status.is_empty() {
            errors.required(&status, "");
        } else {
            errors.one_of(&status, supported);
        }
        let other = match kind.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(&other) && !both(old) {
            let value = Some(Value::from(kind.str()));
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(ErrorType::Invalid, all.path(), value, detail);
        }
        if seen.contains(&kind.str()) && !had_duplicates {
            errors.duplicate(&kind);
        }
        seen.push(kind.str());
    }
}

fn keep_conditions(new: &Object, old: &Object, errors: &mut FieldErrors) {
    for kind in LASTING {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(ErrorType::Forbidden, "status.conditions", None, detail);
        }
    }
}

fn check_certificate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let findings = |object: &Object| certificate_problem(object.at("status.certificate").str());
    if let Some(why) = findings(new)
        && findings(old).is_none()
    {
        let shown = Some(Value::from("<certificate data>"));
        errors.push(ErrorType::Invalid, "status.certificate", shown, why);
    }
}

/// What is wrong with an issued certificate: one or more PEM blocks, each one certificate.
fn certificate_problem(base64: &str) -> Option<String> {
    let text = BASE64.decode(base64).unwrap_or_default();
    if text.is_empty() {
        return None;
    }
    let blocks = pem::blocks(&text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            let found = &block.label;
            return Some(format!(
                "only CERTIFICATE PEM blocks are allowed, found {found:?}"
            ));
        }
        if block.headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        if block.bytes.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        if pem::sequence(&block.bytes).is_err() {
            return Some("x509: malformed certificate".to_owned());
        }
    }
    blocks
        .is_empty()
        .then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// Whether this is a PKCS#10 request in PEM. Unlike upstream, the signature is not verified here.
fn check_request(base64: &str) -> Result<(), String> {
    let text = BASE64.decode(base64).unwrap_or_default();
    let blocks = pem::blocks(&text);
    let Some(block) = blocks
        .first()
        .filter(|block| block.label == "CERTIFICATE REQUEST")
    else {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    pem::sequence(&block.bytes).map(drop).map_err(|shape| match shape {
        Shape::Truncated => "asn1: syntax error: data truncated".to_owned(),
        Shape::Trailing => "asn1: syntax error: trailing data".to_owned(),
        Shape::OtherTag { tag, length } => format!(
            "asn1: structure error: tags don't match (16 vs {{class:{} tag:{} length:{length} isCompound:{}}}) \
             {{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 \
             timeType:0 set:false omitEmpty:false}} certificateRequest @2",
            tag >> 6,
            tag & 0x1f,
            tag & 0x20 != 0
        ),
    })
}

/// A signer is `domain/path`; both parts are checked, and only the first finding of each is told.
pub(super) fn signer_name(at: &At<'_>, errors: &mut FieldErrors) {
    let name = at.str();
    if name.is_empty() {
        errors.required(at, "");
        return;
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments[..] else {
        errors.invalid(
            at,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if domain.len() > 253 {
        errors.too_long(at, 253);
    }
    label_of(at, domain, names::dns1123_label, errors);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(ErrorType::Invalid, at.path(), Some(domain.into()), detail);
    }
    label_of(at, path, names::dns1123_subdomain, errors);
    if name.len() > 253 + 1 + 253 + 63 + 1 {
        errors.too_long(at, 253 + 1 + 253 + 63 + 1);
    }
}

/// Reports the first of the labels of `part` that is not legal.
fn label_of(at: &At<'_>, part: &str, check: fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
    let bad = part.split('.').find(|label| !check(label).is_empty());
    if let Some(label) = bad {
        for why in check(label) {
            let detail = format!("validating label {label:?}: {why}");
            errors.push(ErrorType::Invalid, at.path(), Some(part.into()), detail);
        }
    }
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

static COLUMNS: &[Column] = &[
    NAME,
    AGE,
    Column::string(
        "SignerName",
        "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If \
         empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \
         \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is \
         assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \
         \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can \
         select on this field using `spec.signerName`.",
    ),
    Column::string("Requestor", "Base64-encoded PKCS#10 CSR data"),
    Column::string(
        "RequestedDuration",
        "expirationSeconds is the requested duration of validity of the issued certificate. The certificate \
         signer may issue a certificate with a different validity duration so a client must check the delta \
         between the notBefore and and notAfter fields in the issued certificate to determine the actual \
         duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor \
         this field as long as the requested duration is not greater than the maximum duration they will \
         honor per the --cluster-signing-duration CLI flag to the Kubernetes controller \
         manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer \
         that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. \
         Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose \
         configured minimum is longer than the requested duration\n\nThe minimum valid value for \
         expirationSeconds is 600, i.e. 10 minutes.",
    ),
    Column::string(
        "Condition",
        "Conditions applied to the request, such as approval or denial.",
    ),
];
