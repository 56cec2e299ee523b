//! kube-rs, connected as it connects itself: from a kubeconfig, by its own TLS over TCP.

mod patches;
mod reads;
mod subresources;
mod watches;
mod writes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config, ResourceExt};
use libtest_mimic::{Failed, Trial};
use serde_json::json;

use crate::server::ServedApi;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Checked = Result<(), Failure>;

/// A check that is not done by then waits for something that does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// Each check as a test of its own.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "discovery_finds_every_kind",
            reads::discovery_finds_every_kind,
        ),
        trial("lists_come_in_pages", reads::lists_come_in_pages),
        trial("metadata_comes_alone", reads::metadata_comes_alone),
        trial("objects_that_are_missing_are_not_found", reads::missing),
        trial("users_are_told_apart", reads::users_are_told_apart),
        trial(
            "watches_follow_from_a_revision",
            watches::follow_from_a_revision,
        ),
        trial(
            "watches_from_forgotten_revisions_are_gone",
            watches::forgotten_revisions_are_gone,
        ),
        trial(
            "watchers_list_and_follow",
            watches::watchers_list_and_follow,
        ),
        trial(
            "reflectors_hold_what_there_is",
            watches::reflectors_hold_what_there_is,
        ),
        trial("conditions_are_awaited", watches::conditions_are_awaited),
        trial(
            "creating_twice_is_refused",
            writes::creating_twice_is_refused,
        ),
        trial(
            "replacing_the_old_is_a_conflict",
            writes::replacing_the_old_is_a_conflict,
        ),
        trial(
            "invalid_objects_name_their_fields",
            writes::invalid_objects_name_their_fields,
        ),
        trial(
            "entries_insert_and_modify",
            writes::entries_insert_and_modify,
        ),
        trial(
            "deletions_have_preconditions",
            writes::deletions_have_preconditions,
        ),
        trial("collections_are_deleted", writes::collections_are_deleted),
        trial("events_are_recorded", writes::events_are_recorded),
        trial("json_patches_test_first", patches::json_patches_test_first),
        trial(
            "merge_patches_remove_with_null",
            patches::merge_patches_remove_with_null,
        ),
        trial(
            "strategic_patches_merge_by_name",
            patches::strategic_patches_merge_by_name,
        ),
        trial(
            "applies_conflict_until_forced",
            patches::applies_conflict_until_forced,
        ),
        trial(
            "status_is_a_part_of_its_own",
            subresources::status_is_a_part_of_its_own,
        ),
        trial(
            "scale_is_a_part_of_its_own",
            subresources::scale_is_a_part_of_its_own,
        ),
        trial(
            "evictions_respect_budgets",
            subresources::evictions_respect_budgets,
        ),
        trial("nodes_are_cordoned", subresources::nodes_are_cordoned),
        trial(
            "logs_of_unplaced_pods_are_empty",
            subresources::logs_of_unplaced_pods_are_empty,
        ),
    ]
}

fn trial(name: &str, check: impl AsyncFnOnce(Clients) -> Checked + Send + 'static) -> Trial {
    Trial::test(format!("kube_rs::{name}"), move || {
        let server = ServedApi::start().map_err(|error| error.to_string())?;
        let clients = Clients {
            kubeconfig: server.kubeconfig(),
        };
        let limited = async { tokio::time::timeout(LIMIT, check(clients)).await };
        match server.runtime().block_on(limited) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failed::from(format!("{error} ({error:?})"))),
            Err(_) => Err(Failed::from(format!("not done after {LIMIT:?}"))),
        }
    })
}

/// Clients of one server.
struct Clients {
    kubeconfig: PathBuf,
}

impl Clients {
    /// An administrator, known by a certificate.
    async fn admin(&self) -> Result<Client, Failure> {
        self.of("certificate").await
    }

    /// The user of a context of the kubeconfig.
    async fn of(&self, context: &str) -> Result<Client, Failure> {
        let options = KubeConfigOptions {
            context: Some(context.to_owned()),
            ..KubeConfigOptions::default()
        };
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        // A refused eviction is 429, which it would otherwise try again for minutes.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }
}

/// What the server said when it refused.
fn refusal<T>(result: kube::Result<T>) -> Result<Box<Status>, Failure> {
    match result {
        Ok(_) => Err("it was not refused".into()),
        Err(kube::Error::Api(status)) => Ok(status),
        Err(error) => Err(error.into()),
    }
}

/// Code and reason of a refusal.
fn told(status: &Status) -> (u16, &str) {
    (status.code, &status.reason)
}

/// The fields that a refusal names.
fn fields(status: &Status) -> Vec<&str> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.map(|cause| cause.field.as_str()).collect()
}

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data
        .iter()
        .map(|(key, value)| (String::from(*key), String::from(*value)));
    ConfigMap {
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap")
    }
}

fn deployment(name: &str, replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "app:1"}]},
            },
        },
    }))
    .expect("a Deployment")
}

/// A Pod in the namespace `default`, made with the service account that it needs.
async fn create_pod(client: &Client, name: &str) -> Result<Pod, Failure> {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    if accounts.get_opt("default").await?.is_none() {
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
        accounts.create(&PostParams::default(), &account).await?;
    }
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]},
    }))?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    Ok(pods.create(&PostParams::default(), &pod).await?)
}

/// The names of objects, as they came.
fn names<K: kube::Resource>(objects: &[K]) -> Vec<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}
