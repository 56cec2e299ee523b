//! Limits of a pod as a whole, with guests that would use whatever there is.

use std::time::Duration;

use coracle_cri::{ContainerId, PodRuntime, PodSandboxStats, SandboxId, SandboxResize};

use crate::node::{Node, container};

const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop $on (br $on))))"#;

/// Takes a page after the other until it gets none.
const HOG: &str = r#"(module (memory (export "memory") 1)
    (func (export "_start") (loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))))"#;

/// Has a hundred pages and goes on for ever.
const HOLD: &str =
    r#"(module (memory (export "memory") 100) (func (export "_start") (loop $on (br $on))))"#;

fn limits(cpu_millis: Option<u64>, memory: Option<u64>) -> SandboxResize {
    SandboxResize {
        cpu_limit_millis: cpu_millis,
        memory_limit: memory,
    }
}

async fn start(node: &Node, pod: &SandboxId, name: &str, text: &str) -> ContainerId {
    let image = node.image(text).await.unwrap();
    let config = container(pod, name, &image);
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

async fn stats(node: &Node, pod: &SandboxId) -> PodSandboxStats {
    node.runtime.pod_sandbox_stats(pod).await.unwrap()
}

/// Waits until the pod has had so much more processor time.
async fn spend(node: &Node, pod: &SandboxId, time: Duration) -> PodSandboxStats {
    let before = stats(node, pod).await.cpu;
    let spent = node.until(|| async {
        let now = stats(node, pod).await;
        (now.cpu >= before + time).then_some(now)
    });
    spent.await.expect("its guests spin")
}

/// Neither guest has a quota of its own, and each of them alone would use the whole thread.
#[tokio::test]
async fn guests_of_a_pod_share_its_quota_and_each_change_of_it_counts_at_once() {
    let node = Node::start();
    let pod = node.pod("quota", 2).await;
    // A fiftieth of a core: 2 ms per period, which the guests get on the slowest machine.
    let two = limits(Some(20), None);
    node.runtime.resize_pod_sandbox(&pod, two).await.unwrap();
    let ids = [
        start(&node, &pod, "one", SPIN).await,
        start(&node, &pod, "two", SPIN).await,
    ];
    // Both wait, whoever used it up.
    let held = node.until(|| async {
        let seen = stats(&node, &pod).await;
        let each = seen.containers.iter();
        let both = seen.containers.len() == 2
            && each
                .clone()
                .all(|c| !c.cpu.used.is_zero() && !c.cpu.throttled.is_zero());
        let of_containers: u64 = each.map(|c| c.cpu.throttled_periods).sum();
        (both && seen.throttled_periods.min(of_containers) >= 5).then_some(seen)
    });
    let held = held.await.expect("the quota runs out again and again");
    assert_eq!(held.cpu_limit_millis, Some(20));
    let own: Vec<_> = held.containers.iter().map(|c| c.cpu.limit_millis).collect();
    assert_eq!(own, [None, None]);

    // Without a quota, more time than twenty periods would give goes by and no period runs out. One that ran out just before
    // the change may still be counted after it.
    node.runtime
        .resize_pod_sandbox(&pod, limits(None, None))
        .await
        .unwrap();
    let free = node.until(|| async {
        let before = stats(&node, &pod).await.throttled_periods;
        let spent = spend(&node, &pod, Duration::from_millis(40)).await;
        (spent.throttled_periods == before).then_some(spent)
    });
    let free = free.await.expect("no period runs out");
    assert_eq!(free.cpu_limit_millis, None);

    // And with one again, not even that much goes by without.
    node.runtime.resize_pod_sandbox(&pod, two).await.unwrap();
    let spent = spend(&node, &pod, Duration::from_millis(40)).await;
    assert!(
        spent.throttled_periods > free.throttled_periods,
        "{spent:?}"
    );
    for id in &ids {
        node.runtime
            .stop_container(id, Duration::ZERO)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_memory_of_a_pod_follows_its_limit_and_not_below_what_is_in_use() {
    let node = Node::start();
    let pod = node.pod("memory", 2).await;
    let holds = start(&node, &pod, "holds", HOLD).await;
    let has = node.until(|| async {
        let used = stats(&node, &pod).await.working_set;
        (used >= 100 << 16).then_some(used)
    });
    has.await.expect("it has its memory");
    let less = node
        .runtime
        .resize_pod_sandbox(&pod, limits(None, Some(1 << 20)));
    let error = less.await.unwrap_err().to_string();
    let words = "cannot decrease memory limits: attempting to set pod memory limit (1048576) below current usage (";
    assert!(error.starts_with(words), "{error}");
    assert_eq!(stats(&node, &pod).await.memory_limit, None);
    let more = limits(None, Some(200 << 16));
    node.runtime.resize_pod_sandbox(&pod, more).await.unwrap();
    assert_eq!(stats(&node, &pod).await.memory_limit, Some(200 << 16));
    // What one holds the other cannot have.
    let hog = start(&node, &pod, "hog", HOG).await;
    let end = node.exit(&hog).await;
    assert_eq!((end.code, end.reason.as_str()), (137, "OOMKilled"));
    assert!(
        end.message.contains("memory limit of the pod exceeded"),
        "{}",
        end.message
    );
    node.runtime
        .stop_container(&holds, Duration::ZERO)
        .await
        .unwrap();
}
