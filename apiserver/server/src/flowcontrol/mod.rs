//! Priority and fairness: the default FlowSchemas and PriorityLevelConfigurations, and their statuses.

mod defaults;
mod keep;

use std::sync::Arc;

use coracle_api::{Object, Registry};
use tokio::sync::Notify;

use crate::cache::{Caches, Observer};

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
#[derive(Default)]
pub(crate) struct FlowControl {
    changed: Notify,
}

impl FlowControl {
    /// Follows the schemas and levels of `caches`.
    pub(crate) fn follow(caches: &Caches, registry: &Registry) -> Arc<Self> {
        let flow = Arc::new(Self::default());
        for part in [Part::Levels, Part::Schemas] {
            let cache = registry
                .by_plural(GROUP, "v1", part.plural())
                .and_then(|resource| caches.of(resource));
            if let Some(cache) = cache {
                let flow = Arc::clone(&flow);
                cache.observe(Arc::new(Follower { flow }));
            }
        }
        flow
    }
}

/// Tells of changes.
struct Follower {
    flow: Arc<FlowControl>,
}

impl Observer for Follower {
    fn changed(&self, _key: &str, _object: Option<&Object>) {
        self.flow.changed.notify_one();
    }
}
