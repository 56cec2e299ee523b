//! The kubelet over the in-memory API server and a pod runtime that runs nothing.
//!
//! Time is virtual: five minutes of back-off pass in milliseconds, and a test that waits for ever
//! ends with the last state it saw.

mod ends;
mod eviction;
mod figures;
mod hooks;
mod images;
mod lifecycle;
mod logs;
mod node;
mod probes;
mod registration;
mod resize;
mod restart;
mod sidecars;
mod statics;
mod streams;
mod volumes;
