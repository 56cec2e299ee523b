use coracle_client::{DeletePropagation, ObjectKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::reconcile::{
    Change, Dependent, FOREGROUND, Item, ORPHAN, Owner, World, matters, reconcile,
};
use crate::fixtures::{meta, now};

fn owner(uid: &str) -> OwnerReference {
    OwnerReference {
        uid: uid.into(),
        block_owner_deletion: Some(true),
        ..Default::default()
    }
}

fn dependent(name: &str, owners: &[&str]) -> Dependent {
    let item = Item {
        group: String::new(),
        kind: "Pod".into(),
        key: ObjectKey::new("default", name),
        uid: format!("uid-{name}"),
    };
    let owner_references = Some(owners.iter().map(|uid| owner(uid)).collect());
    Dependent {
        item,
        meta: ObjectMeta {
            owner_references,
            ..meta(name)
        },
    }
}

fn world(owners: &[(&str, Owner)]) -> World {
    let owners = owners
        .iter()
        .map(|(uid, state)| (owner(uid), *state))
        .collect();
    World {
        object: meta("web"),
        owners,
        dependents: vec![],
    }
}

fn terminating(mut world: World, finalizers: &[&str]) -> World {
    world.object.deletion_timestamp = Some(Time(now()));
    world.object.finalizers = Some(
        finalizers
            .iter()
            .map(|finalizer| (*finalizer).to_owned())
            .collect(),
    );
    world
}

#[test]
fn an_object_goes_with_its_last_owner() {
    assert_eq!(
        reconcile(&world(&[("a", Owner::Absent)])),
        [Change::Delete(DeletePropagation::Background)]
    );
    assert_eq!(reconcile(&world(&[("a", Owner::Solid)])), []);
    assert_eq!(reconcile(&world(&[])), []);
}

#[test]
fn an_owner_that_only_the_caches_miss_is_looked_for() {
    assert_eq!(
        reconcile(&world(&[("a", Owner::Absent), ("b", Owner::Unseen)])),
        [Change::Look]
    );
}

#[test]
fn another_owner_keeps_it() {
    let changes = reconcile(&world(&[
        ("a", Owner::Absent),
        ("b", Owner::Solid),
        ("c", Owner::Waiting),
    ]));
    assert_eq!(changes, [Change::KeepOwners(vec![owner("b")])]);
}

#[test]
fn a_waiting_owner_takes_the_whole_tree() {
    let mut middle = world(&[("a", Owner::Waiting)]);
    assert_eq!(
        reconcile(&middle),
        [Change::Delete(DeletePropagation::Background)],
        "a leaf just goes"
    );
    middle.dependents = vec![dependent("leaf", &["uid-web"])];
    assert_eq!(
        reconcile(&middle),
        [Change::Delete(DeletePropagation::Foreground)]
    );
}

#[test]
fn who_closes_a_circle_holds_up_nobody() {
    let mut last = world(&[("a", Owner::Waiting)]);
    let mut first = dependent("first", &["uid-web"]);
    first.meta.deletion_timestamp = Some(Time(now()));
    first.meta.finalizers = Some(vec![FOREGROUND.into()]);
    last.dependents = vec![first];
    let open = OwnerReference {
        block_owner_deletion: Some(false),
        ..owner("a")
    };
    let delete = Change::Delete(DeletePropagation::Foreground);
    assert_eq!(
        reconcile(&last),
        [Change::KeepOwners(vec![open.clone()]), delete.clone()]
    );
    last.owners[0].0 = open;
    assert_eq!(reconcile(&last), [delete], "it holds up nobody already");
}

#[test]
fn foreground_waits_for_those_that_block() {
    let mut owner = terminating(world(&[]), &[FOREGROUND, "example.com/f"]);
    owner.dependents = vec![dependent("leaf", &["uid-web"])];
    assert_eq!(
        reconcile(&owner),
        [Change::Visit(vec![owner.dependents[0].item.clone()])]
    );

    owner.dependents[0]
        .meta
        .owner_references
        .as_mut()
        .expect("owners")[0]
        .block_owner_deletion = None;
    assert_eq!(
        reconcile(&owner),
        [Change::KeepFinalizers(vec!["example.com/f".into()])]
    );
    owner.dependents.clear();
    assert_eq!(
        reconcile(&owner),
        [Change::KeepFinalizers(vec!["example.com/f".into()])]
    );
}

#[test]
fn orphans_lose_one_reference_and_nothing_else() {
    let mut owner_world = terminating(world(&[]), &[ORPHAN]);
    owner_world.dependents = vec![dependent("leaf", &["uid-web", "uid-other"])];
    let changes = reconcile(&owner_world);
    let expected = Change::Orphan(
        owner_world.dependents[0].item.clone(),
        Some("1".into()),
        vec![owner("uid-other")],
    );
    assert_eq!(changes, [expected, Change::KeepFinalizers(vec![])]);
}

#[test]
fn what_is_on_its_way_is_left_alone() {
    assert_eq!(
        reconcile(&terminating(
            world(&[("a", Owner::Absent)]),
            &["example.com/f"]
        )),
        []
    );
}

#[test]
fn only_what_can_matter_is_looked_at() {
    let plain = meta("a");
    let owned = ObjectMeta {
        owner_references: Some(vec![owner("x")]),
        ..meta("a")
    };
    let later = ObjectMeta {
        resource_version: Some("2".into()),
        ..owned.clone()
    };
    assert!(!matters(None, &plain));
    assert!(matters(None, &owned));
    assert!(
        !matters(Some(&owned), &later),
        "a status write changes nothing here"
    );
    assert!(matters(Some(&plain), &owned));
}
