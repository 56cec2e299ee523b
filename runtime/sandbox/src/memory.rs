//! Memory limits: a container's within its pod's within the node's.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wasmtime::ResourceLimiter;

/// Bytes that a table element takes.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Node,
    Pod,
    Container,
}

/// A limit was reached; ends the guest that wanted more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory limit of the {scope} exceeded: {used} bytes in use, {asked} more asked for, limit {limit}"
)]
pub(crate) struct OutOfMemory {
    pub(crate) scope: Scope,
    used: u64,
    asked: u64,
    limit: u64,
}

/// Counts the bytes of everything below it; charging goes up to the node.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    scope: Scope,
    /// May change while guests run.
    limit: AtomicU64,
    used: AtomicU64,
    /// What of it are files.
    files: AtomicU64,
    /// The most that was ever in use.
    peak: AtomicU64,
    parent: Option<Arc<MemoryBudget>>,
    /// The first refusal, kept for the exit status.
    refusal: OnceLock<OutOfMemory>,
}

impl MemoryBudget {
    /// The node's budget.
    pub(crate) fn node(limit: u64) -> Arc<Self> {
        Self::new(Scope::Node, limit, None)
    }

    /// A budget below this one; without a limit it has what its parent has.
    pub(crate) fn child(self: &Arc<Self>, scope: Scope, limit: Option<u64>) -> Arc<Self> {
        Self::new(scope, limit.unwrap_or(u64::MAX), Some(self.clone()))
    }

    fn new(scope: Scope, limit: u64, parent: Option<Arc<Self>>) -> Arc<Self> {
        let (limit, used) = (AtomicU64::new(limit), AtomicU64::new(0));
        let files = AtomicU64::new(0);
        let refusal = OnceLock::new();
        Arc::new(Self {
            scope,
            limit,
            used,
            files,
            peak: AtomicU64::new(0),
            parent,
            refusal,
        })
    }

    /// Sets another limit; what is in use beyond it stays, and nothing is added to it.
    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.limit
            .store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why it cannot have that limit: it would be a lower one than now, and below what is in use. Upstream's words.
    pub(crate) fn refuse(&self, limit: Option<u64>, whose: &str) -> Option<String> {
        let (limit, used) = (limit?, self.used());
        let is_lower = limit < self.limit.load(Ordering::Relaxed);
        (is_lower && used >= limit).then(|| {
            format!("attempting to set {whose} memory limit ({limit}) below current usage ({used})")
        })
    }

    /// Its own limit, if it has one.
    pub(crate) fn own_limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were in use at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The tightest limit here and above.
    pub(crate) fn limit(&self) -> u64 {
        let own = self.limit.load(Ordering::Relaxed);
        let above = self.parent.as_ref();
        above.map_or(own, |parent| parent.limit().min(own))
    }

    /// Why memory was refused, if it ever was.
    pub(crate) fn refusal(&self) -> Option<&OutOfMemory> {
        self.refusal.get()
    }

    /// Takes `bytes` here and in every budget above, or nowhere.
    pub(crate) fn charge(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|total| *total <= limit);
        let before = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|used| OutOfMemory {
                scope: self.scope,
                used,
                asked: bytes,
                limit,
            })?;
        let above = self
            .parent
            .as_ref()
            .map_or(Ok(()), |parent| parent.charge(bytes));
        if above.is_err() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        } else {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        above
    }

    /// Counts files that stand for memory, in place of those counted before. They are there already, so
    /// nothing is refused; what guests ask for from now on is.
    pub(crate) fn set_files(&self, bytes: u64) {
        let before = self.files.swap(bytes, Ordering::Relaxed);
        match bytes.checked_sub(before) {
            Some(more) => self.take(more),
            None => self.release(before - bytes),
        }
    }

    fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.take(bytes);
        }
    }

    /// Gives back what was taken.
    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.release(bytes);
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Container => "container",
        })
    }
}

/// The memories and tables of one store, charged to a container.
pub(crate) struct StoreMemory {
    budget: Arc<MemoryBudget>,
    charged: u64,
    /// The latest charge, taken back when the growth itself fails.
    latest: u64,
}

impl StoreMemory {
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Self {
        Self {
            budget,
            charged: 0,
            latest: 0,
        }
    }

    /// Bytes that the store holds.
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    fn grow(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        let bytes = bytes as u64;
        match self.budget.charge(bytes) {
            Ok(()) => {
                self.charged += bytes;
                self.latest = bytes;
                Ok(true)
            }
            Err(refusal) => {
                // The first refusal counts; a guest that goes on after it has already lost.
                let _ = self.budget.refusal.set(refusal.clone());
                Err(refusal.into())
            }
        }
    }

    fn take_back(&mut self) {
        let bytes = std::mem::take(&mut self.latest);
        self.charged -= bytes;
        self.budget.release(bytes);
    }
}

/// Growth past a limit is an error, which traps, and not a mere `false`: a guest that ignores a
/// failed `memory.grow` would go on in a state that its author never saw.
impl ResourceLimiter for StoreMemory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.latest = 0;
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "linear memory did not grow");
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.latest = 0;
            return Ok(false);
        }
        self.grow(
            desired
                .saturating_sub(current)
                .saturating_mul(TABLE_ELEMENT_BYTES),
        )
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "table did not grow");
        self.take_back();
        Ok(())
    }
}

impl Drop for StoreMemory {
    fn drop(&mut self) {
        self.budget.release(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_not_lowered_below_what_is_in_use() {
        let pod = MemoryBudget::node(1000).child(Scope::Pod, Some(100));
        pod.charge(60).unwrap();
        for (limit, refused) in [
            (Some(200), None),
            (None, None),
            (Some(61), None),
            (
                Some(60),
                Some("attempting to set pod memory limit (60) below current usage (60)"),
            ),
        ] {
            assert_eq!(pod.refuse(limit, "pod").as_deref(), refused);
        }
        // One that is there already may stay.
        pod.set_limit(Some(60));
        assert_eq!(pod.refuse(Some(60), "pod"), None);
    }

    #[test]
    fn files_that_stand_for_memory_leave_less_for_guests() {
        let node = MemoryBudget::node(1000);
        let pod = node.child(Scope::Pod, Some(100));
        let container = pod.child(Scope::Container, None);
        container.charge(40).unwrap();
        pod.set_files(60);
        assert_eq!((pod.used(), node.used()), (100, 100));
        assert_eq!(container.charge(1).unwrap_err().scope, Scope::Pod);
        pod.set_files(200);
        assert_eq!(node.used(), 240, "they are there, whatever the limit says");
        pod.set_files(10);
        container.charge(50).unwrap();
        pod.set_files(0);
        assert_eq!((pod.used(), node.used()), (90, 90));
    }

    const PAGE: usize = 64 << 10;

    #[test]
    fn a_limit_may_change_while_memory_is_in_use() {
        let budget = MemoryBudget::node(1 << 20).child(Scope::Container, Some(100));
        budget.charge(80).expect("fits");
        assert!(budget.charge(40).is_err());
        budget.set_limit(Some(120));
        budget.charge(40).expect("fits now");
        budget.set_limit(Some(50));
        assert_eq!(budget.used(), 120);
        assert!(budget.charge(1).is_err());
        budget.release(100);
        budget.charge(10).expect("fits again");
        budget.set_limit(None);
        assert_eq!(budget.limit(), 1 << 20);
    }

    #[test]
    fn the_tightest_limit_decides_and_nothing_leaks() {
        let node = MemoryBudget::node(10 * PAGE as u64);
        let pod = node.child(Scope::Pod, Some(4 * PAGE as u64));
        let (one, two) = (
            pod.child(Scope::Container, None),
            pod.child(Scope::Container, None),
        );
        let mut first = StoreMemory::new(one.clone());
        let mut second = StoreMemory::new(two.clone());
        assert!(first.memory_growing(0, 3 * PAGE, None).unwrap());
        let error = second.memory_growing(0, 2 * PAGE, None).unwrap_err();
        assert_eq!(
            error.downcast_ref::<OutOfMemory>().unwrap().scope,
            Scope::Pod
        );
        assert!(two.refusal().is_some() && one.refusal().is_none());
        assert_eq!((one.peak(), two.peak()), (3 * PAGE as u64, 0));
        assert_eq!((two.used(), pod.used()), (0, 3 * PAGE as u64));
        drop(first);
        assert_eq!(node.used(), 0);
    }

    #[test]
    fn memories_and_tables_count_together() {
        let container =
            MemoryBudget::node(u64::MAX).child(Scope::Container, Some(PAGE as u64 + 80));
        let mut store = StoreMemory::new(container.clone());
        assert!(store.memory_growing(0, PAGE, None).unwrap());
        assert!(store.table_growing(0, 10, None).unwrap());
        assert!(store.table_growing(10, 11, None).is_err());
    }

    #[test]
    fn failed_growth_is_not_charged() {
        let container = MemoryBudget::node(u64::MAX).child(Scope::Container, None);
        let mut store = StoreMemory::new(container.clone());
        assert!(store.memory_growing(0, PAGE, None).unwrap());
        store
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .unwrap();
        assert_eq!(container.used(), 0);
        assert!(!store.memory_growing(0, 2 * PAGE, Some(PAGE)).unwrap());
        assert_eq!(container.used(), 0);
    }
}
