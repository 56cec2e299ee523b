//! Follows the objects, and keeps table, certificates and statuses as they say.
//!
//! ```text
//! Ingresses, classes, Services ──change──▶ build ──▶ Proxy (table), Resolver (certificates)
//! Secrets that are named  ──────────────▶   │
//!                                           ├──▶ statuses that are wrong
//!                                           └──▶ Events, for what stays wrong for a second
//! ```
//!
//! Endpoints are not followed: each request asks for those of its Service.

pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_client::{Context, EventKind, Lister, NamedObjects, ObjectKey, uid};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use crate::build::{Built, Problem, World, build, secrets};
use crate::certificates::{Resolver, SecretProblem, read};
use crate::proxy::Proxy;
use status::{Addresses, change};

/// How long a problem has to last before it is told: what belongs together is seldom applied at once.
const LASTS: Duration = Duration::from_secs(1);
/// The least time between two tables. Changes come in floods.
const PACE: Duration = Duration::from_millis(20);
/// How long is waited for Secrets that are named for the first time.
const SECRETS: Duration = Duration::from_secs(1);
/// When statuses that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the authority's certificates are made anew.
const ANEW: Duration = Duration::from_secs(12 * 3600);
/// Who wants the Secrets.
const OWNER: &str = "ingress";

/// What the loop works with.
pub(crate) struct Controller {
    context: Context,
    proxy: Arc<Proxy>,
    resolver: Arc<Resolver>,
    addresses: Addresses,
    ingresses: Lister<Ingress>,
    classes: Lister<IngressClass>,
    services: Lister<Service>,
    secrets: NamedObjects<Secret>,
    changed: Arc<Notify>,
    /// Certificates by Secret, as of a resourceVersion.
    read: HashMap<ObjectKey, (String, Certificate)>,
    /// When each problem of an Ingress (by UID) was first seen, and whether it was told.
    problems: HashMap<String, HashMap<Problem, Seen>>,
}

type Certificate = Result<Arc<CertifiedKey>, SecretProblem>;

struct Seen {
    since: Duration,
    told: bool,
}

/// Wakes a controller up, as long as it is there.
#[derive(Clone)]
struct Wake(Weak<Notify>);

impl Wake {
    /// False once it is gone.
    fn up(&self) -> bool {
        let there = self.0.upgrade();
        there.inspect(|changed| changed.notify_one()).is_some()
    }
}

impl Controller {
    /// Follows the objects from now on. Must be called within a tokio runtime.
    pub(crate) fn new(
        context: Context,
        proxy: Arc<Proxy>,
        resolver: Arc<Resolver>,
        addresses: Addresses,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let (ingresses, classes, services) = (
            context.informer::<Ingress>(),
            context.informer::<IngressClass>(),
            context.informer::<Service>(),
        );
        // A controller that is started again has a wake-up of its own; the old one must not be kept.
        let wake = Wake(Arc::downgrade(&changed));
        let (one, two, three, four) = (wake.clone(), wake.clone(), wake.clone(), wake);
        ingresses.subscribe_while(move |_| one.up());
        classes.subscribe_while(move |_| two.up());
        services.subscribe_while(move |_| three.up());
        let secrets = NamedObjects::new(
            context.client().clone(),
            context.stop().clone(),
            move |_| {
                four.up();
            },
        );
        Self {
            ingresses: ingresses.lister(),
            classes: classes.lister(),
            services: services.lister(),
            secrets,
            context,
            proxy,
            resolver,
            addresses,
            changed,
            read: HashMap::new(),
            problems: HashMap::new(),
        }
    }

    /// Follows until the context's stop signal.
    pub(crate) async fn run(mut self) {
        let stop = self.context.stop().clone();
        let work = async {
            tokio::join!(
                self.ingresses.synced(),
                self.classes.synced(),
                self.services.synced()
            );
            let mut anew = self.context.clock().monotonic() + ANEW;
            loop {
                let next = self.round().await;
                let clock = self.context.clock().clone();
                let now = clock.monotonic();
                if now >= anew {
                    self.resolver.forget();
                    anew = now + ANEW;
                }
                let next = next.unwrap_or(ANEW).min(anew - now);
                tokio::select! {
                    () = self.changed.notified() => clock.sleep(PACE).await,
                    () = clock.sleep(next) => {}
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Looks at everything once; says when to look again if nothing changes.
    async fn round(&mut self) -> Option<Duration> {
        self.want_secrets().await;
        let built = self.build();
        let Built {
            table,
            certificates,
            served,
        } = built;
        let table = Arc::new(table);
        self.proxy.replace(table.clone());
        self.resolver.replace(Arc::new(certificates), table);
        let failed = self.write_statuses(&served).await;
        let due = self.tell(&served);
        let retry = failed.then_some(RETRY);
        [retry, due].into_iter().flatten().min()
    }

    async fn want_secrets(&self) {
        let none = |_: &ObjectKey| None;
        let wanted = secrets(&World {
            ingresses: self.ingresses.list(),
            classes: self.classes.list(),
            service: &none,
            secret: &|_| Err(SecretProblem::Missing),
        });
        // One that is not read by then is told of by a change.
        let _ = tokio::time::timeout(SECRETS, self.secrets.want(OWNER, wanted)).await;
    }

    fn build(&mut self) -> Built {
        let known = std::mem::take(&mut self.read);
        let read_now = std::cell::RefCell::new(HashMap::new());
        let secret = |key: &ObjectKey| -> Certificate {
            let Some(secret) = self.secrets.get(key) else {
                return Err(SecretProblem::Missing);
            };
            let version = secret.metadata.resource_version.clone().unwrap_or_default();
            let certificate = match known.get(key) {
                Some((of, certificate)) if *of == version => certificate.clone(),
                _ => read(&secret),
            };
            let entry = (version, certificate.clone());
            read_now.borrow_mut().insert(key.clone(), entry);
            certificate
        };
        let built = build(&World {
            ingresses: self.ingresses.list(),
            classes: self.classes.list(),
            service: &|key| self.services.get(key),
            secret: &secret,
        });
        self.read = read_now.into_inner();
        built
    }

    /// Brings all statuses to what they should be; true if some could not be written.
    async fn write_statuses(&self, served: &[(Arc<Ingress>, BTreeSet<Problem>)]) -> bool {
        let ours: BTreeSet<&str> = served
            .iter()
            .map(|(ingress, _)| uid(ingress.as_ref()))
            .collect();
        let mut failed = false;
        for ingress in self.ingresses.list() {
            let is_served = ours.contains(uid(ingress.as_ref()));
            let Some(patch) = change(&ingress, is_served, &self.addresses) else {
                continue;
            };
            let written = self
                .context
                .objects()
                .update_status(ingress.as_ref(), &patch)
                .await;
            match written {
                Ok(_) if is_served => self.context.recorder().event(
                    ingress.as_ref(),
                    EventKind::Normal,
                    "Served",
                    self.addresses.to_string(),
                ),
                Ok(_) => {}
                // Whoever wrote or deleted it brings it here again.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    let key = ObjectKey::of(ingress.as_ref());
                    tracing::debug!(%key, error = error.message(), "a status was not written");
                    failed = true;
                }
            }
        }
        failed
    }

    /// Tells of problems that last; says when the next one will have.
    fn tell(&mut self, served: &[(Arc<Ingress>, BTreeSet<Problem>)]) -> Option<Duration> {
        let now = self.context.clock().monotonic();
        let mut before = std::mem::take(&mut self.problems);
        let mut next: Option<Duration> = None;
        for (ingress, problems) in served {
            if problems.is_empty() {
                continue;
            }
            let mut known = before.remove(uid(ingress.as_ref())).unwrap_or_default();
            let mut seen = HashMap::new();
            for problem in problems {
                let mut this = known.remove(problem).unwrap_or(Seen {
                    since: now,
                    told: false,
                });
                let left = LASTS.saturating_sub(now.saturating_sub(this.since));
                if !this.told && left.is_zero() {
                    this.told = true;
                    self.context.recorder().event(
                        ingress.as_ref(),
                        EventKind::Warning,
                        problem.reason(),
                        problem.to_string(),
                    );
                } else if !this.told {
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
                seen.insert(problem.clone(), this);
            }
            self.problems.insert(uid(ingress.as_ref()).to_owned(), seen);
        }
        next
    }
}
