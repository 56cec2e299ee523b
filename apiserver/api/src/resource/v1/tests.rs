use serde_json::{Value, json};

use super::{resource_claim, resource_slice};
use crate::{FieldErrors, Object, Resource};

fn findings(resource: &Resource, spec: Value) -> Vec<String> {
    let mut object = Object::from_value(json!({"spec": spec})).expect("an object");
    resource.strategy.default(&mut object);
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&object, &mut errors);
    resource.strategy.validate_create(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_claim_asks_for_devices_and_speaks_of_its_own_requests() {
    let claim = |devices: Value| findings(&resource_claim::RESOURCE, json!({"devices": devices}));
    let requests = json!([
        {"name": "r", "exactly": {"deviceClassName": "c"}},
        {"name": "f", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]},
    ]);
    let constraint =
        |name: &str| json!([{"requests": [name], "matchAttribute": "d.example.com/a"}]);
    assert!(claim(json!({"requests": requests, "constraints": constraint("f/s")})).is_empty());
    assert_eq!(
        claim(json!({"requests": requests, "constraints": constraint("r/s")})),
        [
            "spec.devices.constraints[0].requests[0]: Invalid value: \"r/s\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
        ]
    );
    assert_eq!(
        claim(
            json!({"requests": [{"name": "r"}, {"name": "r", "exactly": {"allocationMode": "All", "count": 2}}]})
        ),
        [
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1].exactly.deviceClassName: Required value",
            "spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            "spec.devices.requests[1]: Duplicate value: \"r\"",
        ]
    );
}

#[test]
fn a_slice_says_where_its_devices_are() {
    let slice = |more: Value| {
        let mut spec =
            json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}});
        let fields = more.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(fields);
        findings(&resource_slice::RESOURCE, spec)
    };
    let device =
        json!({"name": "d", "attributes": {"v": {"version": "1.2.3-a.1"}, "b": {"bool": true}}});
    assert!(slice(json!({"allNodes": true, "devices": [device]})).is_empty());
    assert_eq!(
        slice(
            json!({"allNodes": true, "nodeName": "n", "devices": [{"name": "d", "attributes": {"a/b": {"version": "1.02.3"}, "c": {}}}]})
        ),
        [
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
            "spec.devices[0].attributes[a/b].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
            "spec.devices[0].attributes[c]: Invalid value: \"\": exactly one value must be specified",
        ]
    );
}
