//! Both generations, called as a module calls them: each function in the form that the module imports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_network::{Fabric, FabricConfig, Limits, NamespaceConfig, NetworkNamespace};
use wasmtime::{Config, Engine};
use wasmtime_wasi::WasiCtx;

use super::super::caller::{Caller, passing_on};
use super::super::errno::Errno;
use super::super::{FdTable, Listeners};
use super::*;

const OUT: u32 = 0;
const PORT: u32 = 8;
const TOLD: u32 = 16;
const IOVEC: u32 = 24;
const ADDRESS: u32 = 32;
const DATA: u32 = 512;
const BYTES: u32 = 1024;

/// Names and numbers of parameters, as older and as newer programs import them.
const FIRST: &[(&str, usize)] = &[
    ("sock_open", 3),
    ("sock_bind", 3),
    ("sock_listen", 2),
    ("sock_accept", 2),
    ("sock_connect", 3),
    ("sock_send_to", 7),
    ("sock_recv_from", 7),
    ("sock_getlocaladdr", 4),
    ("sock_getpeeraddr", 4),
    ("sock_getsockopt", 5),
    ("sock_setsockopt", 5),
    ("sock_getaddrinfo", 8),
    ("sock_send", 5),
    ("sock_recv", 6),
    ("sock_shutdown", 2),
    ("fd_close", 1),
    ("epoll_oneoff", 4),
];
const SECOND: &[(&str, usize)] = &[
    ("sock_open_v2", 3),
    ("sock_bind_v2", 3),
    ("sock_listen_v2", 2),
    ("sock_accept_v2", 3),
    ("sock_accept", 3),
    ("sock_connect_v2", 3),
    ("sock_send_to_v2", 7),
    ("sock_recv_from_v2", 8),
    ("sock_recv_from", 8),
    ("sock_getlocaladdr_v2", 3),
    ("sock_getlocaladdr", 3),
    ("sock_getpeeraddr_v2", 3),
    ("sock_send_v2", 5),
    ("sock_recv_v2", 6),
];

struct Guest(Caller);

/// A pod on a switch of its own.
fn pod(limits: Limits) -> (Arc<Fabric>, Arc<NetworkNamespace>) {
    let config = NamespaceConfig::new("default/test", [10, 240, 0, 2].into(), "test");
    alone(NamespaceConfig { limits, ..config })
}

/// One with an address of IPv6, too.
fn pod_of_both() -> (Arc<Fabric>, Arc<NetworkNamespace>) {
    let mut config = NamespaceConfig::new("default/test", [10, 240, 0, 2].into(), "test");
    config.second_address = Some(OWN6.into());
    let named = [IpAddr::from(OWN6), IpAddr::from([10, 240, 0, 2])];
    config.host_aliases = named.map(|ip| (ip, vec!["both".to_owned()])).to_vec();
    alone(config)
}

fn alone(config: NamespaceConfig) -> (Arc<Fabric>, Arc<NetworkNamespace>) {
    let fabric = Fabric::new(FabricConfig::new([10, 240, 0, 1].into()), Clock::fake(1));
    let pod = fabric.create_namespace(config).unwrap();
    (fabric, pod)
}

/// All parameters are addresses and numbers of 32 bits.
fn typed<'a>(functions: &[(&'a str, usize)]) -> Vec<(&'a str, String)> {
    let functions = functions.iter().copied();
    functions
        .map(|(name, count)| (name, vec!["i32"; count].join(" ")))
        .collect()
}

impl Guest {
    async fn start(pod: &Arc<NetworkNamespace>, functions: &[(&str, usize)]) -> Self {
        let scope = pod.scope();
        let caller = Caller::start(
            typed(functions),
            WasiCtx::builder().build_p1(),
            |module, wasi| {
                let listeners = Listeners::of(module, &scope, &[]).unwrap();
                FdTable::new(listeners, false, scope, wasi)
            },
        );
        Self(caller.await)
    }

    async fn call(&mut self, name: &str, arguments: &[u32]) -> Result<(), Errno> {
        let arguments: Vec<i32> = arguments
            .iter()
            .map(|argument| argument.cast_signed())
            .collect();
        match self.0.call(name, &arguments).await {
            Errno::SUCCESS => Ok(()),
            errno => Err(errno),
        }
    }

    fn write(&mut self, pointer: u32, bytes: &[u8]) {
        self.0.write(pointer, bytes);
    }

    fn bytes(&self, pointer: u32, length: u32) -> Vec<u8> {
        self.0.bytes(pointer, length)
    }

    fn number(&self, pointer: u32) -> u32 {
        self.0.read_u32(pointer)
    }

    fn pair(&mut self, pointer: u32, (first, second): (u32, u32)) {
        self.write(
            pointer,
            &[first.to_le_bytes(), second.to_le_bytes()].concat(),
        );
    }

    /// Describes an address of the second generation with room for any.
    fn room(&mut self) {
        self.pair(ADDRESS, (DATA, 128));
        self.write(DATA, &[0; 128]);
    }

    /// Describes an address of the first generation.
    fn first(&mut self, ip: [u8; 4]) {
        self.pair(ADDRESS, (DATA, 4));
        self.write(DATA, &ip);
    }

    /// Describes an address of the second generation.
    fn second(&mut self, ip: [u8; 4]) {
        self.room();
        self.write(DATA, &[1, 0]);
        self.write(DATA + 2, &ip);
    }

    /// Describes an address of IPv6: in bare bytes, or after its family.
    fn six(&mut self, ip: Ipv6Addr, with_family: bool) {
        match with_family {
            true => {
                self.room();
                self.write(DATA, &[2, 0]);
                self.write(DATA + 2, &ip.octets());
            }
            false => {
                self.pair(ADDRESS, (DATA, 16));
                self.write(DATA, &ip.octets());
            }
        }
    }

    fn iovec(&mut self, bytes: &[u8]) {
        self.write(BYTES, bytes);
        self.pair(IOVEC, (BYTES, bytes.len() as u32));
    }

    async fn open(&mut self, name: &str, kind: u32) -> u32 {
        self.call(name, &[1, kind, OUT]).await.unwrap();
        self.number(OUT)
    }
}

fn own(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 240, 0, 2)), port)
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const ANYWHERE: [u8; 4] = [0; 4];
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

#[tokio::test(start_paused = true)]
async fn the_first_generation_serves_and_tells_addresses_in_bare_bytes() {
    let (_fabric, pod) = pod(Limits::default());
    let mut guest = Guest::start(&pod, FIRST).await;
    let listener = guest.open("sock_open", 2).await;
    guest.first(ANYWHERE);
    guest
        .call("sock_bind", &[listener, ADDRESS, 80])
        .await
        .unwrap();
    guest.call("sock_listen", &[listener, 8]).await.unwrap();
    assert_eq!(pod.listening(), [SocketAddr::from((ANYWHERE, 80))]);
    let near = pod.scope().connect_tcp(own(80)).await.unwrap();
    guest.call("sock_accept", &[listener, OUT]).await.unwrap();
    let fd = guest.number(OUT);
    assert_eq!(fd, listener + 1);
    for (name, expected) in [
        ("sock_getlocaladdr", near.peer_addr()),
        ("sock_getpeeraddr", near.local_addr()),
    ] {
        guest.pair(ADDRESS, (DATA, 16));
        guest.call(name, &[fd, ADDRESS, TOLD, PORT]).await.unwrap();
        assert_eq!(guest.number(TOLD), 4);
        let ip: [u8; 4] = guest.bytes(DATA, 4).try_into().unwrap();
        let port = guest.number(PORT) as u16;
        assert_eq!(SocketAddr::from((ip, port)), expected);
    }
    near.write_bytes(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    guest.pair(IOVEC, (BYTES, 64));
    guest
        .call("sock_recv", &[fd, IOVEC, 1, 0, OUT, TOLD])
        .await
        .unwrap();
    assert_eq!(guest.bytes(BYTES, guest.number(OUT)), b"hello");
    guest.call("fd_close", &[fd]).await.unwrap();
    assert_eq!(near.read_bytes(1).await.unwrap(), Bytes::new());
}

#[tokio::test(start_paused = true)]
async fn the_second_generation_tells_families_and_ports() {
    let (_fabric, pod) = pod(Limits::default());
    let mut guest = Guest::start(&pod, SECOND).await;
    let fd = guest.open("sock_open_v2", 1).await;
    guest.second(LOOPBACK);
    guest
        .call("sock_bind_v2", &[fd, ADDRESS, 53])
        .await
        .unwrap();
    let other = pod
        .scope()
        .bind_udp(SocketAddr::from((LOOPBACK, 0)))
        .unwrap();
    for name in ["sock_recv_from", "sock_recv_from_v2"] {
        other
            .send_to(
                Bytes::from_static(b"question"),
                SocketAddr::from((LOOPBACK, 53)),
            )
            .unwrap();
        guest.room();
        guest.pair(IOVEC, (BYTES, 5));
        guest
            .call(name, &[fd, IOVEC, 1, ADDRESS, 0, PORT, OUT, TOLD])
            .await
            .unwrap();
        assert_eq!(guest.bytes(BYTES, guest.number(OUT)), b"quest");
        assert_eq!(guest.bytes(TOLD, 2), [1, 0], "cut, and told so");
        assert_eq!(guest.bytes(DATA, 6), [1, 0, 127, 0, 0, 1]);
        assert_eq!(guest.number(PORT), u32::from(other.local_addr().port()));
    }
    guest.iovec(b"answer");
    let port = other.local_addr().port().into();
    guest
        .call("sock_send_to_v2", &[fd, IOVEC, 1, ADDRESS, port, 0, OUT])
        .await
        .unwrap();
    assert_eq!(&other.recv().await.data[..], b"answer");
    for name in ["sock_getlocaladdr", "sock_getlocaladdr_v2"] {
        guest.room();
        guest.call(name, &[fd, ADDRESS, PORT]).await.unwrap();
        assert_eq!(guest.bytes(DATA, 6), [1, 0, 127, 0, 0, 1]);
        assert_eq!(guest.number(PORT), 53);
    }
    let unconnected = guest
        .call("sock_getpeeraddr_v2", &[fd, ADDRESS, PORT])
        .await;
    assert_eq!(unconnected, Err(Errno::NOTCONN));
}

#[tokio::test(start_paused = true)]
async fn accept_is_the_modules_own_by_its_parameters() {
    let (_fabric, pod) = pod(Limits::default());
    let mut guest = Guest::start(&pod, SECOND).await;
    let listener = guest.open("sock_open_v2", 2).await;
    guest.second(ANYWHERE);
    guest
        .call("sock_bind_v2", &[listener, ADDRESS, 80])
        .await
        .unwrap();
    guest.call("sock_listen_v2", &[listener, 8]).await.unwrap();
    for name in ["sock_accept", "sock_accept_v2"] {
        let _near = pod.scope().connect_tcp(own(80)).await.unwrap();
        // The second is WASI's flags, and 4 is non-blocking.
        guest.call(name, &[listener, 4, OUT]).await.unwrap();
        let fd = guest.number(OUT);
        guest.pair(IOVEC, (BYTES, 1));
        let read = guest
            .call("sock_recv_v2", &[fd, IOVEC, 1, 0, OUT, TOLD])
            .await;
        assert_eq!(read, Err(Errno::AGAIN));
    }
}

#[tokio::test(start_paused = true)]
async fn both_generations_serve_and_connect_over_ipv6() {
    for (functions, suffix, with_family) in [(FIRST, "", false), (SECOND, "_v2", true)] {
        let (_fabric, pod) = pod_of_both();
        let mut guest = Guest::start(&pod, functions).await;
        let name = |name: &str| format!("{name}{suffix}");
        let open = async |guest: &mut Guest, kind: u32| {
            guest
                .call(&name("sock_open"), &[2, kind, OUT])
                .await
                .unwrap();
            guest.number(OUT)
        };
        let listener = open(&mut guest, 2).await;
        guest.second(LOOPBACK);
        let other = guest
            .call(&name("sock_bind"), &[listener, ADDRESS, 80])
            .await;
        assert_eq!(other, Err(Errno::AFNOSUPPORT));
        guest.six(Ipv6Addr::UNSPECIFIED, with_family);
        guest
            .call(&name("sock_bind"), &[listener, ADDRESS, 80])
            .await
            .unwrap();
        guest
            .call(&name("sock_listen"), &[listener, 8])
            .await
            .unwrap();
        assert_eq!(
            pod.listening(),
            [SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80))]
        );

        let client = open(&mut guest, 2).await;
        guest.six(OWN6, with_family);
        guest
            .call(&name("sock_connect"), &[client, ADDRESS, 80])
            .await
            .unwrap();
        guest.room();
        let place = match with_family {
            true => vec![client, ADDRESS, PORT],
            false => vec![client, ADDRESS, TOLD, PORT],
        };
        guest.call(&name("sock_getpeeraddr"), &place).await.unwrap();
        assert_eq!(guest.bytes(DATA, 2), [2, 0]);
        assert_eq!(guest.bytes(DATA + 2, 16), OWN6.octets());
        assert_eq!(guest.number(PORT), 80);
        if !with_family {
            assert_eq!(guest.number(TOLD), 6);
        }

        // Datagrams; the sender is bound by its first one, to an address of its family.
        let (near, far) = (open(&mut guest, 1).await, open(&mut guest, 1).await);
        guest.six(Ipv6Addr::LOCALHOST, with_family);
        guest
            .call(&name("sock_bind"), &[far, ADDRESS, 53])
            .await
            .unwrap();
        guest.iovec(b"question");
        guest
            .call(
                &name("sock_send_to"),
                &[near, IOVEC, 1, ADDRESS, 53, 0, OUT],
            )
            .await
            .unwrap();
        guest.room();
        guest.pair(IOVEC, (BYTES, 64));
        let arguments = match with_family {
            true => vec![far, IOVEC, 1, ADDRESS, 0, PORT, OUT, TOLD],
            false => vec![far, IOVEC, 1, ADDRESS, 0, OUT, TOLD],
        };
        guest
            .call(&name("sock_recv_from"), &arguments)
            .await
            .unwrap();
        assert_eq!(guest.bytes(BYTES, guest.number(OUT)), b"question");
        assert_eq!(guest.bytes(DATA, 2), [2, 0]);
        assert_eq!(guest.bytes(DATA + 2, 16), Ipv6Addr::LOCALHOST.octets());
    }
}

#[tokio::test(start_paused = true)]
async fn names_have_the_addresses_that_there_is_room_for() {
    const NODE: u32 = BYTES;
    const HINTS: u32 = DATA;
    const LIST: u32 = 2048;
    const STEP: u32 = 128;
    let (_fabric, pod) = pod_of_both();
    let mut guest = Guest::start(&pod, FIRST).await;
    guest.write(NODE, b"both");
    guest.write(NODE + 16, b"80");
    // Family, room of each result, how many come, their families.
    for (family, room, expected) in [
        (0, 26, Ok(vec![1, 2])),
        (0, 14, Ok(vec![1])),
        (1, 14, Ok(vec![1])),
        (2, 22, Ok(vec![2])),
        (2, 14, Err(Errno::AIMEMORY)),
    ] {
        guest.write(HINTS, &[0; 28]);
        guest.write(HINTS + 2, &[family, 2]);
        guest.write(OUT, &LIST.to_le_bytes());
        for at in [LIST, LIST + STEP] {
            guest.write(at, &[0; STEP as usize]);
            guest.write(at + 12, &(at + 32).to_le_bytes());
            guest.pair(at + 32 + 4, (room, at + 48));
            if at == LIST {
                guest.write(at + 24, &(at + STEP).to_le_bytes());
            }
        }
        let found = guest
            .call(
                "sock_getaddrinfo",
                &[NODE, 4, NODE + 16, 2, HINTS, OUT, 2, PORT],
            )
            .await;
        assert_eq!(
            found.map(|()| guest.number(PORT) as usize),
            expected.clone().map(|families| families.len()),
            "{family} {room}"
        );
        let Ok(families) = expected else { continue };
        for (family, at) in families.into_iter().zip([LIST, LIST + STEP]) {
            assert_eq!(guest.bytes(at + 2, 1), [family]);
            assert_eq!(guest.bytes(at + 32, 1), [family]);
            let length = u32::from_le_bytes(guest.bytes(at + 8, 4).try_into().unwrap());
            match family {
                1 => {
                    assert_eq!(length, 16);
                    assert_eq!(guest.bytes(at + 48, 6), [0, 80, 10, 240, 0, 2]);
                }
                _ => {
                    assert_eq!(length, 28);
                    assert_eq!(guest.bytes(at + 48, 6), [0, 80, 0, 0, 0, 0]);
                    assert_eq!(guest.bytes(at + 54, 16), OWN6.octets());
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_pod_hold_and_places_come_back() {
    let limits = Limits {
        sockets: 2,
        ..Limits::default()
    };
    let (_fabric, pod) = pod(limits);
    let mut guest = Guest::start(&pod, FIRST).await;
    let first = guest.open("sock_open", 2).await;
    let second = guest.open("sock_open", 1).await;
    for kind in [1, 2] {
        let third = guest.call("sock_open", &[1, kind, OUT]).await;
        assert_eq!(third, Err(Errno::MFILE));
    }
    for fd in [first, second] {
        guest.call("fd_close", &[fd]).await.unwrap();
    }
    assert_eq!(pod.sockets(), 0);
    // A bind that fails keeps the place of its socket.
    let fd = guest.open("sock_open", 1).await;
    guest.first([192, 0, 2, 1]);
    let bound = guest.call("sock_bind", &[fd, ADDRESS, 53]).await;
    assert_eq!(bound, Err(Errno::ADDRNOTAVAIL));
    assert_eq!(pod.sockets(), 1);
    guest.first(LOOPBACK);
    guest.call("sock_bind", &[fd, ADDRESS, 53]).await.unwrap();
    assert_eq!(pod.ports().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nonsense_has_its_errors_and_no_pointer_leads_out() {
    let (_fabric, pod) = pod(Limits::default());
    let mut guest = Guest::start(&pod, FIRST).await;
    assert_eq!(
        guest.call("sock_open", &[2, 2, OUT]).await,
        Err(Errno::AFNOSUPPORT)
    );
    assert_eq!(
        guest.call("sock_open", &[1, 9, OUT]).await,
        Err(Errno::PROTOTYPE)
    );
    assert_eq!(
        guest.call("sock_open", &[1, 2, 65_534]).await,
        Err(Errno::FAULT)
    );
    assert_eq!(pod.sockets(), 0);
    let fd = guest.open("sock_open", 2).await;
    for (pointer, length, error) in [
        (DATA, 5, Errno::INVAL),
        (DATA, 16, Errno::AFNOSUPPORT),
        (65_530, 16, Errno::FAULT),
        (u32::MAX, 4, Errno::FAULT),
    ] {
        guest.write(DATA, &[0xfe; 16]);
        guest.pair(ADDRESS, (pointer, length));
        for name in ["sock_bind", "sock_connect"] {
            let result = guest.call(name, &[fd, ADDRESS, 80]).await;
            assert_eq!(result, Err(error), "{name} {pointer} {length}");
        }
    }
    guest.first(LOOPBACK);
    assert_eq!(
        guest.call("sock_bind", &[fd, ADDRESS, 65_536]).await,
        Err(Errno::INVAL)
    );
    assert_eq!(
        guest.call("sock_bind", &[fd, u32::MAX, 80]).await,
        Err(Errno::FAULT)
    );
    assert_eq!(
        guest.call("sock_bind", &[99, ADDRESS, 80]).await,
        Err(Errno::BADF)
    );
    assert_eq!(
        guest.call("sock_bind", &[0, ADDRESS, 80]).await,
        Err(Errno::NOTSOCK)
    );
    assert_eq!(
        guest.call("sock_connect", &[fd, ADDRESS, 80]).await,
        Err(Errno::CONNREFUSED)
    );
    // An option with too little room, an unknown one, an unknown level.
    guest.pair(OUT, (2, 0));
    for (level, name, error) in [
        (0, 5, Errno::INVAL),
        (0, 99, Errno::NOPROTOOPT),
        (6, 1, Errno::NOPROTOOPT),
    ] {
        let result = guest
            .call("sock_getsockopt", &[fd, level, name, DATA, OUT])
            .await;
        assert_eq!(result, Err(error));
        let result = guest
            .call("sock_setsockopt", &[fd, level, name, DATA, 2])
            .await;
        assert_eq!(result, Err(error));
    }
    // A list of results that leads out of the memory.
    guest.write(BYTES, b"localhost");
    guest.write(OUT, &65_530u32.to_le_bytes());
    guest.write(DATA, &[0; 28]);
    let name = guest
        .call(
            "sock_getaddrinfo",
            &[BYTES, 9, BYTES, 0, DATA, OUT, 1, PORT],
        )
        .await;
    assert_eq!(name, Err(Errno::FAULT));
    guest.write(DATA, &[0xff, 0xff]);
    let name = guest
        .call(
            "sock_getaddrinfo",
            &[BYTES, 9, BYTES, 0, DATA, OUT, 1, PORT],
        )
        .await;
    assert_eq!(name, Err(Errno::AIBADFLAG));
}

#[test]
fn a_module_that_binds_inherits_no_listeners() {
    let engine = Engine::new(&Config::new()).unwrap();
    let module = |functions: &[(&str, usize)]| {
        Module::new(
            &engine,
            wat::parse_str(passing_on(typed(functions))).unwrap(),
        )
        .unwrap()
    };
    assert!(listens_by_itself(&module(FIRST)));
    assert!(listens_by_itself(&module(SECOND)));
    assert!(!listens_by_itself(&module(&[
        ("sock_accept", 3),
        ("sock_recv", 6)
    ])));
}
