//! The objects that are made.

use serde_json::{Value, json};

/// A small ConfigMap: what most writes of a cluster are like in size.
pub(crate) fn small(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
           "data": {"greeting": "hello", "settings": "a=1\nb=2\nc=3\n"}})
}

/// A ConfigMap of about 1 KiB of JSON as it is stored.
pub(crate) fn config_map(name: &str, version: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
           "data": {"version": version.to_string(), "text": "x".repeat(700)}})
}

/// A pod that no scheduler takes, so that it stays as it is on every server.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
    "spec": {
        "schedulerName": "nobody", "automountServiceAccountToken": false,
        "containers": [{
            "name": "main", "image": "example.org/bench:1", "args": ["serve", "--port=8080"],
            "env": [{"name": "LEVEL", "value": "info"}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
        }],
    }})
}
