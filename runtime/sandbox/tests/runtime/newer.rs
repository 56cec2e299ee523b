//! Guests of WASI 0.3: a command with files, clocks and sockets, and one that answers requests.

use std::path::Path;

use bytes::Bytes;
use coracle_cri::{ContainerConfig, ContainerState, Mount, SandboxId};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::guests::{guest, run, start};
use crate::http::get;
use crate::node::{Node, container, port};

const COMMAND: &str = "newer-command.wasm";

/// Runs the command; its exit code and its log.
async fn act(node: &Node, pod: &SandboxId, words: &[&str]) -> (i32, Vec<String>) {
    let (exited, log) = run(node, guest(node, pod, COMMAND, words).await).await;
    (exited.code, log)
}

#[tokio::test]
async fn a_command_says_ends_and_fails_as_its_kind_does() {
    let node = Node::start();
    let pod = node.pod("newer", 2).await;
    for (words, code, line) in [
        (&["say", "hello", "world"][..], 0, Some("stdout F hello")),
        (&["env", "HOSTNAME"], 0, Some("stdout F newer")),
        (&["fail"], 1, Some("stderr F asked to fail")),
        (&["exit", "7"], 7, None),
        (&["clocks"], 0, Some("stdout F waited true, set true")),
        (&["random"], 0, Some("stdout F true")),
        (&["lookup", "store"], 0, Some("stdout F store 10.240.0.5")),
        (
            &["datagrams", "4000"],
            0,
            Some("stdout F to myself from 127.0.0.1:4000"),
        ),
        (
            &["twice", "4001"],
            0,
            Some("stdout F the second: ErrorCode::AddressInUse"),
        ),
        (
            &["connect", "localhost", "1", "x"],
            1,
            Some("stderr F ErrorCode::ConnectionRefused"),
        ),
    ] {
        let (ended, log) = act(&node, &pod, words).await;
        assert_eq!(ended, code, "{words:?} {log:?}");
        assert_eq!(log.first().map(String::as_str), line, "{words:?}");
    }
}

#[tokio::test]
async fn a_component_that_hoards_tasks_is_ended_and_told_so() {
    let node = Node::start();
    let pod = node.pod("tasks", 2).await;
    // What waits for tasks is kept where they are.
    let hoard = r#"(component
        (core func $new (canon waitable-set.new))
        (core module $m
          (import "" "new" (func $new (result i32)))
          (func (export "run") (result i32)
            (local $many i32)
            (loop $again
              (drop (call $new))
              (local.set $many (i32.add (local.get $many) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $many) (i32.const 50000))))
            (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#;
    let image = node.image(hoard).await.unwrap();
    let (exited, _) = run(&node, container(&pod, "app", &image)).await;
    assert_eq!(exited.code, 134, "{exited:?}");
    let message = exited.message;
    assert!(message.contains("as many handles"), "{message}");
}

#[tokio::test]
async fn its_files_are_its_mounts() {
    let node = Node::start();
    let pod = node.pod("files", 2).await;
    let folder = node.folder.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let with_mount = async |words: &[&str], read_only| {
        let mut config = guest(&node, &pod, COMMAND, words).await;
        config.mounts = vec![Mount {
            host_path: folder.clone(),
            container_path: "/data".to_owned(),
            read_only,
            within: None,
        }];
        run(&node, config).await
    };
    let (exited, log) = with_mount(&["write", "/data/file", "from the guest"], false).await;
    assert_eq!(exited.code, 0, "{log:?}");
    let text = std::fs::read_to_string(folder.join("file")).unwrap();
    assert_eq!(text, "from the guest");
    let (exited, log) = with_mount(&["cat", "/data/file"], true).await;
    assert_eq!(
        (exited.code, &log[..]),
        (0, &["stdout F from the guest".to_owned()][..])
    );
    let (exited, log) = with_mount(&["write", "/data/file", "again"], true).await;
    assert_eq!(exited.code, 1, "{log:?}");
}

#[tokio::test]
async fn guests_of_both_versions_talk_over_the_pod_network() {
    let node = Node::start();
    let (server, client) = (node.pod("server", 5).await, node.pod("client", 6).await);
    let echo = start(
        &node,
        guest(&node, &server, COMMAND, &["echo", "7000"]).await,
    )
    .await;
    let listening = node.until(|| async {
        let dialled = node.fabric.dial("10.240.0.5:7000".parse().unwrap()).await;
        dialled.ok().map(drop)
    });
    listening.await.expect("the server listens");

    let words = ["connect", "store", "7000", "hello there"];
    let (code, log) = act(&node, &client, &words).await;
    assert_eq!(code, 0, "{log:?}");
    assert_eq!(log, ["stdout F hello there from 10.240.0.5:7000"]);
    // More than all queues on the way hold: sending waits for receiving.
    let words = ["flood", "store", "7000", "3000000"];
    let (code, log) = act(&node, &client, &words).await;
    assert_eq!(code, 0, "{log:?}");
    assert_eq!(log, ["stdout F 3000000 bytes came back"]);
    let older = ["connect", "store", "7000", "from 0.2"];
    let older = guest(&node, &client, "sockets.wasm", &older).await;
    let (exited, log) = run(&node, older).await;
    assert_eq!(exited.code, 0, "{log:?}");
    assert_eq!(log.last().map(String::as_str), Some("stdout F from 0.2"));

    // And with the node itself, in pieces.
    let address = "10.240.0.5:7000".parse().unwrap();
    let mut stream = node.fabric.dial(address).await.unwrap();
    for piece in ["one", "two"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, piece.as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    let state = node.status(&echo).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
}

async fn serve(node: &Node) -> ContainerConfig {
    let pod = node.pod("service", 2).await;
    let wasm =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm/newer-http.wasm");
    let image = node.ensure(&wasm.canonicalize().unwrap()).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.ports = vec![port("http", 8080)];
    start(node, config.clone()).await;
    config
}

#[tokio::test]
async fn a_service_answers_with_bodies_trailers_and_errors() {
    let node = Node::start();
    serve(&node).await;
    let response = get(&node, "10.240.0.2:8080", "/sleep?5").await;
    assert_eq!(
        (response.status(), response.body().as_str()),
        (StatusCode::OK, "slept\n")
    );
    // By the header `host`, which is the test's.
    let response = get(&node, "10.240.0.2:8080", "/asked").await;
    let asked = "Some(Scheme::Http) Some(\"test\")\n";
    assert_eq!(response.body(), asked);
    for path in ["/trap", "/fail"] {
        let response = get(&node, "10.240.0.2:8080", path).await;
        assert!(response.status().is_server_error(), "{path} {response:?}");
    }

    let stream = node
        .fabric
        .dial("10.240.0.2:8080".parse().unwrap())
        .await
        .unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let body = "x".repeat(200_000);
    let request = Request::post("/echo?a=b")
        .header("host", "test")
        .header("x-echo", "kept")
        .body(Full::new(Bytes::from(body.clone())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["x-echo"], "kept");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let expected = format!("Method::Post /echo?a=b\n{body}");
    assert!(bytes == expected.as_bytes(), "{} bytes", bytes.len());

    let request = Request::get("/trailers")
        .header("host", "test")
        .header("te", "trailers");
    let request = request.body(Full::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-last"], "here");
    assert_eq!(body.to_bytes(), "with a trailer\n");
}

#[tokio::test]
async fn a_service_asks_others_through_its_pod_network() {
    let node = Node::start();
    serve(&node).await;
    let other = node.pod("other", 5).await;
    let image = node.sample("hello-http/wasm/hello-http.wasm").await;
    let mut config = container(&other, "app", &image);
    config.ports = vec![port("http", 8080)];
    config.env = vec![("GREETING".to_owned(), "Ahoy".to_owned())];
    start(&node, config).await;
    let response = get(&node, "10.240.0.2:8080", "/call?store:8080").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.body().contains("Ahoy"), "{response:?}");
    let response = get(&node, "10.240.0.2:8080", "/call?store:1").await;
    assert!(response.status().is_server_error(), "{response:?}");
}
