//! All schemas in the order in which they are asked, with the places of their levels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use coracle_api::Object;
use http::{HeaderName, HeaderValue};

use super::queues::Queuing;
use super::schema::Schema;
use super::seats::{LevelConfig, Reason, Seats};
use super::{Part, defaults};
use crate::authn::Identity;
use crate::request_info::RequestInfo;

/// Which schema a request had.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Which level.
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The stored objects, decoded.
#[derive(Default)]
pub(super) struct Objects {
    schemas: BTreeMap<String, Arc<Schema>>,
    levels: BTreeMap<String, Level>,
    /// What was counted of schemas, by their names and those of their levels.
    counts: BTreeMap<(String, String), Arc<Counts>>,
}

#[derive(Clone)]
struct Level {
    uid: String,
    /// Exempt levels have shares, and no limit.
    shares: u32,
    limited: Option<LevelConfig>,
}

/// Numbers of one schema, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) dispatched: AtomicU64,
    pub(super) refused: [AtomicU64; Reason::ALL.len()],
    pub(super) waiting: AtomicI64,
    pub(super) running: AtomicI64,
}

impl Counts {
    pub(super) fn refuse(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Objects {
    /// Takes over how an object is from now on; `None`: it is gone.
    pub(super) fn set(&mut self, part: Part, name: &str, object: Option<&Object>) {
        match (part, object) {
            (Part::Schemas, None) => drop(self.schemas.remove(name)),
            (Part::Levels, None) => drop(self.levels.remove(name)),
            (Part::Schemas, Some(object)) => {
                let schema = Arc::new(Schema::read(object));
                self.schemas.insert(name.to_owned(), schema);
            }
            (Part::Levels, Some(object)) => {
                self.levels.insert(name.to_owned(), level(object));
            }
        }
    }
}

fn level(object: &Object) -> Level {
    let spec = object.at("spec");
    let number = |path: &str, absent: u32| -> u32 {
        let number = spec.at(path).as_i64();
        number.map_or(absent, |number| u32::try_from(number).unwrap_or(0))
    };
    let uid = object.at("metadata.uid").str().to_owned();
    if spec.key("type").str() == "Exempt" {
        return Level {
            uid,
            shares: number("exempt.nominalConcurrencyShares", 0),
            limited: None,
        };
    }
    let queuing = spec.at("limited.limitResponse.type").str() == "Queue";
    let queuing = queuing.then(|| Queuing {
        queues: number("limited.limitResponse.queuing.queues", 64),
        hand: number("limited.limitResponse.queuing.handSize", 8),
        length: number("limited.limitResponse.queuing.queueLengthLimit", 50),
    });
    let borrowing = spec.at("limited.borrowingLimitPercent").as_i64();
    let config = LevelConfig {
        shares: number("limited.nominalConcurrencyShares", 30),
        lendable: number("limited.lendablePercent", 0),
        borrowing: borrowing.and_then(|percents| u32::try_from(percents).ok()),
        queuing,
    };
    Level {
        uid,
        shares: config.shares,
        limited: Some(config),
    }
}

/// A schema and where its requests go.
pub(crate) struct Route {
    pub(super) schema: Arc<Schema>,
    /// The level's place; `None`: exempt.
    pub(super) level: Option<usize>,
    pub(super) counts: Arc<Counts>,
    /// What answers carry: the UIDs of schema and level, so that names are not shown to everybody.
    pub(crate) headers: [(HeaderName, HeaderValue); 2],
}

/// All routes, in the order in which they are asked.
#[derive(Default)]
pub(super) struct Table {
    routes: Vec<Arc<Route>>,
}

impl Table {
    /// Gives every level its seats. Mandatory objects that are missing are taken as they should be; a schema whose level
    /// is missing is not asked.
    pub(super) fn build<T>(objects: &mut Objects, seats: &mut Seats<T>, now: f64) -> Self {
        let mut levels = objects.levels.clone();
        let mut schemas = objects.schemas.clone();
        for default in defaults::all().iter().filter(|default| default.mandatory) {
            let Some(object) = Object::from_value(default.object()) else {
                continue;
            };
            let name = default.name.to_owned();
            match default.part {
                Part::Levels => drop(levels.entry(name).or_insert_with(|| level(&object))),
                Part::Schemas => {
                    schemas
                        .entry(name)
                        .or_insert_with(|| Arc::new(Schema::read(&object)));
                }
            }
        }
        let limited: Vec<(String, LevelConfig)> = levels
            .iter()
            .filter_map(|(name, level)| Some((name.clone(), level.limited.clone()?)))
            .collect();
        let exempt = levels.values().filter(|level| level.limited.is_none());
        let exempt = exempt
            .map(|level| level.shares)
            .fold(0, u32::saturating_add);
        let places = seats.configure(&limited, exempt, now);
        let place = |name: &str| {
            let at = limited.iter().position(|(other, _)| other == name)?;
            places.get(at).copied()
        };
        let mut counts = BTreeMap::new();
        let mut routes = Vec::new();
        for schema in schemas.into_values() {
            let Some(level) = levels.get(&schema.level) else {
                continue;
            };
            let key = (schema.name.clone(), schema.level.clone());
            let own = objects.counts.get(&key).cloned().unwrap_or_default();
            counts.insert(key, Arc::clone(&own));
            routes.push(Arc::new(Route {
                level: place(&schema.level),
                headers: [
                    (SCHEMA_UID, text(&schema.uid)),
                    (LEVEL_UID, text(&level.uid)),
                ],
                counts: own,
                schema,
            }));
        }
        objects.counts = counts;
        routes.sort_by(|a, b| a.schema.order().cmp(&b.schema.order()));
        Self { routes }
    }

    /// The first schema that the request matches; the last one catches all.
    pub(super) fn find(&self, identity: &Identity, info: &RequestInfo) -> Option<Arc<Route>> {
        let found = self
            .routes
            .iter()
            .find(|route| route.schema.matches(identity, info));
        found.or_else(|| self.routes.last()).cloned()
    }

    pub(super) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

fn text(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""))
}
