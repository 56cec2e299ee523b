//! What it does with `wasi:sockets` 0.3.

use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4Address, Ipv4SocketAddress,
    TcpSocket, UdpSocket,
};
use wasip3::{spawn_local, wit_stream};

use crate::{number, print};

/// One write of the flood.
const BLOCK: usize = 16 * 1024;

pub(crate) async fn act(words: &[&str]) -> Result<(), String> {
    match words {
        ["echo", port] => {
            let mut connections = listen(number(port)?)?.1;
            while let Some(connection) = connections.next().await {
                spawn_local(async move {
                    let (incoming, _) = connection.receive();
                    // The bytes never pass through this guest.
                    let _ = connection.send(incoming).await;
                });
            }
        }
        ["connect", host, port, text] => {
            let (socket, address) = connect(host, number(port)?).await?;
            let (answer, ()) = futures::join!(receive(&socket), send(&socket, text.len(), text));
            let answer = String::from_utf8_lossy(&answer?).into_owned();
            print(&format!("{answer} from {address}")).await;
        }
        ["flood", host, port, bytes] => {
            let (socket, _) = connect(host, number(port)?).await?;
            let block = "x".repeat(BLOCK);
            let (answer, ()) =
                futures::join!(receive(&socket), send(&socket, number(bytes)?, &block));
            print(&format!("{} bytes came back", answer?.len())).await;
        }
        ["lookup", name] => match resolve_addresses((*name).to_owned()).await {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(ip).collect();
                print(&format!("{name} {}", addresses.join(" "))).await;
            }
            Err(code) => return Err(format!("{name}: {code:?}")),
        },
        ["twice", port] => {
            let _first = listen(number(port)?)?;
            match listen(number(port)?) {
                Ok(_) => print("the second listens too").await,
                Err(problem) => print(&format!("the second: {problem}")).await,
            }
        }
        ["datagrams", port] => {
            let here = address((127, 0, 0, 1), number(port)?);
            let socket = UdpSocket::create(IpAddressFamily::Ipv4).map_err(code)?;
            socket.bind(here).map_err(code)?;
            socket.send(b"to myself".to_vec(), Some(here)).await.map_err(code)?;
            let (bytes, from) = socket.receive().await.map_err(code)?;
            print(&format!("{} from {}", String::from_utf8_lossy(&bytes), shown(from))).await;
        }
        words => return Err(format!("unknown arguments {words:?}")),
    }
    Ok(())
}

fn listen(port: u16) -> Result<(TcpSocket, wasip3::wit_bindgen::StreamReader<TcpSocket>), String> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(code)?;
    socket.bind(address((0, 0, 0, 0), port)).map_err(code)?;
    let connections = socket.listen().map_err(code)?;
    Ok((socket, connections))
}

async fn connect(host: &str, port: u16) -> Result<(TcpSocket, String), String> {
    let addresses = resolve_addresses(host.to_owned()).await;
    let addresses = addresses.map_err(|code| format!("{host}: {code:?}"))?;
    let Some(IpAddress::Ipv4(ip)) = addresses.first() else {
        return Err(format!("{host} has no address of IPv4"));
    };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(code)?;
    socket.connect(address(*ip, port)).await.map_err(code)?;
    let peer = socket.get_remote_address().map_err(code)?;
    Ok((socket, shown(peer)))
}

/// Sends `length` bytes, `block` again and again, and an end.
async fn send(socket: &TcpSocket, length: usize, block: &str) {
    let (mut bytes, stream) = wit_stream::new();
    let _ = futures::join!(socket.send(stream).into_future(), async {
        let mut left = length;
        while left > 0 {
            let next = left.min(block.len());
            if !bytes.write_all(block.as_bytes()[..next].to_vec()).await.is_empty() {
                break;
            }
            left -= next;
        }
        drop(bytes);
    });
}

async fn receive(socket: &TcpSocket) -> Result<Vec<u8>, String> {
    let (bytes, end) = socket.receive();
    let bytes = bytes.collect().await;
    end.await.map_err(code)?;
    Ok(bytes)
}

fn address(address: Ipv4Address, port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

fn shown(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(v4) => format!("{}:{}", ip(&IpAddress::Ipv4(v4.address)), v4.port),
        IpSocketAddress::Ipv6(v6) => format!("[…]:{}", v6.port),
    }
}

fn ip(address: &IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => format!("{a}.{b}.{c}.{d}"),
        IpAddress::Ipv6(_) => "an address of IPv6".to_owned(),
    }
}

fn code(code: ErrorCode) -> String {
    format!("{code:?}")
}
