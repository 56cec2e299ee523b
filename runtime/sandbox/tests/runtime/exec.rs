//! Commands beside a running container: exports, modules, streams, limits, ends.

use std::path::Path;
use std::time::Duration;

use coracle_cri::{
    ContainerConfig, ContainerId, ExecError, ExecRequest, Mount, PodRuntime, Resize, Session,
    Streams, TerminalSize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Node, container};

/// What came of a command: exit code, standard output, standard error.
pub(crate) type Outcome = (i32, String, String);

/// A node whose pod runs `hello-http`, which needs no instance while nobody asks.
pub(crate) struct Beside {
    pub(crate) node: Node,
    pub(crate) id: ContainerId,
}

impl Beside {
    pub(crate) async fn start(change: impl FnOnce(&Node, &mut ContainerConfig)) -> Self {
        let node = Node::start();
        let pod = node.pod("web-0", 2).await;
        let image = node.sample("hello-http/wasm/hello-http.wasm").await;
        let mut config = container(&pod, "app", &image);
        change(&node, &mut config);
        let id = config.id.clone();
        node.start_with(config).await.unwrap();
        Self { node, id }
    }

    pub(crate) async fn session(&self, command: &[&str], tty: bool) -> Result<Session, ExecError> {
        session(&self.node, &self.id, command, tty).await
    }

    /// Runs a command to its end with `input`.
    pub(crate) async fn run(&self, command: &[&str], input: &str) -> Outcome {
        match self.session(command, false).await {
            Ok(session) => outcome(session, input.as_bytes()).await,
            Err(error) => (
                error.exit_code().unwrap_or(-1),
                String::new(),
                error.to_string(),
            ),
        }
    }

    pub(crate) async fn sh(&self, script: &str) -> Outcome {
        self.run(&["sh", "-c", script], "").await
    }
}

pub(crate) async fn session(
    node: &Node,
    id: &ContainerId,
    command: &[&str],
    tty: bool,
) -> Result<Session, ExecError> {
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty,
    };
    let request = ExecRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        streams,
        waits: false,
    };
    node.runtime.exec(id, request).await
}

/// Feeds `input`, and reads everything until the end.
pub(crate) async fn outcome(session: Session, input: &[u8]) -> Outcome {
    let (mut stdin, mut stdout) = (session.stdin.unwrap(), session.stdout.unwrap());
    let feed = async {
        // A command that does not read its input is right to.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let complaints = async {
        if let Some(mut stderr) = session.stderr {
            stderr.read_to_end(&mut err).await.unwrap();
        }
    };
    let (code, (), read, ()) = tokio::join!(
        session.exited,
        feed,
        stdout.read_to_end(&mut out),
        complaints
    );
    read.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code.unwrap(), text(out), text(err))
}

/// A command that runs for ever and exports functions.
const MATH: &str = r#"(component
  (core module $m
    (memory (export "memory") 1)
    (func (export "add") (param i32 i32) (result i32)
      (i32.add (local.get 0) (local.get 1)))
    (func (export "sub") (param i32 i32) (result i32)
      (i32.sub (local.get 0) (local.get 1)))
    (func (export "check") (param i32) (result i32) (i32.eqz (local.get 0)))
    (func $deep (export "trap") unreachable)
    (func (export "hog") (loop $more (drop (memory.grow (i32.const 16))) (br $more)))
    (func (export "spin") (loop $again (br $again)))
    (func (export "run") (result i32) (loop $again (br $again)) unreachable))
  (core instance $i (instantiate $m))
  (func (export "add") (param "a" u32) (param "b" u32) (result u32)
    (canon lift (core func $i "add")))
  (func (export "check") (param "fine" bool) (result (result))
    (canon lift (core func $i "check")))
  (func (export "trap") (canon lift (core func $i "trap")))
  (func (export "hog") (canon lift (core func $i "hog")))
  (func (export "spin") (canon lift (core func $i "spin")))
  (func $sub (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "sub")))
  (instance $ops (export "sub" (func $sub)))
  (export "demo:math/ops@1.2.0" (instance $ops))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $command)))"#;

async fn math(limit: Option<u64>) -> Beside {
    let node = Node::start();
    let pod = node.pod("math", 2).await;
    let image = node.image(MATH).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.memory_limit = limit;
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    Beside { node, id }
}

#[tokio::test]
async fn exports_are_called_by_their_names_with_typed_arguments() {
    let math = math(None).await;
    for (call, code, out) in [
        ("add(1, 2)", 0, "3\n"),
        ("add(4294967295, 1)", 0, "0\n"),
        ("sub(1, 3)", 0, "-2\n"),
        ("ops.sub(1, 3)", 0, "-2\n"),
        ("demo:math/ops@1.2.0#sub(1, 3)", 0, "-2\n"),
        ("check(true)", 0, "ok\n"),
        ("check(false)", 1, "err\n"),
    ] {
        let ran = math.run(&[call], "").await;
        assert_eq!(ran, (code, out.to_owned(), String::new()), "{call}");
    }
    let (code, out, err) = math.run(&["trap()"], "").await;
    assert_eq!((code, out.as_str()), (134, ""));
    assert!(err.contains("unreachable") && err.contains("deep"), "{err}");
}

#[tokio::test]
async fn a_call_that_cannot_be_says_what_can() {
    let math = math(None).await;
    for (call, code, said) in [
        ("ad(1)", 127, "did you mean add?"),
        (
            "multiply()",
            127,
            "it exports demo:math/ops@1.2.0#sub(a: s32, b: s32) -> s32, add(a: u32, b: u32) -> u32",
        ),
        ("add(1)", 126, "add(a: u32, b: u32) -> u32"),
        ("add(1, -2)", 126, "add(a: u32, b: u32) -> u32"),
        ("add(1, 2, 3)", 126, "add(a: u32, b: u32) -> u32"),
        ("add(1,", 127, "not found"),
        ("add(\"x)", 126, "add"),
    ] {
        let (real, _, err) = math.run(&[call], "").await;
        assert_eq!(real, code, "{call}: {err}");
        assert!(err.contains(said), "{call}: {err}");
    }
}

#[tokio::test]
async fn the_image_and_files_that_the_container_sees_run_as_commands() {
    let node = Node::start();
    let pod = node.pod("modules", 2).await;
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    let guests = guests.canonicalize().unwrap();
    let image = node.ensure(&guests.join("diagnose.wasm")).await.unwrap();
    let mut config = container(&pod, "app", &image);
    config.args = vec!["spin".to_owned()];
    config.env = vec![("COLOUR".to_owned(), "blue".to_owned())];
    config.working_dir = "/srv".to_owned();
    let data = node.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(
        guests.join("diagnose-component.wasm"),
        data.join("tool.wasm"),
    )
    .unwrap();
    std::fs::copy(guests.join("http-echo.wasm"), data.join("echo.wasm")).unwrap();
    std::fs::write(data.join("notes"), "just text").unwrap();
    std::fs::write(data.join("run.sh"), "#!/bin/sh\necho \"$0 got $1\"\n").unwrap();
    std::fs::write(node.folder.path().join("secret.wasm"), "outside").unwrap();
    std::os::unix::fs::symlink("../secret.wasm", data.join("out.wasm")).unwrap();
    std::os::unix::fs::symlink("tool.wasm", data.join("in.wasm")).unwrap();
    config.mounts = vec![Mount {
        host_path: data,
        container_path: "/data".to_owned(),
        read_only: true,
        within: None,
    }];
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    let beside = Beside { node, id };
    for command in [
        &["diagnose", "exit", "7"][..],
        &["diagnose.wasm", "exit", "7"],
        &["/data/tool.wasm", "exit", "7"],
        &["../data/tool.wasm", "exit", "7"],
        &["/data/in.wasm", "exit", "7"],
    ] {
        let (code, _, err) = beside.run(command, "").await;
        // A component can tell only that it failed, with the adapter that this one has.
        let expected = if command[0].starts_with("diagnose") {
            7
        } else {
            code.clamp(1, 7)
        };
        assert_eq!(code, expected, "{command:?}: {err}");
    }
    let (code, out, err) = beside.run(&["diagnose", "print"], "").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("COLOUR=blue"), "{out}");
    let ran = beside.run(&["/data/run.sh", "this"], "").await;
    assert_eq!(
        ran,
        (0, "/data/run.sh got this\n".to_owned(), String::new())
    );
    for (command, code, said) in [
        (&["/data/out.wasm"][..], 126, "/data/out.wasm"),
        (&["/data/notes"], 126, "text that starts with"),
        (&["/data/echo.wasm"], 126, "answers http requests"),
        (&["/data/missing.wasm"], 127, "not found"),
        (&["/data/../../secret.wasm"], 127, "not found"),
        (&["systemctl"], 127, "the image's program diagnose.wasm"),
        (&["hepl"], 127, "Did you mean help?"),
        (&["add(1)"], 126, "core module"),
    ] {
        let (real, _, err) = beside.run(command, "").await;
        assert_eq!(real, code, "{command:?}: {err}");
        assert!(err.contains(said), "{command:?}: {err}");
    }
}

#[tokio::test]
async fn big_streams_wait_for_their_readers() {
    let beside = Beside::start(|_, _| {}).await;
    let mut session = beside.session(&["cat"], false).await.unwrap();
    let (mut stdin, mut stdout) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    let block = vec![b'x'; 1 << 20];
    // More than the pipes hold: without a reader this cannot go on.
    let feeding = tokio::spawn(async move {
        for _ in 0..4 {
            stdin.write_all(&block).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!feeding.is_finished());
    let mut total = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        match stdout.read(&mut buffer).await.unwrap() {
            0 => break,
            n => total += n,
        }
    }
    feeding.await.unwrap();
    assert_eq!((total, session.exited.await), (4 << 20, Ok(0)));
}

#[tokio::test]
async fn a_command_whose_output_nobody_reads_any_more_ends() {
    let beside = Beside::start(|_, _| {}).await;
    let script = "while true; do echo x; done";
    let mut session = beside.session(&["sh", "-c", script], false).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).await.unwrap();
    drop(stdout);
    assert_eq!(session.exited.await, Ok(141));
}

#[tokio::test]
async fn dropping_a_session_ends_what_runs_and_frees_its_place() {
    let math = math(None).await;
    let spinning = math.session(&["spin()"], false).await.unwrap();
    drop(spinning);
    let mut sessions = Vec::new();
    let refused = loop {
        match math.session(&["cat"], false).await {
            Ok(session) => sessions.push(session),
            Err(error) => break error,
        }
        assert!(sessions.len() <= 16);
    };
    assert!(matches!(refused, ExecError::Exhausted(_)), "{refused}");
    assert!(
        refused.to_string().contains("16 exec sessions"),
        "{refused}"
    );
    // A probe is not refused, and another one waits for its turn.
    let probe = || ExecRequest {
        command: vec!["cat".to_owned()],
        streams: Streams {
            stdin: true,
            ..Streams::default()
        },
        waits: true,
    };
    let mut probes = Vec::new();
    for _ in 0..16 {
        probes.push(math.node.runtime.exec(&math.id, probe()).await.unwrap());
    }
    let mut next = math.node.runtime.exec(&math.id, probe());
    assert!(so_far(&mut next).await.is_none());
    probes.clear();
    let mut next = next.await.unwrap();
    drop(next.stdin.take());
    assert_eq!(next.exited.await, Ok(0));
    sessions.clear();
    let free = math
        .node
        .until(|| async { math.session(&["true"], false).await.ok() });
    assert_eq!(
        free.await.expect("places are given back").exited.await,
        Ok(0)
    );
}

/// What has become of `future` so far.
async fn so_far<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(
        |context| match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        },
    )
    .await
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_the_command_and_not_the_container() {
    let math = math(Some(8 << 20)).await;
    let (code, _, err) = math.run(&["hog()"], "").await;
    assert_eq!(code, 137);
    assert!(
        err.contains("memory limit of the container exceeded"),
        "{err}"
    );
    let status = math.node.status(&math.id).await.unwrap();
    let running = matches!(status.state, coracle_cri::ContainerState::Running { .. });
    assert!(running, "{status:?}");
}

#[tokio::test]
async fn a_command_has_the_memory_that_its_container_was_resized_to() {
    let math = math(Some(8 << 20)).await;
    for limit in [Some(4 << 20), Some(16 << 20)] {
        let to = Resize {
            memory_limit: limit,
            cpu_limit_millis: None,
            cpu_weight_millis: 1,
            pod_memory_limit: None,
            pod_cpu_limit_millis: None,
        };
        let resized = math.node.runtime.resize_container(&math.id, to).await;
        resized.unwrap();
        let (code, _, err) = math.run(&["hog()"], "").await;
        let expected = format!("limit {}", limit.unwrap());
        assert!(code == 137 && err.contains(&expected), "{code} {err}");
    }
}

#[tokio::test]
async fn a_command_ends_with_its_container() {
    let math = math(None).await;
    let spinning = math.session(&["spin()"], false).await.unwrap();
    let waiting = math.session(&["cat"], false).await.unwrap();
    let runtime = &math.node.runtime;
    runtime
        .stop_container(&math.id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(spinning.exited.await, Ok(137));
    assert_eq!(waiting.exited.await, Ok(137));
    let late = math.session(&["true"], false).await.unwrap_err();
    assert_eq!(late, ExecError::NotRunning(math.id.clone()));
}

#[tokio::test]
async fn a_terminal_echoes_edits_and_interrupts() {
    let beside = Beside::start(|_, _| {}).await;
    let mut session = beside.session(&["sh"], true).await.unwrap();
    assert!(session.stderr.is_none());
    let size = TerminalSize {
        width: 90,
        height: 30,
    };
    session.resize.as_ref().unwrap().send_replace(Some(size));
    let (mut stdin, mut stdout) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    let mut seen = String::new();
    expect(&mut stdout, &mut seen, "web-0:/ # ").await;
    stdin
        .write_all(b"echo $COLUMNX\x7fS$LINES\r")
        .await
        .unwrap();
    expect(&mut stdout, &mut seen, "\r\n9030\r\nweb-0:/ # ").await;
    stdin.write_all(b"test -t 0 && cd /etc\r").await.unwrap();
    expect(&mut stdout, &mut seen, "web-0:/etc # ").await;
    stdin.write_all(b"garbage\x03").await.unwrap();
    expect(&mut stdout, &mut seen, "^C\r\nweb-0:/etc # ").await;
    stdin.write_all(b"ls /nowhere; exit 3\r").await.unwrap();
    assert_eq!(session.exited.await, Ok(3));
    stdout.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains("No such file or directory\r\n"), "{seen}");

    let mut session = beside.session(&["sleep", "infinity"], true).await.unwrap();
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"\x03")
        .await
        .unwrap();
    assert_eq!(session.exited.await, Ok(130));
    let mut session = beside.session(&["sh"], true).await.unwrap();
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"false\r\x04")
        .await
        .unwrap();
    assert_eq!(session.exited.await, Ok(1));
}

/// Reads until `seen` ends with `text`.
async fn expect(stdout: &mut coracle_cri::BoxedReader, seen: &mut String, text: &str) {
    let reading = async {
        let mut buffer = [0; 1024];
        while !seen.ends_with(text) {
            let n = stdout.read(&mut buffer).await.unwrap();
            assert!(n > 0, "ended after {seen:?}");
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert!(done.is_ok(), "no {text:?} in {seen:?}");
}
