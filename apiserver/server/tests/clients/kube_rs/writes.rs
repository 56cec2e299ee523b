//! Create, replace, delete, and how they are refused.

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::events::v1::Event as RecordedEvent;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{Checked, Clients, config_map, deployment, fields, names, refusal, told};

pub(super) async fn creating_twice_is_refused(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&dry, &config_map("one", &[])).await?;
    let made = maps
        .create(&PostParams::default(), &config_map("one", &[]))
        .await?;
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let again = maps
        .create(&PostParams::default(), &config_map("one", &[]))
        .await;
    let status = refusal(again)?;
    assert_eq!(told(&status), (409, "AlreadyExists"));
    assert_eq!(status.message, "configmaps \"one\" already exists");
    Ok(())
}

pub(super) async fn replacing_the_old_is_a_conflict(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let old = maps
        .create(&PostParams::default(), &config_map("one", &[]))
        .await?;
    let mut new = old.clone();
    new.labels_mut().insert("new".to_owned(), "yes".to_owned());
    let new = maps.replace("one", &PostParams::default(), &new).await?;
    assert_ne!(new.resource_version(), old.resource_version());
    let status = refusal(maps.replace("one", &PostParams::default(), &old).await)?;
    assert_eq!(told(&status), (409, "Conflict"));
    assert!(
        status.message.contains("the object has been modified"),
        "{}",
        status.message
    );
    Ok(())
}

pub(super) async fn invalid_objects_name_their_fields(clients: Clients) -> Checked {
    let client = clients.admin().await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let service = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 0}, {"name": "B", "port": 80}]},
    }))?;
    let status = refusal(services.create(&PostParams::default(), &service).await)?;
    assert_eq!(told(&status), (422, "Invalid"));
    let named = fields(&status);
    let expected = [
        "spec.ports[0].name",
        "spec.ports[0].port",
        "spec.ports[0].targetPort",
        "spec.ports[1].name",
    ];
    assert_eq!(named, expected, "{}", status.message);
    let deployments = Api::default_namespaced(client);
    deployments
        .create(&PostParams::default(), &deployment("web", 1))
        .await?;
    let mut other = deployment("web", 1);
    let selector = [("app".to_owned(), "other".to_owned())].into();
    if let Some(spec) = &mut other.spec {
        spec.selector.match_labels = Some(selector);
    }
    let status = refusal(
        deployments
            .replace("web", &PostParams::default(), &other)
            .await,
    )?;
    assert_eq!(told(&status), (422, "Invalid"));
    assert!(
        status.message.contains("field is immutable"),
        "{}",
        status.message
    );
    Ok(())
}

/// `Api::entry`: what is there is changed, what is not is made, and what somebody else made meanwhile is a conflict.
pub(super) async fn entries_insert_and_modify(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let write = PostParams::default();
    for _ in 0..2 {
        let mut entry = maps
            .entry("counted")
            .await?
            .and_modify(|map| {
                map.data
                    .get_or_insert_default()
                    .insert("seen".to_owned(), "twice".to_owned());
            })
            .or_insert(|| config_map("counted", &[("seen", "once")]));
        entry.commit(&write).await?;
    }
    let data = maps.get("counted").await?.data.unwrap_or_default();
    assert_eq!(data["seen"], "twice");
    let mut mine = maps
        .entry("raced")
        .await?
        .or_insert(|| config_map("raced", &[]));
    maps.create(&write, &config_map("raced", &[])).await?;
    match mine.commit(&write).await {
        Err(kube::api::entry::CommitError::Save(kube::Error::Api(status))) => {
            assert_eq!(told(&status), (409, "AlreadyExists"));
            Ok(())
        }
        other => Err(format!("{other:?} instead of a conflict").into()),
    }
}

pub(super) async fn deletions_have_preconditions(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let map = maps
        .create(&PostParams::default(), &config_map("one", &[]))
        .await?;
    let only = |uid: Option<String>, resource_version: Option<String>| {
        DeleteParams::default().preconditions(Preconditions {
            uid,
            resource_version,
        })
    };
    let another = only(Some("another".to_owned()), None);
    let status = refusal(maps.delete("one", &another).await)?;
    assert_eq!(told(&status), (409, "Conflict"));
    assert!(
        status
            .message
            .contains("the UID in the precondition (another) does not match"),
        "{}",
        status.message
    );
    let older = only(None, Some("1".to_owned()));
    let status = refusal(maps.delete("one", &older).await)?;
    assert_eq!(told(&status), (409, "Conflict"));
    let this = only(map.uid(), map.resource_version());
    let done = maps.delete("one", &this).await?;
    assert!(
        done.right()
            .ok_or("an object instead of a Status")?
            .is_success()
    );
    assert_eq!(
        told(&*refusal(maps.delete("one", &this).await)?),
        (404, "NotFound")
    );
    let mut held = config_map("held", &[]);
    held.finalizers_mut().push("example.com/hold".to_owned());
    maps.create(&PostParams::default(), &held).await?;
    let held = maps.delete("held", &DeleteParams::foreground()).await?;
    let held = held.left().ok_or("a Status instead of what is held")?;
    assert!(held.meta().deletion_timestamp.is_some());
    Ok(())
}

pub(super) async fn collections_are_deleted(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "front")] {
        let mut map = config_map(name, &[]);
        map.labels_mut().insert("tier".to_owned(), tier.to_owned());
        maps.create(&PostParams::default(), &map).await?;
    }
    let front = ListParams::default().labels("tier=front");
    let deleted = maps
        .delete_collection(&DeleteParams::default(), &front)
        .await?;
    let deleted = deleted.left().ok_or("a Status instead of a list")?;
    assert_eq!(names(&deleted.items), ["a", "c"]);
    assert_eq!(
        names(&maps.list(&ListParams::default()).await?.items),
        ["b"]
    );
    Ok(())
}

/// The recorder creates an Event, and counts up when the same happens again.
pub(super) async fn events_are_recorded(clients: Clients) -> Checked {
    let client = clients.admin().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = maps
        .create(&PostParams::default(), &config_map("one", &[]))
        .await?;
    let recorder = Recorder::new(client.clone(), Reporter::from("clients-test"));
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".to_owned(),
        note: Some("it was seen".to_owned()),
        action: "Look".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &map.object_ref(&())).await?;
    recorder.publish(&event, &map.object_ref(&())).await?;
    let events: Api<RecordedEvent> = Api::default_namespaced(client);
    let found = events
        .list(&ListParams::default().fields("reason=Seen"))
        .await?;
    assert_eq!(found.items.len(), 1);
    let series = found.items[0].series.as_ref().ok_or("no series")?;
    assert_eq!(series.count, 2);
    Ok(())
}
