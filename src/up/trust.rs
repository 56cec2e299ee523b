//! Whose client certificates count, who may speak for others, and what the cluster publishes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use coracle_controllers::Published;
use coracle_server::authn::{HeaderNames, RequestHeader};
use http::HeaderName;
use serde_json::json;

use crate::cli::{FrontProxyArgs, UpArgs};
use crate::pki;

/// What the flags say of clients, besides the cluster's own authority.
pub(super) struct Clients {
    /// Further authorities of users, in PEM form.
    more: String,
    proxies: Option<Proxies>,
}

struct Proxies {
    /// Their authorities, in PEM form.
    bundle: String,
    names: Vec<String>,
    headers: HeaderNames,
    /// The flags' own words, for the ConfigMap.
    flags: FrontProxyArgs,
}

impl Clients {
    /// Reads the files that the flags name.
    pub(super) fn of(args: &UpArgs) -> Result<Self> {
        let more = match &args.client_ca_file {
            Some(path) => bundle("--client-ca-file", path)?,
            None => String::new(),
        };
        let flags = &args.front_proxy;
        let proxies = match &flags.requestheader_client_ca_file {
            Some(path) => Some(Proxies {
                bundle: bundle("--requestheader-client-ca-file", path)?,
                names: words(
                    "--requestheader-allowed-names",
                    &flags.requestheader_allowed_names,
                )?,
                headers: header_names(flags)?,
                flags: flags.clone(),
            }),
            None => None,
        };
        Ok(Self { more, proxies })
    }

    /// All authorities of users, in PEM form; `own` is the cluster's.
    pub(super) fn users(&self, own: &str) -> String {
        format!("{own}{}", self.more)
    }

    /// All authorities whose certificates clients are asked for.
    pub(super) fn all(&self, own: &str) -> String {
        let proxies = self.proxies.as_ref().map_or("", |proxies| &proxies.bundle);
        format!("{}{proxies}", self.users(own))
    }

    /// Which proxies are believed. An authority that signs users' certificates too makes every user a proxy, unless proxies
    /// have names.
    pub(super) fn request_header(&self, own: &str) -> Result<Option<RequestHeader>> {
        let Some(proxies) = &self.proxies else {
            return Ok(None);
        };
        let users = pki::certificates(&self.users(own))?;
        let theirs = pki::certificates(&proxies.bundle)?;
        if proxies.names.is_empty() && theirs.iter().any(|one| users.contains(one)) {
            bail!(
                "an authority in --requestheader-client-ca-file signs users' certificates too, so that every user could \
                 speak for all others: give the proxies an authority of their own, or name them with \
                 --requestheader-allowed-names"
            );
        }
        Ok(Some(RequestHeader {
            authorities: pki::client_authorities(&proxies.bundle)
                .context("--requestheader-client-ca-file")?,
            allowed_names: proxies.names.clone(),
            headers: proxies.headers.clone(),
        }))
    }

    /// What everybody in the cluster may read.
    pub(super) fn published(&self, own: &str) -> Arc<Published> {
        let mut data = BTreeMap::from([("client-ca-file".to_owned(), self.users(own))]);
        if let Some(proxies) = &self.proxies {
            let flags = &proxies.flags;
            for (key, list) in [
                ("allowed-names", &flags.requestheader_allowed_names),
                ("username-headers", &flags.requestheader_username_headers),
                ("uid-headers", &flags.requestheader_uid_headers),
                ("group-headers", &flags.requestheader_group_headers),
                (
                    "extra-headers-prefix",
                    &flags.requestheader_extra_headers_prefix,
                ),
            ] {
                data.insert(format!("requestheader-{key}"), json!(list).to_string());
            }
            let key = "requestheader-client-ca-file".to_owned();
            data.insert(key, proxies.bundle.clone());
        }
        Arc::new(Published {
            authority: own.into(),
            authentication: data,
        })
    }
}

/// The certificates of a file that a flag names.
fn bundle(flag: &str, path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read {flag} {}", path.display()))?;
    let read = || -> Result<String> {
        let all = pki::certificates(&text)?;
        pki::client_authorities(&text)?;
        // Nothing but certificates: what is published may not carry what else is in the file.
        Ok(all.iter().map(|der| pki::pem(der)).collect())
    };
    read().with_context(|| format!("{flag} {} is not usable", path.display()))
}

fn header_names(flags: &FrontProxyArgs) -> Result<HeaderNames> {
    let names = |flag: &str, list: &[String]| -> Result<Vec<HeaderName>> {
        let names = words(flag, list)?.into_iter().map(|name| {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            parsed.with_context(|| format!("{flag}: {name:?} is no name of a header"))
        });
        names.collect()
    };
    let prefix_flag = "--requestheader-extra-headers-prefix";
    let prefixes = names(prefix_flag, &flags.requestheader_extra_headers_prefix)?;
    Ok(HeaderNames {
        users: names(
            "--requestheader-username-headers",
            &flags.requestheader_username_headers,
        )?,
        uids: names(
            "--requestheader-uid-headers",
            &flags.requestheader_uid_headers,
        )?,
        groups: names(
            "--requestheader-group-headers",
            &flags.requestheader_group_headers,
        )?,
        extra_prefixes: prefixes.iter().map(ToString::to_string).collect(),
    })
}

fn words(flag: &str, list: &[String]) -> Result<Vec<String>> {
    if list.iter().any(|word| word.trim().is_empty()) {
        bail!("{flag} has an empty value in its list");
    }
    Ok(list.to_vec())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use coracle_clock::Clock;

    use super::*;
    use crate::pki::Pki;

    /// A folder with the authorities of three clusters: `own`, `users` and `proxies`.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let folder = tempfile::tempdir().expect("a temporary folder");
            for (seed, name) in ["own", "users", "proxies"].into_iter().enumerate() {
                let clock = Clock::fake(seed as u64);
                Pki::ensure(&folder.path().join(name), &["localhost".to_owned()], &clock)
                    .expect("made");
            }
            Self(folder)
        }

        fn pem(&self, name: &str) -> String {
            std::fs::read_to_string(self.path(name)).expect("there")
        }

        fn path(&self, name: &str) -> String {
            self.0
                .path()
                .join(name)
                .join("ca.crt")
                .display()
                .to_string()
        }
    }

    fn clients(flags: &[&str]) -> Result<Clients> {
        let line = ["coracle", "up"].iter().chain(flags);
        let crate::cli::Command::Up(args) = crate::cli::Cli::try_parse_from(line)?.command else {
            unreachable!("the line says up")
        };
        Clients::of(&args)
    }

    #[tokio::test]
    async fn the_flags_say_who_counts_and_it_is_published() {
        let files = Files::new();
        let own = files.pem("own");
        let nobody = clients(&[]).expect("nothing is needed");
        assert!(nobody.request_header(&own).expect("fine").is_none());
        let published = nobody.published(&own);
        assert_eq!(&*published.authority, own);
        let keys: Vec<_> = published.authentication.keys().collect();
        assert_eq!(keys, ["client-ca-file"]);

        let proxies = files.path("proxies");
        let all = clients(&[
            "--client-ca-file",
            &files.path("users"),
            "--requestheader-client-ca-file",
            &proxies,
            "--requestheader-allowed-names=front-proxy,other",
            "--requestheader-uid-headers=X-Remote-Uid",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        ]);
        let all = all.expect("usable");
        assert_eq!(pki::certificates(&all.users(&own)).expect("PEM").len(), 2);
        assert_eq!(pki::certificates(&all.all(&own)).expect("PEM").len(), 3);
        let header = all.request_header(&own).expect("fine").expect("proxies");
        assert_eq!(header.allowed_names, ["front-proxy", "other"]);
        assert_eq!(header.headers.extra_prefixes, ["x-remote-extra-"]);
        assert_eq!(header.headers.uids, ["x-remote-uid"]);
        let data = &all.published(&own).authentication;
        for (key, expected) in [
            ("requestheader-allowed-names", r#"["front-proxy","other"]"#),
            ("requestheader-username-headers", r#"["x-remote-user"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-group-headers", r#"["x-remote-group"]"#),
            (
                "requestheader-extra-headers-prefix",
                r#"["X-Remote-Extra-"]"#,
            ),
        ] {
            assert_eq!(data[key], expected, "{key}");
        }
        assert!(data["requestheader-client-ca-file"].contains("BEGIN CERTIFICATE"));
        assert!(!data.values().any(|value| value.contains("PRIVATE")));
    }

    #[tokio::test]
    async fn flags_that_make_no_sense_are_explained() {
        let files = Files::new();
        let (own, proxies) = (files.path("own"), files.path("proxies"));
        let key = own.replace("ca.crt", "ca.key");
        for (flags, expected) in [
            (vec!["--client-ca-file", "/nowhere"], "failed to read"),
            (vec!["--client-ca-file", &key], "is not usable"),
            (
                vec!["--requestheader-allowed-names=a"],
                "--requestheader-client-ca-file",
            ),
            (
                vec![
                    "--requestheader-client-ca-file",
                    &proxies,
                    "--requestheader-username-headers=a,,b",
                ],
                "empty value",
            ),
            (
                vec![
                    "--requestheader-client-ca-file",
                    &proxies,
                    "--requestheader-group-headers=a b",
                ],
                "no name of a header",
            ),
        ] {
            let error = clients(&flags).err().expect("refused");
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
        // Whoever has a certificate of the cluster would be a proxy.
        let same = clients(&["--requestheader-client-ca-file", &own]).expect("readable");
        let own_pem = files.pem("own");
        let error = same.request_header(&own_pem).err().expect("refused");
        assert!(error.to_string().contains("--requestheader-allowed-names"));
        let named = clients(&[
            "--requestheader-client-ca-file",
            &own,
            "--requestheader-allowed-names=front-proxy",
        ]);
        let named = named.expect("readable").request_header(&own_pem);
        assert!(named.expect("named").is_some());
    }
}
