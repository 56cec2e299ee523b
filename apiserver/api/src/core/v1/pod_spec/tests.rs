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
    let selectors = "topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/arch is deprecated since v1.14";
    // What a template has, and what is said of it below `template.`.
    let cases = [
        (
            json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
            vec![r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#.to_owned()],
        ),
        (
            json!({"spec": {"topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/arch"}]}}),
            vec![
                format!(r#"spec.{selectors}; use "kubernetes.io/arch" instead"#),
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod".to_owned(),
            ],
        ),
        (
            json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}}}),
            vec![r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#.to_owned()],
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "gitRepo": {}}, {"name": "w", "rbd": {}}]}}),
            vec![
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+".to_owned(),
                "spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+".to_owned(),
            ],
        ),
        (
            json!({"spec": {"hostAliases": [{"ip": "::1"}, {"ip": "::1"}, {"ip": "0::2"}]}}),
            vec![
                r#"spec.hostAliases[1].ip: duplicate ip "::1""#.to_owned(),
                r#"spec.hostAliases[2].ip: IPv6 address "0::2" should be in RFC 5952 canonical format ("::2")"#.to_owned(),
            ],
        ),
        (
            json!({"spec": {"imagePullSecrets": [{"name": ""}, {}]}}),
            vec![
                r#"spec.imagePullSecrets[1].name: duplicate name """#.to_owned(),
                r#"spec.imagePullSecrets[0].name: invalid empty name """#.to_owned(),
                r#"spec.imagePullSecrets[1].name: invalid empty name """#.to_owned(),
            ],
        ),
        (
            json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "x"}}, "spec": {"containers": [{"name": "a"}]}}),
            vec![r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the "appArmorProfile" field instead"#.to_owned()],
        ),
        (
            json!({"spec": {"containers": [{"resources": {"requests": {"memory": "100m"}}, "env": [
                {"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "A", "value": "$(A)3"},
            ]}]}}),
            vec![
                r#"spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer"#.to_owned(),
                r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#.to_owned(),
            ],
        ),
        (
            json!({"spec": {"containers": [
                {"ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 1}, {"containerPort": 80, "protocol": "TCP", "hostIP": "192.0.2.1"}]},
                {"ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 1}, {"containerPort": 80, "protocol": "UDP"}]},
            ]}}),
            vec![
                "spec.containers[0].ports[1]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:192.0.2.1}".to_owned(),
                "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]".to_owned(),
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]".to_owned(),
                "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[1]".to_owned(),
            ],
        ),
        (
            json!({"spec": {"terminationGracePeriodSeconds": -1}}),
            vec!["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1".to_owned()],
        ),
    ];
    for (template, expected) in cases {
        let found = warnings::template(&At::root(&template, "template"));
        let expected: Vec<String> = expected
            .iter()
            .map(|said| {
                format!(
                    "template.{}",
                    said.replace("with spec", "with template.spec")
                )
            })
            .collect();
        assert_eq!(found, expected, "{template}");
    }
}

#[test]
fn files_that_would_lie_on_each_other_are_warned_of() {
    let cases: Vec<(Value, Vec<String>)> = vec![
        (
            json!({"spec": {"volumes": [
                {"name": "a", "configMap": {"name": "m", "items": [{"path": "t"}, {"path": "t/x"}, {"path": "tx"}]}},
                {"name": "b", "secret": {"secretName": "s", "items": [{"path": "t/x/"}, {"path": "t"}]}},
                {"name": "c", "downwardAPI": {"items": [{"path": "t"}, {"path": "t"}, {"path": "u"}]}},
            ]}}),
            vec![
                r#"volume "a" (ConfigMap "m"): overlapping paths: "t/x" with "t""#.to_owned(),
                r#"volume "b" (Secret "s"): overlapping paths: "t" with "t/x""#.to_owned(),
                r#"volume "c" (DownwardAPI): overlapping paths: "t" with "t""#.to_owned(),
            ],
        ),
        (
            json!({"spec": {"volumes": [{"name": "a", "projected": {"sources": [
                {"clusterTrustBundle": {"signerName": "s", "path": "t/t"}},
                {"downwardAPI": {"items": [{"path": "t"}]}},
                {"secret": {"name": "s", "items": [{"path": "s"}, {"path": "t"}]}},
                {"serviceAccountToken": {"path": "t"}},
                {"configMap": {"name": "m"}},
                {},
            ]}}]}}),
            [
                r#": overlapping paths: "t" (DownwardAPI) with "t/t" (ClusterTrustBundle "s")"#,
                r#": overlapping paths: "t" (Secret "s") with "t/t" (ClusterTrustBundle "s")"#,
                r#": overlapping paths: "t" (Secret "s") with "t" (DownwardAPI)"#,
                r#": overlapping paths: "t" (ServiceAccountToken) with "t/t" (ClusterTrustBundle "s")"#,
                r#": overlapping paths: "t" (ServiceAccountToken) with "t" (DownwardAPI)"#,
                r#": overlapping paths: "t" (ServiceAccountToken) with "t" (Secret "s")"#,
                " has no sources provided",
            ]
            .map(|text| format!("volume \"a\" (Projected){text}"))
            .into(),
        ),
    ];
    for (template, expected) in cases {
        let found = warnings::template(&At::root(&template, "template"));
        assert_eq!(found, expected, "{template}");
    }
}

#[test]
fn a_negative_time_to_end_is_taken_for_one_second() {
    accepted(|spec| spec["terminationGracePeriodSeconds"] = (-1).into());
}

#[test]
fn a_hook_sleeps_no_longer_than_a_pod_may_take_to_end() {
    let sleep = |seconds: i64, grace: i64| {
        move |spec: &mut Value| {
            spec["terminationGracePeriodSeconds"] = grace.into();
            spec["containers"][0]["lifecycle"] =
                json!({"preStop": {"sleep": {"seconds": seconds}}});
        }
    };
    accepted(sleep(0, 5));
    accepted(sleep(5, 5));
    refused(
        sleep(6, 5),
        &[
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 6: must be non-negative and less than \
             terminationGracePeriodSeconds (5)",
        ],
    );
}

#[test]
fn required_node_affinity_compares_what_labels_can_be() {
    let affinity = |value: &str| {
        let term =
            json!({"matchExpressions": [{"key": "k", "operator": "In", "values": ["v", value]}]});
        move |spec: &mut Value| {
            spec["affinity"] = json!({"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["-"]}]}},
                ],
            }});
        }
    };
    accepted(affinity(""));
    let found = findings(&spec(affinity("-x")));
    assert_eq!(found.len(), 1);
    let place = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let expected = format!(
        "{place}.matchExpressions[0].values[1]: Invalid value: \"-x\": a valid label must be"
    );
    assert!(found[0].starts_with(&expected), "{found:?}");
}

#[test]
fn claims_have_whole_names() {
    let found = findings(&spec(|spec| {
        spec["resourceClaims"] = json!([{"name": "a", "resourceClaimName": ""}]);
    }));
    assert_eq!(found.len(), 1);
    let expected = "spec.resourceClaims[0].resourceClaimName: Invalid value: \"\": a lowercase RFC 1123 subdomain";
    assert!(found[0].starts_with(expected), "{found:?}");
}

#[test]
fn mounts_and_devices_dont_meet() {
    let volumes = json!([
        {"name": "d", "emptyDir": {}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    let with = |mount: Value, devices: Value| {
        let volumes = volumes.clone();
        move |spec: &mut Value| {
            spec["volumes"] = volumes;
            spec["containers"][0]["volumeMounts"] = json!([mount]);
            spec["containers"][0]["volumeDevices"] = devices;
        }
    };
    let place = "spec.containers[0]";
    let refusals = |spec: Value| findings(&spec);
    let mount = json!({"name": "c", "mountPath": "/d"});
    assert_eq!(
        refusals(spec(with(
            mount,
            json!([{"name": "c", "devicePath": "/d"}])
        ))),
        [
            format!(
                "{place}.volumeMounts[0].name: Invalid value: \"c\": must not already exist in volumeDevices"
            ),
            format!(
                "{place}.volumeMounts[0].mountPath: Invalid value: \"/d\": must not already exist as a path in \
                 volumeDevices"
            ),
            format!(
                "{place}.volumeDevices[0].name: Invalid value: \"c\": must not already exist in volumeMounts"
            ),
            format!(
                "{place}.volumeDevices[0].devicePath: Invalid value: \"/d\": must not already exist as a path in \
                 volumeMounts"
            ),
        ]
    );
    let mount = |fields: Value| {
        let mut mount = json!({"name": "d", "mountPath": "/d"});
        for (field, value) in fields.as_object().expect("fields") {
            mount[field] = value.clone();
        }
        with(mount, json!([]))
    };
    accepted(mount(
        json!({"recursiveReadOnly": "Enabled", "readOnly": true, "mountPropagation": "None"}),
    ));
    assert_eq!(
        refusals(spec(mount(
            json!({"recursiveReadOnly": "Enabled", "mountPropagation": "Bidirectional", "subPath": "/x"})
        ))),
        [
            format!("{place}.volumeMounts.subPath: Invalid value: \"/x\": must be a relative path"),
            format!(
                "{place}.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only \
                 to privileged containers"
            ),
            format!(
                "{place}.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"
            ),
            format!(
                "{place}.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is \
                 None or not specified"
            ),
        ]
    );
}

#[test]
fn containers_to_debug_with_look_into_one_that_is_there() {
    let debugger = |target: &str, mount: Value| {
        let container = json!({
            "name": "debug", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
            "targetContainerName": target, "volumeMounts": [mount],
        });
        move |spec: &mut Value| {
            spec["volumes"] = json!([{"name": "d", "emptyDir": {}}]);
            spec["ephemeralContainers"] = json!([container]);
        }
    };
    let name = spec(|_| {})["containers"][0]["name"].clone();
    let name = name.as_str().expect("a name");
    accepted(debugger(name, json!({"name": "d", "mountPath": "/d"})));
    refused(
        debugger(
            "nobody",
            json!({"name": "d", "mountPath": "/d", "subPath": "x"}),
        ),
        &[
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"nobody\"",
            "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
}

#[test]
fn users_of_ones_own_rule_out_the_hosts_namespaces() {
    refused(
        |spec| {
            spec["hostUsers"] = false.into();
            spec["hostPID"] = true.into();
            spec["hostIPC"] = true.into();
            spec["os"] = json!({"name": "linux"});
            spec["containers"][0]["securityContext"] =
                json!({"windowsOptions": {"runAsUserName": "u"}});
        },
        &[
            "spec.HostPID: Forbidden: when `hostUsers` is false",
            "spec.HostIPC: Forbidden: when `hostUsers` is false",
            "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux \
             pod",
        ],
    );
}

#[test]
fn sources_of_variables_have_names_and_whole_parts() {
    let from = |source: Value| {
        move |spec: &mut Value| {
            spec["containers"][0]["env"] = json!([{"name": "a", "valueFrom": source}]);
        }
    };
    accepted(from(json!({"configMapKeyRef": {"name": "c", "key": "k"}})));
    let found = findings(&spec(from(json!({"secretKeyRef": {"key": "k"}}))));
    assert_eq!(found.len(), 1);
    let expected = "spec.containers[0].env[0].valueFrom.secretKeyRef.name: Invalid value: \"\": a lowercase RFC 1123";
    assert!(found[0].starts_with(expected), "{found:?}");
    let disk =
        json!({"resourceFieldRef": {"resource": "limits.ephemeral-storage", "divisor": "3"}});
    refused(
        from(disk),
        &[
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \
             \"limits.ephemeral-storage\": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, \
             1Pi, 1Ei are supported with the local ephemeral storage resource",
        ],
    );
}

#[test]
fn probes_of_readiness_end_nothing() {
    let probe = json!({"exec": {"command": ["true"]}, "successThreshold": 1, "terminationGracePeriodSeconds": 5});
    refused(
        move |spec| spec["containers"][0]["readinessProbe"] = probe,
        &[
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for \
             readinessProbes",
        ],
    );
}

#[test]
fn disks_of_clouds_say_what_makes_sense() {
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = "d".into();
        move |spec: &mut Value| spec["volumes"] = json!([volume])
    };
    let disk = json!({"diskName": "d", "diskURI": "/subscriptions/x", "kind": "Managed"});
    accepted(volume(json!({"azureDisk": disk})));
    refused(
        volume(json!({"azureDisk": {"diskName": "d", "diskURI": "x", "kind": "Shared"}})),
        &[
            "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"x\": supported values: \
             \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
        ],
    );
    refused(
        volume(
            json!({"flexVolume": {"driver": "d", "options": {"a.K8s.io/x": "", "k8s.io.a/x": ""}}}),
        ),
        &[
            "spec.volumes[0].flexVolume.options[a.K8s.io/x]: Invalid value: \"a.K8s.io/x\": kubernetes.io and k8s.io \
             namespaces are reserved",
        ],
    );
    refused(
        volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {}}})),
        &["spec.volumes[0].csi.nodePublishSecretRef.name: Required value"],
    );
}

#[test]
fn an_override_of_the_host_name_is_short_and_alone() {
    accepted(|spec| spec["hostnameOverride"] = json!("www.example.com"));
    let long = format!("{}.{}", "a".repeat(60), "b".repeat(10));
    let change = |spec: &mut Value| {
        spec["hostnameOverride"] = json!(long);
        spec["setHostnameAsFQDN"] = json!(true);
    };
    refused(
        change,
        &[
            "spec.hostnameOverride: Too long: may not be more than 64 bytes",
            "spec.hostnameOverride: Forbidden: may not be set when `setHostnameAsFQDN` is true",
        ],
    );
    let found = findings(&spec(|spec| spec["hostnameOverride"] = json!("two\nlines")));
    assert!(found[0].starts_with("spec.hostnameOverride: Invalid value"));
}
