//! Requests that mean harm, or are broken: each is refused as upstream refuses it, soon and in little memory.

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::deep::deep;
use crate::support::{CONFIG_MAPS, PODS, TestServer, send};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";

/// Creates a ConfigMap from these bytes, which must fail with code and reason; the answer is the message.
async fn refused(
    server: &TestServer,
    media: &str,
    body: impl Into<Bytes>,
    code: u16,
    reason: &str,
) -> String {
    let answer = send(server, "POST", CONFIG_MAPS, media, body).await;
    let (found, why, message) = answer.failure();
    assert_eq!((found, why.as_str()), (code, reason), "{message}");
    assert!(message.len() < 4096, "{} bytes of message", message.len());
    message
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_no_objects_are_bad_requests() {
    let server = TestServer::start().await;
    for (media, body, words) in [
        (JSON, "{", "unexpected end of JSON input"),
        (JSON, "{\"a\":}", "invalid character '}'"),
        (JSON, "[]", "cannot unmarshal array"),
        (JSON, "\"x\"", "cannot unmarshal string"),
        (JSON, "{}{}", "invalid character '{' after top-level value"),
        (JSON, "{\"kind\":1}", "cannot unmarshal number"),
        (
            JSON,
            "{\"kind\":\"ConfigMap\",\"apiVersion\":\"a/b/c\"}",
            "(must be of type ConfigMap): unexpected GroupVersion string: a/b/c (",
        ),
        (JSON, "{\"metadata\":[]}", "cannot unmarshal array"),
        (
            JSON,
            "{\"metadata\":{\"name\":1}}",
            "cannot unmarshal number",
        ),
        (JSON, "{\"data\":{\"a\":{}}}", "cannot unmarshal object"),
        (YAML, "a: [", "did not find expected node content"),
        (PROTOBUF, "", "empty data (<empty>)"),
        (PROTOBUF, "junk", "does not appear to be a protobuf message"),
    ] {
        let message = refused(&server, media, body, 400, "BadRequest").await;
        assert!(message.contains(words), "{body}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_for_something_else_are_refused() {
    let server = TestServer::start().await;
    let of = |value: serde_json::Value| value.to_string();
    let pod = of(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}));
    let message = refused(&server, JSON, pod, 400, "BadRequest").await;
    assert!(
        message.contains("cannot be handled as a ConfigMap"),
        "{message}"
    );
    let unknown = of(json!({"kind": "ConfigMap", "apiVersion": "v9", "metadata": {"name": "x"}}));
    let message = refused(&server, JSON, unknown, 400, "BadRequest").await;
    assert!(
        message.contains("no kind \"ConfigMap\" is registered"),
        "{message}"
    );
    let elsewhere = of(json!({"metadata": {"name": "x", "namespace": "other"}}));
    let message = refused(&server, JSON, elsewhere, 400, "BadRequest").await;
    assert!(
        message.contains("does not match the namespace sent"),
        "{message}"
    );
}

#[test]
fn depth_is_bounded_in_every_format() {
    deep(async || {
        let server = TestServer::start().await;
        server.config_map("x", json!({})).await;
        for open in ["{\"a\":", "["] {
            let message = refused(&server, JSON, open.repeat(200_000), 400, "BadRequest").await;
            assert!(message.contains("exceeded max depth"), "{message}");
        }
        for open in ["{a: ", "[", "- "] {
            let message = refused(&server, YAML, open.repeat(200_000), 400, "BadRequest").await;
            assert!(message.contains("exceeded max depth"), "{message}");
        }
        let deep = format!("{}1{}", "{\"data\":".repeat(20_000), "}".repeat(20_000));
        let path = format!("{CONFIG_MAPS}/x?fieldManager=m");
        for media in [
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ] {
            let (code, _, message) = send(&server, "PATCH", &path, media, deep.clone())
                .await
                .failure();
            assert_eq!(code, 400, "{message}");
            assert!(message.contains("exceeded max depth"), "{message}");
        }
        // Messages within messages; the innermost is empty.
        let mut message = Vec::new();
        for _ in 0..20_000 {
            message = field(1, &message);
        }
        let type_meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, &message)].concat();
        let answer = send(&server, "POST", CONFIG_MAPS, PROTOBUF, body).await;
        assert!(answer.status.is_client_error(), "{}", answer.status);
    });
}

#[test]
fn what_is_not_kept_may_nest_as_deep_as_upstream_allows() {
    deep(async || {
        let server = TestServer::start().await;
        let body = |name: &str, levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"1"}},"x":{open}{close}}}"#)
        };
        let answer = send(&server, "POST", CONFIG_MAPS, JSON, body("a", 9_999)).await;
        assert_eq!(answer.warnings(), [r#"299 - "unknown field \"x\"""#]);
        assert_eq!(answer.ok()["data"]["a"], "1");
        let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
        let answer = send(&server, "POST", &strict, JSON, body("b", 9_999)).await;
        let (code, _, message) = answer.failure();
        assert_eq!(code, 400);
        assert!(
            message.ends_with(r#"strict decoding error: unknown field "x""#),
            "{message}"
        );
        let message = refused(&server, JSON, body("c", 10_000), 400, "BadRequest").await;
        assert!(message.contains("exceeded max depth"), "{message}");
    });
}

/// A field of bytes in protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 & 0x7f | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test(start_paused = true)]
async fn aliases_do_not_multiply() {
    let server = TestServer::start().await;
    let mut bomb = String::from(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: b}\na: &a [x,x,x,x,x,x,x,x,x]\n",
    );
    for (last, next) in ('a'..'k').zip('b'..='k') {
        let aliases = vec![format!("*{last}"); 9].join(",");
        bomb.push_str(&format!("{next}: &{next} [{aliases}]\n"));
    }
    let message = refused(&server, YAML, bomb.clone(), 400, "BadRequest").await;
    assert!(
        message.contains("document contains excessive aliasing"),
        "{message}"
    );
    let path = format!("{CONFIG_MAPS}/b?fieldManager=m");
    let answer = send(
        &server,
        "PATCH",
        &path,
        "application/apply-patch+yaml",
        bomb,
    )
    .await;
    assert_eq!(answer.failure().0, 400);
    // Long texts multiply as well as many.
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 90].join(",")
    );
    refused(&server, YAML, long, 400, "BadRequest").await;
}

#[tokio::test(start_paused = true)]
async fn truncated_protobuf_is_a_bad_request() {
    let server = TestServer::start().await;
    let type_meta = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
    let metadata = field(1, b"x");
    let whole = [
        b"k8s\0".to_vec(),
        field(1, &type_meta),
        field(2, &field(1, &metadata)),
    ]
    .concat();
    for length in 1..whole.len() {
        let cut = whole[..length].to_vec();
        let answer = send(&server, "POST", CONFIG_MAPS, PROTOBUF, cut).await;
        assert!(
            answer.status.is_client_error(),
            "{length}: {}",
            answer.status
        );
    }
    send(&server, "POST", CONFIG_MAPS, PROTOBUF, whole)
        .await
        .ok();
    // A length that promises more than there is, and more than there can be.
    for length in [
        &b"\xff\xff\xff\xff\x07"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        let body = [b"k8s\0\x12", length].concat();
        refused(&server, PROTOBUF, body, 400, "BadRequest").await;
    }
}

#[test]
fn json_patches_are_bounded_in_operations_bytes_and_depth() {
    deep(async || {
        let server = TestServer::start().await;
        server.config_map("x", json!({})).await;
        let path = format!("{CONFIG_MAPS}/x");
        let test = json!({"op": "test", "path": "/data/a", "value": "1"});
        let (code, reason, message) = server
            .patch(&path, JSON_PATCH, json!(vec![test.clone(); 40_000]))
            .await
            .failure();
        assert_eq!((code, reason.as_str()), (413, "RequestEntityTooLarge"));
        assert_eq!(
            message,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 40000"
        );
        // A hundred thousand of them are more bytes than a body may have.
        let answer = server
            .patch(&path, JSON_PATCH, json!(vec![test.clone(); 100_000]))
            .await;
        assert_eq!(answer.failure().0, 413);
        server
            .patch(&path, JSON_PATCH, json!(vec![test; 10_000]))
            .await
            .ok();

        // Each copy doubles what there is.
        let mut doubling =
            vec![json!({"op": "add", "path": "/data/big", "value": "x".repeat(1000)})];
        for n in 0..60 {
            doubling.push(json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")}));
        }
        let (code, reason, _) = server
            .patch(&path, JSON_PATCH, json!(doubling))
            .await
            .failure();
        assert_eq!((code, reason.as_str()), (422, "Invalid"));

        // Each step nests what there is.
        let mut nesting = Vec::new();
        for n in 0..3000 {
            let (from, to) = if n % 2 == 0 {
                ("data", "stash")
            } else {
                ("stash", "data")
            };
            nesting.push(json!({"op": "add", "path": format!("/{to}"), "value": {}}));
            nesting.push(
                json!({"op": "move", "from": format!("/{from}"), "path": format!("/{to}/x")}),
            );
        }
        let answer = server.patch(&path, JSON_PATCH, json!(nesting)).await;
        assert_eq!(answer.failure().0, 422);
    });
}

#[tokio::test(start_paused = true)]
async fn large_annotations_are_invalid() {
    let server = TestServer::start().await;
    let annotations = json!({"a": "x".repeat(300 * 1024)});
    let body = json!({"metadata": {"name": "x", "annotations": annotations}}).to_string();
    let message = refused(&server, JSON, body, 422, "Invalid").await;
    assert_eq!(
        message,
        "ConfigMap \"x\" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes"
    );
}

#[tokio::test(start_paused = true)]
async fn long_selectors_are_read_or_refused_in_time() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let many = "a%3Db%2C".repeat(8000);
    let answer = server
        .get(&format!(
            "{CONFIG_MAPS}?labelSelector={}",
            &many[..many.len() - 3]
        ))
        .await;
    assert!(answer.status.is_success() || answer.status.is_client_error());
    let long = "a".repeat(65_000);
    for parameter in ["labelSelector", "fieldSelector"] {
        let path = format!("{CONFIG_MAPS}?{parameter}={long}");
        let (code, reason, _) = server.get(&path).await.failure();
        assert_eq!((code, reason.as_str()), (400, "BadRequest"), "{parameter}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_selector_of_a_mebibyte_ends_at_the_connection() {
    let server = TestServer::start().await;
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let api = server.api.clone();
    let serving = tokio::spawn(async move { api.serve(far, None, None).await });
    let long = "a".repeat(1 << 20);
    let head = format!("GET {CONFIG_MAPS}?labelSelector={long} HTTP/1.1\r\nhost: x\r\n\r\n");
    let (mut reading, mut writing) = tokio::io::split(&mut near);
    let mut answer = Vec::new();
    // The server stops reading at some point, which is no failure of this test.
    let (_, read) = tokio::join!(
        writing.write_all(head.as_bytes()),
        reading.read_to_end(&mut answer)
    );
    read.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn revisions_that_mean_nothing_are_refused() {
    let server = TestServer::start().await;
    for (query, code, reason) in [
        ("resourceVersion=abc", 400, "BadRequest"),
        ("resourceVersion=-1", 400, "BadRequest"),
        ("resourceVersion=99999999", 504, "Timeout"),
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        ("continue=junk", 400, "BadRequest"),
        ("limit=x", 400, "BadRequest"),
    ] {
        let path = format!("{CONFIG_MAPS}?{query}");
        let (found, why, message) = server.get(&path).await.failure();
        assert_eq!((found, why.as_str()), (code, reason), "{query}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn media_types_that_are_not_known_are_refused() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let one = format!("{CONFIG_MAPS}/x");
    for media in ["text/plain", "application/xml", "application/cbor"] {
        let message = refused(&server, media, "{}", 415, "UnsupportedMediaType").await;
        assert!(
            message.contains("accepted media types include: application/json"),
            "{message}"
        );
        let answer = send(&server, "PATCH", &one, media, "{}").await;
        assert_eq!(answer.failure().0, 415);
    }
    let answer = send(&server, "PATCH", &one, JSON, "{}").await;
    assert_eq!(answer.failure().0, 415);
    for accept in ["application/cbor", "application/xml"] {
        let (code, reason, message) = server.get_accepting(&one, accept).await.failure();
        assert_eq!((code, reason.as_str()), (406, "NotAcceptable"));
        assert!(message.starts_with("406: Not Acceptable"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_above_three_mebibytes_are_too_large() {
    let server = TestServer::start().await;
    let body = vec![b' '; 3 * 1024 * 1024];
    let message = refused(&server, JSON, body, 413, "RequestEntityTooLarge").await;
    assert_eq!(message, "Request entity too large: limit is 3145728");
}

#[tokio::test(start_paused = true)]
async fn odd_paths_and_names_are_refused() {
    let server = TestServer::start().await;
    for (path, code) in [
        ("/api/v1/namespaces/default/configmaps/a%2Fb", 404),
        ("/api/v1/namespaces/default/configmaps/..", 400),
        ("/api/v1/namespaces/default/configmaps/%00", 404),
        ("/api/v1/namespaces/default/configmaps/x/y/z/a/b/c", 404),
        ("/api/v1/namespaces/%ff%fe/configmaps", 200),
        ("/api/v1/watch", 404),
        ("/apis///", 200),
    ] {
        assert_eq!(server.get(path).await.status, code, "{path}");
    }
    let posted = server.post(&format!("{CONFIG_MAPS}/.."), json!({})).await;
    assert_eq!(posted.failure().0, 405);
    let name = "x".repeat(60_000);
    let answer = server.get(&format!("{PODS}/{name}")).await;
    assert_eq!(answer.failure().0, 404);
}
