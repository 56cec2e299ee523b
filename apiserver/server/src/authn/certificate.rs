//! Client certificates: the common name is the user, the organisations are the groups.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::Identity;

/// The identity that a verified client certificate (DER) names; `None` when it has no common name.
pub fn identity_from_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|organisation| organisation.as_str().ok())
        .map(str::to_owned)
        .collect();
    (!user.is_empty()).then(|| Identity::new(user, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_becomes_user_and_groups() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "jane");
        parameters
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let identity = identity_from_certificate(certificate.der()).expect("an identity");
        assert_eq!(identity, Identity::new("jane", ["system:masters"]));
        assert_eq!(identity_from_certificate(b"junk"), None);
    }
}
