//! How a server is reached: its address, whom to trust and who is asking.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::Protocol;
use crate::kubeconfig;

/// A server that runs already, by its kubeconfig or by address and files.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Target {
    /// Measure the server of this kubeconfig's current context instead of starting one; objects are made in a
    /// namespace of their own, which is deleted at the end
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    kubeconfig: Option<PathBuf>,
    /// The same, without a kubeconfig: https://HOST:PORT
    #[arg(long, value_name = "URL", requires = "ca")]
    server: Option<String>,
    /// The certificate authority of `--server`, PEM
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// The client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "server", requires = "key")]
    cert: Option<PathBuf>,
    /// The client certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "server", requires = "cert")]
    key: Option<PathBuf>,
    /// A bearer token instead of a client certificate
    #[arg(long, value_name = "TOKEN", requires = "server")]
    token: Option<String>,
    /// The process of that server, for its processor time and memory; repeatable (a server and its store)
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
}

impl Target {
    /// How to reach the server that is named; `None` when none is.
    pub(crate) fn access(&self) -> Result<Option<Access>> {
        if let Some(path) = &self.kubeconfig {
            return kubeconfig::load(path).map(Some);
        }
        let (Some(server), Some(ca)) = (&self.server, &self.ca) else {
            if !self.pid.is_empty() {
                bail!("--pid needs --kubeconfig or --server");
            }
            return Ok(None);
        };
        let certificate = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let access = Access::new(server, &read(ca)?, certificate, self.token.clone())?;
        Ok(Some(access))
    }
}

/// Everything a connection needs.
#[derive(Clone)]
pub(crate) struct Access {
    /// Host and port.
    pub(crate) authority: String,
    /// A bearer token, where the user has one.
    pub(crate) token: Option<String>,
    /// Whom it trusts, as PEM.
    authority_pem: Arc<[u8]>,
    tls: ClientConfig,
}

impl Access {
    /// Reaches `server`, an `https://` address, whose certificate `ca` has signed; both it and the client's
    /// certificate and key are PEM.
    pub(crate) fn new(
        server: &str,
        ca: &[u8],
        certificate: Option<(Vec<u8>, Vec<u8>)>,
        token: Option<String>,
    ) -> Result<Self> {
        let address = server
            .strip_prefix("https://")
            .context("the server is not https://")?
            .trim_end_matches('/');
        if address.contains('/') {
            bail!("the server {server} has a path, which is not supported");
        }
        let authority = match address.parse::<http::uri::Authority>()?.port() {
            Some(_) => address.to_owned(),
            None => format!("{address}:443"),
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.map_err(|error| anyhow!("the authority is no PEM: {error}"))?)?;
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let tls = match certificate {
            Some((certificate, key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(&certificate).collect();
                let chain =
                    chain.map_err(|error| anyhow!("the client certificate is no PEM: {error}"))?;
                let key = PrivateKeyDer::from_pem_slice(&key)
                    .map_err(|error| anyhow!("the client key is no PEM: {error}"))?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            authority,
            token,
            authority_pem: ca.into(),
            tls,
        })
    }

    /// The same server, as the user that `token` names.
    pub(crate) fn with_token(&self, token: &str) -> Result<Self> {
        let server = format!("https://{}", self.authority);
        Self::new(&server, self.ca(), None, Some(token.to_owned()))
    }

    /// The certificate authority of the server, PEM.
    pub(crate) fn ca(&self) -> &[u8] {
        &self.authority_pem
    }

    /// What to shake hands with, to speak `protocol`.
    pub(crate) fn tls(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![protocol.alpn().to_vec()];
        Arc::new(tls)
    }
}

/// The bytes of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        target: Target,
    }

    fn parse(arguments: &[&str]) -> Result<Target> {
        let arguments = ["test"].iter().chain(arguments);
        Ok(Flags::try_parse_from(arguments)?.target)
    }

    #[test]
    fn a_server_is_named_by_address_and_files() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ca.crt");
        let target = parse(&["--server", "https://[::1]:6443", "--ca", ca, "--token", "t"]);
        let access = target.and_then(|target| target.access());
        let access = access.expect("valid").expect("a server");
        assert_eq!(access.authority, "[::1]:6443");
        assert_eq!(access.token.as_deref(), Some("t"));
        assert_eq!(access.tls(Protocol::Http2).alpn_protocols, [b"h2"]);
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        for arguments in [
            &["--server", "https://a"][..],
            &["--token", "t"],
            &["--server", "https://a", "--ca", "f", "--cert", "f"],
            &["--server", "https://a", "--ca", "f", "--kubeconfig", "f"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
        let alone = parse(&["--pid", "1"]).expect("valid");
        assert!(alone.access().is_err());
        assert!(
            parse(&[])
                .and_then(|none| none.access())
                .expect("valid")
                .is_none()
        );
    }
}
