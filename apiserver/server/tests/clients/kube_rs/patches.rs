//! The four kinds of patch.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Checked, Clients, Failure, config_map, deployment, fields, refusal, told};

async fn one_map(clients: &Clients) -> Result<Api<ConfigMap>, Failure> {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let map = config_map("one", &[("a", "1"), ("b", "2")]);
    maps.create(&PostParams::default(), &map).await?;
    Ok(maps)
}

pub(super) async fn json_patches_test_first(clients: Clients) -> Checked {
    let maps = one_map(&clients).await?;
    let patch = |was: &str| -> Result<Patch<()>, Failure> {
        Ok(Patch::Json(serde_json::from_value(json!([
            {"op": "test", "path": "/data/a", "value": was},
            {"op": "replace", "path": "/data/a", "value": "3"},
            {"op": "remove", "path": "/data/b"},
        ]))?))
    };
    let map = maps
        .patch("one", &PatchParams::default(), &patch("1")?)
        .await?;
    assert_eq!(map.data, config_map("", &[("a", "3")]).data);
    let status = refusal(
        maps.patch("one", &PatchParams::default(), &patch("1")?)
            .await,
    )?;
    assert_eq!(told(&status), (422, "Invalid"));
    Ok(())
}

pub(super) async fn merge_patches_remove_with_null(clients: Clients) -> Checked {
    let maps = one_map(&clients).await?;
    let merge = |patch: Value| Patch::Merge(patch);
    let patch = merge(json!({"data": {"a": null, "c": "4"}}));
    let map = maps.patch("one", &PatchParams::default(), &patch).await?;
    assert_eq!(map.data, config_map("", &[("b", "2"), ("c", "4")]).data);
    let stale = merge(json!({"metadata": {"resourceVersion": "1"}, "data": {"c": "5"}}));
    let status = refusal(maps.patch("one", &PatchParams::default(), &stale).await)?;
    assert_eq!(told(&status), (409, "Conflict"));
    let absent = merge(json!({"data": {"a": "1"}}));
    let status = refusal(maps.patch("absent", &PatchParams::default(), &absent).await)?;
    assert_eq!(told(&status), (404, "NotFound"));
    let wrong = merge(json!({"data": {"a": 1}}));
    let status = refusal(maps.patch("one", &PatchParams::default(), &wrong).await)?;
    assert_eq!(told(&status), (422, "Invalid"));
    Ok(())
}

pub(super) async fn strategic_patches_merge_by_name(clients: Clients) -> Checked {
    let deployments: Api<Deployment> = Api::default_namespaced(clients.admin().await?);
    deployments
        .create(&PostParams::default(), &deployment("web", 1))
        .await?;
    let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "app:2"},
        {"name": "side", "image": "side:1"},
    ]}}}}));
    let patched = deployments
        .patch("web", &PatchParams::default(), &patch)
        .await?;
    let pod = patched
        .spec
        .and_then(|spec| spec.template.spec)
        .ok_or("no template")?;
    let mut images: Vec<_> = pod
        .containers
        .iter()
        .filter_map(|c| c.image.as_deref())
        .collect();
    images.sort_unstable();
    assert_eq!(images, ["app:2", "side:1"]);
    let restarted = deployments.restart("web").await?;
    let template = restarted.spec.and_then(|spec| spec.template.metadata);
    let annotations = template
        .and_then(|metadata| metadata.annotations)
        .unwrap_or_default();
    assert!(
        annotations.contains_key("kube.kubernetes.io/restartedAt"),
        "{annotations:?}"
    );
    Ok(())
}

/// Two managers and one field: the second is told who has it, takes it by force, and the first loses it.
pub(super) async fn applies_conflict_until_forced(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    let applied = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value},
        }))
    };
    let (first, second) = (PatchParams::apply("first"), PatchParams::apply("second"));
    maps.patch("one", &first, &applied("1")).await?;
    maps.patch("one", &second, &applied("1")).await?;
    let status = refusal(maps.patch("one", &second, &applied("2")).await)?;
    assert_eq!(told(&status), (409, "Conflict"));
    assert_eq!(fields(&status), [".data.a"]);
    assert!(
        status.message.contains("conflict with \"first\""),
        "{}",
        status.message
    );
    let map = maps.patch("one", &second.force(), &applied("2")).await?;
    assert_eq!(map.data, config_map("", &[("a", "2")]).data);
    let managers = map.metadata.managed_fields.unwrap_or_default();
    let managers: Vec<_> = managers
        .iter()
        .filter_map(|entry| entry.manager.as_deref())
        .collect();
    assert_eq!(managers, ["second"]);
    let unnamed = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    let status = refusal(maps.patch("one", &PatchParams::default(), &unnamed).await)?;
    assert_eq!(told(&status), (422, "Invalid"));
    assert_eq!(fields(&status), ["fieldManager"]);
    Ok(())
}
