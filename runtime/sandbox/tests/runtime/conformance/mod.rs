//! Sockets of pods do what sockets of the kernel do.
//!
//! A guest says, line by line, what it saw sockets do in each of many situations. It runs here in a pod and
//! there, the same bytes, in wasmtime on the sockets of this machine's kernel. Where the two differ, the table of
//! [`differences`] says that they may, and why; what no longer differs must leave it.

mod differences;
mod kernel;

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::guests::{guest, run};
use crate::node::Node;
use differences::Difference;

/// The pod's address, as the guest is told.
const POD: &str = "10.240.0.2";
/// What stands for it on the kernel: an address that every Linux machine has beside its loopback's.
const MACHINE: &str = "127.0.0.2";
/// The pod's address of the other family, without which it would have no sockets of that.
const SECOND: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

fn bytes(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    std::fs::read(folder.join(file)).unwrap()
}

/// What the guest says in a pod of its own.
async fn in_a_pod(file: &str) -> String {
    let node = Node::start();
    let pod = node.pod_also_at("checks", 2, Some(SECOND)).await;
    let (exited, log) = run(&node, guest(&node, &pod, file, &[POD]).await).await;
    assert_eq!(exited.code, 0, "{exited:?} {log:?}");
    let lines = log.iter().map(|line| match line.strip_prefix("stdout F ") {
        Some(line) => format!("{line}\n"),
        None => panic!("{line}"),
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_components_are_like_the_kernels() {
    const FILE: &str = "socket-checks.wasm";
    let here = in_a_pod(FILE).await;
    let there = kernel::run(&bytes(FILE), &[MACHINE]).await;
    compare(&here, &there, differences::P2, 90);
}

#[cfg(feature = "p3")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_newer_components_are_like_the_kernels() {
    const FILE: &str = "newer-socket-checks.wasm";
    let here = in_a_pod(FILE).await;
    let there = kernel::run_newer(&bytes(FILE), &[MACHINE]).await;
    compare(&here, &there, differences::P3, 35);
}

/// Compares line by line, and wants at least `count` of them.
fn compare(here: &str, there: &str, known: &[Difference], count: usize) {
    let mut wrong = Vec::new();
    let (here, there): (Vec<_>, Vec<_>) = (here.lines().collect(), there.lines().collect());
    assert_eq!(here.len(), there.len(), "{here:#?} {there:#?}");
    assert!(here.len() >= count, "only {} checks", here.len());
    for (here, there) in here.into_iter().zip(there) {
        let (name, here) = here.split_once(": ").unwrap();
        let (other, there) = there.split_once(": ").unwrap();
        assert_eq!(name, other);
        let known = known.iter().find(|known| known.check == name);
        let right = match known {
            Some(Difference { pod, kernel, .. }) => {
                pod.is_none_or(|pod| pod == here) && kernel.is_none_or(|kernel| kernel == there)
            }
            None => here == there,
        };
        if !right {
            let known = known.map_or("", |_| " (differs otherwise than it may)");
            wrong.push(format!(
                "{name}{known}\n  pod:    {here}\n  kernel: {there}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
