//! From an image's bytes to machine code, once per image.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_cri::{ImageError, ImageStep};
use coracle_image::{self as image, CacheEntry, CompiledCache, Digest, Images};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, oneshot};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::engine::GuestEngine;
use crate::link::{Linked, link};
use crate::threads::compiler_pool;
use crate::world::{NotRunnable, World};

/// Programs that stay loaded although no container runs them.
const UNUSED_PROGRAMS: usize = 32;
/// Modules that are compiled at once; each uses all threads of the pool.
const COMPILED_AT_ONCE: usize = 2;
/// How long a start waits for its code. The compiler goes on, so that the next try finds the code.
const PATIENCE: Duration = Duration::from_secs(180);

/// An image that is ready to be instantiated.
pub(crate) struct Program {
    pub(crate) world: World,
    pub(crate) linked: Linked,
}

/// Makes programs of images: looks into memory, then into the cache, then compiles.
pub(crate) struct Compiler {
    engine: Arc<GuestEngine>,
    images: Images,
    cache: CompiledCache,
    pool: rayon::ThreadPool,
    turns: Semaphore,
    programs: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Program>>>>>,
}

impl Compiler {
    pub(crate) fn new(
        engine: Arc<GuestEngine>,
        images: Images,
        cache: CompiledCache,
        threads: usize,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Self {
            engine,
            images,
            cache,
            pool: compiler_pool(threads)?,
            turns: Semaphore::new(COMPILED_AT_ONCE),
            programs: Mutex::default(),
        })
    }

    /// The machine code of `file`, which messages call `name`. Several callers for one file share the
    /// work; `progress` of the first of them hears of it.
    pub(crate) async fn program(
        &self,
        file: &image::Program,
        name: &str,
        progress: impl Fn(ImageStep) + Sync,
    ) -> Result<Arc<Program>, ImageError> {
        let cell = self.cell(file.digest);
        let program = cell
            .get_or_try_init(|| async {
                let bytes = self.images.bytes(file).await?;
                self.make(file.digest, name, bytes.into(), &progress).await
            })
            .await?;
        Ok(program.clone())
    }

    /// The program in `bytes`, which are part of this binary.
    pub(crate) async fn embedded(
        &self,
        name: &str,
        bytes: &'static [u8],
    ) -> Result<Arc<Program>, ImageError> {
        self.of_bytes(name, Cow::Borrowed(bytes)).await
    }

    /// The program in `bytes`, called `name` in messages.
    pub(crate) async fn bytes(
        &self,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Arc<Program>, ImageError> {
        self.of_bytes(name, Cow::Owned(bytes)).await
    }

    async fn of_bytes(
        &self,
        name: &str,
        bytes: Cow<'static, [u8]>,
    ) -> Result<Arc<Program>, ImageError> {
        let digest = Digest::of(&bytes);
        let cell = self.cell(digest);
        let program = cell
            .get_or_try_init(|| self.make(digest, name, bytes, &|_| {}))
            .await?;
        Ok(program.clone())
    }

    /// The place of a program; forgets programs that nobody runs when there are too many.
    fn cell(&self, digest: Digest) -> Arc<OnceCell<Arc<Program>>> {
        let mut programs = self.programs.lock();
        if programs.len() >= UNUSED_PROGRAMS && !programs.contains_key(&digest) {
            programs.retain(|_, cell| {
                let used = cell
                    .get()
                    .is_some_and(|program| Arc::strong_count(program) > 1);
                used || Arc::strong_count(cell) > 1
            });
        }
        programs.entry(digest).or_default().clone()
    }

    async fn make(
        &self,
        digest: Digest,
        name: &str,
        bytes: Cow<'static, [u8]>,
        progress: &(impl Fn(ImageStep) + Sync),
    ) -> Result<Arc<Program>, ImageError> {
        let not_runnable = |error: NotRunnable| ImageError::NotRunnable(format!("{name}: {error}"));
        let world = World::detect(&bytes).map_err(not_runnable)?;
        let entry = CacheEntry {
            image: digest,
            engine: self.engine.hash,
        };
        let code = match self.load(entry, world).await {
            Some(code) => code,
            None => {
                progress(ImageStep::Compiling {
                    bytes: bytes.len() as u64,
                });
                self.compile(entry, world, bytes, name).await?
            }
        };
        let linked = link(&self.engine.engine, world, &code).map_err(|error| {
            not_runnable(NotRunnable::unsupported(format!(
                "{}: {error:#}",
                world.describe()
            )))
        })?;
        progress(ImageStep::Ready);
        Ok(Arc::new(Program { world, linked }))
    }

    /// Code of an earlier run of the node, if it is there and whole.
    async fn load(&self, entry: CacheEntry, world: World) -> Option<Code> {
        let (cache, engine) = (self.cache.clone(), self.engine.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let path = cache.get(&entry)?;
            match Code::load(&engine.engine, world, &path) {
                Ok(code) => Some(code),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "compiled code is not usable");
                    None
                }
            }
        });
        loaded.await.ok().flatten()
    }

    async fn compile(
        &self,
        entry: CacheEntry,
        world: World,
        bytes: Cow<'static, [u8]>,
        name: &str,
    ) -> Result<Code, ImageError> {
        let failed = |what: &str| ImageError::NotRunnable(format!("{name}: {what}"));
        let work = async {
            let _turn = self
                .turns
                .acquire()
                .await
                .map_err(|_| failed("the node is stopping"))?;
            let (sender, receiver) = oneshot::channel();
            let (engine, cache) = (self.engine.clone(), self.cache.clone());
            self.pool.spawn(move || {
                // Nobody waits any more after PATIENCE; the code is in the cache for the next try.
                let _ = sender.send(Code::compile(&engine, world, &bytes, entry, &cache));
            });
            match receiver.await {
                Ok(Ok(code)) => Ok(code),
                Ok(Err(error)) => Err(failed(&format!("cannot be compiled: {error:#}"))),
                // The pool's panic handler has logged why.
                Err(_) => Err(failed("the compiler failed")),
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .unwrap_or_else(|_| {
                let seconds = PATIENCE.as_secs();
                Err(failed(&format!(
                    "compiling takes longer than {seconds} s, will be tried again"
                )))
            })
    }
}

/// Machine code that has no imports yet.
pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

impl Code {
    fn compile(
        guests: &GuestEngine,
        world: World,
        bytes: &[u8],
        entry: CacheEntry,
        cache: &CompiledCache,
    ) -> wasmtime::Result<Self> {
        let machine_code = {
            let compiler = guests.for_compiling();
            match world {
                World::Preview1 { .. } => compiler.precompile_module(bytes)?,
                World::Command | World::Http => compiler.precompile_component(bytes)?,
            }
        };
        let engine = &guests.engine;
        if let Err(error) = cache.put(&entry, &machine_code) {
            tracing::warn!(%error, "compiled code cannot be kept and will be compiled again");
            return Self::of_bytes(engine, world, &machine_code);
        }
        match cache.get(&entry) {
            // Mapped from the file, its pages cost memory only when they are used.
            Some(path) => Self::load(engine, world, &path),
            None => Self::of_bytes(engine, world, &machine_code),
        }
    }

    #[expect(
        unsafe_code,
        reason = "machine code is trusted; its MAC proves that this node made it"
    )]
    fn load(engine: &Engine, world: World, path: &Path) -> wasmtime::Result<Self> {
        // SAFETY: `CompiledCache::get` verified that this node wrote the file for this engine, the
        // folder is private to the node, and entries are replaced by renames only.
        unsafe {
            Ok(match world {
                World::Preview1 { .. } => Self::Module(Module::deserialize_file(engine, path)?),
                World::Command | World::Http => {
                    Self::Component(Component::deserialize_file(engine, path)?)
                }
            })
        }
    }

    #[expect(
        unsafe_code,
        reason = "machine code is trusted; it was made a moment ago"
    )]
    fn of_bytes(engine: &Engine, world: World, machine_code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the bytes are what this engine's compiler has just returned.
        unsafe {
            Ok(match world {
                World::Preview1 { .. } => Self::Module(Module::deserialize(engine, machine_code)?),
                World::Command | World::Http => {
                    Self::Component(Component::deserialize(engine, machine_code)?)
                }
            })
        }
    }
}
