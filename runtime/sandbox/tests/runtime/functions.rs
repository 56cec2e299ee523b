//! A component that has only functions: it runs until it is stopped, and is called with `exec`. Its
//! functions show what `wasi:config`, `wasi:keyvalue` and `wasi:logging` do.

use std::time::Duration;

use coracle_cri::{ContainerConfig, ContainerId, ContainerState, Mount, PodRuntime};

use crate::exec::{outcome, session};
use crate::guests::{guest, start};
use crate::node::Node;

struct Functions {
    node: Node,
    id: ContainerId,
}

impl Functions {
    async fn start(change: impl FnOnce(&Node, &mut ContainerConfig)) -> Self {
        let node = Node::start();
        let pod = node.pod("functions", 2).await;
        let mut config = guest(&node, &pod, "functions.wasm", &[]).await;
        change(&node, &mut config);
        let id = start(&node, config).await;
        Self { node, id }
    }

    /// Calls a function; what it printed, and what it wrote to standard error.
    async fn call(&self, call: &str) -> (i32, String, String) {
        match session(&self.node, &self.id, &[call], false).await {
            Ok(session) => {
                let (code, printed, said) = outcome(session, b"").await;
                (code, printed.trim_end().to_owned(), said)
            }
            Err(error) => (-1, String::new(), error.to_string()),
        }
    }

    async fn check(&self, calls: &[(&str, &str)]) {
        for (call, expected) in calls {
            let (_, printed, said) = self.call(call).await;
            assert_eq!(printed, *expected, "{call}: {said}");
        }
    }
}

/// A folder below the node's, with files.
fn folder(node: &Node, name: &str, files: &[(&str, &str)]) -> Mount {
    let host_path = node.folder.path().join(name);
    std::fs::create_dir(&host_path).unwrap();
    for (file, text) in files {
        std::fs::write(host_path.join(file), text).unwrap();
    }
    Mount {
        host_path,
        container_path: format!("/mnt/{name}"),
        read_only: false,
        within: None,
    }
}

fn annotate(config: &mut ContainerConfig, name: &str, value: &str) {
    config.annotations.insert(name.to_owned(), value.to_owned());
}

#[tokio::test]
async fn it_stays_running_is_called_and_stops_at_once() {
    let functions = Functions::start(|_, _| {}).await;
    functions
        .check(&[(r#"greet("you")"#, r#""hello you""#)])
        .await;
    let (code, _, said) = functions.call("gret()").await;
    assert!(code != 0 && said.contains("did you mean greet"), "{said}");
    let status = functions.node.status(&functions.id).await.unwrap();
    assert!(matches!(
        status.state,
        ContainerState::Running { serving: true, .. }
    ));
    let usage = functions.node.runtime.usage(&functions.id).unwrap();
    assert_eq!(usage.memory_bytes, 0, "at rest it has no instance");
    let stopping = functions
        .node
        .runtime
        .stop_container(&functions.id, Duration::from_secs(30));
    stopping.await.unwrap();
    assert_eq!(functions.node.exit(&functions.id).await.code, 143);
}

#[tokio::test]
async fn settings_are_the_mounts_that_the_pod_names_then_the_environment() {
    let functions = Functions::start(|node, config| {
        config.env = [("COLOUR", "red"), ("only", "env"), ("both", "env")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let first = folder(
            node,
            "first",
            &[("both", "first"), ("db.url", "x://y"), ("..data", "")],
        );
        let second = folder(node, "second", &[("both", "second"), ("bothy", "2")]);
        config.mounts = vec![first, second];
        annotate(
            config,
            "coracle.dev/config",
            "/mnt/first, /mnt/second,/mnt/none",
        );
    })
    .await;
    functions
        .check(&[
            (r#"setting("COLOUR")"#, r#"ok(some("red"))"#),
            (r#"setting("db.url")"#, r#"ok(some("x://y"))"#),
            (r#"setting("both")"#, r#"ok(some("first"))"#),
            (r#"setting("none")"#, "ok(none)"),
            (r#"setting("..data")"#, "ok(none)"),
            (r#"setting("../../pods")"#, "ok(none)"),
            (r#"settings("bo")"#, r#"ok(["both", "bothy"])"#),
            (r#"settings("..")"#, "ok([])"),
        ])
        .await;
    let changed = functions.node.folder.path().join("first/both");
    std::fs::write(changed, "changed").unwrap();
    functions
        .check(&[(r#"setting("both")"#, r#"ok(some("changed"))"#)])
        .await;
}

#[tokio::test]
async fn settings_without_an_annotation_are_the_environment() {
    let functions = Functions::start(|node, config| {
        config.mounts = vec![folder(node, "first", &[("key", "file")])];
        config.env = vec![("A".to_owned(), "1".to_owned())];
    })
    .await;
    functions
        .check(&[
            (r#"setting("key")"#, "ok(none)"),
            (r#"setting("HOSTNAME")"#, r#"ok(some("functions"))"#),
            (r#"settings("A")"#, r#"ok(["A"])"#),
        ])
        .await;
}

const COUNTING: &[(&str, &str)] = &[
    (r#"take("", "a")"#, "ok(none)"),
    (r#"put("", "a", "1")"#, "ok"),
    (r#"take("default", "a")"#, r#"ok(some("1"))"#),
    (r#"take("other", "a")"#, "ok(none)"),
    (r#"count("", "visits", 2)"#, "ok(2)"),
    (r#"count("", "visits", 3)"#, "ok(5)"),
    (r#"forget("", "a")"#, "ok"),
    (r#"take("", "a")"#, "ok(none)"),
    (r#"fill("many", 2500)"#, "ok(2500)"),
];

#[tokio::test]
async fn buckets_in_memory_outlive_calls_and_containers_and_end_with_the_pod() {
    let functions = Functions::start(|_, _| {}).await;
    functions.check(COUNTING).await;
    // A container that starts again is in the same pod.
    let node = &functions.node;
    node.runtime
        .stop_container(&functions.id, Duration::ZERO)
        .await
        .unwrap();
    let mut config = guest(node, &functions.id.sandbox, "functions.wasm", &[]).await;
    config.restart_count = 1;
    start(node, config).await;
    functions
        .check(&[(r#"count("", "visits", 0)"#, "ok(5)")])
        .await;
}

#[tokio::test]
async fn buckets_on_a_volume_are_files_below_the_mount() {
    let functions = Functions::start(|node, config| {
        config.mounts = vec![folder(node, "data", &[])];
        annotate(config, "coracle.dev/keyvalue", "/mnt/data");
    })
    .await;
    functions.check(&COUNTING[..8]).await;
    let visits = functions
        .node
        .folder
        .path()
        .join("data/keyvalue/default/visits");
    assert_eq!(std::fs::read_to_string(visits).unwrap(), "5");
}

#[tokio::test]
async fn an_annotation_that_names_no_mount_is_told_to_the_guest() {
    let functions = Functions::start(|_, config| {
        annotate(config, "coracle.dev/keyvalue", "/mnt/data");
    })
    .await;
    let (code, printed, _) = functions.call(r#"put("", "a", "1")"#).await;
    assert_eq!(code, 1);
    assert!(
        printed.contains("coracle.dev/keyvalue names /mnt/data"),
        "{printed}"
    );
}

#[tokio::test]
async fn log_lines_have_their_level() {
    let functions = Functions::start(|_, _| {}).await;
    // What a call logs is for who called.
    let (code, _, said) = functions.call(r#"say(warn, "db", "slow")"#).await;
    assert_eq!((code, said.as_str()), (0, "WARN db: slow\n"));
}

/// A command of WASI 0.2 that logs once, and imports the interface without a version.
const LOGS: &str = r#"(component
  (type $logging (instance
    (type $levels (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $levels)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (import "wasi:logging/logging" (instance $logging (type $logging)))
  (core module $texts (memory (export "memory") 1) (data (i32.const 0) "dbslow"))
  (core instance $texts (instantiate $texts))
  (core func $log (canon lower (func $logging "log") (memory (core memory $texts "memory"))))
  (core module $main
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "run") (result i32)
      (call $log (i32.const 4) (i32.const 0) (i32.const 2) (i32.const 2) (i32.const 4))
      (i32.const 0)))
  (core instance $main (instantiate $main (with "host" (instance (export "log" (func $log))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"#;

#[tokio::test]
async fn what_a_container_logs_is_in_its_log() {
    let node = Node::start();
    let pod = node.pod("logs", 2).await;
    let image = node.image(LOGS).await.unwrap();
    let id = node.run(&pod, &image).await;
    assert_eq!(node.exit(&id).await.code, 0);
    assert_eq!(node.log(&id, 0), ["stderr F ERROR db: slow"]);
}
