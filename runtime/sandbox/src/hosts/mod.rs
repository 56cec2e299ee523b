//! Interfaces for components that no package of wasmtime's implements as a pod needs them:
//! `wasi:config`, `wasi:keyvalue` and `wasi:logging`.
//!
//! All three are proposals that WASI has not released. Their names carry the version of a draft, and
//! a guest imports exactly the one that it was built with; the names here are those in use.

mod config;
pub(crate) mod keyvalue;
mod logging;

use wasmtime::component::Linker;

use crate::link::ComponentState;

/// Adds all of them.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    config::add_to_linker(linker)?;
    keyvalue::add_to_linker(linker)?;
    logging::add_to_linker(linker)
}
