//! Images: what a reference means, where its bytes come from, and where a node keeps them.
//!
//! ```text
//! reference ──▶ Images::ensure ──▶ ImageStore (names ─▶ digest ─▶ bytes)
//!                   │                   ▲
//!                   └─▶ ImageSource ────┘        CompiledCache (digest + engine ─▶ machine code)
//!                       file: · registry
//! ```
//!
//! The pod runtime asks [`Images::ensure`] for a digest, compiles the bytes with its own engine and
//! keeps the machine code in the [`CompiledCache`]. `coracle image load` writes into the same
//! [`ImageStore`] while a node runs: every entry is a file of its own, put in place by a rename.
//!
//! This crate never looks into the bytes. Whether they are WebAssembly, and of which world, is the
//! sandbox's business; so is compiling.

mod compiled;
mod digest;
mod file;
mod images;
mod reference;
mod source;
mod store;

pub use compiled::{CacheEntry, CompiledCache};
pub use digest::{Digest, InvalidDigest};
pub use file::FileSource;
pub use images::{Images, ImagesConfig};
pub use reference::{InvalidReference, Name, Reference};
pub use source::{ImageSource, NoRegistry};
pub use store::{ImageStore, LoadError, StoreError, StoredImage};
