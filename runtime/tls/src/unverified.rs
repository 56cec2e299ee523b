//! The verifier that verifies nothing.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// Takes every certificate, and every signature by one: whoever may show any certificate gains nothing by a right
/// signature, and certificates that cannot be parsed (of X.509's first version, say) are taken like others.
#[derive(Debug)]
pub(crate) struct Anybody(Vec<SignatureScheme>);

impl Anybody {
    /// `schemes`: what is offered to servers.
    pub(crate) fn new(schemes: Vec<SignatureScheme>) -> Self {
        Self(schemes)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ServerConfig, SupportedProtocolVersion};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use crate::{client, client_of_anybody};

    fn server(version: &'static SupportedProtocolVersion) -> TlsAcceptor {
        let made = rcgen::generate_simple_self_signed(["elsewhere.test".to_owned()]);
        let made = made.expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("ring has it")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("they fit");
        TlsAcceptor::from(Arc::new(config))
    }

    #[tokio::test]
    async fn anybody_is_believed_under_any_name_and_only_by_who_wants_it() {
        let nobody = client().with_root_certificates(rustls::RootCertStore::empty());
        for (config, believes) in [
            (client_of_anybody().with_no_client_auth(), true),
            (nobody.with_no_client_auth(), false),
        ] {
            let connector = TlsConnector::from(Arc::new(config));
            for version in [&TLS12, &TLS13] {
                let (near, far) = tokio::io::duplex(1 << 14);
                let name = "here.test".try_into().expect("a name");
                let acceptor = server(version);
                let (_, connected) =
                    tokio::join!(acceptor.accept(far), connector.connect(name, near));
                assert_eq!(connected.is_ok(), believes, "{version:?}");
            }
        }
    }
}
