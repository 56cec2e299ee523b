//! Guests that are broken or mean harm: each ends, or is held back, with words that help its author,
//! and a neighbour runs as ever. Endless loops are in `commands`, sockets beside the sockets, ways
//! out of a guest's folders in `toolbox`.

use std::time::Duration;

use coracle_cri::{ContainerId, PodRuntime, SandboxId};

use crate::node::{Exited, Node, container};

/// A WASI 0.1 module whose `_start` is `body`.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "path_open"
            (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "random_get"
            (func $random (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
          (memory (export "memory") 2)
          (data (i32.const 1024) ".")
          (func $descend (param $n i32) (result i32)
            (i32.add (local.get $n) (call $descend (i32.add (local.get $n) (i32.const 1)))))
          (func $take_it_all (loop $more (drop (memory.grow (i32.const 16))) (br $more)))
          (func (export "_start") {body}))"#
    )
}

/// A component whose `wasi:cli/run` calls `run` of a core module that may call `subscribe` (a timer), `bytes` (random ones)
/// and `get` (a setting), and grow its memory.
fn component(run: &str) -> String {
    format!(
        r#"(component
          (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
          (alias export $poll "pollable" (type $pollable))
          (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type $p (eq $outer)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
          (import "wasi:random/insecure@0.2.0" (instance $random
            (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))
          (import "wasi:config/store@0.2.0-rc.1" (instance $config
            (type $failure (variant (case "upstream" string) (case "io" string)))
            (export "error" (type $error (eq $failure)))
            (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
          (core module $libc
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
          (core instance $libc (instantiate $libc))
          (core func $subscribe (canon lower (func $clock "subscribe-duration")))
          (core func $bytes (canon lower (func $random "get-insecure-random-bytes")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
          (core func $get (canon lower (func $config "get")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
          (core module $main
            (import "libc" "memory" (memory 1))
            (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
            (import "host" "bytes" (func $bytes (param i64 i32)))
            (import "host" "get" (func $get (param i32 i32 i32)))
            (func (export "run") (result i32) {run}))
          (core instance $main (instantiate $main (with "libc" (instance $libc)) (with "host" (instance
            (export "subscribe" (func $subscribe)) (export "bytes" (func $bytes)) (export "get" (func $get))))))
          (func $run (result (result)) (canon lift (core func $main "run")))
          (instance $exports (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    )
}

/// Runs a guest to its end, with 16 MiB, and then a neighbour that does nothing.
async fn run(node: &Node, pod: &SandboxId, text: &str) -> (Exited, ContainerId) {
    run_with(node, pod, text, Some(16 << 20)).await
}

async fn run_with(
    node: &Node,
    pod: &SandboxId,
    text: &str,
    memory_limit: Option<u64>,
) -> (Exited, ContainerId) {
    let image = node.image(text).await.unwrap();
    let mut config = container(pod, "hostile", &image);
    config.memory_limit = memory_limit;
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    let exited = node.exit(&id).await;
    let image = node
        .image(&module("(call $exit (i32.const 7))"))
        .await
        .unwrap();
    let neighbour = container(pod, "neighbour", &image);
    let other = neighbour.id.clone();
    node.start_with(neighbour).await.unwrap();
    assert_eq!(node.exit(&other).await.code, 7);
    (exited, id)
}

#[tokio::test]
async fn what_takes_all_memory_is_told_where_and_how_much() {
    let node = Node::start();
    let pod = node.pod("hog", 2).await;
    let (exited, _) = run(&node, &pod, &module("(call $take_it_all)")).await;
    assert_eq!((exited.code, exited.reason.as_str()), (137, "OOMKilled"));
    for words in [
        "limit of the container",
        "memory peak: 15.2 MiB",
        "take_it_all",
    ] {
        assert!(
            exited.message.contains(words),
            "{words}: {}",
            exited.message
        );
    }
}

#[tokio::test]
async fn recursion_without_an_end_is_a_trap_that_names_its_function() {
    let node = Node::start();
    let pod = node.pod("deep", 2).await;
    let (exited, _) = run(&node, &pod, &module("(drop (call $descend (i32.const 0)))")).await;
    assert_eq!((exited.code, exited.reason.as_str()), (134, "Error"));
    for words in ["call stack exhausted", "memory peak: 0.2 MiB", "descend"] {
        assert!(
            exited.message.contains(words),
            "{words}: {}",
            exited.message
        );
    }
    assert!(exited.message.len() <= 4096);
}

#[tokio::test]
async fn descriptors_run_out_for_the_guest_alone() {
    let node = Node::start();
    let pod = node.pod("files", 2).await;
    // Opens its root again and again, and exits with the reason why it could not any more.
    let open = "(local $errno i32)
        (loop $again
          (local.set $errno (call $path_open (i32.const 3) (i32.const 0) (i32.const 1024)
            (i32.const 1) (i32.const 2) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16)))
          (br_if $again (i32.eqz (local.get $errno))))
        (call $exit (local.get $errno))";
    let (exited, _) = run(&node, &pod, &module(open)).await;
    // EMFILE of WASI.
    assert_eq!(exited.code, 33, "{exited:?}");
}

#[tokio::test]
async fn a_component_that_hoards_handles_is_ended_and_told_so() {
    let node = Node::start();
    let pod = node.pod("handles", 2).await;
    let hoard = "(loop $again (drop (call $subscribe (i64.const 1))) (br $again)) (i32.const 0)";
    let (exited, _) = run(&node, &pod, &component(hoard)).await;
    assert_eq!(exited.code, 134, "{exited:?}");
    assert!(
        exited.message.contains("as many handles"),
        "{}",
        exited.message
    );
}

#[tokio::test]
async fn values_that_fit_nowhere_end_their_guest() {
    let node = Node::start();
    let pod = node.pod("giant", 2).await;
    for length in ["1000000", "16777217", "10000000000", "-1"] {
        let ask = format!("(call $bytes (i64.const {length}) (i32.const 0)) (i32.const 0)");
        let (exited, _) = run(&node, &pod, &component(&ask)).await;
        assert_eq!(
            (exited.code, exited.reason.as_str()),
            (134, "Error"),
            "{length}"
        );
        assert!(exited.message.contains("memory peak"), "{}", exited.message);
    }
}

#[tokio::test]
async fn a_module_has_as_many_random_bytes_as_it_has_room_for() {
    let node = Node::start();
    let pod = node.pod("random", 2).await;
    // A million and some; the exit code tells whether the last eight are none of zeros, and that no more are written.
    let ask = "(drop (memory.grow (i32.const 30)))
        (if (call $random (i32.const 100) (i32.const 1000100)) (then (call $exit (i32.const 9))))
        (call $exit (i32.add
          (i64.ne (i64.load (i32.const 1000192)) (i64.const 0))
          (i64.eqz (i64.load (i32.const 1000200)))))";
    let (exited, _) = run(&node, &pod, &module(ask)).await;
    assert_eq!(exited.code, 2, "{exited:?}");
}

#[tokio::test]
async fn what_one_call_passes_is_bounded() {
    let node = Node::start();
    let pod = node.pod("giant", 2).await;
    let ask = |bytes: u32| {
        let run = format!(
            "(drop (memory.grow (i32.const 300))) (call $get (i32.const 4096) (i32.const {bytes}) (i32.const 0)) (i32.const 0)"
        );
        component(&run)
    };
    let limit = Some(64 << 20);
    let (exited, _) = run_with(&node, &pod, &ask(16 << 20), limit).await;
    assert_eq!(exited.code, 0, "{exited:?}");
    let (exited, _) = run_with(&node, &pod, &ask((16 << 20) + 1), limit).await;
    assert_eq!(exited.code, 134, "{exited:?}");
    assert!(
        exited
            .message
            .starts_with("the guest passed more than 16777216 bytes to the host in one call"),
        "{}",
        exited.message
    );
}

#[tokio::test]
async fn a_million_small_calls_hold_up_neither_a_neighbour_nor_a_stop() {
    let node = Node::start();
    let pod = node.pod("calls", 2).await;
    let call =
        "(loop $again (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8))) (br $again))";
    let image = node.image(&module(call)).await.unwrap();
    let id = node.run(&pod, &image).await;
    let busy = || async {
        let used = node.runtime.container_stats(&id).await?.cpu.used;
        (used > Duration::from_millis(200)).then_some(())
    };
    node.until(busy).await.expect("its calls are its own time");
    run(&node, &pod, &module("")).await;
    node.runtime
        .stop_container(&id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(node.exit(&id).await.code, 143);
}

#[tokio::test]
async fn a_flood_of_output_is_kept_within_bounds() {
    let node = Node::start();
    let pod = node.pod("flood", 2).await;
    // 32 MiB in lines of 64 KiB.
    let flood = "(local $n i32)
        (memory.fill (i32.const 4096) (i32.const 120) (i32.const 65535))
        (i32.store8 (i32.const 69631) (i32.const 10))
        (i32.store (i32.const 0) (i32.const 4096))
        (i32.store (i32.const 4) (i32.const 65536))
        (loop $again
          (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 512))))";
    let (exited, id) = run(&node, &pod, &module(flood)).await;
    assert_eq!(exited.code, 0, "{exited:?}");
    let disk = node.runtime.disk_usage(&pod).await;
    let logs = disk.iter().find(|disk| disk.name == id.name).unwrap().logs;
    assert!(
        (1..64 << 20).contains(&logs.bytes) && logs.inodes <= 6,
        "{logs:?}"
    );
}

#[tokio::test]
async fn damaged_modules_are_refused_with_a_reason_and_nothing_panics() {
    let node = Node::start();
    let whole = wat::parse_str(module("")).unwrap();
    let path = node.folder.path().join("damaged.wasm");
    let refused = async |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        match node.ensure(&path).await {
            Err(error) => {
                assert_eq!(error.reason(), "ErrImageNotRunnable", "{what}: {error}");
                true
            }
            // A changed constant or name is still a module.
            Ok(_) => false,
        }
    };
    // Behind the code there are names alone, which nobody needs.
    let code = whole.len() * 2 / 3;
    for length in (0..code).step_by(7) {
        assert!(refused(&whole[..length], "cut").await, "cut at {length}");
    }
    let mut damaged = 0;
    for at in (8..whole.len()).step_by(5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        damaged += usize::from(refused(&bytes, "damaged").await);
    }
    assert!(damaged > 10, "{damaged}");
    for (text, what) in [
        ("(module (memory 65537))", "more pages than there are"),
        (
            "(module (table 4000000000 funcref) (func (export \"_start\")))",
            "a giant table",
        ),
        ("(component)", "nothing to run"),
    ] {
        if let Ok(bytes) = wat::parse_str(text) {
            assert!(
                refused(&bytes, what).await || what == "a giant table",
                "{what}"
            );
        }
    }
}
