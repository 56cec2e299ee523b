//! Letting others have their turn in the middle of long work.
//!
//! A thread that has a long answer to write has other connections to look after. Work of more than some 50 µs is divided
//! into slices, with a pause after each: the thread runs what is ready, looks at its sockets, and then goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::poll_fn;
use futures::task::AtomicWaker;

/// A pause between two slices; it can be used again once it was ready.
///
/// [`tokio::task::yield_now`] alone is over when it is polled for the second time, whether anybody else ran or not, and
/// hyper asks a body that is pending again at once.
pub(crate) struct Pause {
    others: Option<Arc<Others>>,
    rounds: u8,
    /// How many of them are over.
    over: u8,
}

/// Whether others had their turn.
#[derive(Default)]
struct Others {
    had_it: AtomicBool,
    waiting: AtomicWaker,
}

impl Wake for Others {
    fn wake(self: Arc<Self>) {
        self.had_it.store(true, Ordering::Release);
        self.waiting.wake();
    }
}

impl Pause {
    /// In which the thread looks at its sockets once. Of those who become ready by that the last comes before the paused
    /// task, and the others after it: for work that is as short as theirs.
    fn short() -> Self {
        Self {
            others: None,
            rounds: 1,
            over: 0,
        }
    }

    /// Begins the pause when it is polled first; ready when others had their turn. Outside a runtime there are none.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.over < self.rounds {
            let others = self.others.get_or_insert_with(|| {
                let others = Arc::<Others>::default();
                let waker = Waker::from(Arc::clone(&others));
                // The runtime keeps the waker until it has looked at the sockets.
                let asked = std::pin::pin!(tokio::task::yield_now());
                let _pending = asked.poll(&mut Context::from_waker(&waker));
                others
            });
            others.waiting.register(context.waker());
            if !others.had_it.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            self.others = None;
            self.over += 1;
        }
        self.over = 0;
        Poll::Ready(())
    }
}

impl Default for Pause {
    /// After which everybody had a turn who was ready when the thread looked at its sockets: it runs what was woken last
    /// first, which is the paused task, and that lets the others go first once more.
    fn default() -> Self {
        Self {
            rounds: 2,
            ..Self::short()
        }
    }
}

/// Lets others have their turn, before or within work that takes long.
pub(crate) async fn others_first() {
    let mut pause = Pause::default();
    poll_fn(|context| pause.poll(context)).await;
}

/// Lets the thread look at its sockets, before work that takes as long as that of others.
pub(crate) async fn look_around() {
    let mut pause = Pause::short();
    poll_fn(|context| pause.poll(context)).await;
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_pause_that_is_asked_again_at_once_goes_on() {
        for mut pause in [Pause::default(), Pause::short()] {
            for _ in 0..3 {
                let asked = poll_fn(|context| pause.poll(context)).now_or_never();
                assert_eq!(asked, None, "nobody else had a turn");
            }
            let (sender, mut receiver) = tokio::sync::oneshot::channel();
            tokio::spawn(async { sender.send(()) });
            poll_fn(|context| pause.poll(context)).await;
            receiver.try_recv().expect("the other task has run");
            let asked = poll_fn(|context| pause.poll(context)).now_or_never();
            assert_eq!(asked, None, "the next pause has begun");
        }
    }

    /// On one thread: two that come by a socket at once run before a task that pauses goes on.
    #[test]
    fn who_becomes_ready_during_a_pause_goes_first() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let told = Arc::clone(&order);
        let working = async move {
            let (one, two) = std::os::unix::net::UnixStream::pair().expect("sockets");
            let mut tasks = Vec::new();
            for socket in [one, two] {
                socket.set_nonblocking(true).expect("a socket");
                let peer = socket.try_clone().expect("a descriptor");
                let socket = tokio::net::UnixStream::from_std(socket).expect("a socket");
                let told = Arc::clone(&told);
                let task = tokio::spawn(async move {
                    socket.readable().await.expect("something to read");
                    told.lock().push("other");
                });
                tasks.push((peer, task));
            }
            // Both wait for their sockets.
            look_around().await;
            for (peer, _) in &tasks {
                let mut peer = peer;
                peer.write_all(b"x").expect("room");
            }
            others_first().await;
            told.lock().push("paused");
            for (_, task) in tasks {
                task.await.expect("no panic");
            }
        };
        runtime.block_on(async { tokio::spawn(working).await.expect("no panic") });
        assert_eq!(*order.lock(), ["other", "other", "paused"]);
    }

    #[test]
    fn there_are_no_others_without_a_runtime() {
        assert_eq!(others_first().now_or_never(), Some(()));
    }
}
