//! Questions by UDP to a port of the host.
//!
//! They have threads of their own that wait in the system for the next one, [one for each processor](crate::processors). A task
//! that waits in the runtime is told that there is one, reads it, reads again in vain and goes back to wait: twice the system calls
//! of an answer, which are most of what it costs. Whom the names here do not answer is passed on to the runtime, where others are
//! asked.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::listen::{REST, is_v6};
use crate::processors::Local;
use crate::server::{Now, Pending, Server, Via};

/// Questions that wait for other servers, and as many that wait to be passed on; datagrams past it are lost.
const WAITING: usize = 1024;
/// The longest datagram that is read; questions are far shorter.
const MOST_BYTES: usize = 4096;

/// What a thread needs to answer with, whose stack holds a name and a few calls.
const STACK: usize = 512 * 1024;

/// The sockets of a port, and the threads that read from them until this is dropped.
pub(crate) struct Datagrams {
    sockets: Vec<Arc<Local>>,
    over: Arc<AtomicBool>,
}

/// A question that others must answer, and who asks.
pub(crate) type Later = (Box<Pending>, SocketAddr);

impl Datagrams {
    /// Starts the threads; what they cannot answer comes out of the receiver, for [`answer_later`](Self::answer_later).
    pub(crate) fn start(
        sockets: Vec<Local>,
        server: &Arc<Server>,
    ) -> io::Result<(Self, mpsc::Receiver<Later>)> {
        let (pass_on, later) = mpsc::channel(WAITING);
        let this = Self {
            sockets: sockets.into_iter().map(Arc::new).collect(),
            over: Arc::default(),
        };
        for local in &this.sockets {
            let (local, over) = (local.clone(), this.over.clone());
            let (server, pass_on) = (server.clone(), pass_on.clone());
            let thread = thread::Builder::new()
                .name("dns".to_owned())
                .stack_size(STACK);
            thread.spawn(move || {
                local.stay();
                answer(&local.socket, &server, &over, &pass_on);
            })?;
        }
        Ok((this, later))
    }

    /// Asks others, and answers with what they say.
    pub(crate) async fn answer_later(
        &self,
        mut questions: mpsc::Receiver<Later>,
        server: Arc<Server>,
    ) {
        // Any of them has the address that was asked.
        let Some(local) = self.sockets.first() else {
            return;
        };
        let mut tasks = JoinSet::new();
        while let Some((pending, peer)) = questions.recv().await {
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= WAITING {
                continue; // as a full queue would do
            }
            let (local, server) = (local.clone(), server.clone());
            tasks.spawn(async move {
                if let Some(reply) = server.later(*pending).await {
                    send(&local.socket, &reply, peer);
                }
            });
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for local in &self.sockets {
            local.close();
        }
    }
}

/// Reads questions until it is over.
fn answer(socket: &UdpSocket, server: &Server, over: &AtomicBool, pass_on: &mpsc::Sender<Later>) {
    let mut buffer = vec![0; MOST_BYTES];
    loop {
        let received = socket.recv_from(&mut buffer);
        if over.load(Ordering::Relaxed) {
            return;
        }
        let (length, peer) = match received {
            Ok(received) => received,
            Err(error) => {
                // Such as an earlier answer's port that was unreachable.
                tracing::debug!(%error, "DNS cannot receive");
                thread::sleep(REST);
                continue;
            }
        };
        let via = Via {
            tcp: false,
            v6: is_v6(peer),
            host: true,
        };
        // Nobody starts this thread again, so a panic is the end of one question alone.
        let answer = AssertUnwindSafe(|| server.now(&buffer[..length], via));
        let answer = catch_unwind(answer).unwrap_or_else(|_| {
            tracing::error!(%peer, "a DNS question panicked");
            Now::Nothing
        });
        match answer {
            Now::Nothing => {}
            Now::Reply(reply) => send(socket, &reply, peer),
            Now::Later(pending) => {
                // A full queue loses it, as the system's would.
                let _ = pass_on.try_send((pending, peer));
            }
        }
    }
}

fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer) {
        tracing::debug!(%peer, %error, "a DNS answer was not sent");
    }
}
