//! A whole cluster in memory: the real API server, controllers, scheduler and kubelet over an
//! in-memory store, a fake pod runtime and a paused clock. No socket, no file but the pods' own.

mod harness;
mod metrics;
mod pods;
mod restarts;
mod rollouts;
