use std::path::Path;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn args(flags: &[&str]) -> Result<IdentityArgs, String> {
    let line = ["coracle", "up"].iter().chain(flags);
    match Cli::try_parse_from(line)
        .map_err(|error| error.to_string())?
        .command
    {
        Command::Up(args) => Ok(args.identity),
        _ => unreachable!("it is up"),
    }
}

fn read(flags: &[&str]) -> Result<Identity, String> {
    let read = Identity::read(&args(flags)?, &Clock::fake(1));
    read.map_err(|error| format!("{error:#}"))
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("config.yaml");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[tokio::test]
async fn without_flags_there_is_nothing() {
    let read = read(&[]).expect("nothing is good");
    assert!(
        read.authentication.is_none() && read.authorization.is_none() && read.webhook.is_none()
    );
    assert!(read.anonymous);
}

#[tokio::test]
async fn flags_and_files_that_do_not_go_together_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let authentication = write(
        folder.path(),
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: false}\n",
    );
    for (flags, why) in [
        (
            vec!["--authorization-mode", "RBAC,RBAC"],
            "specified more than once",
        ),
        (
            vec!["--authorization-mode", "Webhook"],
            "authorization config file not passed",
        ),
        (vec!["--authorization-mode", "ABAC"], "invalid value 'ABAC'"),
        (
            vec![
                "--authorization-mode",
                "RBAC",
                "--authorization-webhook-config-file",
                "x",
            ],
            "without mode Webhook",
        ),
        (
            vec![
                "--authorization-config",
                "x",
                "--authorization-mode",
                "RBAC",
            ],
            "cannot be used with",
        ),
        (
            vec!["--authentication-config", "/missing"],
            "failed to read the authentication configuration /missing",
        ),
        (
            vec!["--authentication-token-webhook-config-file", "/missing"],
            "kubeconfig /missing",
        ),
        (
            vec![
                "--authentication-config",
                &authentication,
                "--anonymous-auth=true",
            ],
            "--anonymous-auth flag cannot be set when anonymous field is configured",
        ),
    ] {
        let found = read(&flags).err().unwrap_or_default();
        assert!(found.contains(why), "{flags:?}: {found}");
    }
    let wrong = write(folder.path(), "kind: x");
    let found = read(&["--authorization-config", &wrong])
        .err()
        .unwrap_or_default();
    assert!(
        found.contains("is not usable: no kind \"x\" is registered"),
        "{found}"
    );
}

#[tokio::test]
async fn nobody_is_a_stranger_where_everybody_may_do_everything() {
    assert!(
        !read(&["--authorization-mode", "AlwaysAllow"])
            .expect("good")
            .anonymous
    );
    let folder = tempfile::tempdir().expect("a folder");
    let with = |anonymous: &str| {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        let file = write(folder.path(), &format!("{head}{anonymous}\n"));
        read(&[
            "--authorization-mode=AlwaysAllow",
            "--authentication-config",
            &file,
        ])
    };
    for open in [
        "anonymous: {enabled: true}",
        "anonymous: {enabled: true, conditions: [{path: /livez}]}",
    ] {
        let error = with(open).err().unwrap_or_default();
        let why =
            "anonymous.enabled: strangers cannot be let in, because everybody may do everything";
        assert!(error.contains(why), "{error}");
    }
    for barred in ["anonymous: {enabled: false}", ""] {
        assert!(!with(barred).expect("good").anonymous, "{barred}");
    }
    assert!(!read(&["--anonymous-auth=false"]).expect("good").anonymous);
    assert!(
        read(&["--authorization-mode", "Node,RBAC", "--anonymous-auth"])
            .expect("good")
            .anonymous
    );
}

/// What the page shows works.
#[test]
fn the_files_of_the_documentation_are_good() {
    let page = include_str!("../../docs/identity.md");
    let blocks: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let of = |kind: &str| {
        let found = blocks
            .iter()
            .find(|block| block.contains(&format!("kind: {kind}")));
        *found.expect(kind)
    };
    let authentication = coracle_server::config::AuthenticationConfiguration::parse(
        of("AuthenticationConfiguration"),
        &[],
    );
    assert_eq!(authentication.expect("good").jwt.len(), 1);
    let authorization =
        AuthorizationConfiguration::parse(of("AuthorizationConfiguration"), &|_| None);
    assert_eq!(authorization.expect("good").authorizers.len(), 3);
}
