//! Looks after the certificates while the cluster runs: makes those anew that are due, and follows `coracle pki`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_clock::Clock;
use coracle_controllers::Published;
use coracle_sandbox::TlsTrust;
use coracle_server::authn::SharedAuthorities;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::serve::Tls;
use super::trust::Clients;
use crate::kubeconfig;
use crate::pki::{CurrentAuthority, Pki, ServerCertificate, client_authorities, server_config};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Everything that shows, believes or publishes certificates.
pub(super) struct Renewal {
    /// What is in force, see [`known`].
    pub(super) known: String,
    /// The folder of the certificates.
    pub(super) folder: PathBuf,
    /// The cluster's own kubeconfig.
    pub(super) kubeconfig: PathBuf,
    /// Whether the user's kubeconfig is kept too.
    pub(super) users_kubeconfig: bool,
    /// The names of the server.
    pub(super) names: Vec<String>,
    /// The address in kubeconfigs.
    pub(super) url: String,
    /// What the server shows.
    pub(super) shown: Arc<ServerCertificate>,
    /// Which authorities it tells clients.
    pub(super) tls: Arc<Tls>,
    /// Whom it believes.
    pub(super) authorities: Arc<SharedAuthorities>,
    /// Who signs what the API approves.
    pub(super) authority: Arc<CurrentAuthority>,
    /// Whom it believes besides the cluster's own authority.
    pub(super) clients: Clients,
    /// What the cluster publishes.
    pub(super) publish: watch::Sender<Arc<Published>>,
    /// Whom guests believe, and under which names.
    pub(super) guests: Option<(Arc<TlsTrust>, Vec<String>)>,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

/// What is in force, to be compared.
pub(super) fn known(pki: &Pki) -> String {
    [&*pki.server.certificate, &pki.admin.certificate, &pki.ca].concat()
}

/// Looks every half minute until the stop.
pub(super) async fn keep(renewal: Renewal) {
    let mut last = renewal.known.clone();
    while renewal
        .stop
        .run_until_cancelled(renewal.clock.sleep(LOOK))
        .await
        .is_some()
    {
        let kept = tokio::task::block_in_place(|| renewal.look(&mut last));
        if let Err(error) = kept {
            tracing::warn!("failed to renew the certificates; the old ones are kept: {error:#}");
        }
    }
}

impl Renewal {
    fn look(&self, last: &mut String) -> Result<()> {
        let pki = Pki::ensure(&self.folder, &self.names, &self.clock)?;
        let now = known(&pki);
        if now == *last {
            return Ok(());
        }
        // Whom others believe goes first, so that nobody is shown what they cannot know.
        self.publish
            .send_if_modified(|published| match self.clients.published(&pki.ca) {
                same if same == *published => false,
                new => {
                    *published = new;
                    true
                }
            });
        if let Some((trust, names)) = &self.guests {
            trust
                .set_cluster(names.clone(), &pki.ca)
                .context("failed to let pods trust the cluster's authority")?;
        }
        let users = self.clients.users(&pki.ca);
        self.authorities.set(client_authorities(&users)?);
        self.shown.replace(&pki.server)?;
        let config = server_config(self.shown.clone(), &self.clients.all(&pki.ca))?;
        self.tls.replace(config);
        self.authority.replace(pki.authority.clone());
        let config = kubeconfig::new(&self.url, &pki.ca, &pki.admin);
        kubeconfig::write(&self.kubeconfig, &config)?;
        if self.users_kubeconfig {
            // Somebody else's hold of it is no reason to do all of this again and again.
            if let Err(error) = kubeconfig::merge_into_users(&config) {
                tracing::warn!("the user's kubeconfig keeps the old certificate: {error:#}");
            }
        }
        *last = now;
        Ok(())
    }
}
