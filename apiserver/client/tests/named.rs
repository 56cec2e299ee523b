//! Objects that are followed by name, against a server that notes what it is asked.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use coracle_client::{CancellationToken, Client, NamedObjects, ObjectKey};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;

/// What was asked, in order: `list` or `watch`, and the path with its field selector.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server whose every namespace has every ConfigMap but those called `missing`, which never answers for `slow`, and which
/// at first refuses `later`.
fn server() -> (Client, Asked) {
    let asked = Asked::default();
    let notes = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let name = query
            .split('&')
            .find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"))
            .unwrap_or_else(|| panic!("{path}?{query} asks for more than it needs"))
            .to_owned();
        let watches = query.contains("watch=true");
        let verb = if watches { "watch" } else { "list" };
        let line = format!("{verb} {path} {name}");
        let is_refused = name == "later" && !notes.lock().contains(&line);
        notes.lock().push(line);
        async move {
            if is_refused {
                let status =
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403});
                let body = Full::new(bytes::Bytes::from(status.to_string())).boxed();
                let refused = Response::builder().status(403).body(body);
                return Ok(refused.expect("an answer"));
            }
            let object = json!({"metadata": {
                "namespace": "a", "name": name, "uid": name, "resourceVersion": "3",
            }});
            let items = if name == "missing" {
                vec![]
            } else {
                vec![object]
            };
            let list = json!({
                "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items,
            });
            if name == "slow" {
                std::future::pending::<()>().await;
            }
            let body: BoxBody<bytes::Bytes, Infallible> = match watches {
                true => BoxBody::new(StreamBody::new(futures::stream::pending())),
                false => Full::new(bytes::Bytes::from(list.to_string())).boxed(),
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    (Client::new(service, "default"), asked)
}

fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names
        .iter()
        .map(|name| ObjectKey::new("a", *name))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_object_is_followed_once_and_only_while_somebody_wants_it() {
    let (client, asked) = server();
    let changed = Arc::new(Mutex::new(Vec::new()));
    let heard = changed.clone();
    let objects = NamedObjects::<ConfigMap>::new(client, CancellationToken::new(), move |key| {
        heard.lock().push(key.to_string());
    });
    let there = |name: &str| objects.get(&ObjectKey::new("a", name)).is_some();

    objects
        .want("pod-1", keys(&["one", "missing"]))
        .await
        .expect("read");
    assert!(there("one") && !there("missing") && !there("two"));
    objects
        .want("pod-2", keys(&["one", "two"]))
        .await
        .expect("read");
    assert!(there("two"));
    assert_eq!(*changed.lock(), ["a/one", "a/two"]);
    // Nothing new is asked for what is followed.
    objects
        .want("pod-2", keys(&["one", "two"]))
        .await
        .expect("read");
    let lists: Vec<_> = asked
        .lock()
        .iter()
        .filter(|line| line.starts_with("list"))
        .cloned()
        .collect();
    let path = "list /api/v1/namespaces/a/configmaps";
    let mut expected = ["missing", "one", "two"]
        .map(|name| format!("{path} {name}"))
        .to_vec();
    let mut lists = lists;
    lists.sort();
    expected.sort();
    assert_eq!(lists, expected);

    objects.want("pod-1", keys(&["one"])).await.expect("read");
    assert_eq!(objects.followed(), 2);
    objects.release("pod-1");
    assert!(there("one"), "another pod names it");
    objects.release("pod-2");
    objects.release("pod-2");
    assert_eq!(objects.followed(), 0);
    assert!(!there("one"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_for_is_an_error_and_not_an_absence() {
    let (client, _) = server();
    let objects = NamedObjects::<ConfigMap>::new(client, CancellationToken::new(), |_| {});
    let wanted = objects.want("pod", keys(&["slow"])).await;
    let message = wanted.expect_err("the server does not answer").to_string();
    assert_eq!(
        message,
        "ConfigMap a/slow could not be read from the API server in time"
    );
    // Another owner of an object that is known does not wait for it.
    objects.want("other", keys(&["one"])).await.expect("read");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_asked_for_again() {
    let (client, asked) = server();
    let objects = NamedObjects::<ConfigMap>::new(client, CancellationToken::new(), |_| {});
    objects.want("pod", keys(&["later"])).await.expect("read");
    assert!(objects.get(&ObjectKey::new("a", "later")).is_some());
    let lists = asked
        .lock()
        .iter()
        .filter(|line| line.starts_with("list"))
        .count();
    assert_eq!(lists, 2);
}
