//! The built binary and the real kubectl, driven by scripts that read like a terminal.
//!
//! Each `scripts/*.txt` is a test of its own; see [`script`] for the language. Without a kubectl on
//! the PATH the scripts are listed as ignored; with `CORACLE_REQUIRE_KUBECTL=1` that is an error. Likewise those that start a
//! registry, without Debian's `docker-registry` and with `CORACLE_REQUIRE_REGISTRY=1`; those that run other clients, without
//! what `.ci/clients` installs and with `CORACLE_REQUIRE_CLIENTS=1`; and those with guests of other languages, before
//! `.ci/languages` has made them and with `CORACLE_REQUIRE_LANGUAGES=1`; and those that ask as `curl` does, without it and with
//! `CORACLE_REQUIRE_CURL=1`, or with dig, without Debian's `dnsutils` and with `CORACLE_REQUIRE_DIG=1`.

mod clients;
mod cluster;
mod faulty;
mod issuer;
mod load;
mod registry;
mod script;
mod tokens;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let has_kubectl = runs("kubectl", &["version", "--client"]);
    let has_registry = registry::is_installed();
    let has_clients = clients::are_installed();
    let has_curl = runs("curl", &["--version"]);
    let has_dig = runs("dig", &["-v"]);
    let has_languages = script::languages().join("installed").is_file();
    for (is_there, name, missing) in [
        (has_kubectl, "KUBECTL", "there is no kubectl"),
        (has_registry, "REGISTRY", "there is no docker-registry"),
        (has_clients, "CLIENTS", "there is no other client"),
        (has_curl, "CURL", "there is no curl"),
        (has_dig, "DIG", "there is no dig"),
        (
            has_languages,
            "LANGUAGES",
            ".ci/languages has not made its guests",
        ),
    ] {
        if is_there {
            continue;
        }
        let variable = format!("CORACLE_REQUIRE_{name}");
        if std::env::var_os(&variable).is_some_and(|value| value == "1") {
            eprintln!("error: {variable}=1, but {missing}");
            return ExitCode::FAILURE;
        }
        eprintln!("scripts that need it are ignored: {missing}");
    }
    let trials = scripts().into_iter().enumerate().map(|(index, path)| {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let needs_kubectl = text.contains("kubectl ");
        let needs = |word: &str| text.lines().any(|line| line == word);
        let missing = needs_kubectl && !has_kubectl
            || (needs("registry") || needs("registry tls") || needs("registry token"))
                && !has_registry
            || needs("clients") && !has_clients
            || needs("curl") && !has_curl
            || needs("dnsutils") && !has_dig
            || needs("languages") && !has_languages;
        Trial::test(name, move || {
            script::run(&path, index).map_err(Failed::from)
        })
        .with_ignored_flag(missing)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(
        !paths.is_empty(),
        "no scripts were found in {}",
        folder.display()
    );
    paths
}

/// Whether there is such a program.
fn runs(program: &str, arguments: &[&str]) -> bool {
    let version = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}
