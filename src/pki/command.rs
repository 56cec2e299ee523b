//! `coracle pki`: the cluster's certificates from the command line. Works while `up` runs on the same folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use coracle_clock::{Clock, Timestamp};
use coracle_controllers::Terms;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Folder, Pki, certificates, subject_names};
use crate::cli::{self, PkiCommand, PkiFormat};
use crate::{data_dir, files, kubeconfig};

/// The certificates below `pki/`.
const NAMES: [&str; 4] = ["ca", PREVIOUS, "apiserver", "admin"];
/// Earlier authorities that are still believed.
const PREVIOUS: &str = "ca-previous";
/// How far the beginning of a user's certificate lies back.
const BACKDATE: Duration = Duration::from_secs(300);

/// Does what was typed.
pub fn run(command: PkiCommand) -> Result<()> {
    let clock = Clock::system();
    match command {
        PkiCommand::Show { output, data } => show(&folder(&data)?, output),
        PkiCommand::Renew { ca, data } => renew(&folder(&data)?, ca, &clock),
        PkiCommand::DropOldCa { data } => drop_old(&folder(&data)?, &clock),
        PkiCommand::Kubeconfig {
            user,
            groups,
            expires,
            output,
            data,
        } => {
            let config = user_config(&folder(&data)?, &user, &groups, expires, &clock)?;
            let Some(path) = output else {
                let text = serde_saphyr::to_string(&config);
                print!("{}", text.context("failed to write a kubeconfig as YAML")?);
                return Ok(());
            };
            kubeconfig::write(&path, &config)?;
            eprintln!("wrote {}: whoever reads it is {user}", path.display());
            Ok(())
        }
    }
}

/// The data directory, if there is a cluster in it.
fn folder(data: &cli::DataDir) -> Result<PathBuf> {
    let folder = data_dir::locate(data.data_dir.as_deref())?;
    if !folder.join("pki").is_dir() {
        bail!(
            "there are no certificates in {}: run `coracle up` first, or name the cluster's folder with --data-dir",
            folder.display()
        );
    }
    Ok(folder)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

fn show(data: &Path, output: Option<PkiFormat>) -> Result<()> {
    let mut found = Vec::new();
    for name in NAMES {
        let path = data.join("pki").join(format!("{name}.crt"));
        match (name, path.exists()) {
            // Only there while an authority is replaced.
            (PREVIOUS, false) => {}
            (PREVIOUS, true) => found.extend(describe(name, &path)?),
            // Beside the others are those that vouch for their authority.
            _ => found.extend(describe(name, &path)?.into_iter().take(1)),
        }
    }
    if output == Some(PkiFormat::Json) {
        println!("{:#}", json!({"certificates": found}));
        return Ok(());
    }
    for certificate in found {
        let text = |field: &str| certificate[field].as_str().unwrap_or_default().to_owned();
        println!("{}", text("name"));
        println!("  file     {}", text("file"));
        println!("  subject  {}", text("subject"));
        let names = certificate["names"].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        if !names.is_empty() {
            println!("  names    {}", names.join(", "));
        }
        println!("  expires  {}", text("expires"));
    }
    Ok(())
}

/// What the certificates of a file say; their keys are not read.
fn describe(name: &str, path: &Path) -> Result<Vec<Value>> {
    let all = certificates(&read(path)?).with_context(|| path.display().to_string())?;
    let describe = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| anyhow!("failed to read {}: {error}", path.display()))?;
        let expires = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
        Ok(json!({
            "name": name,
            "file": path.display().to_string(),
            "subject": certificate.subject().to_string(),
            "names": subject_names(&certificate),
            "expires": expires.to_string(),
        }))
    };
    all.iter().map(describe).collect()
}

/// Makes the server's and the administrator's certificates anew. The authority stays, or the old one is believed beside
/// the new: everyone who trusts it still does.
fn renew(data: &Path, ca: bool, clock: &Clock) -> Result<()> {
    let folder = data.join("pki");
    let pki = match ca {
        true => Pki::rotate(&folder, clock)?,
        false => Pki::renew(&folder, clock)?,
    };
    rewrite_kubeconfig(data, &pki)?;
    let what = if ca { "ca, apiserver" } else { "apiserver" };
    println!("renewed {what} and admin in {}", folder.display());
    println!("a running `coracle up` shows the new certificate within a minute");
    if ca {
        println!(
            "the old authority is still believed: when every kubeconfig elsewhere and every user's certificate was made \
             anew, run `coracle pki drop-old-ca`"
        );
    }
    Ok(())
}

/// Ends what [`renew`] began.
fn drop_old(data: &Path, clock: &Clock) -> Result<()> {
    let (pki, was_there) = Pki::drop_previous(&data.join("pki"), clock)?;
    if !was_there {
        println!("there is no authority but the current one");
        return Ok(());
    }
    rewrite_kubeconfig(data, &pki)?;
    println!("the old authority, and whatever it signed, is believed no more");
    println!("a running `coracle up` follows within a minute");
    Ok(())
}

/// Puts the certificates into the cluster's own kubeconfig, if it has one.
fn rewrite_kubeconfig(data: &Path, pki: &Pki) -> Result<()> {
    let path = data.join("kubeconfig");
    if let Some(server) = server_of(&path)? {
        kubeconfig::write(&path, &kubeconfig::new(&server, &pki.ca, &pki.admin))?;
    }
    files::sync_folder(&data.join("pki"))
}

/// The server's URL in the cluster's kubeconfig; `None` when there is no such file.
fn server_of(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let config: Value = serde_saphyr::from_str(&read(path)?)
        .with_context(|| format!("failed to read {} as a kubeconfig", path.display()))?;
    let server = config.pointer("/clusters/0/cluster/server");
    let server = server.and_then(Value::as_str);
    let server = server.with_context(|| format!("{} names no server", path.display()))?;
    Ok(Some(server.to_owned()))
}

fn user_config(
    data: &Path,
    user: &str,
    groups: &[String],
    expires: Duration,
    clock: &Clock,
) -> Result<Value> {
    let pki = data.join("pki");
    read(&pki.join("ca.key"))?;
    let ca = Folder::new(&pki, clock).authority()?;
    let server = server_of(&data.join("kubeconfig"))?.context(
        "the cluster has no kubeconfig yet, so its address is unknown: run `coracle up`",
    )?;
    let now = clock.now();
    let terms = Terms {
        usages: ["client auth", "digital signature"]
            .map(str::to_owned)
            .to_vec(),
        not_before: now - BACKDATE,
        not_after: now
            .checked_add(expires)
            .context("--expires is too far away")?,
    };
    let authority = Authority::new(&ca.current, clock.clone())?;
    let mut credential = authority.issue_client(user, groups, &terms)?;
    // A server that has not looked at the new authority yet knows it by the old one.
    credential.certificate.push_str(&ca.crosses);
    Ok(kubeconfig::new(&server, &ca.bundle(), &credential))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The data directory of a cluster that ran once.
    fn cluster(clock: &Clock) -> tempfile::TempDir {
        let data = tempfile::tempdir().expect("a temporary folder");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let pki = Pki::ensure(&data.path().join("pki"), &names, clock).expect("made");
        let config = kubeconfig::new("https://127.0.0.1:6443", &pki.ca, &pki.admin);
        kubeconfig::write(&data.path().join("kubeconfig"), &config).expect("written");
        data
    }

    #[tokio::test]
    async fn certificates_are_renewed_and_the_authority_stays() {
        let clock = Clock::fake(1);
        let data = cluster(&clock);
        let text = |name: &str| fs::read_to_string(data.path().join(name)).expect("there");
        let names = [
            "pki/ca.crt",
            "pki/apiserver.crt",
            "pki/admin.crt",
            "kubeconfig",
        ];
        let before = names.map(text);
        let describe_server = || {
            describe("apiserver", &data.path().join("pki/apiserver.crt")).expect("described")[0]
                .clone()
        };
        let described = describe_server();
        renew(data.path(), false, &clock).expect("renewed");
        let after = names.map(text);
        let kept: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a == b).collect();
        assert_eq!(kept, [true, false, false, false]);
        assert_eq!(describe_server()["names"], described["names"]);
        let shown = super::super::ServerCertificate::new(&super::super::Credential {
            certificate: before[1].clone(),
            key: text("pki/apiserver.key"),
        });
        let why = shown.expect_err("another key").to_string();
        assert!(why.contains("is not the one"), "{why}");
        for secret in [
            "pki/apiserver.key",
            "pki/admin.key",
            "pki/ca.key",
            "kubeconfig",
        ] {
            let mode = fs::metadata(data.path().join(secret)).expect("there");
            assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{secret}");
        }
    }

    #[tokio::test]
    async fn certificates_of_users_name_them_and_the_cluster() {
        let clock = Clock::fake(1);
        let data = cluster(&clock);
        let groups = ["dev".to_owned(), "ops".to_owned()];
        let life = Duration::from_secs(3600);
        let config = user_config(data.path(), "jane", &groups, life, &clock).expect("made");
        let server = config.pointer("/clusters/0/cluster/server");
        assert_eq!(server, Some(&json!("https://127.0.0.1:6443")));
        fs::remove_file(data.path().join("pki/ca.key")).expect("removed");
        let error = user_config(data.path(), "jane", &groups, life, &clock).expect_err("no key");
        assert!(error.to_string().contains("ca.key"), "{error:#}");
        let nothing = cli::DataDir {
            data_dir: Some(data.path().join("nothing")),
        };
        let error = folder(&nothing).expect_err("no cluster").to_string();
        assert!(
            error.contains("coracle up") && error.contains("nothing"),
            "{error}"
        );
    }
}
