//! The kubeconfig of the cluster, and its place in the user's own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::files;
use crate::pki::Credential;

/// The name of our context, cluster and user.
pub const CONTEXT: &str = "coracle";

/// A kubeconfig with the context `coracle` alone, for the server at `url`, whose certificate is of `ca` (PEM).
pub fn new(url: &str, ca: &str, user: &Credential) -> Value {
    let encode = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {
            "server": url, "certificate-authority-data": encode(ca)}}],
        "users": [{"name": CONTEXT, "user": {
            "client-certificate-data": encode(&user.certificate),
            "client-key-data": encode(&user.key)}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        "current-context": CONTEXT,
    })
}

/// Writes `config` as YAML, readable by its owner alone.
pub fn write(path: &Path, config: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(config).context("failed to write a kubeconfig as YAML")?;
    files::write_secret(path, text.as_bytes())
}

/// What became of the user's kubeconfig.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file that now has our context.
    pub path: PathBuf,
    /// Whether plain `kubectl` talks to this cluster: so when no other context was current.
    pub is_current: bool,
}

/// Puts our cluster, user and context into the user's kubeconfig; everything else stays as it is,
/// the current context too unless it is unset or names nothing.
pub fn merge_into_users(ours: &Value) -> Result<Merged> {
    let path = users_path()?;
    let _lock = Lock::take(&path)?;
    let existing = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", path.display()));
        }
    };
    let parsed = parse(&existing).with_context(|| {
        format!(
            "failed to read {} as a kubeconfig; it was left as it is (--no-kubeconfig skips this step)",
            path.display()
        )
    })?;
    let merged = merge(parsed, ours);
    let is_current = merged["current-context"] == CONTEXT;
    write(&path, &merged)?;
    Ok(Merged { path, is_current })
}

/// The file that kubectl writes to: the first of `$KUBECONFIG` that exists, else its last, else
/// `~/.kube/config` (`k8s.io/client-go/tools/clientcmd`).
fn users_path() -> Result<PathBuf> {
    let listed: Vec<PathBuf> = env::var_os("KUBECONFIG")
        .map(|list| {
            env::split_paths(&list)
                .filter(|p| !p.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if let Some(path) = listed.iter().find(|path| path.exists()).or(listed.last()) {
        return Ok(path.clone());
    }
    let home = etcetera::home_dir()
        .map_err(|_| anyhow!("no home directory was found for the kubeconfig: set HOME or KUBECONFIG, or pass --no-kubeconfig"))?;
    Ok(home.join(".kube").join("config"))
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str(text)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(anyhow!("its top level is not a map")),
    }
}

fn merge(mut config: Map<String, Value>, ours: &Value) -> Value {
    config.entry("apiVersion").or_insert_with(|| json!("v1"));
    config.entry("kind").or_insert_with(|| json!("Config"));
    for list in ["clusters", "users", "contexts"] {
        let slot = config.entry(list).or_insert(Value::Null);
        if !slot.is_array() {
            *slot = json!([]);
        }
        let entries = slot.as_array_mut().expect("made an array above");
        let our_entry = ours[list][0].clone();
        match entries.iter_mut().find(|entry| entry["name"] == CONTEXT) {
            Some(entry) => keep_namespace(entry, our_entry),
            None => entries.push(our_entry),
        }
    }
    let current = config
        .get("current-context")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let is_known = config["contexts"]
        .as_array()
        .is_some_and(|c| c.iter().any(|c| c["name"] == current));
    if current.is_empty() || !is_known {
        config.insert("current-context".into(), json!(CONTEXT));
    }
    Value::Object(config)
}

/// Replaces our entry, but for the default namespace that a user may have set on our context
/// (`kubectl config set-context --current --namespace`).
fn keep_namespace(entry: &mut Value, mut ours: Value) {
    if let Some(namespace) = entry.pointer("/context/namespace").cloned() {
        ours["context"]["namespace"] = namespace;
    }
    *entry = ours;
}

/// The lock file that kubectl takes while it changes a kubeconfig.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        if let Some(folder) = lock.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to create the folder {}", folder.display()))?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&lock)
            .with_context(|| {
                format!(
                    "failed to lock {}: if no kubectl is changing it, remove {} and try again",
                    path.display(),
                    lock.display()
                )
            })?;
        Ok(Self(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        let admin = Credential {
            certificate: "crt".into(),
            key: "key".into(),
        };
        new("https://127.0.0.1:6443", "ca", &admin)
    }

    #[test]
    fn other_contexts_and_the_current_one_stay() {
        let text = "contexts:\n- name: prod\n  context: {cluster: prod, user: me}\ncurrent-context: prod\nextra: {a: 1}\n";
        let merged = merge(parse(text).expect("parsed"), &ours());
        assert_eq!(merged["current-context"], "prod");
        assert_eq!(
            merged["contexts"][0],
            json!({"name": "prod", "context": {"cluster": "prod", "user": "me"}})
        );
        assert_eq!(merged["contexts"][1]["name"], CONTEXT);
        assert_eq!(merged["extra"]["a"], 1);
    }

    #[test]
    fn an_empty_kubeconfig_gets_us_as_current() {
        let merged = merge(parse("").expect("parsed"), &ours());
        assert_eq!(merged["current-context"], CONTEXT);
    }

    #[test]
    fn our_entry_is_replaced_once_and_keeps_its_namespace() {
        let mut merged = merge(Map::new(), &ours());
        merged["contexts"][0]["context"]["namespace"] = json!("dev");
        let Value::Object(map) = merged else {
            panic!("a map")
        };
        let again = merge(map, &ours());
        assert_eq!(again["contexts"].as_array().map(Vec::len), Some(1));
        assert_eq!(again["contexts"][0]["context"]["namespace"], "dev");
    }

    #[test]
    fn what_is_not_a_kubeconfig_is_refused() {
        assert!(parse("- a\n- b\n").is_err());
        assert!(parse("a: [").is_err());
    }
}
