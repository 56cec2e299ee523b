//! The prebuilt guests: real toolchains' programs, on the pod network and by themselves.

use std::path::Path;
use std::time::Duration;

use coracle_cri::{ContainerConfig, ContainerId, Mount, PodRuntime, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Exited, Node, container, port};

const COMMANDS: [&str; 2] = ["diagnose.wasm", "diagnose-component.wasm"];

pub(crate) async fn guest(
    node: &Node,
    pod: &SandboxId,
    file: &str,
    args: &[&str],
) -> ContainerConfig {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    let image = node
        .ensure(&folder.join(file).canonicalize().unwrap())
        .await
        .unwrap();
    let mut config = container(pod, "app", &image);
    config.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    config
}

pub(crate) async fn start(node: &Node, config: ContainerConfig) -> ContainerId {
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

/// Runs to the end, as the run after the ones before.
pub(crate) async fn run(node: &Node, mut config: ContainerConfig) -> (Exited, Vec<String>) {
    let before = node.status(&config.id).await;
    config.restart_count = before.map_or(0, |status| status.restart_count + 1);
    let run = config.restart_count;
    let id = start(node, config).await;
    (node.exit(&id).await, node.log(&id, run))
}

#[tokio::test]
async fn modules_and_components_exit_alike() {
    let node = Node::start();
    let pod = node.pod("exit", 2).await;
    for file in COMMANDS {
        for (args, code) in [
            (["exit", "0"], 0),
            (["exit", "3"], 3),
            (["exit", "200"], 200),
        ] {
            let (exited, log) = run(&node, guest(&node, &pod, file, &args).await).await;
            // The component was built without `exit-with-code`: all that it can say is ok or not.
            let code = if file == "diagnose-component.wasm" {
                i32::from(code != 0)
            } else {
                code
            };
            assert_eq!(exited.code, code, "{file} {args:?} {exited:?} {log:?}");
        }
    }
}

#[tokio::test]
async fn traps_name_their_functions() {
    let node = Node::start();
    let pod = node.pod("trap", 2).await;
    for file in COMMANDS {
        let (exited, _) = run(&node, guest(&node, &pod, file, &["trap"]).await).await;
        assert_eq!(exited.code, 134, "{exited:?}");
        for function in ["innermost", "middle", "outer"] {
            assert!(
                exited.message.contains(function),
                "{file}: {}",
                exited.message
            );
        }
    }
}

#[tokio::test]
async fn mounts_are_seen_read_and_written_as_they_allow() {
    let node = Node::start();
    let pod = node.pod("mounts", 2).await;
    let (config, data) = (
        node.folder.path().join("config"),
        node.folder.path().join("data"),
    );
    std::fs::create_dir(&config).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(config.join("key"), "from the config").unwrap();
    let mount = |host: &Path, guest: &str, read_only| Mount {
        host_path: host.to_owned(),
        container_path: guest.to_owned(),
        read_only,
        within: None,
    };
    for file in COMMANDS {
        let with_mounts = async |args: &[&str]| {
            let mut container = guest(&node, &pod, file, args).await;
            container.mounts = vec![
                mount(&config, "/etc/config", true),
                mount(&data, "/var/lib/data", false),
            ];
            run(&node, container).await
        };
        let (exited, log) = with_mounts(&["cat", "/etc/config/key", "/etc/hostname"]).await;
        assert_eq!(exited.code, 0, "{file} {log:?}");
        assert_eq!(log, ["stdout F from the configmounts"], "{file}");
        let (exited, log) = with_mounts(&["write", "/var/lib/data/out", "written"]).await;
        assert_eq!(exited.code, 0, "{file} {log:?}");
        assert_eq!(
            std::fs::read_to_string(data.join("out")).unwrap(),
            "written"
        );
        let (exited, log) = with_mounts(&["write", "/etc/config/key", "changed"]).await;
        assert_eq!(exited.code, 1, "{file} {log:?}");
        let (exited, log) = with_mounts(&["cat", "/var/lib/../../../../../etc/passwd"]).await;
        assert_eq!(exited.code, 1, "{file} {log:?}");
        let (exited, log) = with_mounts(&["stdin"]).await;
        assert_eq!(
            (exited.code, log),
            (0, vec!["stdout F 0 bytes".to_owned()]),
            "{file}"
        );
    }
}

#[tokio::test]
async fn the_whole_output_of_a_short_life_is_kept() {
    let node = Node::start();
    let pod = node.pod("flood", 2).await;
    for file in COMMANDS {
        let (exited, log) = run(&node, guest(&node, &pod, file, &["flood", "800000"]).await).await;
        assert_eq!(exited.code, 0, "{exited:?}");
        let bytes: usize = log
            .iter()
            .map(|line| line.len() - "stdout F ".len() + 1)
            .sum();
        assert!((800_000..800_100).contains(&bytes), "{bytes}");
        let (_, log) = run(&node, guest(&node, &pod, file, &["line", "40000"]).await).await;
        let tags: Vec<_> = log.iter().map(|line| &line[..8]).collect();
        assert_eq!(tags, ["stdout P", "stdout P", "stdout F"]);
    }
}

#[tokio::test]
async fn hungry_guests_are_killed_and_deep_ones_trap() {
    let node = Node::start();
    let pod = node.pod("hungry", 2).await;
    for file in COMMANDS {
        for args in [["hog"], ["grow"]] {
            let mut config = guest(&node, &pod, file, &args).await;
            config.memory_limit = Some(16 << 20);
            let (exited, _) = run(&node, config).await;
            assert_eq!(
                (exited.code, exited.reason.as_str()),
                (137, "OOMKilled"),
                "{file} {args:?}"
            );
        }
        let (exited, _) = run(&node, guest(&node, &pod, file, &["recurse"]).await).await;
        assert_eq!(
            (exited.code, exited.reason.as_str()),
            (134, "Error"),
            "{file}"
        );
        let (exited, log) = run(&node, guest(&node, &pod, file, &["panic", "why"]).await).await;
        assert_eq!(exited.code, 134);
        assert!(log.iter().any(|line| line.contains("why")), "{log:?}");
    }
}

#[tokio::test]
async fn a_sleeping_guest_is_stopped_at_once() {
    let node = Node::start();
    let pod = node.pod("sleep", 2).await;
    for file in COMMANDS {
        let id = start(&node, guest(&node, &pod, file, &["sleep", "3600000"]).await).await;
        node.runtime
            .stop_container(&id, Duration::from_secs(3600))
            .await
            .unwrap();
        assert_eq!(node.exit(&id).await.code, 143, "{file}");
    }
}

#[tokio::test]
async fn components_talk_over_their_own_sockets() {
    let node = Node::start();
    let server = node.pod("server", 3).await;
    start(
        &node,
        guest(&node, &server, "sockets.wasm", &["echo", "7000"]).await,
    )
    .await;
    let listening = node.until(|| async {
        node.fabric
            .dial("10.240.0.3:7000".parse().unwrap())
            .await
            .ok()
    });
    listening.await.expect("the server listens");
    let client = node.pod("client", 4).await;
    let config = guest(
        &node,
        &client,
        "sockets.wasm",
        &["connect", "api", "7000", "hello"],
    )
    .await;
    let (exited, log) = run(&node, config).await;
    assert_eq!(exited.code, 0, "{log:?}");
    assert!(log.iter().any(|line| line.contains("hello")), "{log:?}");
    let config = guest(
        &node,
        &client,
        "sockets.wasm",
        &["connect", "api", "7001", "x"],
    )
    .await;
    let (exited, log) = run(&node, config).await;
    assert_eq!(exited.code, 1);
    assert!(
        log.iter().any(|line| line.contains("connection-refused")),
        "{log:?}"
    );
}

#[tokio::test]
async fn modules_inherit_a_listener_per_port() {
    let node = Node::start();
    let pod = node.pod("inherit", 2).await;
    let mut config = guest(&node, &pod, "echo-inherited.wasm", &[]).await;
    config.ports = vec![port("echo", 7000)];
    let id = start(&node, config).await;
    let mut stream = node.runtime.connect(&pod, 7000).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
    drop(stream);
    node.runtime
        .stop_container(&id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(node.exit(&id).await.code, 143, "{:?}", node.log(&id, 0));
}

#[tokio::test]
async fn relative_paths_begin_in_the_working_directory() {
    let node = Node::start();
    let pod = node.pod("relative", 2).await;
    let data = node.folder.path().join("data");
    std::fs::create_dir_all(data.join("below")).unwrap();
    std::fs::write(data.join("key"), "in the mount").unwrap();
    std::fs::write(data.join("below/key"), "below it").unwrap();
    for file in COMMANDS {
        for (working_dir, path, expected) in [
            ("/data", "key", "in the mount"),
            ("/data/", "./key", "in the mount"),
            ("/data/below", "key", "below it"),
            ("/data/below", "/data/key", "in the mount"),
            ("/data/below", "/etc/hostname", "relative"),
            ("/etc", "hostname", "relative"),
            ("/none", "/data/key", "in the mount"),
        ] {
            let mut config = guest(&node, &pod, file, &["cat", path]).await;
            config.working_dir = working_dir.to_owned();
            config.mounts = vec![Mount {
                host_path: data.clone(),
                container_path: "/data".to_owned(),
                read_only: true,
                within: None,
            }];
            let (exited, log) = run(&node, config).await;
            assert_eq!(exited.code, 0, "{file} {working_dir} {path} {log:?}");
            assert_eq!(log, [format!("stdout F {expected}")]);
        }
        let mut config = guest(&node, &pod, file, &["cat", "../data/key"]).await;
        config.working_dir = "/data".to_owned();
        assert_ne!(run(&node, config).await.0.code, 0, "{file}");
    }
}

#[tokio::test]
async fn a_working_directory_that_leads_out_of_its_mount_is_none() {
    let node = Node::start();
    let pod = node.pod("escape", 2).await;
    let (data, outside) = (
        node.folder.path().join("data"),
        node.folder.path().join("out"),
    );
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("key"), "secret").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, data.join("link")).unwrap();
    for file in COMMANDS {
        let mut config = guest(&node, &pod, file, &["cat", "key"]).await;
        config.working_dir = "/data/link".to_owned();
        config.mounts = vec![Mount {
            host_path: data.clone(),
            container_path: "/data".to_owned(),
            read_only: false,
            within: None,
        }];
        assert_ne!(run(&node, config).await.0.code, 0, "{file}");
    }
}

#[tokio::test]
async fn no_way_leads_out_of_a_guests_folders() {
    let node = Node::start();
    let pod = node.pod("ways", 2).await;
    for file in COMMANDS {
        let config = guest(&node, &pod, file, &["escape", "1"]).await;
        let (exited, log) = run(&node, config).await;
        let log = log.join("\n");
        assert_eq!(exited.code, 0, "{file}: {exited:?} {log}");
        // Refused, and not merely not found: nothing is said of what is there.
        assert!(log.contains("/etc/passwd: "), "{file}: {log}");
        assert!(!log.contains("No such file"), "{file}: {log}");
    }
}
