use super::*;
use serde_json::json;

/// What the node has.
pub(crate) const NODE: Capacity = Capacity {
    cpu_millis: 2000,
    memory: 1 << 30,
    ephemeral_storage: 1 << 40,
    pods: 10,
};

struct Cluster;

impl Sources for Cluster {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let map = json!({"data": {"GREETING": "hello", "A": "from map"}});
        (name == "config").then(|| Arc::new(serde_json::from_value(map).expect("valid")))
    }
    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let secret = json!({"data": {"token": "c2VjcmV0", "raw": "/w=="}});
        (name == "secret").then(|| Arc::new(serde_json::from_value(secret).expect("valid")))
    }
    fn services(&self) -> Vec<Arc<Service>> {
        let service = json!({"metadata": {"name": "my-api", "uid": "1"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]}});
        let newer = json!({"metadata": {"name": "newer", "uid": "2"},
            "spec": {"clusterIP": "fd00::7", "ports": [{"port": 53, "protocol": "UDP"}]}});
        [service, newer]
            .map(|service| Arc::new(serde_json::from_value(service).expect("valid")))
            .to_vec()
    }
    fn kubernetes(&self) -> Option<Arc<Service>> {
        None
    }
    fn allocatable(&self) -> Capacity {
        NODE
    }
    fn host_ips(&self) -> String {
        "10.240.0.1,fd00::1".into()
    }
    fn file(&self, volume: &str, path: &str) -> Result<Option<String>, String> {
        match (volume, path) {
            ("env", "app.env") => Ok(Some("COLOUR='red'\n".to_owned())),
            ("env", "bad.env") => Ok(Some("COLOUR=red\n".to_owned())),
            _ => Ok(None),
        }
    }
}

fn resolve(container: serde_json::Value) -> Result<BTreeMap<String, String>, ConfigError> {
    let pod = json!({"metadata": {"name": "web", "namespace": "default", "labels": {"app": "x"}},
                     "spec": {"containers": [container, {"name": "beside", "resources": {"limits": {"cpu": "500m"}}}],
                              "initContainers": [{"name": "before", "resources": {"limits": {"cpu": "700m"}}}]}});
    let pod: Pod = serde_json::from_value(pod).expect("valid");
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    environment(&pod, container, "10.240.0.9", &Cluster).map(|values| values.into_iter().collect())
}

#[test]
fn later_values_win_and_see_what_stands_before() {
    let values = resolve(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "config"}}, {"prefix": "S_", "secretRef": {"name": "none", "optional": true}}],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(GREETING)-$(C)"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "token"}}}]}))
    .expect("resolved");
    assert_eq!(values["A"], "1");
    assert_eq!(values["B"], "1-hello-$(C)");
    assert_eq!(
        (values["POD"].as_str(), values["IP"].as_str()),
        ("x", "10.240.0.9")
    );
    assert_eq!(values["TOKEN"], "secret");
    assert_eq!(values["MY_API_SERVICE_HOST"], "10.96.0.7");
    assert_eq!(values["MY_API_PORT_80_TCP"], "tcp://10.96.0.7:80");
    assert_eq!(values["NEWER_SERVICE_HOST"], "fd00::7");
    assert_eq!(values["NEWER_PORT"], "udp://[fd00::7]:53");
    assert_eq!(values["NEWER_PORT_53_UDP"], "udp://[fd00::7]:53");
    assert_eq!(values["NEWER_PORT_53_UDP_ADDR"], "fd00::7");
}

#[test]
fn values_that_double_each_other_are_refused_before_they_fill_the_memory() {
    let mut variables = vec![json!({"name": "V0", "value": "x".repeat(1000)})];
    for index in 1..40 {
        let before = index - 1;
        let value = format!("$(V{before})$(V{before})");
        variables.push(json!({"name": format!("V{index}"), "value": value}));
    }
    let error = resolve(json!({"name": "c", "env": variables})).expect_err("refused");
    assert!(matches!(error, ConfigError::TooLarge(_)), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let message = |env: serde_json::Value| {
        resolve(json!({"name": "c", "env": [{"name": "X", "valueFrom": env}]}))
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        message(json!({"configMapKeyRef": {"name": "none", "key": "k"}})),
        "configmap \"none\" not found"
    );
    assert_eq!(
        message(json!({"configMapKeyRef": {"name": "config", "key": "k"}})),
        "couldn't find key k in ConfigMap default/config"
    );
    assert_eq!(
        message(json!({"resourceFieldRef": {"containerName": "none", "resource": "limits.cpu"}})),
        "container none not found"
    );
    assert!(
        message(json!({"secretKeyRef": {"name": "secret", "key": "raw"}}))
            .contains("not valid UTF-8")
    );
}

#[test]
fn a_value_comes_from_wherever_it_may() {
    let from = |source: serde_json::Value| {
        let container = json!({
            "name": "c",
            "resources": {
                "requests": {"cpu": "250m", "memory": "1Mi"},
                "limits": {"memory": "64Mi", "ephemeral-storage": "1Gi"},
            },
            "env": [{"name": "X", "valueFrom": source}],
        });
        resolve(container).expect("resolved").remove("X")
    };
    let field = |path: &str| from(json!({"fieldRef": {"fieldPath": path}}));
    let resource = |name: &str, divisor: &str| {
        from(json!({"resourceFieldRef": {"resource": name, "divisor": divisor}}))
    };
    let of = |name: &str, resource: &str, divisor: &str| {
        from(
            json!({"resourceFieldRef": {"containerName": name, "resource": resource, "divisor": divisor}}),
        )
    };
    let file = |path: &str, key: &str| {
        from(
            json!({"fileKeyRef": {"volumeName": "env", "path": path, "key": key, "optional": true}}),
        )
    };
    let cases = [
        (field("metadata.name"), Some("web")),
        (field("metadata.namespace"), Some("default")),
        (field("metadata.labels['app']"), Some("x")),
        (field("metadata.annotations['none']"), Some("")),
        (field("spec.nodeName"), Some("")),
        (field("status.podIPs"), Some("10.240.0.9")),
        (field("status.hostIP"), Some("10.240.0.1")),
        (field("status.hostIPs"), Some("10.240.0.1,fd00::1")),
        (resource("requests.cpu", "0"), Some("1")),
        (resource("requests.cpu", "1m"), Some("250")),
        // Without a limit a container has what the node has.
        (resource("limits.cpu", "0"), Some("2")),
        (resource("limits.memory", "1Mi"), Some("64")),
        (resource("requests.memory", "0"), Some("1048576")),
        (resource("limits.ephemeral-storage", "1Mi"), Some("1024")),
        (resource("requests.hugepages-2Mi", "0"), Some("0")),
        (of("beside", "limits.cpu", "1m"), Some("500")),
        (of("before", "limits.cpu", "1m"), Some("700")),
        (
            of("before", "limits.ephemeral-storage", "1Gi"),
            Some("1024"),
        ),
        (file("app.env", "COLOUR"), Some("red")),
        (file("app.env", "SIZE"), None),
        (file("none.env", "COLOUR"), None),
        (
            from(json!({"configMapKeyRef": {"name": "config", "key": "A"}})),
            Some("from map"),
        ),
        (
            from(json!({"configMapKeyRef": {"name": "config", "key": "none", "optional": true}})),
            None,
        ),
        (
            from(json!({"configMapKeyRef": {"name": "none", "key": "A", "optional": true}})),
            None,
        ),
        (
            from(json!({"secretKeyRef": {"name": "secret", "key": "token"}})),
            Some("secret"),
        ),
        (
            from(json!({"secretKeyRef": {"name": "none", "key": "token", "optional": true}})),
            None,
        ),
        (
            from(json!({"secretKeyRef": {"name": "secret", "key": "none", "optional": true}})),
            None,
        ),
    ];
    for (index, (found, expected)) in cases.into_iter().enumerate() {
        assert_eq!(found.as_deref(), expected, "case {index}");
    }
}

#[test]
fn of_values_with_one_name_the_last_counts() {
    let values = resolve(json!({"name": "c",
        "envFrom": [
            {"configMapRef": {"name": "config"}},
            {"prefix": "A", "configMapRef": {"name": "none", "optional": true}},
        ],
        "env": [
            {"name": "GREETING", "value": "hi"},
            {"name": "SEEN", "value": "$(GREETING)"},
            {"name": "GREETING", "value": "bye, not $(GREETING), $$(GREETING)"},
            {"name": "LATE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
            {"name": "UNSEEN", "value": "$(LATE) $(LATER)"},
            {"name": "LATER", "value": "x"},
        ]}))
    .expect("resolved");
    assert_eq!(values["SEEN"], "hi");
    assert_eq!(values["GREETING"], "bye, not hi, $(GREETING)");
    assert_eq!(values["UNSEEN"], "$(LATE) $(LATER)");
    assert!(!values.contains_key("LATE"));
}

#[test]
fn a_file_of_variables_says_what_is_wrong_with_it() {
    let refused = |path: &str, key: &str| {
        let source = json!({"fileKeyRef": {"volumeName": "env", "path": path, "key": key}});
        let variable = json!({"name": "X", "valueFrom": source});
        let refused = resolve(json!({"name": "c", "env": [variable]}));
        refused.expect_err(path).to_string()
    };
    assert_eq!(
        refused("app.env", "SIZE"),
        "environment variable key \"SIZE\" not found in file \"app.env\""
    );
    assert_eq!(
        refused("bad.env", "COLOUR"),
        "failed to read environment variable file \"bad.env\": invalid environment variable format at line 1"
    );
    assert!(refused("none.env", "COLOUR").ends_with("no such file"));
}
