//! The only way to read or write the cluster.
//!
//! Sits between the API server and everything that acts on the cluster: controllers, scheduler,
//! kubelet, services. It speaks kube's client over any tower service, so the same component runs
//! over the in-process API server and over HTTPS without noticing.
//!
//! ```text
//!                   one Reflector per kind and process
//!   API server ──list, watch──▶ cache ──▶ Lister (snapshot reads, no await)
//!       ▲                         └─────▶ handlers ──keys──▶ WorkQueue ──▶ a component's loop
//!       └──────── ObjectClient, EventRecorder: each component's own identity ◀──┘
//! ```
//!
//! Reads are shared, writes are not: [`SharedInformers`] holds one [`Informer`] per kind for the
//! whole process, while every [`Context`] writes under the name of its own component.
//!
//! A cache of all objects of a kind is for kinds of which all matter. Of others a component asks for those
//! that a field selector accepts ([`Context::watch_of`]), for some by name, each as long as it is needed
//! ([`NamedObjects`]), or for the metadata alone ([`MetadataSource`]).
//!
//! What it deliberately does not do: it knows no kinds (all code is generic), decides nothing, and
//! never retries a write. A conflict means "look again", and looking again is the caller's loop.
//!
//! # A component in a page
//!
//! ```no_run
//! use coracle_client::{Context, ObjectKey, Precondition, Outcome};
//! use k8s_openapi::api::core::v1::{ConfigMap, Pod};
//!
//! async fn run(ctx: Context) {
//!     let pods = ctx.lister::<Pod>();
//!     // The queue holds keys of pods: those that changed, and those that a changed ConfigMap maps to.
//!     let by_config_map = pods.clone();
//!     let queue = ctx
//!         .watch::<Pod>()
//!         .and::<ConfigMap>(move |change| {
//!             let namespace = ObjectKey::of(change.object().as_ref()).namespace;
//!             by_config_map.in_namespace(&namespace).iter().map(|pod| ObjectKey::of(pod.as_ref())).collect()
//!         })
//!         .into_queue()
//!         .await; // returns once every cache it reads is filled
//!     while let Some(key) = queue.next().await {
//!         let outcome = match pods.get(&key) {
//!             Some(pod) => {
//!                 let status = serde_json::json!({"status": {"message": "seen"}});
//!                 let when = Precondition::uid_of(pod.as_ref());
//!                 Outcome::from(ctx.objects().patch_status::<Pod>(&key, &when, status).await)
//!             }
//!             None => Outcome::Done,
//!         };
//!         queue.finish(key, outcome); // success forgets, failure backs off
//!     }
//! }
//! ```
//!
//! In wiring: `Context::new(client_factory, clock, stop).for_component("deployment-controller")`;
//! [`component_user`] says which user a component's name stands for.

mod context;
mod correlate;
mod dynamic;
mod error;
mod events;
mod informer;
mod key;
mod lister;
mod metadata;
mod named;
mod objects;
mod pending;
mod queue;
mod supervise;
mod uid;

pub use context::{ClientFactory, Context, QueueBuilder, component_user};
pub use dynamic::ServedResource;
pub use error::Error;
pub use events::{EventKind, EventRecorder, InvolvedObject};
pub use informer::{Change, Informer, SharedInformers};
pub use key::{Kind, ObjectKey, controller_of, is_controlled_by, is_terminating, uid};
pub use lister::Lister;
pub use metadata::{MetadataChange, MetadataHandler, MetadataSource};
pub use named::{NamedObjects, Unread};
pub use objects::{DeletePropagation, ObjectClient, Precondition};
pub use pending::PendingWrites;
pub use queue::{Outcome, QueueConfig, WeakQueue, WorkQueue};
pub use supervise::supervise;

pub use kube;
pub use kube::Client;
pub use kube::core::{ApiResource, DynamicObject, Selector};
pub use tokio_util::sync::CancellationToken;
