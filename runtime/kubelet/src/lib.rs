//! Makes the pods that are bound to this node real, and reports how they are.
//!
//! The kubelet watches pods through `coracle-client`, asks a pod runtime (`coracle-cri`) for
//! sandboxes, images and containers, and writes pod statuses back. It decides in [`step`], which is
//! pure; everything else carries decisions out. It never talks to a controller, to the scheduler or
//! to the store, and it does not know which runtime it drives.

mod actions;
mod admission;
mod api;
mod dns;
mod drain;
mod env_file;
mod environment;
mod eviction;
mod expand;
pub mod fields;
mod handlers;
mod hooks;
mod hostname;
pub mod images;
pub mod ipam;
mod kubelet;
pub mod logs;
mod node;
mod probe;
mod references;
mod resources;
mod sources;
mod state;
mod statics;
mod stats;
pub mod step;
mod streams;
mod tokens;
mod totals;
mod translate;
mod turns;
mod volumes;
mod worker;

pub use api::Body;
pub use images::ImageCollection;
pub use ipam::Ipam;
pub use kubelet::{Capacity, Kubelet, KubeletConfig};
pub use references::named_kind;
pub use stats::ServicesShown;
pub use streams::Upgraded;
pub use translate::PodDefaults;
