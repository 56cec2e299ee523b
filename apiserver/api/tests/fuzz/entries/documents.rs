use coracle_api::schema::{
    DecodeError, Decoded, SchemaRef, decode_json, decode_value, decode_yaml, parse_json,
    type_meta_of_json, type_meta_of_yaml,
};
use serde_json::Value;

use super::schema_of;

/// JSON is read as serde_json reads it, and decoding by a schema changes nothing the second time.
pub(crate) fn json(input: &[u8]) {
    let read = parse_json(input);
    if let Ok(theirs) = serde_json::from_slice::<Value>(input) {
        let ours = read.as_ref().expect("what is JSON is read");
        assert!(alike(ours, &theirs), "{ours} is not {theirs}");
    }
    let _ = type_meta_of_json(input);
    if let Ok(value) = &read {
        let written = value.to_string();
        assert_eq!(parse_json(written.as_bytes()).as_ref(), Ok(value));
    }
    by_schema(read, |schema| decode_json(input, schema));
}

/// YAML is read or refused; JSON is read the same as YAML; decoding by a schema changes nothing the second time.
pub(crate) fn yaml(input: &[u8]) {
    let free = decode_yaml(input, &SchemaRef::any()).map(|decoded| decoded.value);
    let _ = type_meta_of_yaml(input);
    if let Ok(value) = &free {
        let written = value.to_string();
        let again = decode_yaml(written.as_bytes(), &SchemaRef::any());
        assert_eq!(again.map(|decoded| decoded.value).as_ref(), Ok(value));
    }
    by_schema(free, |schema| decode_yaml(input, schema));
}

fn by_schema(
    value: Result<Value, DecodeError>,
    decode: impl Fn(&SchemaRef) -> Result<Decoded, DecodeError>,
) {
    let Some(schema) = value.ok().as_ref().and_then(schema_of) else {
        return;
    };
    if let Ok(decoded) = decode(&schema) {
        let again = decode_value(decoded.value.clone(), &schema).expect("it decoded before");
        assert_eq!((again.value, again.strict), (decoded.value, Vec::new()));
    }
}

/// Equal but for numbers: serde_json rounds floats less well, and keeps integers above 63 bits.
fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().expect("finite"), b.as_f64().expect("finite"));
            (a - b).abs() <= a.abs() * 1e-12
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| alike(a, b)))
        }
        _ => ours == theirs,
    }
}
