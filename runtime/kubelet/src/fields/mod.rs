//! Every field of a pod's spec, and what it does here.
//!
//! `table.rs` is the only place that says so: `docs/fields.md` is [written](page) from it (a test
//! fails when it is stale), and a pod that asks for something that nobody here can give is told so once,
//! in an Event (`ignored`). A field that is in no row fails a test too.

mod table;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use table::FIELDS;

/// How a field of a pod's spec is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It does what it says.
    Works,
    /// Others than the kubelet act on it.
    Elsewhere,
    /// What it asks for holds of every guest anyway.
    Given,
    /// The pod waits and says why.
    Refused,
    /// It cannot mean anything for wasm: accepted, named in an Event.
    Meaningless,
    /// It could mean something, and does nothing yet: accepted, named in an Event.
    NotYet,
}

impl Effect {
    fn title(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Elsewhere => "works, elsewhere",
            Self::Given => "holds by nature",
            Self::Refused => "refused",
            Self::Meaningless => "without meaning, named in an Event",
            Self::NotYet => "without effect yet, named in an Event",
        }
    }
}

/// One row: fields that are treated alike. A row stands for all that is below its fields, unless
/// there are rows for that.
#[derive(Debug)]
struct Row {
    /// Such as `containers[].env[].valueFrom`; what is said of `containers[]` holds of init and ephemeral
    /// containers too.
    paths: &'static [&'static str],
    effect: Effect,
    /// In a sentence, without the name of the field.
    does: &'static str,
}

const fn row(paths: &'static [&'static str], effect: Effect, does: &'static str) -> Row {
    Row {
        paths,
        effect,
        does,
    }
}

/// What of the pod's spec has no effect here, in the words of one Event; nothing that was so `before` already. Whether a pod
/// has the host's network is said by who knows the flags.
pub(crate) fn ignored(pod: &Pod, before: Option<&Pod>, is_on_host: bool) -> Option<String> {
    let mut without = without_effect(pod, is_on_host);
    if let Some(before) = before {
        let told = without_effect(before, is_on_host);
        without.retain(|path| !told.contains(path));
    }
    (!without.is_empty()).then(|| {
        let fields = without.join(", ");
        format!("without effect on this node (docs/fields.md says why): {fields}")
    })
}

fn without_effect(pod: &Pod, is_on_host: bool) -> Vec<&'static str> {
    let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
    let silent = |effect| matches!(effect, Effect::Meaningless | Effect::NotYet);
    let rows = FIELDS.iter().filter(|row| silent(row.effect));
    let paths = rows.flat_map(|row| row.paths).copied();
    paths
        .filter(|path| is_set(&spec, path) && !(is_on_host && *path == "hostNetwork"))
        .collect()
}

/// The lists whose elements are containers.
const CONTAINERS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

fn is_set(value: &Value, path: &str) -> bool {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let below = |value: &Value| match (value, rest) {
        (Value::Null | Value::Bool(false), "") => false,
        (Value::String(text), "") => !text.is_empty(),
        (Value::Array(list), "") => !list.is_empty(),
        (Value::Object(map), "") => !map.is_empty(),
        (_, "") => true,
        (value, rest) => is_set(value, rest),
    };
    let Some(list) = head.strip_suffix("[]") else {
        return below(&value[head]);
    };
    let lists = match list {
        "containers" => CONTAINERS,
        _ => std::slice::from_ref(&list),
    };
    let elements = lists.iter().filter_map(|list| value[*list].as_array());
    elements.flatten().any(below)
}

/// The table as a page of Markdown, `docs/fields.md`.
pub fn page() -> String {
    use std::fmt::Write as _;

    let mut page = String::from(HEAD);
    for (title, list) in [
        ("The pod", ""),
        ("Its containers", "containers[]"),
        ("Its volumes", "volumes[]"),
    ] {
        let belongs = |row: &&Row| {
            let head = row.paths[0].split_once("[]").map(|(list, _)| list);
            head.unwrap_or_default() == list.trim_end_matches("[]")
        };
        let _ = write!(page, "\n## {title}\n\n| Field | Here | |\n|---|---|---|\n");
        for row in FIELDS.iter().filter(belongs) {
            let names: Vec<String> = row.paths.iter().map(|path| format!("`{path}`")).collect();
            let (names, effect) = (names.join(", "), row.effect.title());
            let _ = writeln!(page, "| {names} | {effect} | {} |", row.does);
        }
    }
    page
}

const HEAD: &str = "\
# Fields of a pod's spec

Written from [the kubelet's table](../runtime/kubelet/src/fields/table.rs); a test fails when this page is stale
(`CORACLE_BLESS=1 cargo test -p coracle-kubelet fields` writes it anew). A field stands for all that is below it.

What a pod asks for and nobody here can give is accepted, and named once in an Event `FieldsIgnored` of the pod; nothing is
dropped in silence.
";
