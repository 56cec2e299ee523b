//! `wasi:config`: the container's environment, and the folders that an annotation names.
//!
//! A pod is configured by environment variables and by mounted ConfigMaps and Secrets, so that is
//! what a guest finds here. `coracle.dev/config: /etc/app, /etc/more` names mounts: each file in them
//! is a key, and its text the value. A key is looked for in the folders in their order, then among
//! the variables. Files are read when they are asked for, so a changed ConfigMap shows.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cap_primitives::fs::{open_dir, read_base_dir};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::container::Guest;
use crate::exec::open_below;
use crate::link::ComponentState;

/// Names the folders.
const ANNOTATION: &str = "coracle.dev/config";
/// The longest value: as much as a whole ConfigMap may have.
const MAX_VALUE: u64 = 1 << 20;
/// What all values together may have when a guest asks for all.
const MAX_ALL: usize = 8 << 20;

/// Two drafts of one interface.
const NAMES: [&str; 3] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];

/// The interface's error.
#[derive(ComponentType, Lift, Lower, Clone, Debug, PartialEq, Eq)]
#[component(variant)]
enum Failure {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Got<T> = Result<T, Failure>;

pub(super) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, ComponentState>;
    for name in NAMES {
        let mut instance = linker.instance(name)?;
        instance.func_wrap_async("get", |store: Store<'_>, (key,): (String,)| {
            let guest = store.data().guest.clone();
            Box::new(async move { Ok((blocking(move || get(&guest, &key)).await,)) })
        })?;
        instance.func_wrap_async("get-all", |store: Store<'_>, (): ()| {
            let guest = store.data().guest.clone();
            Box::new(async move { Ok((blocking(move || get_all(&guest)).await,)) })
        })?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Got<T> + Send + 'static) -> Got<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::Upstream(error.to_string())))
}

fn get(guest: &Arc<Guest>, key: &str) -> Got<Option<String>> {
    // What is no name of a file cannot be in a folder.
    if !key.is_empty() && !key.contains('/') && !key.starts_with("..") && !key.contains('\0') {
        for folder in folders(guest) {
            let Some((host, rest)) = guest.preopens.locate(folder) else {
                continue;
            };
            let found = read(&host, &rest.join(key));
            if let Some(value) = found.map_err(|error| failed(folder, key, &error))? {
                return Ok(Some(value));
            }
        }
    }
    let environment = guest.environment();
    let found = environment.into_iter().find(|(name, _)| name == key);
    Ok(found.map(|(_, value)| value))
}

fn get_all(guest: &Arc<Guest>) -> Got<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut bytes = 0;
    let mut add = |name: String, value: String| {
        if all.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        bytes += name.len() + value.len();
        if bytes > MAX_ALL {
            return Err(Failure::Upstream(format!(
                "the whole configuration has more than {MAX_ALL} bytes; ask for single keys"
            )));
        }
        all.push((name, value));
        Ok(())
    };
    for folder in folders(guest) {
        let Some((host, rest)) = guest.preopens.locate(folder) else {
            continue;
        };
        let names = names(&host, &rest).map_err(|error| failed(folder, "", &error))?;
        for name in names {
            let found = read(&host, &rest.join(&name));
            if let Some(value) = found.map_err(|error| failed(folder, &name, &error))? {
                add(name, value)?;
            }
        }
    }
    for (name, value) in guest.environment() {
        add(name, value)?;
    }
    Ok(all)
}

/// The folders that the pod's annotation names.
fn folders(guest: &Guest) -> impl Iterator<Item = &str> {
    let named = guest.config.annotations.get(ANNOTATION);
    let named = named.map_or("", String::as_str).split(',').map(str::trim);
    named.filter(|folder| folder.starts_with('/'))
}

fn failed(folder: &str, key: &str, error: &io::Error) -> Failure {
    Failure::Io(format!("{folder}/{key}: {error}"))
}

/// The text of a file, `None` if there is none.
fn read(host: &Path, path: &Path) -> io::Result<Option<String>> {
    let file = match open_below(host, path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_VALUE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_VALUE {
        return Err(io::Error::other(format!(
            "a value has at most {MAX_VALUE} bytes"
        )));
    }
    Ok(Some(text))
}

/// The files of a folder in the order of their names; what begins with `..` is how volumes are
/// exchanged as a whole, and no key.
fn names(host: &Path, rest: &Path) -> io::Result<Vec<String>> {
    let folder = match open_dir(&File::open(host)?, rest) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in read_base_dir(&folder)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with("..")
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
