//! Runs pods as WebAssembly: one wasmtime engine, a network namespace and a memory budget per pod,
//! an instance per container or per request.
//!
//! ```text
//! PodRuntime ─▶ WasmRuntime ─▶ Pod ─▶ Run ─▶ container::{command, http}
//!                  │                            │ instances on the guests' own threads,
//!                  ├─ Compiler (image ─▶ code)  │ metered (cpu), limited (memory),
//!                  └─ GuestEngine, ticker       └ logged (logs), linked (link, sockets)
//! ```
//!
//! [`WasmRuntime`] implements `coracle_cri::PodRuntime`; the kubelet knows no more of it than that
//! trait, and it knows no Kubernetes kinds. It can be embedded without a cluster.
//!
//! Guests get nothing that their configuration does not give: no environment, no folder of the host,
//! no socket of the host. Restarting, probing, pulling schedules and status
//! belong to the caller.

mod attach;
mod compile;
mod container;
mod cpu;
mod engine;
mod exec;
mod exit;
mod handles;
mod handover;
mod hosts;
mod image;
mod link;
mod logs;
mod memory;
mod metered;
mod network_status;
mod places;
mod pod;
mod preopens;
mod runtime;
mod sockets;
mod standing;
mod stats;
mod stopwatch;
mod termination;
mod threads;
mod tls;
mod weight;
mod world;

pub use runtime::{SandboxConfig, SandboxError, Usage, WasmRuntime};
pub use tls::{BadTrust, TlsTrust};
pub use world::{NotRunnable, World};
