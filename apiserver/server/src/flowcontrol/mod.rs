//! Priority and fairness: which requests run now, which wait, and which are refused.
//!
//! ```text
//! identity, request ▶ FlowSchema ▶ priority level ▶ flow's queue ▶ seats, turn ▶ authorization and the rest
//!                         │             └ exempt: no seats, no wait
//!                         └── defaults, statuses: kept by `keep`
//! ```
//!
//! It stands where upstream has it (`DefaultBuildHandlerChain`): after authentication and impersonation, before
//! authorization. Watches have seats until their stream begins; logs and tunnels are not counted. Exempt requests don't
//! count against the seats of others either, where upstream subtracts what they use.
//!
//! [`schema`], [`estimate`], [`queues`], [`borrow`] and [`seats`] decide and are pure; [`gate`] waits and wakes; this
//! module follows the stored objects. A request that need not wait takes one lock three times, for well under a
//! microsecond in all.

mod borrow;
mod defaults;
mod estimate;
mod gate;
mod keep;
mod queues;
mod refusals;
mod report;
mod schema;
mod seats;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_api::{Object, Registry};
use coracle_clock::Clock;
use coracle_store::Store;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::authn::Identity;
use crate::cache::{Caches, Observer};
use crate::held::Piece;
use crate::pause::look_around;
use crate::request_info::RequestInfo;
pub(crate) use estimate::Stats;
use gate::Waiting;
pub(crate) use gate::{Pass, Place};
pub(crate) use report::DEBUG;
use seats::{Seats, Turns};
pub(crate) use table::Route;
use table::{Objects, Table};

/// The API group of the configuration.
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// What kind of object is part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Levels,
    Schemas,
}

impl Part {
    fn kind(self) -> &'static str {
        match self {
            Self::Levels => "PriorityLevelConfiguration",
            Self::Schemas => "FlowSchema",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Levels => "prioritylevelconfigurations",
            Self::Schemas => "flowschemas",
        }
    }
}

/// Priority and fairness of one server.
pub(crate) struct FlowControl {
    clock: Clock,
    objects: Mutex<Objects>,
    table: RwLock<Arc<Table>>,
    seats: Mutex<Seats<Waiting>>,
    /// Whether somebody waits, or may at any moment.
    crowded: AtomicBool,
    /// Is told so: it can hold up threads or not.
    store: Arc<dyn Store>,
    changed: Notify,
}

impl FlowControl {
    /// Follows the schemas and levels of `caches`; `total` requests run at once, exempt ones not counted, on so many
    /// processors.
    pub(crate) fn follow(
        caches: &Caches,
        registry: &Registry,
        total: usize,
        processors: usize,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> Arc<Self> {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        let now = clock.monotonic().as_secs_f64();
        let flow = Arc::new(Self {
            clock,
            objects: Mutex::default(),
            table: RwLock::default(),
            seats: Mutex::new(Seats::new(total, Turns::of(processors), now)),
            crowded: AtomicBool::new(false),
            store,
            changed: Notify::new(),
        });
        flow.rebuild(&mut flow.objects.lock());
        for part in [Part::Levels, Part::Schemas] {
            let cache = registry
                .by_plural(GROUP, "v1", part.plural())
                .and_then(|resource| caches.of(resource));
            if let Some(cache) = cache {
                let flow = Arc::clone(&flow);
                cache.observe(Arc::new(Follower { flow, part }));
            }
        }
        flow
    }

    /// The schema of a request.
    pub(crate) fn route(&self, identity: &Identity, info: &RequestInfo) -> Option<Arc<Route>> {
        self.table.read().find(identity, info)
    }

    fn rebuild(self: &Arc<Self>, objects: &mut Objects) {
        let table = Table::build(objects, &mut self.seats.lock(), self.now());
        *self.table.write() = Arc::new(table);
        self.dispatch();
    }

    /// In what pieces an answer is sent that begins now.
    pub(crate) fn piece(&self) -> Piece {
        match self.crowded.load(Ordering::Relaxed) {
            true => Piece::Small,
            false => Piece::Large,
        }
    }

    /// Between two steps of a write: lets the thread look at its sockets if anybody else is about.
    pub(crate) async fn breathe(&self) {
        if self.crowded.load(Ordering::Relaxed) {
            look_around().await;
        }
    }

    /// The monotonic time in seconds.
    fn now(&self) -> f64 {
        self.clock.monotonic().as_secs_f64()
    }
}

/// Keeps the table up to date.
struct Follower {
    flow: Arc<FlowControl>,
    part: Part,
}

impl Observer for Follower {
    fn changed(&self, key: &str, object: Option<&Object>) {
        let mut objects = self.flow.objects.lock();
        objects.set(self.part, key, object);
        self.flow.rebuild(&mut objects);
        self.flow.changed.notify_one();
    }
}
