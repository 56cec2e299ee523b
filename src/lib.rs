//! The parts of the `coracle` binary: flags, wiring, shutdown, and nothing else.
//!
//! ```text
//! main ─▶ cli ─▶ up ─┬─▶ data_dir, pki, kubeconfig, listeners      what a start needs
//!                    ├─▶ cluster                                   wires the crates together
//!                    └─▶ manifests ─▶ apply ─▶ ready               what -f does
//! ```
//!
//! It is a library so that the tests of a whole cluster in memory assemble it with the same code,
//! over a fake clock and a fake pod runtime.

pub mod allocator;
pub mod apply;
pub mod cli;
pub mod cluster;
pub mod data_dir;
pub mod files;
pub mod identity;
pub mod image;
pub mod kubeconfig;
pub mod line_log;
pub mod listeners;
pub mod manifests;
pub mod net;
pub mod open_files;
pub mod pki;
pub mod program_pages;
pub mod ready;
mod storage;
pub mod up;
