//! The kinds of the Kubernetes API: schema facts, defaults, validation, printed columns.
//!
//! Everything that the API server knows of one kind lives here, as tables and pure functions over a
//! dynamic [`Object`]; the server's handlers are generic. Adding a built-in kind is one file and one
//! line in [`kinds`]. Nothing here does I/O, waits, or reads a clock.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apply;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod cel;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod duration;
pub mod events;
pub mod field_errors;
pub mod flowcontrol;
pub mod gated;
pub mod kinds;
pub mod metrics;
pub mod networking;
pub mod node;
pub mod object;
pub mod patch;
pub mod policy;
pub mod protobuf;
pub mod quantity;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod schema;
pub mod selector;
pub mod storage;
pub mod strategy;
pub mod validation;

pub use field_errors::{FieldError, FieldErrors};
pub use kinds::{Registry, Resource};
pub use object::{At, Object};
pub use strategy::{Requester, Strategy};
