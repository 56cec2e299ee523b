//! OpenAPI v2 (Swagger), which kubectl before 1.29 reads, as JSON and as gnostic's protobuf.
//!
//! It is the v3 documents of all groups in older words. kubectl knows only the protobuf form
//! (`openapiv2/OpenAPIv2.proto` of google/gnostic), whose few messages are written here by hand.

use serde_json::{Map, Value, json};

use super::message::Message;

/// Turns v3 documents into the one v2 document.
pub(super) fn document(documents: &[Value], version: &str) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for document in documents {
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, schema) in document["components"]["schemas"]
            .as_object()
            .into_iter()
            .flatten()
        {
            definitions.insert(name.clone(), self::schema(schema));
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
    })
}

fn path_item(item: &Value) -> Value {
    let convert = |(key, value): (&String, &Value)| {
        let value = if key == "parameters" {
            parameters(value)
        } else {
            operation(value)
        };
        (key.clone(), value)
    };
    item.as_object()
        .into_iter()
        .flatten()
        .map(convert)
        .collect::<Map<_, _>>()
        .into()
}

fn operation(operation: &Value) -> Value {
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    let mut converted = operation.as_object().cloned().unwrap_or_default();
    let body = converted.shift_remove("requestBody");
    let responses = converted.shift_remove("responses").unwrap_or_default();
    let mut all = parameters(&operation["parameters"])
        .as_array()
        .cloned()
        .unwrap_or_default();
    if let Some(body) = body {
        let content = &body["content"];
        let first = content
            .as_object()
            .and_then(|content| content.values().next())
            .cloned()
            .unwrap_or_default();
        let required = body["required"].as_bool().unwrap_or(false);
        all.push(json!({"name": "body", "in": "body", "required": required, "schema": schema(&first["schema"])}));
        converted.insert("consumes".to_owned(), json!(keys(content)));
    }
    converted.insert("parameters".to_owned(), all.into());
    converted.insert(
        "produces".to_owned(),
        json!(keys(&responses["200"]["content"])),
    );
    let responses = responses
        .as_object()
        .into_iter()
        .flatten()
        .map(|(code, response)| {
            let mut converted =
                Map::from_iter([("description".to_owned(), response["description"].clone())]);
            let content = response["content"]
                .as_object()
                .and_then(|content| content.values().next());
            if let Some(content) = content {
                converted.insert("schema".to_owned(), schema(&content["schema"]));
            }
            (code.clone(), Value::Object(converted))
        });
    converted.insert(
        "responses".to_owned(),
        responses.collect::<Map<_, _>>().into(),
    );
    Value::Object(converted)
}

/// In v2 a parameter has its type itself.
fn parameters(list: &Value) -> Value {
    let convert = |parameter: &Value| {
        let mut converted = parameter.as_object().cloned().unwrap_or_default();
        if let Some(Value::Object(schema)) = converted.shift_remove("schema") {
            converted.extend(schema);
        }
        Value::Object(converted)
    };
    list.as_array().into_iter().flatten().map(convert).collect()
}

/// References lead elsewhere and may have a description beside them; there is no choice of types.
fn schema(value: &Value) -> Value {
    let mut converted = Map::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("$ref", Value::String(reference)) => {
                let name = reference.rsplit('/').next().unwrap_or_default();
                converted.insert("$ref".to_owned(), format!("#/definitions/{name}").into());
            }
            ("allOf", Value::Array(parts)) => {
                for part in parts {
                    converted.extend(schema(part).as_object().cloned().unwrap_or_default());
                }
            }
            ("oneOf", _) => {
                converted.insert("type".to_owned(), "string".into());
            }
            ("properties", Value::Object(fields)) => {
                let fields: Map<String, Value> = fields
                    .iter()
                    .map(|(name, field)| (name.clone(), schema(field)))
                    .collect();
                converted.insert(key.clone(), fields.into());
            }
            ("items" | "additionalProperties", inner) => {
                converted.insert(key.clone(), schema(inner));
            }
            _ => {
                converted.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(converted)
}

/// The v2 document in protobuf.
pub(super) fn to_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document["swagger"].as_str());
    out.message(2, |info| {
        info.text(1, document["info"]["title"].as_str());
        info.text(2, document["info"]["version"].as_str());
    });
    out.message(8, |paths| {
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            paths.named(2, path, |out| path_item_message(item, out));
        }
    });
    out.message(9, |definitions| {
        for (name, schema) in document["definitions"].as_object().into_iter().flatten() {
            definitions.named(1, name, |out| schema_message(schema, out));
        }
    });
    out.bytes
}

fn path_item_message(item: &Value, out: &mut Message) {
    for (number, method) in [
        (2, "get"),
        (3, "put"),
        (4, "post"),
        (5, "delete"),
        (8, "patch"),
    ] {
        if let Some(operation) = item.get(method) {
            out.message(number, |out| operation_message(operation, out));
        }
    }
    parameter_messages(9, &item["parameters"], out);
}

fn operation_message(operation: &Value, out: &mut Message) {
    out.texts(1, &operation["tags"]);
    out.text(5, operation["operationId"].as_str());
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameter_messages(8, &operation["parameters"], out);
    out.message(9, |responses| {
        for (code, response) in operation["responses"].as_object().into_iter().flatten() {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, response["description"].as_str());
                    if let Some(schema) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema_message(schema, out)));
                    }
                });
            });
        }
    });
    out.extensions(13, operation);
}

fn parameter_messages(number: u32, list: &Value, out: &mut Message) {
    for parameter in list.as_array().into_iter().flatten() {
        let place = parameter["in"].as_str().unwrap_or_default();
        let required = parameter["required"].as_bool().unwrap_or(false);
        out.message(number, |item| {
            item.message(1, |out| match place {
                "body" => out.message(1, |body| {
                    body.text(2, parameter["name"].as_str());
                    body.text(3, Some("body"));
                    body.flag(4, required);
                    body.message(5, |out| schema_message(&parameter["schema"], out));
                }),
                _ => out.message(2, |other| {
                    let (choice, kind, unique) = if place == "path" {
                        (4, 5, 19)
                    } else {
                        (3, 6, 20)
                    };
                    other.message(choice, |out| {
                        out.flag(1, required);
                        out.text(2, Some(place));
                        out.text(3, parameter["description"].as_str());
                        out.text(4, parameter["name"].as_str());
                        out.text(kind, parameter["type"].as_str());
                        out.flag(unique, parameter["uniqueItems"].as_bool().unwrap_or(false));
                    });
                }),
            });
        });
    }
}

fn schema_message(schema: &Value, out: &mut Message) {
    out.text(1, schema["$ref"].as_str());
    out.text(2, schema["format"].as_str());
    out.text(4, schema["description"].as_str());
    if let Some(default) = schema.get("default") {
        out.message(5, |any| any.text(2, Some(&default.to_string())));
    }
    out.texts(19, &schema["required"]);
    if let Some(inner) = schema.get("additionalProperties") {
        out.message(21, |item| item.message(1, |out| schema_message(inner, out)));
    }
    if let Some(kind) = schema["type"].as_str() {
        out.message(22, |item| item.text(1, Some(kind)));
    }
    if let Some(inner) = schema.get("items") {
        out.message(23, |item| item.message(1, |out| schema_message(inner, out)));
    }
    if let Some(fields) = schema["properties"].as_object() {
        out.message(25, |properties| {
            for (name, field) in fields {
                properties.named(1, name, |out| schema_message(field, out));
            }
        });
    }
    out.extensions(31, schema);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_description_beside_them() {
        let v3 = json!({"description": "d", "allOf": [{"$ref": "#/components/schemas/io.k8s.X"}]});
        assert_eq!(
            schema(&v3),
            json!({"description": "d", "$ref": "#/definitions/io.k8s.X"})
        );
        let quantity = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
        assert_eq!(schema(&quantity), json!({"type": "string"}));
    }

    #[test]
    fn protobuf_is_what_gnostic_reads() {
        let document =
            json!({"swagger": "2.0", "definitions": {"A": {"type": "object", "x-b": [1]}}});
        let bytes = to_protobuf(&document);
        let mut expected = vec![0x0a, 3];
        expected.extend_from_slice(b"2.0");
        expected.extend_from_slice(&[0x12, 0, 0x42, 0]);
        // definitions = 9 { 1: { name "A", value: { type = 22 { "object" }, extension = 31 { "x-b", { yaml "[1]" } } } } }
        let kind = [&[0xb2, 0x01, 8, 0x0a, 6][..], b"object"].concat();
        let any = [&[0x12, 5, 0x12, 3][..], b"[1]"].concat();
        let extension = [&[0xfa, 0x01, 12, 0x0a, 3][..], b"x-b", &any].concat();
        let schema = [kind, extension].concat();
        let entry = [&[0x0a, 1][..], b"A", &[0x12, schema.len() as u8], &schema].concat();
        let definitions = [&[0x0a, entry.len() as u8][..], &entry].concat();
        expected.extend([&[0x4a, definitions.len() as u8][..], &definitions].concat());
        assert_eq!(bytes, expected);
    }
}
