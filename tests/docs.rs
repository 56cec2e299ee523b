//! Keeps the documentation honest: every relative link leads to a file of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what was built or downloaded, or nothing to read.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn every_relative_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages(root);
    let names: Vec<_> = pages.iter().filter_map(|page| page.file_name()).collect();
    assert!(
        names.contains(&"architecture.md".as_ref()),
        "the pages were not found: {names:?}"
    );
    let broken: Vec<String> = pages.iter().flat_map(|page| broken(root, page)).collect();
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let text = "[a](b.md) and [c](https://d) and\n```text\n[no](link)\n```\n[e](f.md#g), [h](#i), `[j](k)`";
    assert_eq!(links(text), ["b.md", "f.md"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("page.md");
    fs::write(&page, "[here](page.md) [gone](gone.md)").expect("written");
    assert_eq!(
        broken(folder.path(), &page),
        ["page.md: gone.md does not exist"]
    );
}

/// The README, and every Markdown file below `docs`, `samples` and `tests`.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = vec![root.join("README.md")];
    let mut folders: Vec<PathBuf> = ["docs", "samples", "tests"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a folder's entry").path()) {
            let skipped = SKIPPED
                .iter()
                .any(|name| path.file_name().is_some_and(|n| n == *name));
            if path.is_dir() && !skipped {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The links of a page that lead to no file, each as a line for the failure.
fn broken(root: &Path, page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page)
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", page.display()));
    let folder = page.parent().expect("a page lies in a folder");
    let name = page.strip_prefix(root).unwrap_or(page).display();
    links(&text)
        .iter()
        .filter(|link| !folder.join(link).exists())
        .map(|link| format!("{name}: {link} does not exist"))
        .collect()
}

/// The relative links of a Markdown text, without their anchors; code is not looked into.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code {
            continue;
        }
        // `](` ends a link's text; between backticks it is code unless the link began before them.
        for (at, _) in line.match_indices("](") {
            let before = &line[..at];
            let ticks_are_closed = before.matches('`').count().is_multiple_of(2);
            let Some((target, _)) = line[at + 2..].split_once(')') else {
                continue;
            };
            let path = target.split('#').next().unwrap_or_default();
            if ticks_are_closed && !path.is_empty() && !path.contains("://") {
                links.push(path);
            }
        }
    }
    links
}
