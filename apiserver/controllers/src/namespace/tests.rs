use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::reconcile::{Change, Survey, World, has_to_be_emptied, reconcile};
use crate::fixtures::now;

fn world(survey: Survey) -> World {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some("shop".into()),
            uid: Some("uid-shop".into()),
            deletion_timestamp: Some(Time(now())),
            ..Default::default()
        },
        spec: Some(NamespaceSpec {
            finalizers: Some(vec!["kubernetes".into(), "example.com/mine".into()]),
        }),
        status: None,
    };
    World {
        namespace: Arc::new(namespace),
        survey,
        now: now(),
    }
}

#[test]
fn content_that_is_left_is_named() {
    let survey = Survey {
        remaining: BTreeMap::from([("pods.".into(), 2)]),
        finalizers: BTreeMap::from([("example.com/f".into(), 1)]),
        ..Default::default()
    };
    let mut world = world(survey);
    let changes = reconcile(&world);
    let [Change::SetConditions(conditions)] = changes.as_slice() else {
        panic!("got {changes:?}")
    };
    let message = |type_: &str| {
        let found = conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .expect("said");
        (
            found.status.clone(),
            found.message.clone().unwrap_or_default(),
        )
    };
    assert_eq!(
        message("NamespaceContentRemaining"),
        (
            "True".into(),
            "Some resources are remaining: pods. has 2 resource instances".into()
        )
    );
    assert_eq!(message("NamespaceFinalizersRemaining").0, "True");
    assert_eq!(message("NamespaceDeletionContentFailure").0, "False");

    let said = NamespaceStatus {
        conditions: Some(conditions.clone()),
        ..Default::default()
    };
    Arc::make_mut(&mut world.namespace).status = Some(said);
    assert_eq!(reconcile(&world), vec![], "what was said is not said again");
}

#[test]
fn an_empty_namespace_may_go() {
    let changes = reconcile(&world(Survey::default()));
    let Some(Change::Finalize(namespace)) = changes.last() else {
        panic!("got {changes:?}")
    };
    let left = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.clone());
    assert_eq!(
        left,
        Some(vec!["example.com/mine".to_owned()]),
        "others' finalizers stay"
    );
    assert!(!has_to_be_emptied(namespace));
}

#[test]
fn whoever_could_not_look_does_not_let_go() {
    for survey in [
        Survey {
            discovery: Some("unreachable".into()),
            ..Default::default()
        },
        Survey {
            failures: vec!["pods: forbidden".into()],
            ..Default::default()
        },
    ] {
        let changes = reconcile(&world(survey));
        assert!(matches!(changes.as_slice(), [Change::SetConditions(_)]));
    }
}
