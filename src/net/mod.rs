//! `coracle net`: the sockets of the pods, and what went through the Services, asked of the nodes over the API.

mod show;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::cli::NetArgs;
use crate::data_dir;

/// Does what was typed.
pub fn run(args: NetArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start")?;
    let mut found = runtime.block_on(ask(&args))?;
    if let Some(name) = &args.pod
        && found.pods.is_empty()
    {
        bail!(
            "pod {}/{name} runs on no node: `kubectl get pods --all-namespaces` lists the pods",
            namespace(&args).unwrap_or_default()
        );
    }
    let place = |pod: &Value| {
        let text = |field: &str| pod[field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    found.pods.sort_by_key(place);
    found.services.sort_by_key(place);
    let Found { pods, services } = found;
    match args.output {
        Some(_) => println!("{:#}", json!({"pods": pods, "services": services})),
        None => print!("{}", show::text(&pods, &services)),
    }
    Ok(())
}

/// What the nodes say.
#[derive(Default)]
struct Found {
    pods: Vec<Value>,
    /// None when one pod alone is asked for.
    services: Vec<Value>,
}

/// The namespace that is asked for; `None` for all.
fn namespace(args: &NetArgs) -> Option<&str> {
    let of_pod = args.pod.as_ref().map(|_| "default");
    args.namespace.as_deref().or(of_pod)
}

/// What the nodes say of what was asked for.
async fn ask(args: &NetArgs) -> Result<Found> {
    let client = client(args).await?;
    let nodes = Api::<Node>::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await;
    let nodes = nodes.map_err(explain).context("failed to list the nodes")?;
    let asked = [("namespace", namespace(args)), ("pod", args.pod.as_deref())];
    let query: Vec<String> = asked
        .iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key}={value}")))
        .collect();
    let mut found = Found::default();
    for node in nodes {
        let name = node.metadata.name.unwrap_or_default();
        let uri = format!("/api/v1/nodes/{name}/proxy/net?{}", query.join("&"));
        let request = Request::get(&uri).body(Vec::new());
        let request = request.with_context(|| format!("{uri} is no path"))?;
        let answer = client.request::<Value>(request).await;
        let mut answer = answer
            .map_err(explain)
            .with_context(|| format!("failed to ask node {name} for its sockets"))?;
        for (key, all) in [("pods", &mut found.pods), ("services", &mut found.services)] {
            if let Value::Array(more) = answer[key].take() {
                all.extend(more);
            }
        }
    }
    Ok(found)
}

async fn client(args: &NetArgs) -> Result<Client> {
    let path: PathBuf = match &args.kubeconfig {
        Some(path) => path.clone(),
        None => data_dir::locate(args.data.data_dir.as_deref())?.join("kubeconfig"),
    };
    if !path.exists() {
        bail!(
            "{} is not there: run `coracle up` first, or name the cluster with --data-dir or --kubeconfig",
            path.display()
        );
    }
    let kubeconfig = Kubeconfig::read_from(&path)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("failed to use {}", path.display()))?;
    let url = config.cluster_url.clone();
    Client::try_from(config).with_context(|| format!("failed to speak to {url}"))
}

/// What the server said, or why it said nothing.
fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{}", status.message),
        other => anyhow::Error::new(other).context("no answer: is `coracle up` running?"),
    }
}
