//! What modules of WASI 0.1 can do with descriptors, call by call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_network::{Fabric, FabricConfig, NamespaceConfig, NetworkNamespace};
use wasmtime_wasi::{FsPerms, WasiCtx};

use super::caller::Caller;
use super::errno::Errno;
use super::*;

const NONBLOCK: i32 = 4;
/// Where the tests keep results, buffers and arrays in the guest's memory.
const OUT: u32 = 0;
const OUT2: u32 = 8;
const IOVEC: u32 = 16;
const DATA: u32 = 1024;
const SUBSCRIPTIONS: u32 = 4096;
const EVENTS: u32 = 8192;

const FUNCTIONS: &[(&str, &str)] = &[
    ("fd_read", "i32 i32 i32 i32"),
    ("fd_write", "i32 i32 i32 i32"),
    ("fd_close", "i32"),
    ("fd_fdstat_get", "i32 i32"),
    ("fd_fdstat_set_flags", "i32 i32"),
    ("fd_filestat_get", "i32 i32"),
    ("fd_prestat_get", "i32 i32"),
    ("fd_prestat_dir_name", "i32 i32 i32"),
    ("fd_renumber", "i32 i32"),
    ("fd_readdir", "i32 i32 i32 i64 i32"),
    ("fd_seek", "i32 i64 i32 i32"),
    ("fd_tell", "i32 i32"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
    ("path_rename", "i32 i32 i32 i32 i32 i32"),
    ("poll_oneoff", "i32 i32 i32 i32"),
    ("random_get", "i32 i32"),
    ("sock_accept", "i32 i32 i32"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32"),
    ("sock_send", "i32 i32 i32 i32 i32"),
    ("sock_shutdown", "i32 i32"),
];

/// With a listener on port 80.
struct Guest(Caller);

impl Deref for Guest {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Caller {
        &mut self.0
    }
}

fn fabric() -> Arc<Fabric> {
    Fabric::new(
        FabricConfig::new(Ipv4Addr::new(10, 240, 0, 1).into()),
        Clock::fake(1),
    )
}

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 240, 0, last).into()
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(ip(last), port)
}

fn pod(fabric: &Arc<Fabric>, last: u8) -> Arc<NetworkNamespace> {
    fabric
        .create_namespace(NamespaceConfig::new("default/test", ip(last), "test"))
        .unwrap()
}

fn port(name: &str, port: u16, tcp: bool) -> ContainerPort {
    ContainerPort {
        name: name.to_owned(),
        port,
        tcp,
    }
}

impl Guest {
    /// A guest with a listener on port 80 and, if given, a folder.
    async fn start(
        scope: &SocketScope,
        nonblocking: bool,
        folder: Option<&std::path::Path>,
    ) -> Self {
        let listeners = Listeners::bind(scope, &[port("web", 80, true)]).unwrap();
        let mut context = WasiCtx::builder();
        if let Some(folder) = folder {
            context
                .preopened_dir(folder, "/data", FsPerms::ReadWrite)
                .unwrap();
        }
        let functions = FUNCTIONS.iter().copied();
        let functions = functions.map(|(name, parameters)| (name, parameters.to_owned()));
        let caller = Caller::start(functions, context.build_p1(), |_, wasi| {
            FdTable::new(listeners, nonblocking, scope.clone(), wasi)
        });
        Self(caller.await)
    }

    fn iovec(&mut self, pointer: u32, length: u32) {
        self.write(IOVEC, &pointer.to_le_bytes());
        self.write(IOVEC + 4, &length.to_le_bytes());
    }

    /// Reads up to `max` bytes.
    async fn read(&mut self, fd: u32, max: u32) -> Result<Vec<u8>, Errno> {
        self.iovec(DATA, max);
        match self
            .call("fd_read", &[fd as i32, IOVEC as i32, 1, OUT as i32])
            .await
        {
            Errno::SUCCESS => Ok(self.bytes(DATA, self.read_u32(OUT))),
            errno => Err(errno),
        }
    }

    async fn send(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, Errno> {
        self.write(DATA, bytes);
        self.iovec(DATA, bytes.len() as u32);
        match self
            .call("fd_write", &[fd as i32, IOVEC as i32, 1, OUT as i32])
            .await
        {
            Errno::SUCCESS => Ok(self.read_u32(OUT)),
            errno => Err(errno),
        }
    }

    async fn accept(&mut self, flags: i32) -> Result<u32, Errno> {
        match self.call("sock_accept", &[3, flags, OUT as i32]).await {
            Errno::SUCCESS => Ok(self.read_u32(OUT)),
            errno => Err(errno),
        }
    }

    /// Subscribes to clocks (`None`, relative nanoseconds) and descriptors; gives the user data,
    /// which is the position, and the errno of what is ready.
    async fn poll(&mut self, subscriptions: &[Subscription]) -> Vec<(u64, Errno)> {
        for (index, subscription) in subscriptions.iter().enumerate() {
            let mut bytes = [0u8; 48];
            bytes[..8].copy_from_slice(&(index as u64).to_le_bytes());
            match subscription {
                Subscription::Clock(nanoseconds) => {
                    bytes[16] = 1;
                    bytes[24..32].copy_from_slice(&nanoseconds.to_le_bytes());
                }
                Subscription::Read(fd) => {
                    bytes[8] = 1;
                    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
                }
                Subscription::Write(fd) => {
                    bytes[8] = 2;
                    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
                }
            }
            self.write(SUBSCRIPTIONS + index as u32 * 48, &bytes);
        }
        let arguments = [
            SUBSCRIPTIONS as i32,
            EVENTS as i32,
            subscriptions.len() as i32,
            OUT as i32,
        ];
        assert_eq!(self.call("poll_oneoff", &arguments).await, Errno::SUCCESS);
        (0..self.read_u32(OUT))
            .map(|index| {
                let event = self.bytes(EVENTS + index * 32, 32);
                let user_data = u64::from_le_bytes(event[..8].try_into().unwrap());
                (
                    user_data,
                    Errno(u16::from_le_bytes(event[8..10].try_into().unwrap())),
                )
            })
            .collect()
    }
}

enum Subscription {
    Clock(u64),
    Read(u32),
    Write(u32),
}

#[tokio::test(start_paused = true)]
async fn a_module_serves_on_its_inherited_listener() {
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, false, None).await;
    let near = tokio::spawn(async move { client.connect_tcp(at(2, 80)).await.unwrap() });
    // Blocks until the other task has connected.
    let fd = guest.accept(0).await.unwrap();
    assert_eq!(fd, 4);
    let near = near.await.unwrap();
    near.write_bytes(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(guest.read(fd, 3).await.unwrap(), b"hel");
    assert_eq!(guest.read(fd, 100).await.unwrap(), b"lo");
    assert_eq!(guest.send(fd, b"world").await, Ok(5));
    assert_eq!(&near.read_bytes(100).await.unwrap()[..], b"world");
    assert_eq!(
        guest.call("sock_shutdown", &[fd as i32, 2]).await,
        Errno::SUCCESS
    );
    assert!(near.read_bytes(1).await.unwrap().is_empty());
    assert_eq!(guest.send(fd, b"late").await, Err(Errno::PIPE));
    near.shutdown_write();
    assert_eq!(guest.read(fd, 10).await.unwrap(), b"");
    assert_eq!(guest.call("fd_close", &[fd as i32]).await, Errno::SUCCESS);
    assert_eq!(guest.read(fd, 10).await, Err(Errno::BADF));
    assert_eq!(server.open_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn bulk_passes_a_blocking_writer_whole() {
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, false, None).await;
    let near = client.connect_tcp(at(2, 80)).await.unwrap();
    let fd = guest.accept(0).await.unwrap();
    let reader = tokio::spawn(async move {
        let mut total = 0;
        loop {
            match near.read_bytes(10_000).await.unwrap().len() {
                0 => return total,
                length => total += length,
            }
        }
    });
    guest.iovec(0, 65536);
    for _ in 0..10 {
        let arguments = [fd as i32, IOVEC as i32, 1, 0, OUT as i32];
        assert_eq!(guest.call("sock_send", &arguments).await, Errno::SUCCESS);
        assert_eq!(guest.read_u32(OUT), 65536);
        guest.iovec(0, 65536);
    }
    guest.call("fd_close", &[fd as i32]).await;
    assert_eq!(reader.await.unwrap(), 655_360);
}

#[tokio::test(start_paused = true)]
async fn non_blocking_descriptors_say_again() {
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, true, None).await;
    assert_eq!(guest.accept(0).await, Err(Errno::AGAIN));
    let near = client.connect_tcp(at(2, 80)).await.unwrap();
    let fd = guest.accept(NONBLOCK).await.unwrap();
    assert_eq!(guest.read(fd, 8).await, Err(Errno::AGAIN));
    assert_eq!(
        guest.call("fd_fdstat_get", &[fd as i32, DATA as i32]).await,
        Errno::SUCCESS
    );
    assert_eq!(guest.bytes(DATA, 4), [6, 0, 4, 0]);
    while guest.send(fd, &[0; 4096]).await.is_ok() {}
    assert_eq!(guest.send(fd, b"x").await, Err(Errno::AGAIN));
    assert_eq!(
        guest.call("fd_fdstat_set_flags", &[fd as i32, 0]).await,
        Errno::SUCCESS
    );
    near.write_bytes(Bytes::from_static(b"now")).await.unwrap();
    assert_eq!(guest.read(fd, 8).await.unwrap(), b"now");
}

#[tokio::test(start_paused = true)]
async fn peeked_bytes_are_read_again_and_count_as_readable() {
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, false, None).await;
    let near = client.connect_tcp(at(2, 80)).await.unwrap();
    let fd = guest.accept(0).await.unwrap();
    near.write_bytes(Bytes::from_static(b"abc")).await.unwrap();
    guest.iovec(DATA, 2);
    let arguments = [fd as i32, IOVEC as i32, 1, 1, OUT as i32, OUT2 as i32];
    for _ in 0..2 {
        assert_eq!(guest.call("sock_recv", &arguments).await, Errno::SUCCESS);
        assert_eq!(
            (guest.read_u32(OUT), guest.bytes(DATA, 2)),
            (2, b"ab".to_vec())
        );
    }
    assert_eq!(
        guest.poll(&[Subscription::Read(fd)]).await,
        [(0, Errno::SUCCESS)]
    );
    assert_eq!(guest.read(fd, 2).await.unwrap(), b"ab");
    assert_eq!(guest.read(fd, 2).await.unwrap(), b"c");
}

#[tokio::test(start_paused = true)]
async fn poll_waits_for_sockets_clocks_and_streams_at_once() {
    use Subscription::{Clock, Read, Write};
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, true, None).await;
    // Nothing but the clock will be ready.
    assert_eq!(
        guest.poll(&[Read(3), Clock(1_000_000)]).await,
        [(1, Errno::SUCCESS)]
    );
    // Standard output is always ready, a listener never for writing, a wrong number at once.
    assert_eq!(
        guest.poll(&[Read(3), Write(1)]).await,
        [(1, Errno::SUCCESS)]
    );
    assert_eq!(guest.poll(&[Write(3), Read(99)]).await, [(1, Errno::BADF)]);
    let near = tokio::spawn(async move { client.connect_tcp(at(2, 80)).await.unwrap() });
    let hour = Clock(3_600_000_000_000);
    assert_eq!(guest.poll(&[hour, Read(3)]).await, [(1, Errno::SUCCESS)]);
    let fd = guest.accept(NONBLOCK).await.unwrap();
    let near = near.await.unwrap();
    assert_eq!(
        guest.poll(&[Read(fd), Write(fd)]).await,
        [(1, Errno::SUCCESS)]
    );
    near.write_bytes(Bytes::from_static(b"!")).await.unwrap();
    let both = guest.poll(&[Read(fd), Write(fd), Write(2)]).await;
    assert_eq!(
        both,
        [
            (0, Errno::SUCCESS),
            (1, Errno::SUCCESS),
            (2, Errno::SUCCESS)
        ]
    );
}

#[tokio::test]
async fn listeners_come_before_folders_and_files_take_the_lowest_free_number() {
    let folder = tempfile::tempdir().unwrap();
    let scope = pod(&fabric(), 2).scope();
    let mut guest = Guest::start(&scope, false, Some(folder.path())).await;
    // The listener looks like a preopen of an unknown kind, the folder like a folder.
    assert_eq!(
        guest.call("fd_prestat_get", &[3, OUT as i32]).await,
        Errno::SUCCESS
    );
    assert_eq!(guest.bytes(OUT, 1), [1]);
    assert_eq!(
        guest.call("fd_prestat_get", &[4, OUT as i32]).await,
        Errno::SUCCESS
    );
    assert_eq!((guest.bytes(OUT, 1), guest.read_u32(OUT + 4)), (vec![0], 5));
    assert_eq!(
        guest.call("fd_prestat_get", &[5, OUT as i32]).await,
        Errno::BADF
    );
    assert_eq!(
        guest
            .call("fd_prestat_dir_name", &[4, DATA as i32, 5])
            .await,
        Errno::SUCCESS
    );
    assert_eq!(guest.bytes(DATA, 5), b"/data");
    // A file: read and write, created.
    guest.write(DATA, b"file");
    let open = [4, 0, DATA as i32, 4, 1, 0x42, 0x42, 0, OUT as i32];
    assert_eq!(guest.call("path_open", &open).await, Errno::SUCCESS);
    assert_eq!(guest.read_u32(OUT), 5);
    assert_eq!(guest.send(5, b"content").await, Ok(7));
    assert_eq!(
        std::fs::read(folder.path().join("file")).unwrap(),
        b"content"
    );
    // The listener's number is free after its close, and the file can take it.
    assert_eq!(guest.call("fd_renumber", &[5, 3]).await, Errno::SUCCESS);
    assert!(scope.namespace().listening().is_empty());
    assert_eq!(
        guest.call("fd_tell", &[3, OUT as i32]).await,
        Errno::SUCCESS
    );
    assert_eq!(guest.read_u32(OUT), 7);
    guest.write(DATA, b"file");
    assert_eq!(guest.call("path_open", &open).await, Errno::SUCCESS);
    assert_eq!(guest.read_u32(OUT), 5);
    assert_eq!(guest.call("fd_close", &[3]).await, Errno::SUCCESS);
    guest.write(DATA, b"file");
    assert_eq!(guest.call("path_open", &open).await, Errno::SUCCESS);
    assert_eq!(guest.read_u32(OUT), 3);
    // path_rename takes two descriptors.
    guest.write(DATA, b"filenew");
    let rename = [4, DATA as i32, 4, 4, DATA as i32 + 4, 3];
    assert_eq!(guest.call("path_rename", &rename).await, Errno::SUCCESS);
    assert!(folder.path().join("new").exists());
}

#[tokio::test(start_paused = true)]
async fn files_calls_on_sockets_and_sockets_calls_on_files_are_refused() {
    let scope = pod(&fabric(), 2).scope();
    let mut guest = Guest::start(&scope, false, None).await;
    assert_eq!(
        guest.call("fd_seek", &[3, 0, 0, OUT as i32]).await,
        Errno::SPIPE
    );
    assert_eq!(
        guest
            .call("fd_readdir", &[3, DATA as i32, 8, 0, OUT as i32])
            .await,
        Errno::NOTDIR
    );
    let open = [3, 0, DATA as i32, 1, 0, 0, 0, 0, OUT as i32];
    assert_eq!(guest.call("path_open", &open).await, Errno::NOTDIR);
    assert_eq!(guest.read(3, 1).await, Err(Errno::NOTCONN));
    assert_eq!(
        guest.call("sock_accept", &[1, 0, OUT as i32]).await,
        Errno::NOTSOCK
    );
    assert_eq!(guest.call("sock_shutdown", &[3, 2]).await, Errno::NOTCONN);
    assert_eq!(guest.call("sock_shutdown", &[9, 2]).await, Errno::BADF);
    assert_eq!(
        guest.call("fd_filestat_get", &[3, DATA as i32]).await,
        Errno::SUCCESS
    );
    assert_eq!(guest.bytes(DATA + 16, 1), [6]);
}

#[tokio::test(start_paused = true)]
async fn pointers_out_of_the_memory_are_faults() {
    let fabric = fabric();
    let (server, client) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let mut guest = Guest::start(&server, true, None).await;
    let near = client.connect_tcp(at(2, 80)).await.unwrap();
    near.write_bytes(Bytes::from_static(b"kept")).await.unwrap();
    for bad in [65534, -1, i32::MAX, i32::MIN] {
        assert_eq!(guest.call("sock_accept", &[3, 0, bad]).await, Errno::FAULT);
    }
    let fd = guest.accept(NONBLOCK).await.unwrap() as i32;
    for bad in [65534, -1, i32::MAX, i32::MIN] {
        assert_eq!(
            guest.call("fd_read", &[fd, bad, 1, OUT as i32]).await,
            Errno::FAULT
        );
        assert_eq!(guest.call("fd_fdstat_get", &[fd, bad]).await, Errno::FAULT);
        assert_eq!(
            guest.call("fd_filestat_get", &[fd, bad]).await,
            Errno::FAULT
        );
        assert_eq!(guest.call("fd_prestat_get", &[3, bad]).await, Errno::FAULT);
        assert_eq!(guest.call("random_get", &[bad, 4]).await, Errno::FAULT);
        let poll = [bad, EVENTS as i32, 1, OUT as i32];
        assert_eq!(guest.call("poll_oneoff", &poll).await, Errno::FAULT);
        guest.iovec(bad as u32, 4);
        assert_eq!(
            guest
                .call("fd_write", &[fd, IOVEC as i32, 1, OUT as i32])
                .await,
            Errno::FAULT
        );
        guest.iovec(DATA, 4);
        assert_eq!(
            guest.call("fd_read", &[fd, IOVEC as i32, 1, bad]).await,
            Errno::FAULT
        );
    }
    for count in [0, -1, i32::MAX] {
        let poll = [SUBSCRIPTIONS as i32, EVENTS as i32, count, OUT as i32];
        assert_eq!(guest.call("poll_oneoff", &poll).await, Errno::INVAL);
    }
    // No fault cost a byte.
    assert_eq!(guest.read(fd as u32, 8).await.unwrap(), b"kept");
}

#[tokio::test]
async fn the_environment_names_the_listeners() {
    let scope = pod(&fabric(), 2).scope();
    let ports = [
        port("web", 80, true),
        port("dns", 53, false),
        port("", 9090, true),
    ];
    let listeners = Listeners::bind(&scope, &ports).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        listeners.environment(),
        [pair("LISTEN_FDS", "2"), pair("LISTEN_FDNAMES", "web:9090")]
    );
    let again = Listeners::bind(&scope, &ports[..1]);
    assert!(matches!(again.err(), Some(NetError::AddressInUse(_))));
    assert!(
        Listeners::bind(&scope, &[])
            .unwrap()
            .environment()
            .is_empty()
    );
}

#[test]
fn go_gets_non_blocking_listeners_unless_told_otherwise() {
    let with = |value: &str| BTreeMap::from([(NONBLOCKING.to_owned(), value.to_owned())]);
    assert!(nonblocking(true, &BTreeMap::new()));
    assert!(!nonblocking(false, &BTreeMap::new()));
    assert!(!nonblocking(true, &with("false")));
    assert!(nonblocking(false, &with("true")));
    assert!(nonblocking(true, &with("perhaps")));
}
