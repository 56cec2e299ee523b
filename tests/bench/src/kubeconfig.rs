//! What a kubeconfig says about reaching a server: its address, whom to trust and who is asking.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::access::{Access, read};

/// Reads the current context of the kubeconfig at `path`.
pub(crate) fn load(path: &Path) -> Result<Access> {
    let failed = || format!("failed to read the kubeconfig {}", path.display());
    let text = String::from_utf8(read(path)?).with_context(failed)?;
    parse(&text, path.parent().unwrap_or(Path::new("."))).with_context(failed)
}

fn parse(text: &str, folder: &Path) -> Result<Access> {
    let config: Value = serde_saphyr::from_str(text)?;
    let current = config["current-context"]
        .as_str()
        .context("it has no current-context")?;
    let context = named(&config, "contexts", "context", current)?;
    let name = |key: &str| {
        context[key]
            .as_str()
            .with_context(|| format!("its context has no {key}"))
    };
    let cluster = named(&config, "clusters", "cluster", name("cluster")?)?;
    let user = named(&config, "users", "user", name("user")?)?;
    let server = cluster["server"]
        .as_str()
        .context("its cluster has no server")?;
    let ca = material(cluster, "certificate-authority", folder)?
        .context("its cluster has no certificate-authority")?;
    let certificate = material(user, "client-certificate", folder)?;
    let key = material(user, "client-key", folder)?;
    let token = user["token"].as_str().map(str::to_owned);
    Access::new(server, &ca, certificate.zip(key), token)
}

fn named<'a>(config: &'a Value, list: &str, inner: &str, name: &str) -> Result<&'a Value> {
    let entries = config[list]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found = entries.iter().find(|entry| entry["name"] == name);
    found
        .map(|entry| &entry[inner])
        .with_context(|| format!("its {list} have no {name:?}"))
}

/// The bytes that `key` names: inline as base64 under `<key>-data`, or in a file.
fn material(entry: &Value, key: &str, folder: &Path) -> Result<Option<Vec<u8>>> {
    if let Some(data) = entry[format!("{key}-data")].as_str() {
        let decoded = STANDARD
            .decode(data)
            .with_context(|| format!("its {key}-data is no base64"))?;
        return Ok(Some(decoded));
    }
    let Some(file) = entry[key].as_str() else {
        return Ok(None);
    };
    read(&folder.join(file)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Any certificate serves: only reading it is at issue.
    const CA: &str = include_str!("../testdata/ca.crt");

    fn config(server: &str, user: &str) -> String {
        let ca = STANDARD.encode(CA);
        format!(
            "current-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: {server:?}, certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        )
    }

    fn parse(text: &str) -> Result<Access> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        super::parse(text, Path::new("."))
    }

    #[test]
    fn the_current_context_is_read() {
        let access = parse(&config("https://127.0.0.1:6443", "{token: abc}")).expect("valid");
        assert_eq!(access.authority, "127.0.0.1:6443");
        assert_eq!(access.token.as_deref(), Some("abc"));
        let access = parse(&config("https://example.org/", "{}")).expect("valid");
        assert_eq!(access.authority, "example.org:443");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| format!("{:#}", parse(text).err().expect("refused"));
        assert!(error("{}").contains("no current-context"));
        assert!(error("current-context: x").contains("no \"x\""));
        assert!(error(&config("http://127.0.0.1:80", "{}")).contains("not https://"));
    }
}
