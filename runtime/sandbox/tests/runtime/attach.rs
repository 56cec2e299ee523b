//! Clients at the streams of a running container.

use coracle_cri::{
    AttachRequest, ContainerConfig, ContainerId, ContainerState, ExecError, PodRuntime, Session,
    Streams,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Node, container};

/// Writes what it reads, and ends with 7 at the end of its input.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 64))
      (i32.store (i32.const 4) (i32.const 100))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.eqz (i32.load (i32.const 8))) (then (call $exit (i32.const 7))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more))))"#;

/// A node with a pod whose container echoes.
async fn echo(change: impl FnOnce(&mut ContainerConfig)) -> (Node, ContainerId) {
    let node = Node::start();
    let pod = node.pod("echo", 2).await;
    let image = node.image(ECHO).await.unwrap();
    let mut config = container(&pod, "app", &image);
    change(&mut config);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    (node, id)
}

async fn attach(node: &Node, id: &ContainerId, tty: bool) -> Result<Session, ExecError> {
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty,
    };
    node.runtime.attach(id, AttachRequest { streams }).await
}

async fn say(session: &mut Session, text: &str) {
    let stdin = session.stdin.as_mut().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(session: &mut Session, text: &str) {
    let mut heard = vec![0; text.len()];
    let stdout = session.stdout.as_mut().unwrap();
    stdout.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

async fn is_running(node: &Node, id: &ContainerId) -> bool {
    matches!(
        node.status(id).await.unwrap().state,
        ContainerState::Running { .. }
    )
}

#[tokio::test]
async fn input_stays_open_for_the_next_client() {
    let (node, id) = echo(|config| config.stdin = true).await;
    let mut first = attach(&node, &id, false).await.unwrap();
    say(&mut first, "one\n").await;
    hear(&mut first, "one\n").await;
    drop(first);
    let mut second = attach(&node, &id, false).await.unwrap();
    let mut watcher = attach(&node, &id, false).await.unwrap();
    say(&mut second, "two\n").await;
    hear(&mut second, "two\n").await;
    hear(&mut watcher, "two\n").await;
    second.stdin.as_mut().unwrap().shutdown().await.unwrap();
    say(&mut watcher, "three\n").await;
    hear(&mut second, "three\n").await;
    assert!(is_running(&node, &id).await);
    node.runtime
        .stop_container(&id, Default::default())
        .await
        .unwrap();
    let code = node.exit(&id).await.code;
    // The session ends with the run, its outputs first.
    let mut rest = Vec::new();
    let mut stdout = second.stdout.take().unwrap();
    stdout.read_to_end(&mut rest).await.unwrap();
    assert_eq!(second.exited.await, Ok(code));
    assert_eq!(
        node.log(&id, 0),
        ["stdout F one", "stdout F two", "stdout F three"]
    );
    assert_eq!(
        attach(&node, &id, false).await.unwrap_err(),
        ExecError::NotRunning(id)
    );
}

#[tokio::test]
async fn input_for_one_ends_with_its_client() {
    let (node, id) = echo(|config| (config.stdin, config.stdin_once) = (true, true)).await;
    let mut session = attach(&node, &id, false).await.unwrap();
    say(&mut session, "only").await;
    let (code, output) = session.output(100).await.unwrap();
    assert_eq!((code, output.as_slice()), (7, &b"only"[..]));
    assert_eq!(node.exit(&id).await.code, 7);
}

#[tokio::test]
async fn without_stdin_input_is_at_its_end() {
    let (node, id) = echo(|_| {}).await;
    assert_eq!(node.exit(&id).await.code, 7);
}

#[tokio::test]
async fn a_terminal_edits_lines_and_lets_its_client_go() {
    let (node, id) = echo(|config| (config.stdin, config.tty) = (true, true)).await;
    let mut session = attach(&node, &id, true).await.unwrap();
    assert!(session.stderr.is_none() && session.resize.is_some());
    say(&mut session, "hx\x7fi\r").await;
    hear(&mut session, "hx\x08 \x08i\r\nhi\r\n").await;
    say(&mut session, "\x03").await;
    assert_eq!(session.exited.await, Ok(130));
    assert!(is_running(&node, &id).await);
    let mut session = attach(&node, &id, true).await.unwrap();
    say(&mut session, "\x04").await;
    assert_eq!(session.exited.await, Ok(7));
}
