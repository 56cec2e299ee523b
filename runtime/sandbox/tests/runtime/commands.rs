//! Containers that run a command: exits, output, limits, stops.

use std::time::Duration;

use coracle_cri::{ContainerState, PodRuntime, RuntimeEvent};
use tokio::io::AsyncReadExt;

use crate::node::{Node, container};

/// A WASI 0.1 module whose `_start` is `body`; memory begins with `data`.
fn module(data: &str, body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get"
            (func $environ_get (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read"
            (func $fd_read (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 1024) "{data}")
          (func $print (param $fd i32) (param $at i32) (param $len i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $len))
            (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func $inner unreachable)
          (func (export "_start") {body}))"#
    )
}

const SPIN: &str = "(loop $again (br $again))";

#[tokio::test]
async fn exit_codes_are_those_of_the_guest() {
    let node = Node::start();
    let pod = node.pod("exits", 2).await;
    for (run, (body, code, reason)) in [
        ("", 0, "Completed"),
        ("(call $exit (i32.const 0))", 0, "Completed"),
        ("(call $exit (i32.const 3))", 3, "Error"),
        ("(call $exit (i32.const 200))", 200, "Error"),
        ("(call $exit (i32.const -1))", 255, "Error"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = node.image(&module("", body)).await.unwrap();
        let mut config = container(&pod, "app", &image);
        config.restart_count = run as u32;
        let id = config.id.clone();
        node.start_with(config).await.unwrap();
        let exited = node.exit(&id).await;
        assert_eq!(
            (exited.code, exited.reason.as_str()),
            (code, reason),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_trap_says_what_happened_and_where() {
    let node = Node::start();
    let pod = node.pod("trap", 2).await;
    let image = node.image(&module("", "(call $inner)")).await.unwrap();
    let exited = node.exit(&node.run(&pod, &image).await).await;
    assert_eq!((exited.code, exited.reason.as_str()), (134, "Error"));
    assert!(exited.message.contains("unreachable"), "{}", exited.message);
    assert!(exited.message.contains("inner"), "{}", exited.message);
}

#[tokio::test]
async fn output_is_logged_with_its_stream_and_the_last_line_is_kept() {
    let node = Node::start();
    let pod = node.pod("logs", 2).await;
    let body = "(call $print (i32.const 1) (i32.const 1024) (i32.const 6))
                (call $print (i32.const 2) (i32.const 1030) (i32.const 5))
                (call $print (i32.const 1) (i32.const 1035) (i32.const 4))
                (call $inner)";
    let image = node
        .image(&module(r"hello\noops\nlast", body))
        .await
        .unwrap();
    let id = node.run(&pod, &image).await;
    node.exit(&id).await;
    assert_eq!(
        node.log(&id, 0),
        ["stdout F hello", "stderr F oops", "stdout F last"]
    );
}

#[tokio::test]
async fn arguments_and_environment_are_those_of_the_manifest() {
    let node = Node::start();
    let pod = node.pod("web-0", 2).await;
    // Strings of both calls lie behind one another; NULs become line feeds.
    let body = "(local $at i32)
        (drop (call $args_get (i32.const 2048) (i32.const 4096)))
        (drop (call $environ_get (i32.const 2048) (i32.const 4112)))
        (local.set $at (i32.const 4096))
        (loop $next
          (if (i32.eqz (i32.load8_u (local.get $at)))
            (then (i32.store8 (local.get $at) (i32.const 10))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $at) (i32.const 4152))))
        (call $print (i32.const 1) (i32.const 4096) (i32.const 54))";
    let image = node.image(&module("", body)).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.args = vec!["one".to_owned()];
    config.env = vec![("KEY".to_owned(), "value".to_owned())];
    config.working_dir = "/srv".to_owned();
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    node.exit(&id).await;
    // `guest.wasm\0one\0` is 15 bytes long, one NUL more fills it up to 16.
    let expected = [
        "guest.wasm",
        "one",
        "",
        "KEY=value",
        "HOSTNAME=web-0",
        "PWD=/srv",
    ]
    .map(|line| format!("stdout F {line}"));
    let log = node.log(&id, 0);
    assert_eq!(log[..expected.len()], expected, "{log:?}");
}

#[tokio::test]
async fn guests_read_the_pods_files_and_only_their_own_root() {
    let node = Node::start();
    let pod = node.pod("files", 2).await;
    let read = |path: &str| {
        let body = format!(
            "(local $errno i32)
             (local.set $errno (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024)
               (i32.const {}) (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16)))
             (if (local.get $errno) (then (call $exit (local.get $errno))))
             (i32.store (i32.const 0) (i32.const 2048))
             (i32.store (i32.const 4) (i32.const 512))
             (drop (call $fd_read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
             (call $print (i32.const 1) (i32.const 2048) (i32.load (i32.const 8)))",
            path.len()
        );
        module(path, &body)
    };
    let image = node.image(&read("etc/hostname")).await.unwrap();
    let id = node.run(&pod, &image).await;
    assert_eq!(node.exit(&id).await.code, 0);
    assert_eq!(node.log(&id, 0), ["stdout F files"]);
    let image = node.image(&read("../../../guest.wasm")).await.unwrap();
    let id = node.run(&pod, &image).await;
    assert_ne!(node.exit(&id).await.code, 0);
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_the_container_as_oom_killed() {
    let node = Node::start();
    let pod = node.pod("oom", 2).await;
    let grow = "(loop $more (drop (memory.grow (i32.const 16))) (br $more))";
    let image = node.image(&module("", grow)).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.memory_limit = Some(8 << 20);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    let exited = node.exit(&id).await;
    assert_eq!((exited.code, exited.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(node.runtime.usage(&id).unwrap().memory_bytes, 0);
}

#[tokio::test]
async fn a_limit_below_the_first_page_is_oom_killed_too() {
    let node = Node::start();
    let pod = node.pod("oom", 2).await;
    let image = node.image(&module("", "")).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.memory_limit = Some(1000);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    assert_eq!(node.exit(&id).await.reason, "OOMKilled");
}

/// There is one thread for guests: had a spinning guest not to yield, its neighbours would never
/// run.
#[tokio::test]
async fn endless_loops_do_not_stop_their_neighbours() {
    let node = Node::start();
    let pod = node.pod("spin", 2).await;
    let spin = node.image(&module("", SPIN)).await.unwrap();
    let mut spinning = Vec::new();
    for name in ["one", "two", "three"] {
        let config = container(&pod, name, &spin);
        spinning.push(config.id.clone());
        node.start_with(config).await.unwrap();
    }
    let image = node
        .image(&module("", "(call $exit (i32.const 7))"))
        .await
        .unwrap();
    assert_eq!(node.exit(&node.run(&pod, &image).await).await.code, 7);
    for id in &spinning {
        let busy = node.until(|| async {
            (node.runtime.usage(id)?.cpu > Duration::from_millis(10)).then_some(())
        });
        busy.await.expect("each spinning guest gets its share");
    }
    for id in &spinning {
        node.runtime
            .stop_container(id, Duration::from_secs(30))
            .await
            .unwrap();
        assert_eq!(node.exit(id).await.code, 143);
    }
}

#[tokio::test]
async fn a_cpu_limit_throttles_and_does_not_kill() {
    let node = Node::start();
    let pod = node.pod("quota", 2).await;
    let image = node.image(&module("", SPIN)).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.cpu_limit_millis = Some(50);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    let throttled =
        node.until(|| async { (node.runtime.usage(&id)?.throttled_periods >= 2).then_some(()) });
    throttled
        .await
        .expect("the quota is used up in one period after the other");
    let status = node.status(&id).await.unwrap();
    assert!(
        matches!(status.state, ContainerState::Running { .. }),
        "{status:?}"
    );
    node.runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(node.exit(&id).await.code, 137);
}

#[tokio::test]
async fn a_container_restarts_under_the_next_number_and_never_twice_at_once() {
    let node = Node::start();
    let pod = node.pod("again", 2).await;
    let mut events = node.runtime.subscribe();
    let image = node.image(&module("", SPIN)).await.unwrap();
    let id = node.run(&pod, &image).await;
    let twice = node
        .start_with(container(&pod, "app", &image))
        .await
        .unwrap_err();
    assert!(twice.to_string().contains("is running"), "{twice}");
    node.runtime
        .stop_container(&id, Duration::from_secs(1))
        .await
        .unwrap();
    let mut config = container(&pod, "app", &image);
    config.restart_count = 1;
    node.start_with(config).await.unwrap();
    node.runtime.stop_pod_sandbox(&pod).await.unwrap();
    assert!(node.runtime.list().await.is_empty());
    node.runtime.stop_pod_sandbox(&pod).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let RuntimeEvent::Container(status) = event {
            let state = match status.state {
                ContainerState::Exited { exit_code, .. } => exit_code,
                _ => 0,
            };
            seen.push((status.restart_count, state));
        }
    }
    assert_eq!(seen, [(0, 0), (0, 143), (1, 0), (1, 137)]);
}

#[tokio::test]
async fn a_container_that_starts_again_and_again_keeps_the_logs_of_two_runs() {
    let node = Node::start();
    let pod = node.pod("crashes", 2).await;
    let body = "(call $print (i32.const 1) (i32.const 1024) (i32.const 5))";
    let image = node.image(&module("again", body)).await.unwrap();
    let mut config = container(&pod, "app", &image);
    let id = config.id.clone();
    for run in 0..4 {
        config.restart_count = run;
        node.start_with(config.clone()).await.unwrap();
        node.exit(&id).await;
        assert_eq!(node.log(&id, run), ["stdout F again"], "run {run}");
    }
    let runs = (0..4).filter(|run| !node.log(&id, *run).is_empty());
    assert_eq!(runs.collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let node = Node::start();
    let text = node.folder.path().join("readme.wasm");
    std::fs::write(&text, "hello").unwrap();
    let error = node.ensure(&text).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNotRunnable");
    assert!(
        error.to_string().contains("text that starts with"),
        "{error}"
    );
    let import = r#"(module (import "env" "magic" (func)) (func (export "_start")))"#;
    let error = node.image(import).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNotRunnable");
    assert!(
        error.to_string().contains("env") && error.to_string().contains("magic"),
        "{error}"
    );
    let invalid = r#"(module (func (export "_start") (result i32)))"#;
    let error = node.image(invalid).await.unwrap_err();
    assert_eq!(error.reason(), "ErrImageNotRunnable");
}

#[tokio::test]
async fn a_run_that_cannot_be_prepared_opens_no_log() {
    let node = Node::start();
    let pod = node.pod("no-message", 2).await;
    let image = node.image(&module("", "")).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.termination_message.path = "/etc".to_owned();
    let error = node.start_with(config).await.unwrap_err();
    assert!(error.to_string().contains("failed to make /etc"), "{error}");
    let log = node.folder.path().join("pods/no-message/logs/app/0.log");
    assert!(!log.exists());
    // The next try is not held up.
    let id = node.run(&pod, &image).await;
    assert_eq!(node.exit(&id).await.code, 0);
}

#[tokio::test]
async fn compiled_code_is_used_again_and_never_after_it_was_changed() {
    let node = Node::start();
    let pod = node.pod("cache", 2).await;
    let image = node
        .image(&module("", "(call $exit (i32.const 5))"))
        .await
        .unwrap();
    assert_eq!(node.exit(&node.run(&pod, &image).await).await.code, 5);
    let Node {
        folder, runtime, ..
    } = node;
    drop(runtime);
    let cache = folder.path().join("images/compiled");
    let code = std::fs::read_dir(&cache).unwrap().filter_map(Result::ok);
    let mut code: Vec<_> = code
        .map(|file| file.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect();
    let code = code.pop().unwrap();
    let mut bytes = std::fs::read(&code).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xcc);
    std::fs::write(&code, &bytes).unwrap();

    let node = Node::in_folder(folder);
    let mut events = node.runtime.subscribe();
    let pod = node.pod("cache-again", 2).await;
    let image = node
        .ensure(&node.folder.path().join("guest.wasm"))
        .await
        .unwrap();
    assert_eq!(node.exit(&node.run(&pod, &image).await).await.code, 5);
    let compiled = std::iter::from_fn(|| events.try_recv().ok()).any(|event| {
        matches!(
            event,
            RuntimeEvent::ImageProgress {
                step: coracle_cri::ImageStep::Compiling { .. },
                ..
            }
        )
    });
    assert!(compiled, "changed code was used");
    assert_ne!(std::fs::read(&code).unwrap(), bytes);
}

#[tokio::test]
async fn ports_that_nobody_listens_on_refuse() {
    let node = Node::start();
    let pod = node.pod("ports", 2).await;
    let Err(error) = node.runtime.connect(&pod, 80).await else {
        panic!("connected")
    };
    assert!(
        error.to_string().contains("port 80 of pod default/ports"),
        "{error}"
    );
    let image = node.sample("hello-http/wasm/hello-http.wasm").await;
    node.run(&pod, &image).await;
    let mut stream = node.runtime.connect(&pod, 80).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 400"), "{answer}");
}
