//! The authority is replaced in two steps, and nothing that runs breaks between them.
//!
//! ```text
//! coracle pki renew --ca      ca.{crt,key}     a new authority, which signs from now on
//!                             ca-previous.crt  the old one: believed beside it
//!                             ca-cross.crt     the old one vouches for the new one
//!   … the bundle of both gets into ConfigMaps, pods, kubeconfigs …
//! coracle pki drop-old-ca     removes the last two: the old authority and all that it signed count no more
//! ```
//!
//! Between the steps, who knows the old authority alone (a pod that has not read its `ca.crt` again, a kubeconfig on another
//! machine, a server that has not looked at the files yet) still believes what the new one signs: every certificate comes
//! with the crosses, which lead from the new authority to the old one.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use coracle_clock::Clock;
use rcgen::KeyPair;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::pem;
use super::{Credential, Folder, Pki, certificates, fits, issuer, parse_certificate};
use crate::{data_dir, files};

/// Earlier authorities that are still believed.
pub(super) const PREVIOUS: &str = "ca-previous.crt";
/// The certificates by which they vouch for the later ones.
pub(super) const CROSSES: &str = "ca-cross.crt";

impl Pki {
    /// Puts a new authority in the place of the one in `folder`, which is believed until [`Pki::drop_previous`]. Certificates
    /// of the server and its first user are made anew.
    pub fn rotate(folder: &Path, clock: &Clock) -> Result<Self> {
        let names = Self::server_names(folder)?;
        let folder = Folder::new(folder, clock);
        let old = folder
            .load("ca")?
            .context("there is no ca.crt with its ca.key")?;
        let previous = folder.read(PREVIOUS)?.unwrap_or_default();
        let crosses = folder.read(CROSSES)?.unwrap_or_default();
        let key = KeyPair::generate().context("failed to generate the authority's key")?;
        // Another name than the old one's, so that a chain leads one way only.
        let mut tag = [0; 4];
        clock.random_bytes(&mut tag);
        let params =
            folder.authority_params(&format!("coracle-ca-{:08x}", u32::from_be_bytes(tag)));
        let mut cross = String::new();
        // A key that is not the certificate's can vouch for nobody: so a rotation that broke off is begun anew.
        if fits(&old) {
            let mut vouched = params.clone();
            vouched.not_after = vouched.not_after.min(end_of(&old)?);
            let signed = vouched.signed_by(&key, &issuer(&old)?);
            cross = signed.context("failed to sign the new authority")?.pem();
        }
        let certificate = params
            .self_signed(&key)
            .context("failed to sign the authority")?;
        // Whatever is there when this breaks off, the old authority is among those that are believed.
        files::write_public(
            &folder.path.join(PREVIOUS),
            joined(&[&old.certificate, &previous])?.as_bytes(),
        )?;
        files::write_public(
            &folder.path.join(CROSSES),
            format!("{cross}{crosses}").as_bytes(),
        )?;
        folder.save(
            "ca",
            Credential {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            },
        )?;
        files::sync_folder(&folder.path)?;
        Self::ensure(&folder.path, &names, clock)
    }

    /// Believes the current authority alone from now on. False when there was no other.
    pub fn drop_previous(folder: &Path, clock: &Clock) -> Result<(Self, bool)> {
        let names = Self::server_names(folder)?;
        let path = folder.join(PREVIOUS);
        let was_there = path.exists();
        data_dir::remove_if_there(&path)?;
        data_dir::remove_if_there(&folder.join(CROSSES))?;
        files::sync_folder(folder)?;
        Ok((Self::ensure(folder, &names, clock)?, was_there))
    }
}

fn end_of(authority: &Credential) -> Result<OffsetDateTime> {
    let der = parse_certificate(&authority.certificate)?;
    let (_, certificate) = X509Certificate::from_der(&der)
        .map_err(|error| anyhow!("failed to read ca.crt: {error}"))?;
    let end = certificate.validity().not_after.timestamp();
    OffsetDateTime::from_unix_timestamp(end).context("ca.crt ends at no possible time")
}

/// The certificates of several PEM texts, each once.
fn joined(texts: &[&str]) -> Result<String> {
    let mut seen = Vec::new();
    let mut all = String::new();
    for text in texts.iter().filter(|text| !text.trim().is_empty()) {
        for der in certificates(text)? {
            if !seen.contains(&der) {
                all.push_str(&pem(&der));
                seen.push(der);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::super::client_authorities;
    use super::*;

    struct Cluster {
        folder: tempfile::TempDir,
        clock: Clock,
    }

    impl Cluster {
        fn new() -> (Self, Pki) {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let (folder, clock) = (tempfile::tempdir().expect("a folder"), Clock::fake(1));
            let pki = Pki::ensure(folder.path(), &["localhost".to_owned()], &clock).expect("made");
            (Self { folder, clock }, pki)
        }

        fn now(&self) -> UnixTime {
            let seconds = u64::try_from(self.clock.now().as_second()).expect("after 1970");
            UnixTime::since_unix_epoch(Duration::from_secs(seconds))
        }

        /// Whether who trusts the authorities of `bundle` believes the server's certificate.
        fn believes_server(&self, bundle: &str, server: &Credential) -> bool {
            let mut roots = rustls::RootCertStore::empty();
            for root in certificates(bundle).expect("PEM") {
                roots.add(root).expect("a root");
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
            let verifier = verifier.build().expect("a verifier");
            let chain = certificates(&server.certificate).expect("PEM");
            let name = ServerName::try_from("localhost").expect("a name");
            let verdict =
                verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], self.now());
            verdict.is_ok()
        }

        /// Whether a server that trusts the authorities of `bundle` believes the client's certificate.
        fn believes_client(&self, bundle: &str, client: &Credential) -> bool {
            let verifier = client_authorities(bundle).expect("a verifier");
            let chain = certificates(&client.certificate).expect("PEM");
            let verdict = verifier.verify_client_cert(&chain[0], &chain[1..], self.now());
            verdict.is_ok()
        }

        fn rotate(&self) -> Pki {
            Pki::rotate(self.folder.path(), &self.clock).expect("rotated")
        }
    }

    #[tokio::test]
    async fn old_and_new_believe_each_other_until_the_old_authority_is_dropped() {
        let (cluster, old) = Cluster::new();
        let new = cluster.rotate();
        assert!(new.ca.ends_with(&old.ca) && new.ca.len() > old.ca.len());
        for (knows, shown) in [(&old, &new), (&new, &old), (&new, &new)] {
            assert!(cluster.believes_server(&knows.ca, &shown.server));
            assert!(cluster.believes_client(&knows.ca, &shown.admin));
        }
        // Nothing is made anew without need.
        let again = Pki::ensure(
            cluster.folder.path(),
            &["localhost".to_owned()],
            &cluster.clock,
        );
        let again = again.expect("loaded");
        assert_eq!(again.server.certificate, new.server.certificate);

        let (alone, was_there) =
            Pki::drop_previous(cluster.folder.path(), &cluster.clock).expect("dropped");
        assert!(was_there);
        assert!(new.ca.starts_with(&alone.ca) && alone.ca.len() < new.ca.len());
        assert!(cluster.believes_server(&new.ca, &alone.server));
        assert!(!cluster.believes_server(&old.ca, &alone.server));
        assert!(!cluster.believes_client(&alone.ca, &old.admin));
        assert!(cluster.believes_client(&alone.ca, &alone.admin));
        let (_, was_there) =
            Pki::drop_previous(cluster.folder.path(), &cluster.clock).expect("nothing to do");
        assert!(!was_there);
    }

    #[tokio::test]
    async fn who_knows_the_first_of_three_authorities_believes_the_third() {
        let (cluster, first) = Cluster::new();
        cluster.rotate();
        let third = cluster.rotate();
        assert_eq!(certificates(&third.ca).expect("PEM").len(), 3);
        assert!(cluster.believes_server(&first.ca, &third.server));
        assert!(cluster.believes_client(&first.ca, &third.admin));
        assert!(cluster.believes_client(&third.ca, &first.admin));
    }

    #[tokio::test]
    async fn a_rotation_that_broke_off_is_told_and_begun_anew() {
        let (cluster, old) = Cluster::new();
        // The new key is there, and the certificate is still the old one.
        let other = KeyPair::generate().expect("a key").serialize_pem();
        std::fs::write(cluster.folder.path().join("ca.key"), other).expect("written");
        let names = ["localhost".to_owned()];
        let error = Pki::ensure(cluster.folder.path(), &names, &cluster.clock);
        let error = error.err().expect("refused").to_string();
        assert!(error.contains("coracle pki renew --ca"), "{error}");
        let new = cluster.rotate();
        assert!(cluster.believes_client(&new.ca, &old.admin));
        assert!(cluster.believes_server(&new.ca, &new.server));
    }

    #[tokio::test]
    async fn another_clusters_authority_is_never_believed() {
        let (cluster, ours) = Cluster::new();
        let clock = Clock::fake(2);
        let folder = tempfile::tempdir().expect("a folder");
        let theirs = Pki::ensure(folder.path(), &["localhost".to_owned()], &clock).expect("made");
        let ours_now = cluster.rotate();
        for ours in [&ours, &ours_now] {
            assert!(!cluster.believes_server(&ours.ca, &theirs.server));
            assert!(!cluster.believes_client(&ours.ca, &theirs.admin));
            assert!(!cluster.believes_client(&theirs.ca, &ours.admin));
        }
    }
}
