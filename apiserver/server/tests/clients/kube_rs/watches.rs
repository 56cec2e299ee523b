//! Watches, and what kube-rs builds on them.

use std::pin::pin;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Checked, Clients, Failure, config_map, names};

async fn change(maps: &Api<ConfigMap>, name: &str) -> Checked {
    let patch = Patch::Merge(json!({"data": {"changed": "yes"}}));
    maps.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn create(maps: &Api<ConfigMap>, name: &str) -> Result<ConfigMap, Failure> {
    Ok(maps
        .create(&PostParams::default(), &config_map(name, &[]))
        .await?)
}

/// Changes after the revision of a list come once and in order, then bookmarks and the end that was asked for.
pub(super) async fn follow_from_a_revision(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    create(&maps, "before").await?;
    let revision = maps
        .list(&ListParams::default())
        .await?
        .metadata
        .resource_version;
    let revision = revision.ok_or("a list without a revision")?;
    create(&maps, "after").await?;
    change(&maps, "after").await?;
    maps.delete("before", &DeleteParams::default()).await?;
    let parameters = WatchParams::default().timeout(1);
    let events = maps.watch(&parameters, &revision).await?;
    let seen: Vec<_> = events
        .map_ok(|event| match event {
            WatchEvent::Added(map) => format!("added {}", map.name_any()),
            WatchEvent::Modified(map) => format!("modified {}", map.name_any()),
            WatchEvent::Deleted(map) => format!("deleted {}", map.name_any()),
            WatchEvent::Bookmark(_) => "bookmark".to_owned(),
            WatchEvent::Error(status) => format!("error {status:?}"),
        })
        .try_collect()
        .await?;
    let changes: Vec<_> = seen.iter().filter(|event| *event != "bookmark").collect();
    assert_eq!(changes, ["added after", "modified after", "deleted before"]);
    Ok(())
}

pub(super) async fn forgotten_revisions_are_gone(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let mut events = pin!(maps.watch(&WatchParams::default(), "1").await?);
    match events.next().await {
        Some(Ok(WatchEvent::Error(status))) => {
            assert_eq!((status.code, &*status.reason), (410, "Expired"));
        }
        other => return Err(format!("{other:?} instead of an error").into()),
    }
    assert!(events.next().await.is_none(), "the error is the last event");
    Ok(())
}

/// Both ways to start, a list with a watch and a watch that lists, see the same.
pub(super) async fn watchers_list_and_follow(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let ways = [
        ("listed", watcher::Config::default().page_size(1)),
        ("streamed", watcher::Config::default().streaming_lists()),
    ];
    for (way, config) in ways {
        let (first, second, third) = (format!("{way}-1"), format!("{way}-2"), format!("{way}-3"));
        create(&maps, &first).await?;
        create(&maps, &second).await?;
        let mut events = pin!(watcher::watcher(maps.clone(), config));
        let mut initial = Vec::new();
        while let Some(event) = events.try_next().await? {
            match event {
                Event::Init => initial.clear(),
                Event::InitApply(map) => initial.push(map),
                Event::InitDone => break,
                other => return Err(format!("{way}: {other} before all were listed").into()),
            }
        }
        initial.retain(|map| map.name_any().starts_with(way));
        assert_eq!(names(&initial), [first.clone(), second.clone()]);
        create(&maps, &third).await?;
        change(&maps, &first).await?;
        maps.delete(&second, &DeleteParams::default()).await?;
        let following: Vec<_> = events
            .take(3)
            .map_ok(|event| event.to_string())
            .try_collect()
            .await?;
        let expected = [
            format!("Apply({third})"),
            format!("Apply({first})"),
            format!("Delete({second})"),
        ];
        assert_eq!(following, expected);
    }
    Ok(())
}

pub(super) async fn reflectors_hold_what_there_is(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    create(&maps, "one").await?;
    let (store, writer) = reflector::store();
    let events = watcher::watcher(maps.clone(), watcher::Config::default());
    let mut events = pin!(reflector::reflector(writer, events));
    while !matches!(events.try_next().await?, Some(Event::InitDone) | None) {}
    assert_eq!(store.state().len(), 1);
    change(&maps, "one").await?;
    create(&maps, "two").await?;
    maps.delete("one", &DeleteParams::default()).await?;
    let mut changed = false;
    while store
        .get(&ObjectRef::new("one").within("default"))
        .is_some()
    {
        events.try_next().await?;
        let one = store.get(&ObjectRef::new("one").within("default"));
        changed |= one.is_some_and(|one| one.data.is_some());
    }
    assert!(changed, "the change came before the deletion");
    assert_eq!(
        store
            .state()
            .iter()
            .map(|map| map.name_any())
            .collect::<Vec<_>>(),
        ["two"]
    );
    Ok(())
}

pub(super) async fn conditions_are_awaited(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let uid = create(&maps, "doomed").await?.uid().ok_or("no uid")?;
    let gone = await_condition(maps.clone(), "doomed", conditions::is_deleted(&uid));
    let delete = async {
        maps.delete("doomed", &DeleteParams::default()).await?;
        Ok::<_, Failure>(())
    };
    let (gone, deleted) = futures::join!(gone, delete);
    deleted?;
    gone?;
    Ok(())
}
