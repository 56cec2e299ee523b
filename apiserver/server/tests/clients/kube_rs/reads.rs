//! Discovery, reads and lists.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};

use super::{Checked, Clients, Failure, config_map, names, refusal, told};

/// The two forms of discovery agree, and what they say is enough for a client without types.
pub(super) async fn discovery_finds_every_kind(clients: Clients) -> Checked {
    let client = clients.admin().await?;
    let version = client.apiserver_version().await?;
    assert_eq!((&*version.major, &*version.minor), ("1", "36"));
    let plain = Discovery::new(client.clone()).run().await?;
    let aggregated = Discovery::new(client.clone()).run_aggregated().await?;
    let kinds = |discovery: &Discovery| -> Vec<String> {
        let groups = discovery.groups_alphabetical();
        let resources = groups
            .into_iter()
            .flat_map(|group| group.recommended_resources());
        let mut kinds: Vec<_> = resources
            .map(|(resource, _)| format!("{}/{}", resource.api_version, resource.kind))
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&plain), kinds(&aggregated));
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, capabilities) = aggregated.resolve_gvk(&kind).ok_or("no Deployment")?;
    assert_eq!(resource.plural, "deployments");
    assert_eq!(capabilities.scope, Scope::Namespaced);
    assert!(capabilities.supports_operation(verbs::PATCH));
    let part = |(part, _): &(kube::core::ApiResource, _)| part.plural.clone();
    let parts: Vec<_> = capabilities.subresources.iter().map(part).collect();
    assert!(parts.contains(&"scale".to_owned()), "{parts:?}");
    let kind = GroupVersionKind::gvk("", "v1", "Namespace");
    let (resource, _) = plain.resolve_gvk(&kind).ok_or("no Namespace")?;
    let namespaces: Api<DynamicObject> = Api::all_with(client, &resource);
    let found = namespaces.get("kube-system").await?;
    assert_eq!(found.data["status"]["phase"], "Active");
    Ok(())
}

async fn create_five(client: &Client) -> Result<Api<ConfigMap>, Failure> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for name in ["a", "b", "c", "d", "e"] {
        let mut map = config_map(name, &[("name", name)]);
        let tier = if name < "c" { "front" } else { "back" };
        map.labels_mut().insert("tier".to_owned(), tier.to_owned());
        maps.create(&PostParams::default(), &map).await?;
    }
    Ok(maps)
}

pub(super) async fn lists_come_in_pages(clients: Clients) -> Checked {
    let maps = create_five(&clients.admin().await?).await?;
    let mut pages = Vec::new();
    let mut parameters = ListParams::default().limit(2);
    loop {
        let page = maps.list(&parameters).await?;
        pages.push((names(&page.items), page.metadata.remaining_item_count));
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => {
                parameters = parameters.continue_token(&token);
            }
            _ => break,
        }
    }
    let page = |names: &[&str], rest| (names.iter().map(|n| n.to_string()).collect(), rest);
    let expected: Vec<(Vec<String>, _)> = vec![
        page(&["a", "b"], Some(3)),
        page(&["c", "d"], Some(1)),
        page(&["e"], None),
    ];
    assert_eq!(pages, expected);
    let selected = maps
        .list(&ListParams::default().labels("tier notin (front)"))
        .await?;
    assert_eq!(names(&selected.items), ["c", "d", "e"]);
    let selected = maps
        .list(&ListParams::default().fields("metadata.name=b"))
        .await?;
    assert_eq!(names(&selected.items), ["b"]);
    let torn = maps
        .list(&ListParams::default().limit(2).continue_token("torn"))
        .await;
    assert_eq!(told(&*refusal(torn)?), (400, "BadRequest"));
    let unknown = maps
        .list(&ListParams::default().fields("data.name=b"))
        .await;
    assert_eq!(told(&*refusal(unknown)?), (400, "BadRequest"));
    Ok(())
}

/// A client that asks for metadata gets `PartialObjectMetadata`, of one object and of lists.
pub(super) async fn metadata_comes_alone(clients: Clients) -> Checked {
    let maps = create_five(&clients.admin().await?).await?;
    let one = maps.get_metadata("a").await?;
    let types = one.types.as_ref().ok_or("no types")?;
    assert_eq!(types.kind, "PartialObjectMetadata");
    assert_eq!(one.labels()["tier"], "front");
    let list = maps.list_metadata(&ListParams::default()).await?;
    assert_eq!(names(&list.items), ["a", "b", "c", "d", "e"]);
    assert_eq!(list.types.kind, "PartialObjectMetadataList");
    Ok(())
}

pub(super) async fn missing(clients: Clients) -> Checked {
    let maps: Api<ConfigMap> = Api::default_namespaced(clients.admin().await?);
    assert!(maps.get_opt("nothing").await?.is_none());
    let status = refusal(maps.get("nothing").await)?;
    assert_eq!(told(&status), (404, "NotFound"));
    assert_eq!(status.message, "configmaps \"nothing\" not found");
    let details = status.details.as_ref().ok_or("no details")?;
    assert_eq!((&*details.name, &*details.kind), ("nothing", "configmaps"));
    Ok(())
}

/// By certificate, by token, with a token of somebody without rights, and with one that nobody has.
pub(super) async fn users_are_told_apart(clients: Clients) -> Checked {
    for context in ["certificate", "token"] {
        let namespaces: Api<Namespace> = Api::all(clients.of(context).await?);
        namespaces.get("default").await?;
    }
    let namespaces: Api<Namespace> = Api::all(clients.of("nobody").await?);
    let status = refusal(namespaces.list(&ListParams::default()).await)?;
    assert_eq!(told(&status), (403, "Forbidden"));
    let said = "namespaces is forbidden: User \"nobody\" cannot list resource \"namespaces\" in API group \"\" at the \
                cluster scope";
    assert!(status.message.starts_with(said), "{}", status.message);
    let namespaces: Api<Namespace> = Api::all(clients.of("stranger").await?);
    let status = refusal(namespaces.list(&ListParams::default()).await)?;
    assert_eq!(told(&status), (401, "Unauthorized"));
    Ok(())
}
