use coracle_api::protobuf::{Envelope, encode};
use coracle_api::schema::SchemaRef;

use super::group_version;

/// A body is decoded or refused; what was decoded says the same after it was encoded.
pub(crate) fn protobuf(input: &[u8]) {
    let Ok(envelope) = Envelope::open(input) else {
        return;
    };
    let (group, version) = group_version(&envelope.api_version);
    let Some(schema) = SchemaRef::for_kind(group, version, &envelope.kind) else {
        return;
    };
    let Ok(object) = envelope.decode(&schema) else {
        return;
    };
    let encoded = encode(&object, &schema);
    let again = Envelope::open(&encoded).expect("what was encoded opens");
    assert_eq!(again.decode(&schema), Ok(object));
}
