//! Modules that open sockets by WasmEdge's extension, with the crate that was published for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use coracle_network::{ConnectionPolicy, Protocol, Verdict};

use crate::guests::{guest, run, start};
use crate::node::{Node, port};

const FILE: &str = "wasmedge-sockets.wasm";

/// What its checks see. They have the names of WASI 0.1: 26 is `EINPROGRESS`, 7 `EALREADY`, 84 and 85 are an
/// unknown name and an unknown service.
const SEEN: &[&str] = &[
    "bind: bind done, any true, bind done, loopback true, bind done, own true, bind AddrNotAvailable, any false, IPv6 Uncategorized",
    "in-use: same AddrInUse, specific AddrInUse, after close done",
    "refused: connect ConnectionRefused, peer NotConnected, again done, and again Uncategorized, connect a listener Uncategorized",
    "addresses: from loopback to loopback, they agree true, from own to own, they agree true",
    "half-close: question, answer, write BrokenPipe",
    "reset: read ConnectionReset, SO_ERROR done, then 0, write BrokenPipe, write ConnectionReset, SO_ERROR done, then 0, write BrokenPipe, SO_ERROR ConnectionReset, SO_ERROR done, then 0, write BrokenPipe",
    "would-block: accept WouldBlock, read WouldBlock, 1 ready, read done, full WouldBlock true, ready false, ready true",
    "full-backlog: connect Some(26), again Some(7), peer NotConnected, send NotConnected, 1 ready, SO_ERROR done, peer done, connect Some(26), SO_ERROR ConnectionRefused, SO_ERROR done",
    "timeout: Some(5ms), read WouldBlock, receive WouldBlock",
    "options: Stream false, false false, true true, 4096, 20000, 262144, bind to a device Uncategorized, listens true, Datagram false, listen Unsupported",
    "udp: 3, 0, 14, one from loopback true, 0, 5 cut true, 5 cut true, receive WouldBlock, 1 ready, to write true",
    "udp-connected: send Uncategorized, peer true, hello, welcome, send done, receive ConnectionRefused",
    "names: 127.0.0.1:80, 10.240.0.5:1234, 192.0.2.7:443, Some(84), Some(85)",
];

/// The same of IPv6. 5 is `EAFNOSUPPORT`, 83 a name without such an address.
const SEEN6: &[&str] = &[
    "bind: bind done, any true, bind done, loopback true, bind done, own true, bind AddrNotAvailable, any false, IPv4 Some(5)",
    "only: the same AddrInUse, IPv4's done",
    "refused: connect ConnectionRefused, peer NotConnected, again done, IPv4 Some(5)",
    "addresses: any, from loopback to loopback, they agree true, hello, any, from own to own, they agree true, hello",
    "udp: 8 from loopback, 6 from loopback, 8 from own, 6 from own, any, IPv4 Some(5), receive ConnectionRefused",
    "names: [::1]:80, [fd00::6]:80, 10.240.0.6:80 [fd00::6]:80, Some(83), [::1]:80",
];

/// What the checks say, in a pod at 10.240.0.2, which leaves nothing behind.
async fn checked(args: &[&str], second: Option<IpAddr>) -> Vec<String> {
    let node = Node::start();
    let pod = node.pod_also_at("checks", 2, second).await;
    let (exited, log) = run(&node, guest(&node, &pod, FILE, args).await).await;
    assert_eq!(exited.code, 0, "{exited:?} {log:?}");
    // All descriptors went with the run.
    let namespace = node.fabric.namespace([10, 240, 0, 2].into()).unwrap();
    assert_eq!((namespace.sockets(), namespace.buffered_bytes()), (0, 0));
    let lines = log.iter();
    lines
        .map(|line| line.strip_prefix("stdout F ").unwrap_or(line).to_owned())
        .collect()
}

#[tokio::test]
async fn its_sockets_are_like_all_others() {
    assert_eq!(checked(&["checks", "10.240.0.2"], None).await, SEEN);
}

#[tokio::test]
async fn its_sockets_of_ipv6_are_like_those_of_ipv4() {
    let second = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into();
    assert_eq!(checked(&["checks6", "fd00::2"], Some(second)).await, SEEN6);
}

#[tokio::test]
async fn it_serves_on_a_declared_port_and_connects_by_name() {
    let node = Node::start();
    let (server, client) = (node.pod("store", 5).await, node.pod("client", 2).await);
    let mut config = guest(&node, &server, FILE, &["echo", "7000"]).await;
    // It listens by itself, so nothing is handed in.
    config.ports = vec![port("web", 7000)];
    let id = start(&node, config).await;
    let address = Ipv4Addr::new(10, 240, 0, 5).into();
    let listening = node.until(|| async {
        let namespace = node.fabric.namespace(address)?;
        namespace.is_listening(7000).then_some(())
    });
    assert!(listening.await.is_some(), "{:?}", node.log(&id, 0));
    let words = ["connect", "store", "7000", "hello"];
    let (exited, log) = run(&node, guest(&node, &client, FILE, &words).await).await;
    assert_eq!(exited.code, 0, "{exited:?} {log:?}");
    assert_eq!(
        log,
        [
            "stdout F from 10.240.0.2 to 10.240.0.5:7000",
            "stdout F hello"
        ]
    );
    let lines = [
        "stdout F listening at 0.0.0.0:7000",
        "stdout F accepted 10.240.0.2",
    ];
    // The log is written behind the guest's back.
    let logged = node.until(|| async { (node.log(&id, 0) == lines).then_some(()) });
    assert!(logged.await.is_some(), "{:?}", node.log(&id, 0));
}

struct Nothing;

impl ConnectionPolicy for Nothing {
    fn on_connect(&self, _: std::net::IpAddr, _: std::net::SocketAddr, _: Protocol) -> Verdict {
        Verdict::Deny {
            reason: "nothing may be".to_owned(),
        }
    }

    fn on_accept(&self, _: std::net::IpAddr, _: std::net::SocketAddr, _: Protocol) -> Verdict {
        Verdict::Allow
    }
}

#[tokio::test]
async fn policies_hold_for_it() {
    let node = Node::start();
    let (_server, client) = (node.pod("store", 5).await, node.pod("client", 2).await);
    let words = ["connect", "store", "7000", "hello"];
    let (_, log) = run(&node, guest(&node, &client, FILE, &words).await).await;
    assert_eq!(log, ["stderr F ConnectionRefused"]);
    node.fabric.set_policy(Arc::new(Nothing));
    let (exited, log) = run(&node, guest(&node, &client, FILE, &words).await).await;
    assert_eq!(exited.code, 1);
    assert_eq!(log, ["stderr F PermissionDenied"]);
}
