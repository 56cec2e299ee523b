//! Name servers that a pod's manifest names: asked over the pod's own sockets, so that everything
//! that holds for its connections holds for its questions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_dns::{DNS_PORT, LookupReply, address_query, read_addresses};
use coracle_network::{NamespaceView, NetError, ResolveError, SocketScope};
use tokio::io::AsyncReadExt;

/// The servers that count, as in resolv.conf(5).
const SERVERS: usize = 3;
/// How long a server has if `options timeout:` does not say; and the most.
const PATIENCE: u64 = 5;
const MOST_PATIENCE: u64 = 30;
/// How often all are asked if `options attempts:` does not say; and the most.
const ATTEMPTS: u64 = 2;
const MOST_ATTEMPTS: u64 = 5;

/// The addresses of an absolute name, by the pod's servers in turn.
pub(super) async fn lookup(
    from: NamespaceView<'_>,
    name: &str,
    clock: &Clock,
) -> Result<Vec<IpAddr>, ResolveError> {
    let option = |option: &str, usual: u64, most: u64| {
        let values = from.dns.options.iter().rev();
        let value = values
            .filter_map(|text| text.strip_prefix(option)?.strip_prefix(':'))
            .find_map(|text| text.parse().ok());
        value.unwrap_or(usual).clamp(1, most)
    };
    let patience = Duration::from_secs(option("timeout", PATIENCE, MOST_PATIENCE));
    let scope = from.namespace.scope();
    for _ in 0..option("attempts", ATTEMPTS, MOST_ATTEMPTS) {
        for server in from.dns.servers.iter().take(SERVERS) {
            let server = SocketAddr::new(*server, DNS_PORT);
            let both = async {
                tokio::join!(
                    ask(&scope, server, name, true, clock),
                    ask(&scope, server, name, false, clock),
                )
            };
            // A server without an answer is the next one's business.
            let (v4, v6) = match tokio::time::timeout(patience, both).await {
                Ok(both) => both,
                Err(_) => continue,
            };
            let (v4, v6) = match (v4, v6) {
                (Ok(v4), Ok(v6)) => (v4, v6),
                (Ok(one), Err(_)) | (Err(_), Ok(one)) if one != LookupReply::Failed => {
                    (one, LookupReply::NoName)
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::debug!(pod = from.pod, %server, %error, "a pod's name server was not asked");
                    continue;
                }
            };
            match (addresses(v4), addresses(v6)) {
                (None, None) => {}
                (v4, v6) => {
                    let mut all = v4.unwrap_or_default();
                    all.extend(v6.unwrap_or_default());
                    if all.is_empty() {
                        return Err(ResolveError::NotFound(name.to_owned()));
                    }
                    return Ok(all);
                }
            }
        }
    }
    Err(ResolveError::Again(name.to_owned()))
}

/// What a server says for certain.
fn addresses(reply: LookupReply) -> Option<Vec<IpAddr>> {
    match reply {
        LookupReply::Addresses(all) => Some(all),
        LookupReply::NoName => Some(Vec::new()),
        LookupReply::Failed | LookupReply::Truncated => None,
    }
}

async fn ask(
    scope: &SocketScope,
    server: SocketAddr,
    name: &str,
    v4: bool,
    clock: &Clock,
) -> Result<LookupReply, NetError> {
    let id = random(clock);
    let Some(question) = address_query(id, name, v4) else {
        return Ok(LookupReply::NoName);
    };
    // A pod of IPv4 alone reaches servers of IPv6 outside, by a socket of its own family.
    let any = match server.is_ipv6() && scope.namespace().has_ipv6() {
        true => Ipv6Addr::UNSPECIFIED.into(),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = scope.bind_udp(SocketAddr::new(any, 0))?;
    socket.send_to(question.clone().into(), server)?;
    let reply = loop {
        let message = socket.recv().await;
        let reply = read_addresses(id, name, v4, &message.data);
        if let Some(reply) = reply.filter(|_| message.from == server) {
            break reply;
        }
    };
    if reply != LookupReply::Truncated {
        return Ok(reply);
    }
    let mut stream = scope.connect_tcp(server).await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_bytes(Bytes::from(framed)).await?;
    let closed = |_| NetError::ConnectionReset;
    let length = stream.read_u16().await.map_err(closed)?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.map_err(closed)?;
    let reply = read_addresses(id, name, v4, &bytes);
    Ok(reply.unwrap_or(LookupReply::Failed))
}

fn random(clock: &Clock) -> u16 {
    let mut bytes = [0; 2];
    clock.random_bytes(&mut bytes);
    u16::from_be_bytes(bytes)
}
