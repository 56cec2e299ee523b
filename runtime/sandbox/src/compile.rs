//! From an image's bytes to machine code, once per image.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_cri::{ImageError, ImageStep};
use coracle_image::{self as image, CacheEntry, CompiledCache, Digest, Images};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, watch};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::engine::GuestEngine;
use crate::link::{Linked, link};
use crate::threads::compiler_pool;
use crate::world::{NotRunnable, World};

/// Programs that stay loaded although no container runs them.
const UNUSED_PROGRAMS: usize = 32;
/// Modules that are compiled at once, by each of the pools; each uses all threads of its pool.
const COMPILED_AT_ONCE: usize = 2;
/// Modules beyond this many bytes have a pool of their own, so that minutes of work on one of them do
/// not hold up those that take seconds: the system shares the cores out among the threads of both.
const LARGE: usize = 6 << 20;
/// How long a start waits for its code: at least so long, and longer for more than so many bytes a
/// second. The compiler goes on, and the next try waits for the same work.
const PATIENCE: Duration = Duration::from_secs(180);
const SLOWEST: usize = 100 << 10;

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
    small: Pool,
    large: Pool,
    programs: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Program>>>>>,
    jobs: Arc<Mutex<HashMap<Digest, Job>>>,
}

/// Threads that compile.
struct Pool {
    threads: rayon::ThreadPool,
    turns: Arc<Semaphore>,
}

impl Pool {
    fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Self {
            threads: compiler_pool(threads)?,
            turns: Arc::new(Semaphore::new(COMPILED_AT_ONCE)),
        })
    }
}

/// A compilation that is going on: what came of it, once it is done.
type Job = watch::Receiver<Option<Result<Code, String>>>;

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
            small: Pool::new(threads)?,
            large: Pool::new(threads)?,
            programs: Mutex::default(),
            jobs: Arc::default(),
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
        let patience = PATIENCE.max(Duration::from_secs((bytes.len() / SLOWEST) as u64));
        let work = async {
            let mut job = self.job(entry, world, bytes).await;
            // The pool's panic handler has logged why nothing came.
            let done = job.wait_for(Option::is_some).await;
            let done = done.ok().and_then(|outcome| outcome.clone());
            done.unwrap_or_else(|| Err("the compiler failed".to_owned()))
        };
        let work = tokio::time::timeout(patience, work).await;
        let outcome = work.unwrap_or_else(|_| {
            let seconds = patience.as_secs();
            Err(format!(
                "compiling takes longer than {seconds} s and goes on; this will be tried again"
            ))
        });
        outcome.map_err(|why| failed(&why))
    }

    /// The compilation of `bytes`, begun if it is not going on. It ends by itself, whoever waits.
    async fn job(&self, entry: CacheEntry, world: World, bytes: Cow<'static, [u8]>) -> Job {
        if let Some(job) = self.jobs.lock().get(&entry.image).cloned() {
            return job;
        }
        let pool = match bytes.len() > LARGE {
            true => &self.large,
            false => &self.small,
        };
        let turn = pool.turns.clone().acquire_owned().await;
        let (sender, job) = watch::channel(None);
        match self.jobs.lock().entry(entry.image) {
            Entry::Occupied(other) => return other.get().clone(),
            Entry::Vacant(place) => place.insert(job.clone()),
        };
        let ended = Ended {
            jobs: self.jobs.clone(),
            image: entry.image,
        };
        let (engine, cache) = (self.engine.clone(), self.cache.clone());
        pool.threads.spawn(move || {
            let _held = (turn, ended);
            let code = Code::compile(&engine, world, &bytes, entry, &cache);
            let outcome = code.map_err(|error| format!("cannot be compiled: {error:#}"));
            sender.send_replace(Some(outcome));
        });
        job
    }
}

/// Forgets a compilation when it ends, in whatever way.
struct Ended {
    jobs: Arc<Mutex<HashMap<Digest, Job>>>,
    image: Digest,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.jobs.lock().remove(&self.image);
    }
}

/// Machine code that has no imports yet.
#[derive(Clone)]
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
                _ => compiler.precompile_component(bytes)?,
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
                _ => Self::Component(Component::deserialize_file(engine, path)?),
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
                _ => Self::Component(Component::deserialize(engine, machine_code)?),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_clock::Clock;
    use coracle_image::{ImageStore, ImagesConfig, NoRegistry};

    use super::*;

    #[tokio::test]
    async fn whoever_comes_again_waits_for_the_same_work() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let images = Images::new(ImagesConfig {
            store: ImageStore::open(folder.path().join("images"), clock.clone()).unwrap(),
            source: Arc::new(NoRegistry),
            allowed_folders: Vec::new(),
            max_bytes: 1 << 20,
        });
        let cache = CompiledCache::open(folder.path().join("cache"), 1 << 20, clock).unwrap();
        let engine = Arc::new(GuestEngine::new(16).unwrap());
        let compiler = Compiler::new(engine, images, cache, 1).unwrap();
        let functions = "(func (export \"f\") (param i32) (result i32) (local.get 0))";
        let functions: String = (0..2000)
            .map(|n| functions.replace("\"f\"", &format!("\"f{n}\"")))
            .collect();
        let bytes = wat::parse_str(format!("(module {functions})")).unwrap();
        let entry = CacheEntry {
            image: Digest::of(&bytes),
            engine: compiler.engine.hash,
        };
        let world = World::Preview1 { go: false };
        let first = compiler.job(entry, world, bytes.clone().into()).await;
        let second = compiler.job(entry, world, bytes.into()).await;
        assert!(first.same_channel(&second));
        let mut waiting = second;
        let done = waiting.wait_for(Option::is_some).await.unwrap().clone();
        assert!(matches!(done, Some(Ok(Code::Module(_)))));
        while !compiler.jobs.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
