//! Listeners: datagrams and streams of the host.

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::*;

async fn listening() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = HostListeners::bind(any).await.expect("a free port");
    let address = listeners.address().expect("bound");
    (
        address,
        tokio::spawn(listeners.serve(Arc::new(server(&[])))),
    )
}

#[test]
fn listeners_belong_to_the_runtime_that_serves_them() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let binds = runtime();
    let any = "127.0.0.1:0".parse().expect("an address");
    let listeners = binds
        .block_on(HostListeners::bind(any))
        .expect("a free port");
    drop(binds);
    let answered = runtime().block_on(async {
        let address = listeners.address().expect("bound");
        tokio::spawn(listeners.serve(Arc::new(server(&[]))));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        socket.connect(address).await.expect("connected");
        let asked = question("web.test", RecordType::A, None);
        let asked = asked.to_vec().expect("encoded");
        socket.send(&asked).await.expect("sent");
        let by_udp = socket.recv(&mut [0; 1500]).await.expect("an answer");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let length = u16::try_from(asked.len()).expect("short");
        stream.write_u16(length).await.expect("sent");
        stream.write_all(&asked).await.expect("sent");
        let by_tcp = stream.read_u16().await.expect("an answer");
        (by_udp, usize::from(by_tcp))
    });
    assert!(answered.0 > 0);
    assert_eq!(answered.0, answered.1);
}

#[tokio::test]
async fn whoever_stops_listening_gives_the_port_back() {
    let (address, task) = listening().await;
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    // The thread that reads from it has the socket until it has looked.
    let free = async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    let free = tokio::time::timeout(std::time::Duration::from_secs(30), free).await;
    free.expect("nobody holds the port any more");
}

#[tokio::test]
async fn a_question_that_panics_is_lost_and_the_next_one_is_answered() {
    let (address, task) = listening().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(address).await.expect("connected");
    for name in ["broken.test", "web.test"] {
        let asked = question(name, RecordType::A, None);
        let asked = asked.to_vec().expect("encoded");
        socket.send(&asked).await.expect("sent");
    }
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).await.expect("an answer");
    let reply = Message::from_vec(&buffer[..length]).expect("a message");
    assert_eq!(reply.answers.len(), 1);
    task.abort();
}

#[tokio::test]
async fn datagrams_are_answered_whatever_came_before() {
    let (address, task) = listening().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(address).await.expect("connected");
    socket.send(b"").await.expect("sent");
    socket.send(b"\x12\x34 no question").await.expect("sent");
    let asked = question("web.test", RecordType::A, None)
        .to_vec()
        .expect("encoded");
    socket.send(&asked).await.expect("sent");
    let mut buffer = [0; 1500];
    let mut codes = Vec::new();
    for _ in 0..2 {
        let length = socket.recv(&mut buffer).await.expect("an answer");
        let reply = Message::from_vec(&buffer[..length]).expect("a message");
        codes.push((reply.metadata.id, reply.metadata.response_code));
    }
    codes.sort_by_key(|(id, _)| *id);
    let expected = [(4660, ResponseCode::FormErr), (4711, ResponseCode::NoError)];
    assert_eq!(codes, expected);
    task.abort();
}

#[tokio::test]
async fn a_stream_carries_several_questions_and_long_answers() {
    let (address, task) = listening().await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    for name in ["web.test", "many.test", "missing.test"] {
        let asked = question(name, RecordType::A, None)
            .to_vec()
            .expect("encoded");
        stream
            .write_u16(u16::try_from(asked.len()).expect("short"))
            .await
            .expect("sent");
        stream.write_all(&asked).await.expect("sent");
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        let mut buffer = vec![0; stream.read_u16().await.expect("a length").into()];
        stream.read_exact(&mut buffer).await.expect("an answer");
        answers.push(Message::from_vec(&buffer).expect("a message").answers.len());
    }
    assert_eq!(answers, [1, 200, 0]);
    // What is no question ends the connection.
    stream.write_all(&[0, 1, 7]).await.expect("sent");
    assert_eq!(
        stream.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    task.abort();
}

#[tokio::test]
async fn a_port_that_either_transport_holds_is_in_use() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("bound");
    let exact = HostListeners::bind(address).await.err().expect("in use");
    assert_eq!(exact.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_port_that_is_listened_at_is_in_use_for_others() {
    let (address, task) = listening().await;
    let second = HostListeners::bind(address).await.err().expect("in use");
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    let other = std::net::UdpSocket::bind(address).expect_err("in use");
    assert_eq!(other.kind(), std::io::ErrorKind::AddrInUse);
    task.abort();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn questions_of_every_processor_are_answered() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let (address, task) = listening().await;
    let own = sched_getaffinity(None).expect("known");
    for processor in (0..CpuSet::MAX_CPU).filter(|at| own.is_set(*at)) {
        let asking = tokio::task::spawn_blocking(move || {
            let mut only = CpuSet::new();
            only.set(processor);
            sched_setaffinity(None, &only).expect("moved");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.connect(address).expect("connected");
            let asked = question("web.test", RecordType::A, None);
            socket
                .send(&asked.to_vec().expect("encoded"))
                .expect("sent");
            let mut buffer = [0; 1500];
            let length = socket.recv(&mut buffer).expect("an answer");
            sched_setaffinity(None, &own).expect("moved back");
            Message::from_vec(&buffer[..length]).expect("a message")
        });
        let reply = asking.await.expect("no panic");
        assert_eq!(reply.answers.len(), 1, "on processor {processor}");
    }
    task.abort();
}
