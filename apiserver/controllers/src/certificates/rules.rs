//! What each of the known signers demands of a request (`pkg/apis/certificates/helpers.go`,
//! `pkg/controller/certificates/signer`).

use super::CertificateRequest;

/// The signer of users' client certificates.
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of kubelets' client certificates.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// The signer of kubelets' serving certificates.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer that demands nothing; `certificates.k8s.io/v1` lets nobody ask for it.
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// Whether `signer` is one of ours and, if so, whether it signs this; `None` for the signers of others.
pub(super) fn check(
    signer: &str,
    request: &CertificateRequest,
    usages: &[String],
) -> Option<Result<(), String>> {
    match signer {
        CLIENT => Some(no_masters(request).and_then(|()| client_usages(usages))),
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        KUBELET_SERVING => Some(kubelet_serving(request, usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

/// Whether this signer is one of ours.
pub(super) fn is_known(signer: &str) -> bool {
    [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&signer)
}

/// Whoever may approve requests must not make administrators whom no role binds. Upstream refuses such a request when
/// it is created (the admission step CertificateSubjectRestriction).
fn no_masters(request: &CertificateRequest) -> Result<(), String> {
    match request
        .organizations
        .iter()
        .any(|group| group == "system:masters")
    {
        true => Err(format!(
            "use of {CLIENT} signer with system:masters group is not allowed"
        )),
        false => Ok(()),
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !optional.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.iter().any(|usage| usage == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".to_owned()),
    }
}

/// A kubelet's client certificate names its node and nothing else.
pub(super) fn kubelet_client(
    request: &CertificateRequest,
    usages: &[String],
) -> Result<(), String> {
    of_nodes(request)?;
    for (names, what) in [
        (&request.dns_names, "DNS"),
        (&request.emails, "Email"),
        (&request.addresses, "IP"),
        (&request.uris, "URI"),
    ] {
        none_of(names, what)?;
    }
    of_a_node(request)?;
    exactly(usages, "client auth")
}

fn kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    of_nodes(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    none_of(&request.emails, "Email")?;
    none_of(&request.uris, "URI")?;
    exactly(usages, "server auth")?;
    of_a_node(request)
}

fn of_nodes(request: &CertificateRequest) -> Result<(), String> {
    match request.organizations == ["system:nodes"] {
        true => Ok(()),
        false => Err("subject organization is not system:nodes".to_owned()),
    }
}

fn of_a_node(request: &CertificateRequest) -> Result<(), String> {
    match request.common_name.starts_with("system:node:") {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".to_owned()),
    }
}

fn none_of(names: &[String], what: &str) -> Result<(), String> {
    match names.is_empty() {
        true => Ok(()),
        false => Err(format!("{what} subjectAltNames are not allowed")),
    }
}

/// The usages are these; key encipherment, which only RSA keys need, may be missing.
fn exactly(usages: &[String], auth: &str) -> Result<(), String> {
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let mut wanted = vec!["digital signature", "key encipherment", auth];
    wanted.sort_unstable();
    let without = wanted.iter().filter(|usage| **usage != "key encipherment");
    match given == wanted || given.iter().eq(without) {
        true => Ok(()),
        // Go's rendering of a list of strings.
        false => Err(format!("usages did not match [{}]", wanted.join(" "))),
    }
}
