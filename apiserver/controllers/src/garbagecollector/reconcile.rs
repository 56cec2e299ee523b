//! What becomes of an object whose owners go.
//!
//! ```text
//!   owner gone ──▶ another owner lives? ─ yes ─▶ only the reference goes
//!                                       └ no ──▶ the object goes
//!   owner waits (foreground) ──▶ its dependents go first, then its finalizer
//!   owner lets go (orphan)   ──▶ its dependents lose their reference, then its finalizer
//!   owners in a circle       ──▶ who closes it stops holding up its owner (as upstream, on suspicion)
//! ```

use coracle_client::{DeletePropagation, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// One object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Item {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
}

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It exists, and keeps its dependents.
    Solid,
    /// It waits for its dependents to go.
    Waiting,
    /// Neither the caches nor the server know it.
    Absent,
    /// The caches don't know it, and nobody asked the server yet.
    Unseen,
}

/// An object that names the world's object among its owners.
#[derive(Clone, Debug)]
pub(crate) struct Dependent {
    pub(crate) item: Item,
    pub(crate) meta: ObjectMeta,
}

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) object: ObjectMeta,
    pub(crate) owners: Vec<(OwnerReference, Owner)>,
    pub(crate) dependents: Vec<Dependent>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Ask the server about owners that no cache knows, and decide again.
    Look,
    /// The object goes.
    Delete(DeletePropagation),
    /// The object's remaining owner references.
    KeepOwners(Vec<OwnerReference>),
    /// A dependent's remaining owner references.
    Orphan(Item, Option<String>, Vec<OwnerReference>),
    /// The object's remaining finalizers.
    KeepFinalizers(Vec<String>),
    /// Dependents that have to be looked at, now that the object waits for them.
    Visit(Vec<Item>),
}

/// Decides one object's fate.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let finalizers = world.object.finalizers.clone().unwrap_or_default();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let without = |name: &str| {
        Change::KeepFinalizers(
            finalizers
                .iter()
                .filter(|known| *known != name)
                .cloned()
                .collect(),
        )
    };
    if world.object.deletion_timestamp.is_some() {
        if has(ORPHAN) {
            let mut changes: Vec<_> = world
                .dependents
                .iter()
                .map(|dependent| orphaned(world, dependent))
                .collect();
            changes.push(without(ORPHAN));
            return changes;
        }
        if has(FOREGROUND) {
            if world
                .dependents
                .iter()
                .any(|dependent| blocks(world, dependent))
            {
                return vec![Change::Visit(
                    world
                        .dependents
                        .iter()
                        .map(|dependent| dependent.item.clone())
                        .collect(),
                )];
            }
            return vec![without(FOREGROUND)];
        }
        return Vec::new(); // it is on its way
    }

    let is = |state: Owner| world.owners.iter().any(|(_, owner)| *owner == state);
    if world.owners.is_empty() || (!is(Owner::Unseen) && !is(Owner::Absent) && !is(Owner::Waiting))
    {
        return Vec::new();
    }
    if is(Owner::Unseen) {
        return vec![Change::Look];
    }
    if is(Owner::Solid) {
        let solid = world
            .owners
            .iter()
            .filter(|(_, owner)| *owner == Owner::Solid);
        return vec![Change::KeepOwners(
            solid.map(|(reference, _)| reference.clone()).collect(),
        )];
    }
    // An owner that waits wants the whole tree gone before itself.
    let propagation = match () {
        () if has(ORPHAN) => DeletePropagation::Orphan,
        () if has(FOREGROUND) || (is(Owner::Waiting) && !world.dependents.is_empty()) => {
            DeletePropagation::Foreground
        }
        () => DeletePropagation::Background,
    };
    let delete = Change::Delete(propagation);
    let circle = is(Owner::Waiting) && world.dependents.iter().any(waits_for_dependents);
    match circle.then(|| unblocking(&world.owners)).flatten() {
        // Each would wait for the next, all the way round: this one holds up nobody.
        Some(owners) => vec![Change::KeepOwners(owners), delete],
        None => vec![delete],
    }
}

/// Whether the dependent goes, and has dependents that go first.
fn waits_for_dependents(dependent: &Dependent) -> bool {
    let finalizers = dependent.meta.finalizers.iter().flatten();
    dependent.meta.deletion_timestamp.is_some()
        && finalizers
            .into_iter()
            .any(|finalizer| finalizer == FOREGROUND)
}

/// The references to `owners`, none of which blocks its owner's deletion any more; `None` if none does.
fn unblocking(owners: &[(OwnerReference, Owner)]) -> Option<Vec<OwnerReference>> {
    let blocks = |owner: &OwnerReference| owner.block_owner_deletion == Some(true);
    if !owners.iter().any(|(owner, _)| blocks(owner)) {
        return None;
    }
    let open = owners.iter().map(|(owner, _)| OwnerReference {
        block_owner_deletion: Some(false),
        ..owner.clone()
    });
    Some(open.collect())
}

/// Whether the dependent holds up its owner's foreground deletion.
fn blocks(world: &World, dependent: &Dependent) -> bool {
    let owner = world.object.uid.as_deref().unwrap_or_default();
    holds_up(&dependent.meta, owner)
}

fn holds_up(meta: &ObjectMeta, owner: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    owners.any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

/// Whether a change of a dependent may end the wait of the owner with that UID.
pub(crate) fn lets_go(old: &ObjectMeta, new: &ObjectMeta, owner: &str) -> bool {
    holds_up(old, owner) && !holds_up(new, owner)
}

fn orphaned(world: &World, dependent: &Dependent) -> Change {
    let mut owners = dependent.meta.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| Some(&owner.uid) != world.object.uid.as_ref());
    Change::Orphan(
        dependent.item.clone(),
        dependent.meta.resource_version.clone(),
        owners,
    )
}

/// Whether a change of metadata can matter here.
pub(crate) fn matters(old: Option<&ObjectMeta>, new: &ObjectMeta) -> bool {
    let finalizers = new.finalizers.iter().flatten();
    let asks = new.deletion_timestamp.is_some()
        && finalizers
            .into_iter()
            .any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
    let owned = new
        .owner_references
        .as_ref()
        .is_some_and(|owners| !owners.is_empty());
    let same = old.is_some_and(|old| {
        old.uid == new.uid
            && old.owner_references == new.owner_references
            && old.finalizers == new.finalizers
            && old.deletion_timestamp == new.deletion_timestamp
    });
    (asks || owned) && !same
}
