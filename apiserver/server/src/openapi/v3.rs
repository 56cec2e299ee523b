//! An OpenAPI v3 document as gnostic's protobuf (`openapiv3/OpenAPIv3.proto` of google/gnostic).
//!
//! Written are the parts that documents of Kubernetes have: no servers, callbacks, links, examples or headers.

use serde_json::{Map, Value};

use super::message::Message;

/// The document in protobuf.
pub(super) fn to_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document["openapi"].as_str());
    out.message(2, |info| {
        info.text(1, document["info"]["title"].as_str());
        info.text(6, document["info"]["version"].as_str());
    });
    out.message(4, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(1, path, |out| path_item(item, out));
        }
    });
    out.message(5, |components| {
        components.message(1, |schemas| {
            for (name, schema) in entries(&document["components"]["schemas"]) {
                schemas.named(1, name, |out| schema_or_reference(schema, out));
            }
        });
        components.message(7, |schemes| {
            for (name, scheme) in entries(&document["components"]["securitySchemes"]) {
                schemes.named(1, name, |either| {
                    either.message(1, |out| {
                        for (number, key) in
                            [(1, "type"), (2, "description"), (3, "name"), (4, "in")]
                        {
                            out.text(number, scheme[key].as_str());
                        }
                    });
                });
            }
        });
    });
    out.bytes
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn path_item(item: &Value, out: &mut Message) {
    for (number, method) in [
        (4, "get"),
        (5, "put"),
        (6, "post"),
        (7, "delete"),
        (8, "options"),
        (9, "head"),
        (10, "patch"),
    ] {
        if let Some(found) = item.get(method) {
            out.message(number, |out| operation(found, out));
        }
    }
    parameters(13, &item["parameters"], out);
}

fn operation(operation: &Value, out: &mut Message) {
    out.texts(1, &operation["tags"]);
    out.text(3, operation["description"].as_str());
    out.text(5, operation["operationId"].as_str());
    parameters(6, &operation["parameters"], out);
    if let Some(body) = operation.get("requestBody") {
        out.message(7, |either| {
            either.message(1, |out| {
                out.text(1, body["description"].as_str());
                content(2, body, out);
                out.flag(3, body["required"] == true);
            });
        });
    }
    out.message(8, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            let write = |either: &mut Message| {
                either.message(1, |out| {
                    out.text(1, response["description"].as_str());
                    content(3, response, out);
                });
            };
            match code.as_str() {
                "default" => responses.message(1, write),
                code => responses.named(2, code, write),
            }
        }
    });
    out.extensions(13, operation);
}

fn parameters(number: u32, list: &Value, out: &mut Message) {
    for parameter in list.as_array().into_iter().flatten() {
        out.message(number, |either| {
            either.message(1, |out| {
                out.text(1, parameter["name"].as_str());
                out.text(2, parameter["in"].as_str());
                out.text(3, parameter["description"].as_str());
                out.flag(4, parameter["required"] == true);
                if let Some(schema) = parameter.get("schema") {
                    out.message(10, |out| schema_or_reference(schema, out));
                }
            });
        });
    }
}

/// The media types of a body, each with its schema.
fn content(number: u32, body: &Value, out: &mut Message) {
    if body.get("content").is_none() {
        return;
    }
    out.message(number, |types| {
        for (name, media) in entries(&body["content"]) {
            types.named(1, name, |out| {
                if let Some(schema) = media.get("schema") {
                    out.message(1, |out| schema_or_reference(schema, out));
                }
            });
        }
    });
}

fn schema_or_reference(schema: &Value, out: &mut Message) {
    match schema["$ref"].as_str() {
        Some(target) => out.message(2, |out| out.text(1, Some(target))),
        None => out.message(1, |out| write_schema(schema, out)),
    }
}

fn write_schema(schema: &Value, out: &mut Message) {
    let (flag, text) = (
        |key: &str| schema[key] == true,
        |key: &str| schema[key].as_str(),
    );
    out.flag(1, flag("nullable"));
    out.text(9, text("title"));
    out.double(11, schema["maximum"].as_f64());
    out.double(13, schema["minimum"].as_f64());
    out.whole(15, schema["maxLength"].as_i64());
    out.whole(16, schema["minLength"].as_i64());
    out.text(17, text("pattern"));
    out.whole(18, schema["maxItems"].as_i64());
    out.whole(19, schema["minItems"].as_i64());
    out.flag(20, flag("uniqueItems"));
    out.texts(23, &schema["required"]);
    for value in schema["enum"].as_array().into_iter().flatten() {
        out.message(24, |any| any.text(2, Some(&value.to_string())));
    }
    out.text(25, text("type"));
    for (number, key) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for schema in schema[key].as_array().into_iter().flatten() {
            out.message(number, |out| schema_or_reference(schema, out));
        }
    }
    if let Some(schema) = schema.get("not") {
        out.message(29, |out| write_schema(schema, out));
    }
    if let Some(schema) = schema.get("items") {
        out.message(30, |item| {
            item.message(1, |out| schema_or_reference(schema, out));
        });
    }
    if schema.get("properties").is_some() {
        out.message(31, |properties| {
            for (name, field) in entries(&schema["properties"]) {
                properties.named(1, name, |out| schema_or_reference(field, out));
            }
        });
    }
    match &schema["additionalProperties"] {
        Value::Null => {}
        Value::Bool(any) => out.message(32, |item| item.choice(2, *any)),
        schema => out.message(32, |item| {
            item.message(1, |out| schema_or_reference(schema, out));
        }),
    }
    if let Some(default) = schema.get("default") {
        // There is no form for others, and gnostic leaves them empty.
        out.message(33, |item| match default {
            Value::Number(number) => item.float(1, number.as_f64().unwrap_or_default()),
            Value::Bool(value) => item.choice(2, *value),
            Value::String(text) => item.bytes(3, text.as_bytes()),
            _ => {}
        });
    }
    out.text(34, text("description"));
    out.text(35, text("format"));
    out.extensions(36, schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The fields of a message: number and content, numbers as their eight bytes.
    fn fields(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            let number = u32::try_from(tag >> 3).expect("small");
            let length = match tag & 7 {
                0 => {
                    let value = varint(&mut rest);
                    found.push((number, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut rest)).expect("small"),
                other => panic!("wire type {other}"),
            };
            let (content, after) = rest.split_at(length);
            found.push((number, content.to_vec()));
            rest = after;
        }
        found
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("more bytes");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }

    /// What stands at a path of field numbers, all of it.
    fn at(bytes: &[u8], path: &[u32]) -> Vec<Vec<u8>> {
        let Some((first, rest)) = path.split_first() else {
            return vec![bytes.to_vec()];
        };
        let found = fields(bytes)
            .into_iter()
            .filter(|(number, _)| number == first);
        found.flat_map(|(_, content)| at(&content, rest)).collect()
    }

    fn texts(bytes: &[u8], path: &[u32]) -> Vec<String> {
        let found = at(bytes, path).into_iter();
        found
            .map(|text| String::from_utf8(text).expect("text"))
            .collect()
    }

    #[test]
    fn a_document_is_what_gnostic_reads() {
        let reference = json!({"$ref": "#/components/schemas/A"});
        let document = json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1"},
            "paths": {"/a": {
                "parameters": [{"name": "p", "in": "query", "required": true, "schema": {"type": "string"}}],
                "patch": {
                    "operationId": "patchA",
                    "requestBody": {"content": {"application/json": {"schema": reference}}, "required": true},
                    "responses": {"200": {"description": "OK"}},
                    "x-kubernetes-action": "patch",
                },
            }},
            "components": {
                "schemas": {"A": {
                    "type": "object",
                    "properties": {"b": {"allOf": [reference], "default": {}}, "c": {"type": "integer", "default": 2}},
                    "additionalProperties": {"type": "string", "default": ""},
                    "x-kubernetes-list-type": ["l"],
                }},
                "securitySchemes": {"T": {"type": "apiKey", "in": "header"}},
            },
        });
        let bytes = to_protobuf(&document);
        assert_eq!(texts(&bytes, &[1]), ["3.0.0"]);
        assert_eq!(texts(&bytes, &[2, 6]), ["v1"]);
        assert_eq!(texts(&bytes, &[4, 1, 1]), ["/a"]);
        assert_eq!(texts(&bytes, &[4, 1, 2, 13, 1, 1]), ["p"]);
        let patch = [4, 1, 2, 10];
        let below = |path: &[u32]| [&patch[..], path].concat();
        assert_eq!(texts(&bytes, &below(&[5])), ["patchA"]);
        let body = below(&[7, 1, 2, 1, 2, 1, 2, 1]);
        assert_eq!(texts(&bytes, &body), ["#/components/schemas/A"]);
        assert_eq!(texts(&bytes, &below(&[8, 2, 1])), ["200"]);
        assert_eq!(texts(&bytes, &below(&[13, 2, 2])), ["\"patch\""]);
        let schema = &at(&bytes, &[5, 1, 1, 2, 1])[0];
        assert_eq!(texts(schema, &[25]), ["object"]);
        assert_eq!(texts(schema, &[31, 1, 1]), ["b", "c"]);
        let referred = [31, 1, 2, 1, 26, 2, 1];
        assert_eq!(texts(schema, &referred), ["#/components/schemas/A"]);
        let defaults = at(schema, &[31, 1, 2, 1, 33]);
        assert_eq!(defaults[0], [0; 0]);
        assert_eq!(at(&defaults[1], &[1]), [2f64.to_le_bytes()]);
        assert_eq!(texts(schema, &[32, 1, 1, 33, 3]), [""]);
        assert_eq!(texts(schema, &[36, 1]), ["x-kubernetes-list-type"]);
        assert_eq!(texts(&bytes, &[5, 7, 1, 2, 1, 4]), ["header"]);
    }
}
