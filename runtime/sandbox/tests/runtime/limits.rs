//! What guests may use, what they do use, and that both are told.

use std::time::Duration;

use coracle_cri::{ContainerId, PodRuntime, Resize, SandboxId};

use crate::node::{Node, container};

const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop $on (br $on))))"#;

/// Starts a guest that never waits, with a CPU request.
async fn spin(node: &Node, pod: &SandboxId, name: &str, weight_millis: u64) -> ContainerId {
    let image = node.image(SPIN).await.unwrap();
    let mut config = container(pod, name, &image);
    config.cpu_weight_millis = weight_millis;
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

fn used(node: &Node, id: &ContainerId) -> Duration {
    node.runtime.usage(id).unwrap().cpu
}

/// The CPU times of two guests, from now on and until they have had `both` together.
async fn shared(node: &Node, ids: [&ContainerId; 2], both: Duration) -> [f64; 2] {
    let before = ids.map(|id| used(node, id));
    let shared = node.until(|| async {
        let now = ids.map(|id| used(node, id));
        let [one, two] = [now[0] - before[0], now[1] - before[1]];
        (one + two >= both).then_some([one.as_secs_f64(), two.as_secs_f64()])
    });
    shared.await.expect("spinning guests use their thread")
}

/// There is one thread for guests, so that two of them compete, and their requests say how they share.
#[tokio::test]
async fn guests_that_compete_share_as_they_asked() {
    let node = Node::start();
    let pod = node.pod("shares", 2).await;
    let one = spin(&node, &pod, "one", 1000).await;
    let two = spin(&node, &pod, "two", 2000).await;
    let [light, heavy] = shared(&node, [&one, &two], Duration::from_millis(900)).await;
    let ratio = heavy / light;
    assert!((1.6..2.4).contains(&ratio), "{light} s and {heavy} s");
    // The other way round, and further apart than the longest slice.
    let resize = Resize {
        memory_limit: None,
        cpu_limit_millis: None,
        cpu_weight_millis: 20_000,
        pod_memory_limit: None,
        pod_cpu_limit_millis: None,
    };
    node.runtime.resize_container(&one, resize).await.unwrap();
    shared(&node, [&one, &two], Duration::from_millis(50)).await;
    let [heavy, light] = shared(&node, [&one, &two], Duration::from_millis(900)).await;
    let ratio = heavy / light;
    assert!((7.0..13.0).contains(&ratio), "{heavy} s and {light} s");
}

#[tokio::test]
async fn what_a_pod_uses_is_counted_where_it_is_used() {
    let node = Node::start();
    let pod = node.pod("stats", 2).await;
    assert!(
        node.runtime
            .pod_sandbox_stats(&SandboxId("none".to_owned()))
            .await
            .is_none()
    );
    let id = spin(&node, &pod, "one", 1).await;
    let busy = || async {
        let stats = node.runtime.container_stats(&id).await?;
        (stats.cpu.used > Duration::from_millis(20)).then_some(stats)
    };
    let stats = node.until(busy).await.expect("it spins");
    assert_eq!(
        (stats.restart_count, stats.memory.working_set),
        (0, 64 << 10)
    );
    assert_eq!((stats.memory.limit, stats.cpu.limit_millis), (None, None));
    let spent = stats.cpu.used;
    node.runtime
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    let pods = node.runtime.list_pod_sandbox_stats().await;
    let [after] = pods.as_slice() else {
        panic!("{pods:?}");
    };
    // What ended is not shown any more, but the pod has used it.
    assert!(
        after.containers.is_empty() && after.cpu >= spent,
        "{after:?}"
    );
    assert_eq!((after.working_set, after.network.sockets), (0, 0));
    let disk = node.runtime.disk_usage(&pod).await;
    assert_eq!(disk.len(), 1);
    assert!(
        disk[0].writable_layer.inodes > 1,
        "the files in /etc: {disk:?}"
    );
    assert_eq!(disk[0].logs.inodes, 2, "a folder and a file: {disk:?}");
}
