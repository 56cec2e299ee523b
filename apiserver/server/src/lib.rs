//! The API server: everything between a request and the store, as one request→response service.
//!
//! It sits between clients (kubectl over TLS, components in the same process) and the store. A request is
//! authenticated, authorised and parsed; reads are answered from the [watch cache](cache), which holds every object as
//! ready-to-send JSON; writes run through decoding, defaults, admission, validation and allocation into the store, and
//! are answered when the cache has them. Everything is generic over the kinds' descriptors in `coracle-api`: no handler
//! knows a kind, apart from the few subresources that are about one.
//!
//! What it deliberately does not do: it opens no sockets (the binary hands it byte streams), reads no files, runs no
//! controllers, and knows no node but through the [`NodeDialer`] it was given.

pub mod admission;
pub mod allocate;
mod answer;
pub mod audit;
pub mod authn;
pub mod authz;
mod body;
mod bootstrap;
pub mod cache;
mod call;
mod components;
pub mod config;
mod connection;
mod decode;
mod defaults;
mod detached;
mod dialer;
mod discovery;
mod encoded;
mod expiring;
mod flowcontrol;
mod gzip;
mod health;
mod held;
mod items;
mod limits;
mod listen;
mod lists;
pub mod manifest;
mod metadata;
mod metrics;
mod negotiate;
mod openapi;
mod openid;
mod options;
pub mod outgoing;
mod pause;
mod request_info;
mod reviews;
mod selection;
mod serve;
mod server;
mod service;
mod status;
mod storage;
mod subresources;
mod table;
mod usage;
mod verbs;
mod versions;

pub use authn::Identity;
pub use body::{Body, BoxError};
pub use bootstrap::BootstrapError;
pub use cache::StartError;
pub use dialer::{ClusterDialer, Connection, DialError, NoCluster, NoNodes, NodeDialer, Upgraded};
pub use health::{Check, KUBERNETES_VERSION};
pub use request_info::{Query, RequestInfo};
pub use serve::ServeError;
pub use server::Server;
pub use service::{ApiServer, Config, MetricsSource, WithoutManagedFields};
pub use status::{ApiError, Result};
