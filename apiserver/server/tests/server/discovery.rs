//! Discovery in each of its forms: all at once or piece by piece, in JSON, YAML or protobuf.

use coracle_api::protobuf::Envelope;
use coracle_api::schema::SchemaRef;
use http::HeaderMap;
use serde_json::Value;

use crate::support::{Answer, TestServer, request};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const AT_ONCE: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const FORMER: &str = ";g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().expect("text")).collect()
}

/// The document of an answer in protobuf.
fn decoded(answer: &Answer) -> Value {
    let envelope = Envelope::open(&answer.body).expect("an envelope");
    let parts = envelope.api_version.rsplit_once('/');
    let (group, version) = parts.unwrap_or(("", "v1"));
    let schema = SchemaRef::for_kind(group, version, &envelope.kind).expect("a known kind");
    envelope.decode(&schema).expect("a document")
}

#[tokio::test(start_paused = true)]
async fn clients_get_discovery_at_once_or_piece_by_piece() {
    let server = TestServer::start().await;
    let at_once = |format: &str| format!("{format}{AT_ONCE}");
    let former = format!("{JSON}{FORMER}");
    for (accept, expected) in [
        // kubectl and client-go before 1.30, since, and from 1.37 on.
        (format!("{former},{JSON}"), JSON.to_owned()),
        (format!("{},{former},{JSON}", at_once(JSON)), at_once(JSON)),
        (format!("{},{JSON}", at_once(JSON)), at_once(JSON)),
        // The Python client, and clients of JavaScript.
        (format!("{JSON}, {YAML}, {PROTOBUF}"), JSON.to_owned()),
        (format!("{JSON}, */*"), JSON.to_owned()),
        (at_once(YAML), at_once(YAML)),
        (at_once(PROTOBUF), at_once(PROTOBUF)),
        (at_once("*/*"), at_once(JSON)),
        (format!("{};q=0.5,{YAML}", at_once(JSON)), YAML.to_owned()),
        (format!("{JSON};q=0.5,{}", at_once(YAML)), at_once(YAML)),
        (format!("{},{JSON}", at_once(PROTOBUF)), at_once(PROTOBUF)),
        (PROTOBUF.to_owned(), PROTOBUF.to_owned()),
    ] {
        for path in ["/api", "/apis"] {
            let answer = server.get_accepting(path, &accept).await;
            assert_eq!(answer.status, 200, "{path} {accept}");
            let found = header(&answer.headers, "content-type");
            assert_eq!(found, [expected.as_str()], "{path} {accept}");
        }
    }
    let elsewhere = format!("{JSON};g=meta.k8s.io;v=v2;as=APIGroupDiscoveryList");
    for accept in [&former, &elsewhere, "application/cbor"] {
        let refused = server.get_accepting("/apis", accept).await.failure();
        assert_eq!((refused.0, refused.1.as_str()), (406, "NotAcceptable"));
    }
    // Behind upstream's router, which knows no ranges but one.
    let range = at_once("application/*");
    assert_eq!(server.get_accepting("/api", &range).await.status, 406);
    let answer = server.get_accepting("/apis", &range).await;
    assert_eq!(header(&answer.headers, "content-type"), [at_once(JSON)]);
}

#[tokio::test(start_paused = true)]
async fn every_form_says_the_same() {
    let server = TestServer::start().await;
    for (path, parameters) in [
        ("/api", ""),
        ("/api", AT_ONCE),
        ("/apis", ""),
        ("/apis", AT_ONCE),
        ("/apis/apps", ""),
        ("/apis/apps/v1", ""),
        ("/api/v1", ""),
    ] {
        let ask = async |format: &str| {
            let accept = format!("{format}{parameters}");
            server.get_accepting(path, &accept).await
        };
        let document = ask(JSON).await.ok();
        assert_eq!(
            decoded(&ask(PROTOBUF).await),
            document,
            "{path}{parameters}"
        );
        let yaml = ask(YAML).await;
        let yaml: Value = serde_saphyr::from_slice(&yaml.body).expect("YAML");
        assert_eq!(yaml, document, "{path}{parameters}");
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_at_once_is_kept_by_clients() {
    let server = TestServer::start().await;
    for format in [JSON, YAML, PROTOBUF] {
        let accept = format!("{format}{AT_ONCE}");
        let mut asked = request("GET", "/apis", "", None);
        let headers = asked.headers_mut();
        headers.insert("accept", accept.parse().expect("a header"));
        headers.insert("accept-encoding", "gzip".parse().expect("a header"));
        let answer = server.send(asked.clone()).await;
        assert_eq!(header(&answer.headers, "cache-control"), ["public"]);
        assert_eq!(header(&answer.headers, "vary"), ["Accept"]);
        let tag = answer.headers["etag"].clone();
        asked.headers_mut().insert("if-none-match", tag.clone());
        let again = server.send(asked).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        assert_eq!(again.headers["etag"], tag);
        assert!(!again.headers.contains_key("content-type"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_index_is_indented_json_for_everybody() {
    let server = TestServer::start().await;
    for (path, accept) in [("/", YAML), ("/index.html", "text/html")] {
        let answer = server.get_accepting(path, accept).await;
        assert_eq!(header(&answer.headers, "content-type"), [JSON]);
        assert!(
            answer
                .body
                .starts_with(b"{\n  \"paths\": [\n    \"/api\",\n")
        );
    }
}
