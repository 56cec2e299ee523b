//! Every kind that takes part, by the caches that the process has of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_client::{ApiResource, Context, MetadataSource, ObjectKey, ServedResource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::reconcile::{Dependent, Item};

/// One kind with its cache.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
    pub(super) source: Arc<dyn MetadataSource>,
}

/// All kinds by group and name; only grows.
#[derive(Clone, Default)]
pub(super) struct Kinds(BTreeMap<(String, String), Kind>);

impl Kinds {
    /// Takes in what the server serves; answers the kinds that are new.
    pub(super) fn extend(&mut self, ctx: &Context, served: Vec<ServedResource>) -> Vec<Kind> {
        let mut new = Vec::new();
        for served in served.into_iter().filter(takes_part) {
            let name = (served.resource.group.clone(), served.resource.kind.clone());
            if let std::collections::btree_map::Entry::Vacant(entry) = self.0.entry(name) {
                let source = ctx.informers().metadata(&served.resource);
                let kind = Kind {
                    resource: served.resource,
                    namespaced: served.namespaced,
                    source,
                };
                new.push(entry.insert(kind).clone());
            }
        }
        new
    }

    pub(super) fn get(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.0.get(&(group.to_owned(), kind.to_owned()))
    }

    /// Everything that names `uid` among its owners.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Dependent> {
        let found = self.0.values().flat_map(|kind| {
            kind.source
                .metadata_owned_by(uid)
                .into_iter()
                .map(|meta| Dependent {
                    item: kind.item(&meta),
                    meta,
                })
        });
        found.collect()
    }

    /// The objects that `meta` names as its owners, as far as a cache knows them.
    pub(super) fn owners(&self, meta: &ObjectMeta) -> Vec<(Item, ObjectMeta)> {
        let owners = meta.owner_references.iter().flatten();
        let found = owners.filter_map(|owner| {
            let kind = self.get(group_of(&owner.api_version), &owner.kind)?;
            let owner = kind.source.metadata_by_uid(&owner.uid)?;
            Some((kind.item(&owner), owner))
        });
        found.collect()
    }
}

impl Kind {
    pub(super) fn item(&self, meta: &ObjectMeta) -> Item {
        Item {
            group: self.resource.group.clone(),
            kind: self.resource.kind.clone(),
            key: ObjectKey::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

/// The group of an `apiVersion`.
pub(super) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Events have no owners worth following and there are many; the rest must be watchable.
fn takes_part(served: &ServedResource) -> bool {
    served.resource.kind != "Event" && served.offers(&["list", "watch", "delete"])
}
