//! The controllers: what turns asked-for into there.
//!
//! Every folder is one controller in two halves. `reconcile.rs` is pure: it takes a `World` (what
//! the caches show, the time, a seed) and returns the writes that bring it nearer to what its
//! owner asked for. `mod.rs` is thin: it waits for keys, builds the world, and does the writes. A
//! world that is as it should be yields no writes, and a crash between any two of them is made good
//! by the next round.
//!
//! Controllers speak to the API server and nobody else, each under its own name, and read from the
//! process's shared caches. What is deliberately not here: anything that a node decides (pods'
//! phases, restarts) and where pods run (the scheduler).
//!
//! ```no_run
//! # async fn example(ctx: coracle_client::Context) {
//! // Runs until the context's stop token is cancelled; a controller that panics is started again.
//! coracle_controllers::run_all(ctx, None).await;
//! # }
//! ```

mod authenticationtrust;
mod certificates;
mod clusterroleaggregation;
mod days;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeralvolume;
#[cfg(test)]
mod fixtures;
mod garbagecollector;
mod ipallocator;
mod legacytokencleaner;
mod legacytokentracking;
mod localprovisioner;
mod namespace;
mod nodelifecycle;
mod pace;
mod patch;
mod persistentvolume;
mod podgc;
mod pods;
mod pvcprotection;
mod pvprotection;
mod replicaset;
mod rootca;
mod serviceaccount;
mod serviceaccounttoken;
mod servicecidrs;
mod worker;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use certificates::{CertificateAuthority, CertificateRequest, Terms, run_certificates};
use coracle_client::{Context, supervise};
use futures::future::{join, join_all, join3};
use k8s_openapi::api::core::v1::ServiceAccount;
pub use localprovisioner::{LocalVolumes, PROVISIONER, run_local_provisioner};
use tokio::sync::watch;

/// How long a controller waits for its caches to show its own writes before it looks again anyway.
const EXPECTATION_DEADLINE: Duration = Duration::from_secs(5);

type Run = fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// What controllers hand on of the cluster's identity.
pub struct ClusterTrust {
    /// What is published, and whatever takes its place while the cluster runs.
    pub published: watch::Receiver<Arc<Published>>,
    /// Signs the token of an account for the Secret of that name; the error says why it cannot.
    pub sign: TokenSigner,
}

/// What everybody in the cluster may read to know whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The certificates of the authorities that sign the API server's, in PEM form.
    pub authority: Arc<str>,
    /// How the API server knows its clients: the data of the ConfigMap
    /// `kube-system/extension-apiserver-authentication`.
    pub authentication: BTreeMap<String, String>,
}

impl Published {
    /// This authority and nothing else, for ever.
    pub fn fixed(authority: impl Into<Arc<str>>) -> watch::Receiver<Arc<Self>> {
        let published = Self {
            authority: authority.into(),
            authentication: BTreeMap::new(),
        };
        watch::channel(Arc::new(published)).1
    }
}

impl ClusterTrust {
    fn authority(&self) -> Arc<str> {
        Arc::clone(&self.published.borrow().authority)
    }
}

/// Calls `again` whenever something else is published; never ends.
async fn when_published_anew(trust: &ClusterTrust, mut again: impl FnMut()) {
    let mut published = trust.published.clone();
    while published.changed().await.is_ok() {
        again();
    }
    std::future::pending().await
}

/// See [`ClusterTrust::sign`].
pub type TokenSigner = Arc<dyn Fn(&ServiceAccount, &str) -> Result<String, String> + Send + Sync>;

/// Every controller that needs nothing but its context, by the name under which it writes.
const CONTROLLERS: [(&str, Run); 20] = [
    (clusterroleaggregation::NAME, |ctx| {
        Box::pin(clusterroleaggregation::run(ctx))
    }),
    (deployment::NAME, |ctx| Box::pin(deployment::run(ctx))),
    (disruption::NAME, |ctx| Box::pin(disruption::run(ctx))),
    (endpoints::NAME, |ctx| Box::pin(endpoints::run(ctx))),
    (endpointslice::NAME, |ctx| Box::pin(endpointslice::run(ctx))),
    (endpointslicemirroring::NAME, |ctx| {
        Box::pin(endpointslicemirroring::run(ctx))
    }),
    (ephemeralvolume::NAME, |ctx| {
        Box::pin(ephemeralvolume::run(ctx))
    }),
    (ipallocator::NAME, |ctx| Box::pin(ipallocator::run(ctx))),
    (legacytokencleaner::NAME, |ctx| {
        Box::pin(legacytokencleaner::run(ctx))
    }),
    (legacytokentracking::NAME, |ctx| {
        Box::pin(legacytokentracking::run(ctx))
    }),
    (namespace::NAME, |ctx| Box::pin(namespace::run(ctx))),
    (nodelifecycle::NAME, |ctx| Box::pin(nodelifecycle::run(ctx))),
    (persistentvolume::NAME, |ctx| {
        Box::pin(persistentvolume::run(ctx))
    }),
    (podgc::NAME, |ctx| Box::pin(podgc::run(ctx))),
    (pvcprotection::NAME, |ctx| Box::pin(pvcprotection::run(ctx))),
    (pvprotection::NAME, |ctx| Box::pin(pvprotection::run(ctx))),
    (replicaset::NAME, |ctx| Box::pin(replicaset::run(ctx))),
    (serviceaccount::NAME, |ctx| {
        Box::pin(serviceaccount::run(ctx))
    }),
    (servicecidrs::NAME, |ctx| Box::pin(servicecidrs::run(ctx))),
    // Last, so that it finds the caches of the others and needs few of its own.
    (garbagecollector::NAME, |ctx| {
        Box::pin(garbagecollector::run(ctx))
    }),
];

/// Runs every controller until the context is stopped. Each has a task and an identity of its own
/// (see [`coracle_client::component_user`]); one that panics is started again after a delay, and
/// takes nobody along. Without `trust`, nobody publishes the authority or fills Secrets with tokens.
pub async fn run_all(ctx: Context, trust: Option<ClusterTrust>) {
    let running = CONTROLLERS.map(|(name, run)| {
        let own = ctx.for_component(name);
        supervise(name, ctx.clock().clone(), ctx.stop().clone(), move || {
            run(own.clone())
        })
    });
    join(join_all(running), run_trusted(&ctx, trust)).await;
}

/// The controllers that hand on what `trust` has.
async fn run_trusted(ctx: &Context, trust: Option<ClusterTrust>) {
    let Some(trust) = trust.map(Arc::new) else {
        return;
    };
    let supervised = |name: &str| {
        (
            ctx.for_component(name),
            ctx.clock().clone(),
            ctx.stop().clone(),
        )
    };
    let publisher = {
        let (own, clock, stop) = supervised(rootca::NAME);
        let trust = Arc::clone(&trust);
        supervise(rootca::NAME, clock, stop, move || {
            rootca::run(own.clone(), Arc::clone(&trust))
        })
    };
    let clients = {
        let (own, clock, stop) = supervised(authenticationtrust::NAME);
        let trust = Arc::clone(&trust);
        supervise(authenticationtrust::NAME, clock, stop, move || {
            authenticationtrust::run(own.clone(), Arc::clone(&trust))
        })
    };
    let tokens = {
        let (own, clock, stop) = supervised(serviceaccounttoken::NAME);
        supervise(serviceaccounttoken::NAME, clock, stop, move || {
            serviceaccounttoken::run(own.clone(), Arc::clone(&trust))
        })
    };
    join3(publisher, clients, tokens).await;
}

/// The names of all controllers, which are also those of their service accounts.
pub fn names() -> impl Iterator<Item = &'static str> {
    let trusted = [
        rootca::NAME,
        authenticationtrust::NAME,
        serviceaccounttoken::NAME,
    ];
    CONTROLLERS.iter().map(|(name, _)| *name).chain(trusted)
}
