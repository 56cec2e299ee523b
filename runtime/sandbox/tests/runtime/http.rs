//! `wasi:http` components behind the pod network.

use std::time::Duration;

use bytes::Bytes;
use coracle_cri::{ContainerId, ContainerState, PodRuntime};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::node::{Node, container, port};

/// Starts the sample that greets, at 10.240.0.2:8080.
async fn hello(node: &Node) -> ContainerId {
    let pod = node.pod("hello", 2).await;
    let image = node.sample("hello-http/wasm/hello-http.wasm").await;
    let mut config = container(&pod, "hello", &image);
    config.ports = vec![port("metrics", 9090), port("http", 8080)];
    config.env = vec![("GREETING".to_owned(), "Ahoy".to_owned())];
    config.memory_limit = Some(16 << 20);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

async fn get(node: &Node, address: &str, path: &str) -> Response<String> {
    let stream = node.fabric.dial(address.parse().unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "test")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_component_answers_on_its_http_port() {
    let node = Node::start();
    let id = hello(&node).await;
    let state = node.status(&id).await.unwrap().state;
    assert!(
        matches!(state, ContainerState::Running { serving: true, .. }),
        "{state:?}"
    );
    for _ in 0..3 {
        let response = get(&node, "10.240.0.2:8080", "/").await;
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        assert!(response.body().contains("Ahoy"), "{response:?}");
    }
    assert!(node.runtime.usage(&id).unwrap().cpu > Duration::ZERO);
    let at_rest =
        node.until(|| async { (node.runtime.usage(&id)?.memory_bytes == 0).then_some(()) });
    at_rest
        .await
        .expect("an http container at rest has no instance");
}

#[tokio::test]
async fn http2_without_tls_works_too() {
    let node = Node::start();
    hello(&node).await;
    let stream = node
        .fabric
        .dial("10.240.0.2:8080".parse().unwrap())
        .await
        .unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://test/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    assert_eq!(
        sender.send_request(request).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn many_requests_wait_for_their_turn_within_the_memory_limit() {
    let node = Node::start();
    let id = hello(&node).await;
    let mut requests = Vec::new();
    for _ in 0..100 {
        requests.push(get(&node, "10.240.0.2:8080", "/"));
    }
    for response in futures_join(requests).await {
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    }
    let state = node.status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
}

/// Polls all of `futures` until the last is done.
async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

#[tokio::test]
async fn a_second_container_on_the_port_is_refused_by_name() {
    let node = Node::start();
    let id = hello(&node).await;
    let image = node.status(&id).await.unwrap().image;
    let mut config = container(&id.sandbox, "other", &image);
    config.ports = vec![port("http", 8080)];
    let error = node.start_with(config).await.unwrap_err();
    assert!(error.to_string().contains("port 8080"), "{error}");
    assert_eq!(node.runtime.list().await[0].containers.len(), 1);
}

#[tokio::test]
async fn a_stopped_server_refuses_and_ends_with_143() {
    let node = Node::start();
    let id = hello(&node).await;
    get(&node, "10.240.0.2:8080", "/").await;
    node.runtime
        .stop_container(&id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(node.exit(&id).await.code, 143);
    assert!(
        node.fabric
            .dial("10.240.0.2:8080".parse().unwrap())
            .await
            .is_err()
    );
}

/// Trapping components are made by hand: an export that is unreachable.
#[tokio::test]
async fn a_trap_is_answered_with_500_and_said_in_the_log() {
    let node = Node::start();
    let pod = node.pod("trap", 2).await;
    let component = r#"(component
      (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
      (alias export $types "incoming-request" (type $request))
      (alias export $types "response-outparam" (type $outparam))
      (core module $m (func $faulty (export "handle") (param i32 i32) unreachable))
      (core instance $i (instantiate $m))
      (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
        (canon lift (core func $i "handle")))
      (component $shim
        (import "request" (type $request (sub resource)))
        (import "outparam" (type $outparam (sub resource)))
        (import "handle" (func $handle
          (param "request" (own $request)) (param "response-out" (own $outparam))))
        (export "handle" (func $handle)))
      (instance $handler (instantiate $shim
        (with "request" (type $request))
        (with "outparam" (type $outparam))
        (with "handle" (func $handle))))
      (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;
    let image = node.image(component).await.unwrap();
    let id = node.run(&pod, &image).await;
    let response = get(&node, "10.240.0.2:80", "/path").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let said = node.until(|| async {
        let log = node.log(&id, 0).join("\n");
        (log.contains("GET /path") && log.contains("unreachable") && log.contains("faulty"))
            .then_some(())
    });
    said.await
        .unwrap_or_else(|| panic!("{:?}", node.log(&id, 0)));
}

/// The front end of the guestbook calls its API by name, with `wasi:http`, through the pod network.
#[tokio::test]
async fn guests_call_each_other_by_name() {
    let node = Node::start();
    let api = node.pod("api", 3).await;
    let image = node.sample("hello-http/wasm/hello-http.wasm").await;
    let mut config = container(&api, "api", &image);
    config.ports = vec![port("http", 80)];
    config.env = vec![("GREETING".to_owned(), "from the api".to_owned())];
    node.start_with(config).await.unwrap();

    let front = node.pod("front", 4).await;
    let image = node.sample("guestbook/wasm/frontend.wasm").await;
    let mut config = container(&front, "front", &image);
    config.ports = vec![port("http", 8080)];
    config.env = vec![("API".to_owned(), "api".to_owned())];
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    let response = get(&node, "10.240.0.4:8080", "/").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "{response:?} {:?}",
        node.log(&id, 0)
    );
}
