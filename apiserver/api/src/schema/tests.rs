//! Tests of the table and of decoding.

use serde_json::{Value, json};

use super::*;

fn schema(group: &str, version: &str, kind: &str) -> SchemaRef {
    SchemaRef::for_kind(group, version, kind).unwrap_or_else(|| panic!("{group}/{version} {kind}"))
}

#[test]
fn the_builtin_table_knows_every_definition() {
    let table = SchemaTable::builtin();
    assert!(table.definitions.len() > 735, "{}", table.definitions.len());
    assert!(table.by_kind.len() > 180, "{}", table.by_kind.len());
    for definition in &table.definitions {
        let empty = definition.fields.is_empty();
        let known = definition.name.starts_with("io.k8s.");
        assert!(known, "{}", definition.name);
        assert!(
            !empty
                || !definition.kinds.is_empty()
                || SchemaRef::builtin(&definition.name).is_some()
        );
    }
}

#[test]
fn the_table_knows_how_lists_merge() {
    let spec = schema("", "v1", "Pod")
        .child("spec")
        .expect("a pod has a spec");
    let containers = spec.child("containers").expect("a spec has containers");
    assert_eq!(containers.kind(), SchemaKind::List);
    assert_eq!(
        (containers.list_type(), containers.merge_key()),
        (ListType::Map, Some("name"))
    );
    let ports = containers
        .child("0")
        .and_then(|container| container.child("ports"))
        .expect("ports");
    assert_eq!(ports.list_keys(), ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key(), Some("containerPort"));
    let volumes = spec.field("volumes").expect("volumes").schema();
    assert!(volumes.patch_strategy().merge && volumes.patch_strategy().retain_keys);
    let volume = volumes.elem().expect("a list has elements");
    assert_eq!(
        volume.field("configMap").expect("a source").numbers(),
        [2, 19]
    );
    let selector = schema("apps", "v1", "Deployment")
        .child("spec")
        .and_then(|spec| spec.child("selector"));
    assert_eq!(selector.expect("selector").map_type(), MapType::Atomic);
}
