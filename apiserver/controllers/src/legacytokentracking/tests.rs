use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use super::reconcile::{Change, World, reconcile, since};

fn world(map: Option<ConfigMap>) -> World {
    World {
        map: map.map(Arc::new),
        now: "2026-11-28T12:00:00Z".parse().expect("a time"),
    }
}

fn created() -> ConfigMap {
    match reconcile(&world(None)) {
        Some(Change::Create(map)) => map,
        other => panic!("a ConfigMap was to be made: {other:?}"),
    }
}

#[test]
fn the_first_day_is_kept() {
    let mut map = created();
    let first = since(&map).expect("a day").to_string();
    assert_eq!(first, "2026-11-28T00:00:00Z");
    assert_eq!(reconcile(&world(Some(map.clone()))), None);
    let data = map.data.as_mut().expect("data");
    data.insert("since".to_owned(), "2020-02-29".to_owned());
    assert_eq!(reconcile(&world(Some(map))), None);
}

#[test]
fn what_is_no_day_is_today() {
    for said in ["", "yesterday", "2026-02-30", "2026-11-28T00:00:00Z"] {
        let mut map = created();
        map.data = Some([("since".to_owned(), said.to_owned())].into());
        let Some(Change::Replace(map)) = reconcile(&world(Some(map))) else {
            panic!("{said:?} is no day");
        };
        assert_eq!(map.data, created().data);
    }
    let mut empty = created();
    empty.data = None;
    assert!(matches!(
        reconcile(&world(Some(empty))),
        Some(Change::Replace(_))
    ));
}
