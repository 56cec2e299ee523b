//! The paths of a resource: which operations there are, and what they take.

use coracle_api::Resource;
use coracle_api::kinds::Subresource;
use coracle_api::schema::SchemaRef;
use serde_json::{Map, Value, json};

const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Group, version and kind.
pub(super) type Kind = (&'static str, &'static str, &'static str);

/// Kinds that the operations of every resource use.
pub(super) fn shared_kinds() -> Vec<Kind> {
    vec![("", "v1", "Status"), ("", "v1", "DeleteOptions")]
}

/// Paths with their operations.
pub(super) fn of(resource: &Resource) -> Map<String, Value> {
    let base = match resource.group {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let (own, scope) = (
        (resource.group, resource.version, resource.kind),
        resource.namespaced,
    );
    let collection = match scope {
        true => format!("{base}/namespaces/{{namespace}}/{}", resource.plural),
        false => format!("{base}/{}", resource.plural),
    };
    let has = |verb: &str| resource.verbs.contains(&verb);
    let mut paths = Map::new();

    let mut many = path_item(scope, false);
    if has("list") {
        many.insert("get".to_owned(), operation("list", own, resource, "", None));
    }
    if has("create") {
        many.insert(
            "post".to_owned(),
            operation("post", own, resource, "", Some(own)),
        );
    }
    if has("deletecollection") {
        many.insert(
            "delete".to_owned(),
            operation("deletecollection", own, resource, "", None),
        );
    }
    paths.insert(collection.clone(), Value::Object(many));

    let mut one = path_item(scope, true);
    for (verb, method) in [
        ("get", "get"),
        ("update", "put"),
        ("patch", "patch"),
        ("delete", "delete"),
    ] {
        if has(verb) {
            let body = (method == "put").then_some(own);
            one.insert(
                method.to_owned(),
                operation(method, own, resource, "", body),
            );
        }
    }
    paths.insert(format!("{collection}/{{name}}"), Value::Object(one));

    for subresource in resource.subresources {
        let path = format!("{collection}/{{name}}/{}", subresource.name);
        paths.insert(
            path,
            Value::Object(subresource_paths(resource, subresource)),
        );
    }
    if scope && has("list") {
        let mut everywhere = path_item(false, false);
        everywhere.insert(
            "get".to_owned(),
            operation("list", own, resource, "ForAllNamespaces", None),
        );
        paths.insert(
            format!("{base}/{}", resource.plural),
            Value::Object(everywhere),
        );
    }
    if has("watch") {
        paths.extend(watch_paths(&base, resource));
    }
    paths
}

/// The deprecated paths that only watch.
fn watch_paths(base: &str, resource: &Resource) -> Map<String, Value> {
    let plural = resource.plural;
    let collection = if resource.namespaced {
        format!("{base}/watch/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/watch/{plural}")
    };
    let own = (resource.group, resource.version, resource.kind);
    let mut paths = Map::new();
    let mut add = |path: String, namespaced: bool, named: bool, action: &str, suffix: &str| {
        let mut item = path_item(namespaced, named);
        item.insert(
            "get".to_owned(),
            operation(action, own, resource, suffix, None),
        );
        if let Some(Value::Array(all)) = item.get_mut("parameters") {
            all.extend(parameters("list"));
        }
        paths.insert(path, Value::Object(item));
    };
    let namespaced = resource.namespaced;
    add(collection.clone(), namespaced, false, "watchlist", "List");
    add(
        format!("{collection}/{{name}}"),
        namespaced,
        true,
        "watch",
        "",
    );
    if namespaced {
        let path = format!("{base}/watch/{plural}");
        add(path, false, false, "watchlist", "ListForAllNamespaces");
    }
    paths
}

fn subresource_paths(resource: &Resource, subresource: &Subresource) -> Map<String, Value> {
    let kind = subresource
        .kind
        .unwrap_or((resource.group, resource.version, resource.kind));
    let mut item = path_item(resource.namespaced, true);
    for (verb, method) in [
        ("get", "get"),
        ("create", "post"),
        ("update", "put"),
        ("patch", "patch"),
        ("delete", "delete"),
    ] {
        if is_connect(subresource) && subresource.verbs.contains(&verb) {
            let suffix = format!("{}:{}", verb, subresource.name);
            let made = operation("connect", kind, resource, &suffix, None);
            item.insert(method.to_owned(), made);
        } else if subresource.verbs.contains(&verb) {
            let body = ["post", "put"].contains(&method).then_some(kind);
            item.insert(
                method.to_owned(),
                operation(method, kind, resource, subresource.name, body),
            );
        }
    }
    item
}

/// Whether requests are handed on to somebody else, whose answers are anything.
fn is_connect(subresource: &Subresource) -> bool {
    ["attach", "exec", "portforward", "proxy"].contains(&subresource.name)
}

/// The parameters that the path itself has.
fn path_item(namespaced: bool, named: bool) -> Map<String, Value> {
    let mut parameters = Vec::new();
    if named {
        parameters.push(path_parameter("name", "name of the object"));
    }
    if namespaced {
        parameters.push(path_parameter(
            "namespace",
            "object name and auth scope, such as for teams and projects",
        ));
    }
    parameters.push(query(
        "pretty",
        "string",
        "If 'true', then the output is pretty printed.",
    ));
    Map::from_iter([("parameters".to_owned(), Value::Array(parameters))])
}

fn path_parameter(name: &str, description: &str) -> Value {
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "description": description, "required": true, "schema": schema})
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    let schema = json!({"type": kind, "uniqueItems": true});
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn operation(
    action: &str,
    kind: Kind,
    resource: &Resource,
    suffix: &str,
    body: Option<Kind>,
) -> Value {
    let (group, version, name) = kind;
    let shown = match action {
        "list" => list_name(kind).unwrap_or_default(),
        "delete" | "deletecollection" => name_of(("", "v1", "Status")).unwrap_or_default(),
        "watch" | "watchlist" => WATCH_EVENT.to_owned(),
        "connect" => String::new(),
        _ => name_of(kind).unwrap_or_default(),
    };
    let media = |types: &[&str]| -> Map<String, Value> {
        types
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": reference(&shown)})))
            .collect()
    };
    let answers: &[&str] = match action {
        "connect" => &["*/*"],
        "list" | "watch" | "watchlist" => &[
            "application/json",
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf",
            "application/vnd.kubernetes.protobuf;stream=watch",
            "application/yaml",
        ],
        _ => &[
            "application/json",
            "application/vnd.kubernetes.protobuf",
            "application/yaml",
        ],
    };
    let answer = json!({"description": "OK", "content": media(answers)});
    let mut responses = Map::from_iter([("200".to_owned(), answer.clone())]);
    if ["post", "put", "patch"].contains(&action) {
        responses.insert(
            "201".to_owned(),
            json!({"description": "Created", "content": answer["content"]}),
        );
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut operation = Map::new();
    let group_tag = group_tag(resource.group);
    let namespaced = resource.namespaced && !suffix.ends_with("ForAllNamespaces");
    // The verb of those that are handed on stands before the rest of the name.
    let (method, suffix) = match suffix.split_once(':') {
        Some(("create", suffix)) => ("Post", suffix),
        Some(("update", suffix)) => ("Put", suffix),
        Some(("patch", suffix)) => ("Patch", suffix),
        Some(("delete", suffix)) => ("Delete", suffix),
        Some((_, suffix)) => ("Get", suffix),
        None => ("", suffix),
    };
    let id = format!(
        "{}{}{}{method}{}{}{}",
        verb_text(action),
        upper(&group_tag),
        upper(resource.version),
        if namespaced { "Namespaced" } else { "" },
        resource.kind,
        upper(suffix)
    );
    operation.insert(
        "tags".to_owned(),
        json!([format!("{group_tag}_{}", resource.version)]),
    );
    operation.insert("operationId".to_owned(), id.into());
    operation.insert("parameters".to_owned(), Value::Array(parameters(action)));
    if let Some(body) = body {
        let schema = reference(&name_of(body).unwrap_or_default());
        let content = json!({"*/*": {"schema": schema}});
        operation.insert(
            "requestBody".to_owned(),
            json!({"content": content, "required": true}),
        );
    } else if action == "patch" {
        operation.insert("requestBody".to_owned(), patch_body());
    } else if ["delete", "deletecollection"].contains(&action) {
        let schema = reference(&name_of(("", "v1", "DeleteOptions")).unwrap_or_default());
        operation.insert(
            "requestBody".to_owned(),
            json!({"content": {"*/*": {"schema": schema}}}),
        );
    }
    operation.insert("responses".to_owned(), Value::Object(responses));
    operation.insert("x-kubernetes-action".to_owned(), action.into());
    operation.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!({"group": group, "version": version, "kind": name}),
    );
    Value::Object(operation)
}

/// The formats of patches; kubectl merges lists by their keys only where the third is among them.
fn patch_body() -> Value {
    let types = [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    let schema = json!({"schema": reference(super::schemas::PATCH)});
    let content: Map<String, Value> = types
        .iter()
        .map(|media| ((*media).to_owned(), schema.clone()))
        .collect();
    json!({"content": content, "required": true})
}

fn parameters(action: &str) -> Vec<Value> {
    let list = || {
        vec![
            query(
                "allowWatchBookmarks",
                "boolean",
                "allowWatchBookmarks requests watch events with type \"BOOKMARK\".",
            ),
            query(
                "continue",
                "string",
                "The continue option should be set when retrieving more results from the server.",
            ),
            query(
                "fieldSelector",
                "string",
                "A selector to restrict the list of returned objects by their fields.",
            ),
            query(
                "labelSelector",
                "string",
                "A selector to restrict the list of returned objects by their labels.",
            ),
            query(
                "limit",
                "integer",
                "limit is a maximum number of responses to return for a list call.",
            ),
            query(
                "resourceVersion",
                "string",
                "resourceVersion sets a constraint on what resource versions a request may be served from.",
            ),
            query(
                "resourceVersionMatch",
                "string",
                "resourceVersionMatch determines how resourceVersion is applied to list calls.",
            ),
            query(
                "sendInitialEvents",
                "boolean",
                "`sendInitialEvents=true` may be set together with `watch=true`.",
            ),
            query(
                "timeoutSeconds",
                "integer",
                "Timeout for the list/watch call.",
            ),
            query(
                "watch",
                "boolean",
                "Watch for changes to the described resources.",
            ),
        ]
    };
    let dry_run = || {
        let text = "When present, indicates that modifications should not be persisted. Valid values are: - All: all \
                    dry run stages will be processed";
        query("dryRun", "string", text)
    };
    let write = || {
        let manager = "fieldManager is a name associated with the actor or entity that is making these changes.";
        let validation = "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) \
                          containing unknown or duplicate fields. Valid values are: - Ignore - Warn - Strict";
        vec![
            dry_run(),
            query("fieldManager", "string", manager),
            query("fieldValidation", "string", validation),
        ]
    };
    let delete = || {
        vec![
            dry_run(),
            query(
                "gracePeriodSeconds",
                "integer",
                "The duration in seconds before the object should be deleted.",
            ),
            query(
                "orphanDependents",
                "boolean",
                "Deprecated: please use the PropagationPolicy.",
            ),
            query(
                "propagationPolicy",
                "string",
                "Whether and how garbage collection will be performed.",
            ),
        ]
    };
    match action {
        "list" => list(),
        "post" | "put" => write(),
        "patch" => {
            let force = "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields \
                         owned by other people.";
            let mut all = write();
            all.push(query("force", "boolean", force));
            all
        }
        "delete" => delete(),
        "deletecollection" => list().into_iter().chain(delete()).collect(),
        _ => Vec::new(),
    }
}

/// A reference to a definition; any value when there is none.
pub(super) fn reference(name: &str) -> Value {
    if name.is_empty() {
        json!({})
    } else {
        json!({"$ref": format!("#/components/schemas/{name}")})
    }
}

/// The definition of a kind.
pub(super) fn name_of((group, version, kind): Kind) -> Option<String> {
    SchemaRef::for_kind(group, version, kind)?
        .definition_name()
        .map(str::to_owned)
}

/// The definition of a kind's list.
pub(super) fn list_name((group, version, kind): Kind) -> Option<String> {
    SchemaRef::for_kind(group, version, &format!("{kind}List"))?
        .definition_name()
        .map(str::to_owned)
}

fn verb_text(action: &str) -> &'static str {
    match action {
        "list" => "list",
        "post" => "create",
        "put" => "replace",
        "patch" => "patch",
        "delete" => "delete",
        "deletecollection" => "deleteCollection",
        "watch" | "watchlist" => "watch",
        "connect" => "connect",
        _ => "read",
    }
}

/// What operations of a group are tagged with: `core`, `apps`, `rbacAuthorization`.
pub(super) fn group_tag(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let words = group.strip_suffix(".k8s.io").unwrap_or(group);
    camel(&words.replace('.', "-"))
}

pub(super) fn upper(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

fn camel(text: &str) -> String {
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &upper(word))
}
