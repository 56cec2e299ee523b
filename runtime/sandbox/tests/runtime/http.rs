//! `wasi:http` components behind the pod network.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use coracle_cri::{ContainerId, ContainerState, PodRuntime};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

pub(crate) async fn get(node: &Node, address: &str, path: &str) -> Response<String> {
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
        let said = || {
            node.log(&id, 0)
                .into_iter()
                .filter(|line| line.contains("stderr"))
        };
        assert_eq!(
            response.status(),
            StatusCode::OK,
            "{:?}",
            said().collect::<Vec<_>>()
        );
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

/// Starts the guest that does as the path says, at 10.240.0.3:8080.
async fn echo(node: &Node) -> ContainerId {
    let pod = node.pod("echo", 3).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    let image = node
        .ensure(&folder.join("http-echo.wasm").canonicalize().unwrap())
        .await
        .unwrap();
    let mut config = container(&pod, "echo", &image);
    config.ports = vec![port("http", 8080)];
    config.env = vec![("POD_NAME".to_owned(), "echo-0".to_owned())];
    config.memory_limit = Some(32 << 20);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

#[tokio::test]
async fn guests_that_fail_are_answered_for_and_said_in_the_log() {
    let node = Node::start();
    let id = echo(&node).await;
    let trap = get(&node, "10.240.0.3:8080", "/trap").await;
    assert_eq!(trap.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let silent = get(&node, "10.240.0.3:8080", "/silent").await;
    assert_eq!(silent.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let said = node.until(|| async {
        let log = node.log(&id, 0).join("\n");
        (log.contains("GET /trap: ") && log.contains("unreachable")).then_some(())
    });
    said.await
        .unwrap_or_else(|| panic!("{:?}", node.log(&id, 0)));
    let count = get(&node, "10.240.0.3:8080", "/count").await;
    assert_eq!(
        count.body(),
        "1\n",
        "a request finds the instance of an earlier one"
    );
}

#[tokio::test]
async fn a_spinning_request_does_not_stop_the_others() {
    let node = Node::start();
    let id = echo(&node).await;
    let spin = get(&node, "10.240.0.3:8080", "/spin");
    let other = async {
        let used = node.until(|| async {
            (node.runtime.usage(&id)?.cpu > Duration::from_millis(20)).then_some(())
        });
        used.await.expect("the first request spins");
        get(&node, "10.240.0.3:8080", "/count").await
    };
    tokio::select! {
        answer = spin => panic!("{answer:?}"),
        answer = other => assert_eq!(answer.status(), StatusCode::OK),
    }
    node.runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(node.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_hungry_request_ends_the_container() {
    let node = Node::start();
    let id = echo(&node).await;
    let stream = node
        .fabric
        .dial("10.240.0.3:8080".parse().unwrap())
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/hog")
        .header("host", "x")
        .body(Empty::<Bytes>::new())
        .unwrap();
    // The answer, if one comes at all, is an error.
    let answer = sender.send_request(request).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status().is_server_error()));
    let exited = node.exit(&id).await;
    assert_eq!(exited.reason, "OOMKilled");
    for words in ["memory peak: ", "wasm backtrace"] {
        assert!(exited.message.contains(words), "{}", exited.message);
    }
}

#[tokio::test]
async fn large_bodies_and_requests_in_flight_survive_a_graceful_stop() {
    let node = Node::start();
    let id = echo(&node).await;
    let flood = get(&node, "10.240.0.3:8080", "/flood?3000000");
    let stop = async {
        // The request is in flight once the guest has said its path.
        let begun = node.until(|| async {
            node.log(&id, 0)
                .iter()
                .any(|line| line.ends_with("/flood"))
                .then_some(())
        });
        begun.await.expect("the guest logs the path");
        node.runtime
            .stop_container(&id, Duration::from_secs(60))
            .await
            .unwrap();
    };
    let (response, ()) = tokio::join!(flood, stop);
    assert_eq!(response.body().len(), 3_000_000);
    assert_eq!(node.exit(&id).await.code, 143);
}

#[tokio::test]
async fn who_was_let_in_before_a_stop_is_answered() {
    let node = Node::start();
    let id = hello(&node).await;
    let address = "10.240.0.2:8080".parse().unwrap();
    // Both are silent when the stop begins; a client between connecting and asking looks the same.
    let early = [
        node.fabric.dial(address).await.unwrap(),
        node.fabric.dial(address).await.unwrap(),
    ];
    let ask = async {
        let refused = node.until(|| async { node.fabric.dial(address).await.err() });
        refused.await.expect("the stop begins");
        let mut answers = Vec::new();
        for mut stream in early {
            let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answers.push(answer);
        }
        answers
    };
    let stop = node.runtime.stop_container(&id, Duration::from_secs(60));
    let (answers, stopped) = tokio::join!(ask, stop);
    stopped.unwrap();
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(node.exit(&id).await.code, 143);
}

#[tokio::test]
async fn guests_call_each_other_by_name_and_hear_why_it_fails() {
    let node = Node::start();
    echo(&node).await;
    // The pod's hosts file calls the address of the echo pod `api`.
    let called = get(&node, "10.240.0.3:8080", "/call?http://api:8080/status?418").await;
    assert!(called.body().starts_with("418\n"), "{called:?}");
    for (url, why) in [
        ("http://api:1/", "ConnectionRefused"),
        ("http://nobody.invalid/", "Dns"),
        ("http://127.0.0.1:8080/count", "200"),
    ] {
        let called = get(&node, "10.240.0.3:8080", &format!("/call?{url}")).await;
        assert!(called.body().contains(why), "{url}: {called:?}");
    }
}

/// The three tiers of the guestbook: a `wasi:http` front end, an API on `wasi:sockets`, and a WASI
/// 0.1 store on a listener that it inherits.
#[tokio::test]
async fn the_guestbook_works_from_end_to_end() {
    let node = Node::start();
    let tiers = [
        ("store", 5, 7000, vec![]),
        (
            "api",
            3,
            8080,
            vec![("STORE", "store:7000"), ("GREETING", "Welcome aboard")],
        ),
        (
            "frontend",
            4,
            8080,
            vec![("API", "api:8080"), ("POD_NAME", "front-0")],
        ),
    ];
    let mut ids = Vec::new();
    for (name, last, number, env) in tiers {
        let pod = node.pod(name, last).await;
        let image = node.sample(&format!("guestbook/wasm/{name}.wasm")).await;
        let mut config = container(&pod, name, &image);
        config.ports = vec![port("", number)];
        config.env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        config.memory_limit = Some(32 << 20);
        ids.push(config.id.clone());
        node.start_with(config).await.unwrap();
    }
    let logs = || ids.iter().map(|id| node.log(id, 0)).collect::<Vec<_>>();
    let page = node.until(|| async {
        let page = get(&node, "10.240.0.4:8080", "/").await;
        (page.status() == StatusCode::OK).then_some(page)
    });
    let page = page.await.unwrap_or_else(|| panic!("{:?}", logs()));
    assert!(page.body().contains("Welcome aboard"), "{page:?}");
    assert!(page.body().contains("front-0"), "{page:?}");
    for id in &ids {
        node.runtime
            .stop_container(id, Duration::from_secs(30))
            .await
            .unwrap();
        assert_eq!(node.exit(id).await.code, 143, "{id}: {:?}", logs());
    }
}
