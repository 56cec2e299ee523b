//! Specs that are accepted and specs that are refused, side by side.

use serde_json::{Value, json};

use super::{defaults, validation, warnings};
use crate::{At, FieldErrors};

/// A small spec with `change` applied, with its defaults.
fn spec(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "image": "example.com/app:1"}]});
    change(&mut spec);
    let map = spec.as_object_mut().expect("an object");
    defaults::pod_spec(map);
    defaults::pod(map);
    spec
}

fn findings(spec: &Value) -> Vec<String> {
    let mut errors = FieldErrors::default();
    validation::pod_spec(&At::root(spec, "spec"), true, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Value)) {
    assert_eq!(findings(&spec(change)), Vec::<String>::new());
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), expected: &[&str]) {
    assert_eq!(findings(&spec(change)), expected);
}

#[test]
fn containers_need_names_of_their_own_and_images() {
    accepted(|_| {});
    refused(
        |spec| spec["containers"] = json!([]),
        &["spec.containers: Required value"],
    );
    refused(
        |spec| spec["containers"][0]["image"] = json!(""),
        &["spec.containers[0].image: Required value"],
    );
    refused(
        |spec| {
            spec["containers"] = json!([{"name": "a", "image": "i"}, {"name": "a", "image": "i"}])
        },
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    refused(
        |spec| spec["initContainers"] = json!([{"name": "a", "image": "i"}]),
        &["spec.initContainers[0].name: Duplicate value: \"a\""],
    );
}

#[test]
fn ports_are_numbers_with_distinct_names() {
    accepted(|spec| {
        spec["containers"][0]["ports"] = json!([{"containerPort": 80, "name": "http"}])
    });
    refused(
        |spec| spec["containers"][0]["ports"] = json!([{"containerPort": 70000}]),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    refused(
        |spec| {
            spec["containers"][0]["ports"] =
                json!([{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}])
        },
        &["spec.containers[0].ports[1].name: Duplicate value: \"x\""],
    );
    refused(
        |spec| {
            spec["containers"][0]["ports"] = json!([{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2, "hostPort": 8080}]);
        },
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\""],
    );
}

#[test]
fn mounts_name_volumes_that_are_there() {
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    accepted(|spec| {
        spec["containers"][0]["volumeMounts"] = mount.clone();
        spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    });
    refused(
        |spec| spec["containers"][0]["volumeMounts"] = mount.clone(),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
    refused(
        |spec| spec["volumes"] = json!([{"name": "v", "hostPath": {"path": "/v", "type": "Bad"}}]),
        &[
            "spec.volumes[0].hostPath.type: Unsupported value: \"Bad\": supported values: \"\", \"BlockDevice\", \
             \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    refused(
        |spec| spec["volumes"] = json!([{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}]),
        &["spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type"],
    );
}

#[test]
fn requests_stay_within_limits() {
    let resources =
        |value: Value| move |spec: &mut Value| spec["containers"][0]["resources"] = value;
    accepted(resources(
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}),
    ));
    refused(
        resources(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    refused(
        resources(json!({"requests": {"memory": "-1"}})),
        &[
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn probes_have_one_handler_that_can_work() {
    let probe =
        |value: Value| move |spec: &mut Value| spec["containers"][0]["livenessProbe"] = value;
    accepted(probe(json!({"httpGet": {"port": 80}})));
    refused(
        probe(json!({})),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    refused(
        probe(json!({"tcpSocket": {"port": 0}})),
        &[
            "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    refused(
        probe(json!({"httpGet": {"port": 80}, "successThreshold": 2})),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
}

#[test]
fn variables_have_names_and_one_source() {
    let env = |value: Value| move |spec: &mut Value| spec["containers"][0]["env"] = json!([value]);
    accepted(env(json!({"name": "A.b", "value": "1"})));
    accepted(env(
        json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
    ));
    accepted(env(
        json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}),
    ));
    refused(
        env(json!({"value": "1"})),
        &["spec.containers[0].env[0].name: Required value"],
    );
    refused(
        env(json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}})),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting \
             fieldPath: field label not supported: spec.nope",
        ],
    );
}

#[test]
fn policies_are_known_ones() {
    refused(
        |spec| spec["restartPolicy"] = json!("Sometimes"),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    refused(
        |spec| spec["dnsPolicy"] = json!("None"),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    refused(
        |spec| spec["tolerations"] = json!([{}]),
        &[
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \
             \"match all values and all keys\"",
        ],
    );
}

#[test]
fn restart_rules_stand_beside_a_policy_and_name_exit_codes() {
    let with = |policy: Value, rule: Value| {
        move |spec: &mut Value| {
            spec["containers"][0]["restartPolicy"] = policy;
            spec["containers"][0]["restartPolicyRules"] = json!([rule]);
        }
    };
    let codes = json!({"operator": "In", "values": [42]});
    refused(
        with(
            Value::Null,
            json!({"action": "Restart", "exitCodes": codes}),
        ),
        &[
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ],
    );
    refused(
        with(
            json!("Never"),
            json!({"action": "DoNotRestart", "exitCodes": {"operator": "Equals"}}),
        ),
        &[
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"DoNotRestart\": supported values: \
             \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Equals\": supported \
             values: \"In\", \"NotIn\"",
        ],
    );
    refused(
        with(json!("Never"), json!({"action": "RestartAllContainers"})),
        &["spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified"],
    );
}

#[test]
fn what_is_odd_but_legal_is_warned_of() {
    let spec = spec(|spec| {
        spec["containers"][0]["env"] =
            json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])
    });
    assert_eq!(
        warnings::pod_spec(&At::root(&spec, "spec")),
        [
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
        ]
    );
}
