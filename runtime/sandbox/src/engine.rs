//! The one wasmtime engine of a node, and the ticker that makes guests take turns.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use crate::weight::Contest;

/// Length of a tick: a guest runs for a whole number of ticks before it has to yield.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a running guest after which the ticker goes to sleep.
const TICKS_BEFORE_SLEEP: u32 = 20;

/// Mappings of memory that one instance needs at most; see [`instance_ceiling`].
const MAPPINGS_PER_INSTANCE: u32 = 8;
/// Mappings that are left for everything else in the process, with the stacks of [`with_spare`].
const SPARE_MAPPINGS: u32 = 12_192;

/// How much of its memory an instance leaves in place for the next one of its slot.
const KEEP_RESIDENT: usize = 256 << 10;

/// Stack of a guest and of the host functions that it calls.
const STACK_BYTES: usize = 1 << 20;
/// The part of it that wasm may use.
const WASM_STACK_BYTES: usize = 512 << 10;

/// An engine with its compatibility hash.
pub(crate) struct GuestEngine {
    pub(crate) engine: Engine,
    /// Names what compiled code depends on beside the module.
    pub(crate) hash: u64,
    pub(crate) ticker: Ticker,
    /// Where guests compete for threads.
    pub(crate) contest: Arc<Contest>,
}

impl GuestEngine {
    /// Makes the engine for at most `instances` at once. Where the pooling allocator cannot reserve
    /// its address space, instances are allocated one by one.
    pub(crate) fn new(instances: u32) -> wasmtime::Result<Self> {
        let engine = match Engine::new(&config(Some(instances))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "no room for a pool of instances, starting will be slower");
                Engine::new(&config(None))?
            }
        };
        Ok(Self {
            hash: hash_of(&engine),
            ticker: Ticker::start(&engine),
            contest: Arc::default(),
            engine,
        })
    }

    /// An engine to compile one module with, and to drop afterwards.
    ///
    /// Its code is what `self` loads. A compiler keeps its working memory, many megabytes, for the next module; on a
    /// node that seldom compiles it is better given back.
    pub(crate) fn for_compiling(&self) -> Engine {
        match Engine::new(&config(Some(1))) {
            Ok(engine) if hash_of(&engine) == self.hash => engine,
            // The node's own has no pool either, and code for pools is not code for it.
            _ => self.engine.clone(),
        }
    }
}

fn hash_of(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn config(pool: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .async_stack_size(STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES);
    if let Some(instances) = pool {
        let mut pool = PoolingAllocationConfig::new();
        // A component is made of several core instances: its own, adapters and shims.
        pool.total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(8))
            .total_memories(with_spare(instances))
            .total_tables(instances.saturating_mul(4))
            .total_stacks(with_spare(instances))
            .total_gc_heaps(instances)
            .max_core_instances_per_component(200)
            .max_memories_per_component(20)
            .max_tables_per_component(200)
            .max_core_instance_size(8 << 20)
            .max_component_instance_size(8 << 20)
            .table_elements(200_000)
            // An idle node keeps next to nothing of instances that have gone.
            .max_unused_warm_slots(16)
            // Where the system says which pages were written, only those are reset, and kept for
            // the next instance; elsewhere the bound is what every reset costs.
            .pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(16 << 10)
            .async_stack_keep_resident(16 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Stacks and memories for so many instances. One of them may run several tasks or have several memories, not all of
/// them at once: each memory is 4 GiB of addresses, of which there are 128 TiB, and each stack two mappings from the
/// start on.
fn with_spare(instances: u32) -> u32 {
    instances.saturating_add(instances.min(2_000))
}

/// What the system admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// Mappings of memory of one process: `vm.max_map_count`.
    pub(crate) mappings: u64,
    /// Instances that this is enough for.
    pub(crate) instances: u32,
}

/// How many instances this process can hold: every one takes a few mappings of memory, and a process
/// that crosses the system's limit of mappings breaks as a whole. `None` where there is no limit.
pub(crate) fn instance_ceiling() -> Option<Ceiling> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    let mappings: u64 = text.trim().parse().ok()?;
    let usable = mappings.saturating_sub(u64::from(SPARE_MAPPINGS));
    let instances = u32::try_from(usable / u64::from(MAPPINGS_PER_INSTANCE)).unwrap_or(u32::MAX);
    Some(Ceiling {
        mappings,
        instances: instances.max(16),
    })
}

/// Advances the engine's epoch while a guest runs, and sleeps otherwise: an idle node is idle.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

#[derive(Default)]
struct Shared {
    /// Guests that are executing on some thread at this moment.
    running: AtomicUsize,
    asleep: AtomicBool,
    stopped: AtomicBool,
}

/// A guest executes while this lives.
pub(crate) struct Running<'a>(&'a Shared);

impl Ticker {
    fn start(engine: &Engine) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, engine) = (shared.clone(), engine.weak());
        let spawned = thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || tick(&theirs, &engine))
            .expect("a thread can be made at start");
        Self {
            shared,
            thread: spawned.thread().clone(),
        }
    }

    /// Keeps the epoch moving until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        // Either this load sees `asleep`, or the ticker's load after setting it sees the guest.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }

    #[cfg(test)]
    fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::SeqCst)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle_ticks = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle_ticks = 0;
        } else {
            idle_ticks += 1;
        }
        if idle_ticks > TICKS_BEFORE_SLEEP {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.running.load(Ordering::SeqCst) == 0 && !shared.stopped.load(Ordering::SeqCst)
            {
                thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle_ticks = 0;
            continue;
        }
        thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_sleeps_while_nothing_runs_and_wakes_for_a_guest() {
        let guests = GuestEngine::new(16).unwrap();
        while !guests.ticker.is_asleep() {
            thread::yield_now();
        }
        let running = guests.ticker.enter();
        while guests.ticker.is_asleep() {
            thread::yield_now();
        }
        drop(running);
        while !guests.ticker.is_asleep() {
            thread::yield_now();
        }
    }

    #[test]
    fn an_engine_for_compiling_makes_code_for_the_node() {
        let guests = GuestEngine::new(16).unwrap();
        let compiling = guests.for_compiling();
        assert!(!Engine::same(&compiling, &guests.engine));
        assert_eq!(hash_of(&compiling), guests.hash);
    }

    #[test]
    fn a_pool_for_ten_thousand_pods_has_room() {
        let most = instance_ceiling().map_or(11_000, |ceiling| ceiling.instances.min(11_000));
        Engine::new(&config(Some(most))).unwrap();
    }

    #[test]
    fn the_same_settings_have_the_same_hash() {
        assert_eq!(
            GuestEngine::new(16).unwrap().hash,
            GuestEngine::new(16).unwrap().hash
        );
    }
}
