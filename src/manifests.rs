//! Manifests from files, folders and standard input, as the objects that they describe.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use coracle_api::schema::MAX_NESTING;
use serde_json::Value;

/// One object of a manifest and where it came from.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The object, with relative `file:` images made absolute.
    pub object: Value,
    /// `guestbook.yaml, document 2`: for messages.
    pub source: String,
}

/// Everything that the `-f` flags name, in their order; a folder's files in the order of their names.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("failed to read standard input")?;
            let folder = std::env::current_dir().context("failed to find the current folder")?;
            parse(&text, "standard input", &folder, &mut manifests)?;
        } else if path.is_dir() {
            let files = files(path)?;
            if files.is_empty() {
                bail!(
                    "the folder {} holds no .yaml, .yml or .json file",
                    path.display()
                );
            }
            for file in files {
                load_file(&file, &mut manifests)?;
            }
        } else {
            load_file(path, &mut manifests)?;
        }
    }
    Ok(manifests)
}

/// The folders whose `.wasm` files the manifests may name: those of the `-f` flags themselves.
pub fn folders(paths: &[PathBuf]) -> Vec<PathBuf> {
    let folder = |path: &PathBuf| match path {
        path if path.is_dir() => path.clone(),
        path => path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned(),
    };
    paths
        .iter()
        .filter(|path| path.as_path() != Path::new("-"))
        .map(folder)
        .collect()
}

/// The manifests of a folder, in the order of their names.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || format!("failed to list the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let is_manifest = path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn load_file(path: &Path, manifests: &mut Vec<Manifest>) -> Result<()> {
    let bytes = fs::read(path)
        .with_context(|| format!("failed to read the manifest {}", path.display()))?;
    let Ok(text) = String::from_utf8(bytes) else {
        bail!(
            "{} is not text: -f takes manifests in YAML or JSON (`coracle image load` takes .wasm files)",
            path.display()
        );
    };
    let absolute = fs::canonicalize(path)
        .with_context(|| format!("failed to resolve the path {}", path.display()))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    parse(&text, &path.display().to_string(), folder, manifests)
}

fn parse(text: &str, source: &str, folder: &Path, manifests: &mut Vec<Manifest>) -> Result<()> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! { max_depth: MAX_NESTING, flow_nesting_limit: MAX_NESTING },
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            // The parser knows no file names, and begins its report as we begin ours.
            let report = error.to_string().replace("<input>", source);
            let report = report.strip_prefix("error: ").unwrap_or(&report);
            anyhow!("{source} is not valid YAML: {report}")
        })?;
    for (index, document) in documents.into_iter().enumerate() {
        let source = format!("{source}, document {}", index + 1);
        flatten(document, &source, folder, manifests)?;
    }
    Ok(())
}

/// A document is an object, a `List` of objects, or empty.
fn flatten(
    document: Value,
    source: &str,
    folder: &Path,
    manifests: &mut Vec<Manifest>,
) -> Result<()> {
    let mut object = match document {
        Value::Null => return Ok(()),
        Value::Object(map) if map.is_empty() => return Ok(()),
        object @ Value::Object(_) => object,
        _ => {
            bail!("{source} is not an object: a manifest starts with apiVersion, kind and metadata")
        }
    };
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List") && object["items"].is_array() {
        for (index, item) in object["items"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .enumerate()
        {
            flatten(
                item.take(),
                &format!("{source}, item {}", index + 1),
                folder,
                manifests,
            )?;
        }
        return Ok(());
    }
    for field in ["apiVersion", "kind"] {
        if object[field].as_str().unwrap_or_default().is_empty() {
            bail!("{source} has no {field}");
        }
    }
    let meta = &object["metadata"];
    if ["name", "generateName"]
        .iter()
        .all(|field| meta[*field].as_str().unwrap_or_default().is_empty())
    {
        bail!("{source} ({kind}) has no metadata.name");
    }
    // The text of the manifest is going to be kept there.
    if !matches!(meta["annotations"], Value::Null | Value::Object(_)) {
        bail!("{source} ({kind}): metadata.annotations is not a map");
    }
    make_images_absolute(&mut object, folder);
    manifests.push(Manifest {
        object,
        source: source.to_owned(),
    });
    Ok(())
}

/// Rewrites `image: file:./app.wasm` of every container list, however deep (templates), to an
/// absolute `file:///…`. Only here, where the command line reads the manifest itself, is there a
/// folder that a relative path can be relative to.
fn make_images_absolute(value: &mut Value, folder: &Path) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if matches!(
                    key.as_str(),
                    "containers" | "initContainers" | "ephemeralContainers"
                ) {
                    for container in value.as_array_mut().into_iter().flatten() {
                        if let Some(image) = container.get_mut("image")
                            && let Some(absolute) =
                                image.as_str().and_then(|i| absolute_image(i, folder))
                        {
                            *image = Value::from(absolute);
                        }
                    }
                } else {
                    make_images_absolute(value, folder);
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| make_images_absolute(item, folder)),
        _ => {}
    }
}

fn absolute_image(image: &str, folder: &Path) -> Option<String> {
    let path = image.strip_prefix("file:")?;
    if path.starts_with('/') {
        return None;
    }
    let mut absolute = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            std::path::Component::ParentDir => {
                absolute.pop();
            }
            std::path::Component::CurDir => {}
            other => absolute.push(other),
        }
    }
    Some(format!("file://{}", absolute.display()))
}

#[cfg(test)]
mod tests {
    use coracle_api::schema::on_deep_stack;

    use super::*;

    fn parse_all(text: &str) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        parse(text, "a.yaml", Path::new("/srv/app"), &mut manifests)?;
        Ok(manifests)
    }

    #[test]
    fn documents_and_lists_become_objects() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        let kinds: Vec<_> = parse_all(text)
            .expect("parsed")
            .iter()
            .map(|m| m.object["kind"].clone())
            .collect();
        assert_eq!(kinds, ["ConfigMap", "Secret"]);
    }

    #[test]
    fn manifests_nest_as_deep_as_the_server_takes_them() {
        let deep = |levels: usize| format!("{}1{}", "{a: ".repeat(levels), "}".repeat(levels));
        let text = |levels| {
            let data = deep(levels);
            format!(
                "apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {{name: a}}\ndata: {data}\n"
            )
        };
        let work = || {
            parse_all(&text(MAX_NESTING - 1)).expect("deep enough");
            let error = parse_all(&text(MAX_NESTING)).expect_err("too deep");
            assert!(format!("{error:#}").contains("depth"), "{error:#}");
        };
        on_deep_stack("deep", work).expect("room for a thread");
    }

    #[test]
    fn relative_images_become_absolute_wherever_containers_are() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {spec: {containers: [{name: a, image: 'file:./wasm/../a.wasm'}, {name: b, image: 'file:///b.wasm'}, {name: c, image: 'c:1'}]}}}\n";
        let object = &parse_all(text).expect("parsed")[0].object;
        let containers = &object["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0]["image"], "file:///srv/app/a.wasm");
        assert_eq!(containers[1]["image"], "file:///b.wasm");
        assert_eq!(containers[2]["image"], "c:1");
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("app.wasm");
        fs::write(&path, b"\0asm\x01\0\0\0\xff").expect("written");
        let error = load(&[path]).expect_err("refused").to_string();
        assert!(error.contains("app.wasm is not text"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let message = |text: &str| parse_all(text).expect_err("refused").to_string();
        assert_eq!(
            message("kind: Pod\nmetadata: {name: a}\n"),
            "a.yaml, document 1 has no apiVersion"
        );
        assert_eq!(
            message("apiVersion: v1\nkind: Pod\n"),
            "a.yaml, document 1 (Pod) has no metadata.name"
        );
        assert_eq!(
            message("apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: b}\n"),
            "a.yaml, document 1 (Pod): metadata.annotations is not a map"
        );
        let broken = message("a: 1\nb: [1\nc: d\n");
        assert!(
            broken.starts_with("a.yaml is not valid YAML: line 3"),
            "{broken}"
        );
        assert!(broken.contains("--> a.yaml:3:"), "{broken}");
    }
}
