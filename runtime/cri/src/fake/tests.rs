use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::{ContainerPort, ContainerState, DnsConfig, Streams, TerminalSize, TerminationMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Node {
    runtime: FakeRuntime,
    events: broadcast::Receiver<RuntimeEvent>,
}

fn id() -> ContainerId {
    ContainerId {
        sandbox: SandboxId("uid".to_owned()),
        name: "app".to_owned(),
    }
}

async fn node(script: Script) -> Node {
    let runtime = FakeRuntime::new(Clock::fake(1));
    runtime.script("app:1", script);
    let config = PodSandboxConfig {
        id: id().sandbox,
        pod: "default/web".to_owned(),
        hostname: "web".to_owned(),
        full_name: None,
        address: [10, 0, 0, 2].into(),
        second_address: None,
        host_network: false,
        host_aliases: Vec::new(),
        dns: DnsConfig::default(),
        log_directory: PathBuf::new(),
        memory_limit: None,
        cpu_limit_millis: None,
    };
    runtime.run_pod_sandbox(config).await.unwrap();
    let events = runtime.subscribe();
    Node { runtime, events }
}

impl Node {
    async fn start(&self, restart_count: u32) -> Result<(), RuntimeError> {
        let (image, policy) = ("app:1".to_owned(), PullPolicy::Always);
        let request = ImageRequest {
            image,
            policy,
            known_digest: None,
            pull_secrets: Vec::new(),
            command: Vec::new(),
        };
        let image = self.runtime.ensure_image(request).await.unwrap();
        let port = ContainerPort {
            name: String::new(),
            port: 80,
            tcp: true,
        };
        let config = ContainerConfig {
            id: id(),
            image,
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            mounts: Vec::new(),
            ports: vec![port],
            memory_limit: None,
            cpu_limit_millis: None,
            cpu_weight_millis: 1,
            restart_count,
            stdin: false,
            stdin_once: false,
            tty: false,
            read_only_root: false,
            termination_message: TerminationMessage::default(),
            annotations: BTreeMap::new(),
        };
        self.runtime.start_container(config).await
    }

    async fn exit_code(&mut self) -> i32 {
        loop {
            if let RuntimeEvent::Container(status) = self.events.recv().await.unwrap()
                && let ContainerState::Exited { exit_code, .. } = status.state
            {
                return exit_code;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scripted_exit_comes_in_its_time_and_again_after_a_restart() {
    let mut node = node(Script::exits(3).after(Duration::from_secs(60))).await;
    let start = node.runtime.0.clock.monotonic();
    for run in 0..2 {
        node.start(run).await.unwrap();
        assert!(
            node.start(run).await.is_err(),
            "a running container starts twice"
        );
        assert_eq!(node.exit_code().await, 3);
    }
    assert_eq!((node.runtime.0.clock.monotonic() - start).as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_with_143_and_a_stubborn_guest_with_137_at_the_end_of_its_grace() {
    for (script, code, seconds) in [
        (Script::runs(), 143, 0),
        (Script::runs().ignores_stop(), 137, 30),
    ] {
        let mut node = node(script).await;
        node.start(0).await.unwrap();
        let before = node.runtime.0.clock.monotonic();
        node.runtime
            .stop_container(&id(), Duration::from_secs(30))
            .await
            .unwrap();
        assert_eq!(
            (node.runtime.0.clock.monotonic() - before).as_secs(),
            seconds
        );
        assert_eq!(node.exit_code().await, code);
    }
}

#[tokio::test(start_paused = true)]
async fn ports_open_when_the_container_serves() {
    let mut node = node(Script::serves_after(Duration::from_secs(5))).await;
    node.start(0).await.unwrap();
    assert!(node.runtime.connect(&id().sandbox, 80).await.is_err());
    loop {
        if let RuntimeEvent::Container(status) = node.events.recv().await.unwrap()
            && matches!(status.state, ContainerState::Running { serving: true, .. })
        {
            break;
        }
    }
    let mut stream = node.runtime.connect(&id().sandbox, 80).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    assert!(node.runtime.connect(&id().sandbox, 81).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn errors_are_those_of_the_script() {
    let request = |image: &str| ImageRequest {
        image: image.to_owned(),
        policy: PullPolicy::Always,
        known_digest: None,
        pull_secrets: Vec::new(),
        command: Vec::new(),
    };
    let node = node(Script::start_error("no room")).await;
    assert_eq!(node.start(0).await.unwrap_err().to_string(), "no room");
    node.runtime.script("bad", Script::image_error("not found"));
    let error = node.runtime.ensure_image(request("bad")).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string().as_str()),
        ("ErrImagePull", "not found")
    );
}

fn command(command: &[&str], tty: bool) -> ExecRequest {
    ExecRequest {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        streams: Streams {
            stdin: true,
            stdout: true,
            stderr: true,
            tty,
        },
        waits: false,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_executed_reads_writes_and_ends_as_scripted() {
    let node = node(Script::runs()).await;
    let runtime = &node.runtime;
    let not_found = runtime.exec(&id(), command(&["cat"], false)).await;
    assert_eq!(not_found.unwrap_err(), ExecError::NotFound(id()));
    node.start(0).await.unwrap();
    let unknown = runtime.exec(&id(), command(&["cat"], false)).await;
    assert_eq!(unknown.unwrap_err().exit_code(), Some(127));

    runtime.on_exec(|mut process| {
        Ok(Box::pin(async move {
            let (mut stdin, mut stdout) = (process.stdin.take(), process.stdout.take());
            let (stdin, stdout) = (stdin.as_mut().unwrap(), stdout.as_mut().unwrap());
            tokio::io::copy(stdin, stdout).await.unwrap();
            let mut stderr = process.stderr.take().unwrap();
            stderr.write_all(b"done").await.unwrap();
            Ok(3)
        }))
    });
    let mut session = runtime.exec(&id(), command(&["cat"], false)).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"hello ").await.unwrap();
    drop(stdin);
    assert_eq!(
        session.output(8).await.unwrap(),
        (3, b"hello done"[..8].to_vec())
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_container_and_what_runs_with_its_session() {
    let node = node(Script::runs()).await;
    node.start(0).await.unwrap();
    let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    node.runtime.on_exec(move |process| {
        let alive = alive.clone();
        Ok(Box::pin(async move {
            let mut sizes = process.sizes.unwrap();
            sizes.changed().await.unwrap();
            let size = sizes.borrow_and_update().unwrap();
            alive.send(()).await.unwrap();
            let _held = (alive, size);
            std::future::pending().await
        }))
    });
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = node.runtime.exec(&id(), command(&["top"], true)).await;
        let session = session.unwrap();
        assert!(session.stderr.is_none(), "a terminal has one output");
        let (width, height) = (80, 24);
        let resize = session.resize.as_ref().unwrap();
        resize.send_replace(Some(TerminalSize { width, height }));
        ended.recv().await.unwrap();
        sessions.push(session);
    }
    drop(sessions.pop());
    let attach = AttachRequest {
        streams: Streams::default(),
    };
    let attached = node.runtime.attach(&id(), attach).await.unwrap();
    node.runtime.exit(&id(), 0);
    assert_eq!(sessions.pop().unwrap().exited.await, Ok(137));
    assert_eq!(attached.exited.await, Ok(137));
    node.runtime.on_exec(|_| unreachable!("nothing runs here"));
    assert!(ended.recv().await.is_none(), "something still runs");
    let late = node.runtime.attach(&id(), attach).await;
    assert_eq!(late.unwrap_err(), ExecError::NotRunning(id()));
}

#[tokio::test(start_paused = true)]
async fn a_running_container_uses_what_its_script_says() {
    let node = node(Script::runs().uses(250, 32 << 20)).await;
    node.start(0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let stats = node.runtime.list_pod_sandbox_stats().await;
    let [pod] = stats.as_slice() else {
        panic!("{stats:?}");
    };
    assert_eq!(pod.cpu, Duration::from_secs(2));
    assert_eq!(pod.working_set, 32 << 20);
    let one = node.runtime.container_stats(&id()).await;
    assert_eq!(one.as_ref(), pod.containers.first());
    node.runtime.exit(&id(), 0);
    assert_eq!(node.runtime.container_stats(&id()).await, None);
}
