//! Images: what a reference means, where its bytes come from, and where a node keeps them.
//!
//! ```text
//! reference ──▶ Images::ensure ──▶ ImageStore (names ─▶ digest ─▶ manifest ─▶ blobs, root)
//!                   │                   ▲
//!                   ├─▶ file: ──────────┤            CompiledCache (digest + engine ─▶ machine code)
//!                   └─▶ ImageSource ────┘
//!                        RegistrySource: mirrors, credentials, retries, resumed blobs
//! ```
//!
//! The pod runtime asks [`Images::ensure`] for a digest, [`Images::setup`] for the file to compile
//! and what comes with it, compiles with its own engine and keeps the machine code in the
//! [`CompiledCache`]. The command line writes into the same [`ImageStore`] while a node runs.
//!
//! What an image is made of, [`Layout`] decides; whether its program is WebAssembly of a world that
//! runs here is the sandbox's business, and so is compiling.

mod archive;
mod build;
mod compiled;
mod content;
mod digest;
mod file;
#[cfg(test)]
mod hostile_tests;
mod images;
mod keyring;
mod layout;
mod pull;
mod push;
mod reference;
mod registry;
mod seen;
mod source;
mod spec;
mod store;
mod unpack;

pub use archive::{ArchiveError, Loaded, load_archive, save_archive};
pub use build::{Build, BuildError};
pub use compiled::{CacheEntry, CompiledCache};
pub use content::Described;
pub use digest::{Digest, InvalidDigest};
pub use file::FileSource;
pub use images::{ImageSetup, Images, ImagesConfig, Program};
pub use keyring::{Credential, InvalidCredentials, Keyring};
pub use layout::{Layout, NotWasm, Use};
pub use pull::{Progress, RegistryConfig, RegistrySource};
pub use reference::{InvalidReference, Name, Reference};
pub use registry::{Patience, RegistryError};
pub use source::{ImageSource, NoRegistry, Pull};
pub use spec::{Descriptor, ImageConfig, Manifest, Platform, RunConfig, media};
pub use store::{ImageInfo, ImageStore, LoadError, Origin, Record, StoreError, StoredImage};
