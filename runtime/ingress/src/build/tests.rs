use super::*;
use serde_json::{Value, json};

fn ingress(name: &str, created: u8, annotations: Value, spec: Value) -> Arc<Ingress> {
    let object = json!({
        "metadata": {
            "namespace": "default", "name": name, "uid": name,
            "creationTimestamp": format!("2030-01-{created:02}T00:00:00Z"),
            "annotations": annotations,
        },
        "spec": spec,
    });
    Arc::new(serde_json::from_value(object).expect("an ingress"))
}

fn class(name: &str, controller: &str, annotations: Value) -> Arc<IngressClass> {
    let object = json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"controller": controller},
    });
    Arc::new(serde_json::from_value(object).expect("a class"))
}

/// The Service `default/web`: port 80 called `http`, 90 that speaks HTTP/2, and 53 for datagrams.
fn web(key: &ObjectKey) -> Option<Arc<Service>> {
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "grpc", "port": 90, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let spec = match key.name.as_str() {
        "web" => json!({"ports": ports}),
        "elsewhere" => json!({"type": "ExternalName", "externalName": "example.com"}),
        _ => return None,
    };
    let object = json!({"metadata": {"namespace": "default", "name": key.name}, "spec": spec});
    Some(Arc::new(serde_json::from_value(object).expect("a service")))
}

fn no_secret(_: &ObjectKey) -> Result<Arc<CertifiedKey>, SecretProblem> {
    Err(SecretProblem::Missing)
}

fn built(ingresses: &[Arc<Ingress>], classes: &[Arc<IngressClass>]) -> Built {
    build(&World {
        ingresses: ingresses.to_vec(),
        classes: classes.to_vec(),
        service: &web,
        secret: &no_secret,
    })
}

fn ours() -> Arc<IngressClass> {
    class("coracle", CONTROLLER, json!({DEFAULT_CLASS: "true"}))
}

fn to(service: &str, port: Value) -> Value {
    json!({"service": {"name": service, "port": port}})
}

fn rule(host: &str, path: &str, kind: &str, backend: Value) -> Value {
    let path = json!({"path": path, "pathType": kind, "backend": backend});
    json!({"host": host, "http": {"paths": [path]}})
}

/// An Ingress that sends everything to `web`.
fn simple(name: &str, created: u8, host: &str) -> Arc<Ingress> {
    let rules = json!([rule(host, "/", "Prefix", to("web", json!({"number": 80})))]);
    ingress(name, created, json!({}), json!({"rules": rules}))
}

fn goal(built: &Built, host: &str, path: &str) -> Option<(String, String)> {
    let found = built.table.route(host, path)?;
    let Backend::Service { service, port } = &found.target.backend else {
        return None;
    };
    Some((service.to_string(), port.clone()))
}

#[test]
fn an_ingress_is_served_if_its_class_is_ours() {
    let with = |class: Value, annotations: Value| {
        let rules = json!([rule(
            "a.com",
            "/",
            "Prefix",
            to("web", json!({"number": 80}))
        )]);
        ingress(
            "a",
            1,
            annotations,
            json!({"ingressClassName": class, "rules": rules}),
        )
    };
    let other = class("other", "example.com/other", json!({}));
    let other_default = class("other", "example.com/other", json!({DEFAULT_CLASS: "true"}));
    let not_default = class("coracle", CONTROLLER, json!({}));
    let mine = json!({"kubernetes.io/ingress.class": "coracle"});
    let theirs = json!({"kubernetes.io/ingress.class": "other"});
    let none = json!({});
    for (ingress, classes, wanted) in [
        (
            with(json!("coracle"), none.clone()),
            vec![not_default.clone()],
            true,
        ),
        (
            with(json!("other"), none.clone()),
            vec![ours(), other.clone()],
            false,
        ),
        (with(json!("missing"), none.clone()), vec![ours()], false),
        (with(json!(null), none.clone()), vec![ours(), other], true),
        (
            with(json!(null), none.clone()),
            vec![not_default.clone(), other_default],
            false,
        ),
        (with(json!(null), none), vec![], false),
        (with(json!(null), mine), vec![not_default], true),
        (with(json!(null), theirs), vec![ours()], false),
    ] {
        let built = built(std::slice::from_ref(&ingress), &classes);
        assert_eq!(built.served.len() == 1, wanted, "{ingress:?} {classes:?}");
        assert_eq!(goal(&built, "a.com", "/").is_some(), wanted);
    }
}

#[test]
fn backends_are_found_by_name_or_number_and_what_is_wrong_is_told() {
    let cases = [
        (to("web", json!({"number": 80})), None),
        (to("web", json!({"name": "http"})), None),
        (to("web", json!({"number": 81})), Some("PortNotFound")),
        (to("web", json!({"name": "dns"})), Some("PortNotFound")),
        (to("nobody", json!({"number": 80})), Some("ServiceNotFound")),
        // Whoever has the name that it stands for may have any port.
        (to("elsewhere", json!({"number": 80})), None),
        (
            to("elsewhere", json!({"name": "http"})),
            Some("PortNotFound"),
        ),
        (
            json!({"resource": {"kind": "Bucket", "name": "b"}}),
            Some("BackendNotSupported"),
        ),
    ];
    for (backend, wanted) in cases {
        let rules = json!([rule("a.com", "/", "Exact", backend.clone())]);
        let built = built(
            &[ingress("a", 1, json!({}), json!({"rules": rules}))],
            &[ours()],
        );
        let reasons: Vec<&str> = built.served[0].1.iter().map(Problem::reason).collect();
        assert_eq!(reasons, Vec::from_iter(wanted), "{backend}");
        // What is broken answers so, and is not passed over.
        assert!(built.table.route("a.com", "/").is_some(), "{backend}");
    }
}

#[test]
fn a_port_may_say_that_it_speaks_http2() {
    for (port, annotations, wanted) in [
        ("http", json!({}), false),
        ("grpc", json!({}), true),
        (
            "http",
            json!({"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}),
            true,
        ),
    ] {
        let rules = json!([rule(
            "a.com",
            "/",
            "Prefix",
            to("web", json!({"name": port}))
        )]);
        let built = built(
            &[ingress("a", 1, annotations, json!({"rules": rules}))],
            &[ours()],
        );
        let found = built.table.route("a.com", "/").expect("found");
        assert_eq!(found.target.is_http2, wanted, "{port}");
    }
}

#[test]
fn the_older_ingress_has_the_path() {
    let (old, new) = (simple("old", 1, "a.com"), simple("new", 2, "A.com"));
    let built = built(&[new, old], &[ours()]);
    let names: Vec<_> = built
        .served
        .iter()
        .map(|(one, _)| one.metadata.name.clone())
        .collect();
    assert_eq!(names, [Some("old".to_owned()), Some("new".to_owned())]);
    assert!(built.served[0].1.is_empty());
    let told: Vec<String> = built.served[1].1.iter().map(Problem::to_string).collect();
    assert_eq!(
        told,
        ["path / of a.com is served for the older ingress default/old"]
    );
}

#[test]
fn default_backends_are_those_of_the_ingress_then_of_the_class() {
    let spec = json!({"defaultBackend": to("web", json!({"number": 80}))});
    let only = built(&[ingress("a", 1, json!({}), spec)], &[ours()]);
    let web = |port: &str| Some(("default/web".to_owned(), port.to_owned()));
    assert_eq!(goal(&only, "any.com", "/x"), web("80"));

    let annotations =
        json!({DEFAULT_CLASS: "true", "coracle.dev/default-backend": "system/errors:http"});
    let class = class("coracle", CONTROLLER, annotations);
    let built = built(&[simple("a", 1, "a.com")], &[class]);
    assert_eq!(goal(&built, "a.com", "/"), web("80"));
    let errors = Some(("system/errors".to_owned(), "http".to_owned()));
    assert_eq!(goal(&built, "b.com", "/"), errors);
}

#[test]
fn an_expression_that_is_none_is_told() {
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let backend = to("web", json!({"number": 80}));
    let rules = json!([
        rule(
            "a.com",
            "/api/v[0-9]+",
            "ImplementationSpecific",
            backend.clone()
        ),
        rule("a.com", "/(", "ImplementationSpecific", backend.clone()),
        rule(
            "a.com",
            "/x{1000}{1000}{1000}",
            "ImplementationSpecific",
            backend
        ),
    ]);
    let built = built(
        &[ingress("a", 1, annotations, json!({"rules": rules}))],
        &[ours()],
    );
    assert!(built.table.route("a.com", "/API/v12/x").is_some());
    let reasons: Vec<&str> = built.served[0].1.iter().map(Problem::reason).collect();
    assert_eq!(reasons, ["PathInvalid", "PathInvalid"]);
}

#[test]
fn secrets_are_those_that_served_ingresses_name() {
    let spec = |secrets: &[&str]| {
        let tls: Vec<Value> = secrets
            .iter()
            .map(|name| json!({"hosts": ["a.com"], "secretName": name}))
            .collect();
        json!({"tls": tls, "defaultBackend": to("web", json!({"number": 80}))})
    };
    let mut other = spec(&["theirs"]);
    other["ingressClassName"] = json!("other");
    let ingresses = vec![
        ingress("a", 1, json!({}), spec(&["one", "two", ""])),
        ingress("b", 2, json!({}), other),
    ];
    let world = World {
        ingresses,
        classes: vec![ours()],
        service: &web,
        secret: &no_secret,
    };
    let names: Vec<String> = secrets(&world).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["default/one", "default/two"]);
    let built = build(&world);
    let told: Vec<&str> = built.served[0].1.iter().map(Problem::reason).collect();
    assert_eq!(told, ["SecretNotFound", "SecretNotFound"]);
    assert!(built.certificates.get(Some("a.com")).is_none());
}
