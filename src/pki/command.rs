//! `coracle pki`: the cluster's certificates from the command line. Works while `up` runs on the same folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use coracle_clock::{Clock, Timestamp};
use coracle_controllers::Terms;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, Credential, Pki, parse_certificate, subject_names};
use crate::cli::{self, PkiCommand, PkiFormat};
use crate::{data_dir, files, kubeconfig};

/// The certificates below `pki/`.
const NAMES: [&str; 3] = ["ca", "apiserver", "admin"];
/// How far the beginning of a user's certificate lies back.
const BACKDATE: Duration = Duration::from_secs(300);

/// Does what was typed.
pub fn run(command: PkiCommand) -> Result<()> {
    let clock = Clock::system();
    match command {
        PkiCommand::Show { output, data } => show(&folder(&data)?, output),
        PkiCommand::Renew { data } => renew(&folder(&data)?, &clock),
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
    let found: Vec<Value> = NAMES
        .iter()
        .map(|name| describe(name, &data.join("pki").join(format!("{name}.crt"))))
        .collect::<Result<_>>()?;
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

/// What a certificate says; its key is not read.
fn describe(name: &str, path: &Path) -> Result<Value> {
    let der = parse_certificate(&read(path)?).with_context(|| path.display().to_string())?;
    let (_, certificate) = X509Certificate::from_der(&der)
        .map_err(|error| anyhow!("failed to read {}: {error}", path.display()))?;
    let expires = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
    Ok(json!({
        "name": name,
        "file": path.display().to_string(),
        "subject": certificate.subject().to_string(),
        "names": subject_names(&certificate),
        "expires": expires.to_string(),
    }))
}

/// Makes the server's and the administrator's certificates anew; the authority stays, so that everyone who trusts it
/// still does.
fn renew(data: &Path, clock: &Clock) -> Result<()> {
    let pki = Pki::renew(&data.join("pki"), clock)?;
    let path = data.join("kubeconfig");
    if let Some(server) = server_of(&path)? {
        kubeconfig::write(&path, &kubeconfig::new(&server, &pki.ca, &pki.admin))?;
    }
    files::sync_folder(&data.join("pki"))?;
    println!(
        "renewed apiserver and admin in {}",
        data.join("pki").display()
    );
    println!("a running `coracle up` shows the new certificate within a minute");
    Ok(())
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
    let ca = Credential {
        certificate: read(&pki.join("ca.crt"))?,
        key: read(&pki.join("ca.key"))?,
    };
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
    let credential = Authority::new(&ca, clock.clone())?.issue_client(user, groups, &terms)?;
    Ok(kubeconfig::new(&server, &ca.certificate, &credential))
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
        let describe_server =
            || describe("apiserver", &data.path().join("pki/apiserver.crt")).expect("described");
        let described = describe_server();
        renew(data.path(), &clock).expect("renewed");
        let after = names.map(text);
        let kept: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a == b).collect();
        assert_eq!(kept, [true, false, false, false]);
        assert_eq!(describe_server()["names"], described["names"]);
        let shown = super::super::ServerCertificate::new(&Credential {
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
