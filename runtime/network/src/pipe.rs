//! One direction of a connection in memory: a bounded queue of byte chunks.
//!
//! ```text
//! open ──finish──▶ ended     the reader gets what is queued, then the end
//!   ├────reset───▶ reset     the reader gets what is queued, then an error, once, then the end;
//!   │                        writes fail
//!   ├─close_read─▶ unread    the reader has gone: writes fail
//!   └─shut_read──▶ ignoring  the reader stopped listening: writes succeed and are thrown away
//! ```
//!
//! Both ends take one lock, for as long as it takes to move a few pointers; nothing is lock-free
//! here, so there is no order of atomics for a model checker to explore.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::ReadBuf;

use crate::account::PodAccount;
use crate::error::NetError;
use crate::wakers::Wakers;

/// Smaller writes are joined while the reader lags, so that a queue of single bytes does not cost
/// a hundred times its length.
const JOIN_BELOW: usize = 1024;

pub(crate) struct Pipe {
    state: Mutex<State>,
    /// The reader's pod, which pays for what is queued.
    reader: Arc<PodAccount>,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// Small writes that came after `chunks`.
    tail: BytesMut,
    len: usize,
    /// The length up to which a writer was last told it may fill the queue: holds even if the
    /// pod's budget has run out since.
    granted: usize,
    end: End,
    /// Somebody was told of the reset: it is an error once, as `SO_ERROR` is.
    told: bool,
    reading: Reading,
    readers: Wakers,
    writers: Wakers,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum End {
    #[default]
    Open,
    Finished,
    Reset,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Reading {
    #[default]
    Yes,
    Ignoring,
    Gone,
}

impl State {
    /// Bytes in order; at most `max`, at least one unless empty.
    fn pop(&mut self, max: usize) -> Bytes {
        let mut front = match self.chunks.pop_front() {
            Some(front) => front,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        let out = if front.len() > max {
            let out = front.split_to(max);
            self.chunks.push_front(front);
            out
        } else {
            front
        };
        self.len -= out.len();
        out
    }

    /// Whether there will be nothing more to read than what is queued.
    fn ended(&self) -> bool {
        self.reading != Reading::Yes || self.end != End::Open
    }

    /// What a reader is told when nothing is queued.
    fn tell_end(&mut self) -> Option<Result<(), NetError>> {
        if !self.ended() {
            return None;
        }
        Some(if self.reading == Reading::Yes && self.tell_reset() {
            Err(NetError::ConnectionReset)
        } else {
            Ok(())
        })
    }

    /// Whether there was a reset that nobody was told of.
    fn tell_reset(&mut self) -> bool {
        self.end == End::Reset && !std::mem::replace(&mut self.told, true)
    }
}

impl Pipe {
    pub(crate) fn new(reader: Arc<PodAccount>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            reader,
        })
    }

    /// The next bytes, at most `max`; empty at the end.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Bytes, NetError>> {
        let mut state = self.state.lock();
        if state.len == 0 {
            return match state.tell_end() {
                Some(end) => Poll::Ready(end.map(|()| Bytes::new())),
                None => {
                    state.readers.park(cx.waker());
                    Poll::Pending
                }
            };
        }
        let out = state.pop(max);
        self.after_read(state, out.len());
        Poll::Ready(Ok(out))
    }

    /// Copies as much as there is into `buffer`; nothing at the end.
    pub(crate) fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), NetError>> {
        let mut state = self.state.lock();
        if state.len == 0 {
            return match state.tell_end() {
                Some(end) => Poll::Ready(end),
                None => {
                    state.readers.park(cx.waker());
                    Poll::Pending
                }
            };
        }
        let before = state.len;
        while buffer.remaining() > 0 && state.len > 0 {
            buffer.put_slice(&state.pop(buffer.remaining()));
        }
        let read = before - state.len;
        self.after_read(state, read);
        Poll::Ready(Ok(()))
    }

    /// Ready when a read would not wait.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.len > 0 || state.ended() {
            return Poll::Ready(());
        }
        state.readers.park(cx.waker());
        Poll::Pending
    }

    /// How many bytes a write may bring, never 0.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<Result<usize, NetError>> {
        let mut state = self.state.lock();
        if let Err(error) = writable(&state) {
            return Poll::Ready(Err(error));
        }
        let capacity = self.reader.stream_capacity();
        if state.len >= capacity {
            state.writers.park(cx.waker());
            return Poll::Pending;
        }
        state.granted = capacity;
        Poll::Ready(Ok(capacity - state.len))
    }

    /// Queues as much of `bytes` as there is room for; says how much that was.
    pub(crate) fn push(&self, mut bytes: Bytes) -> Result<usize, NetError> {
        let mut state = self.state.lock();
        writable(&state)?;
        if state.reading == Reading::Ignoring {
            return Ok(bytes.len());
        }
        let limit = self.reader.stream_capacity().max(state.granted);
        let room = limit.saturating_sub(state.len);
        bytes.truncate(room);
        let taken = bytes.len();
        if taken == 0 {
            return Ok(0);
        }
        if taken < JOIN_BELOW && state.len > 0 {
            state.tail.extend_from_slice(&bytes);
        } else {
            if !state.tail.is_empty() {
                let tail = std::mem::take(&mut state.tail).freeze();
                state.chunks.push_back(tail);
            }
            state.chunks.push_back(bytes);
        }
        state.len += taken;
        state.granted = 0;
        self.reader.charge(taken);
        let readers = state.readers.take();
        drop(state);
        readers.wake();
        Ok(taken)
    }

    /// How many bytes wait to be read, and whether no more will be written.
    pub(crate) fn progress(&self) -> (u64, bool) {
        let state = self.state.lock();
        (state.len as u64, state.end != End::Open)
    }

    /// Whether the writer has gone with a reset.
    pub(crate) fn was_reset(&self) -> bool {
        self.state.lock().end == End::Reset
    }

    /// Whether the writer reset the connection and nobody was told of it; from now on somebody is.
    pub(crate) fn tell_reset(&self) -> bool {
        self.state.lock().tell_reset()
    }

    /// No more will be written.
    pub(crate) fn finish(&self) {
        self.end(End::Finished);
    }

    /// The writer has gone without having read all that was sent to it.
    pub(crate) fn reset(&self) {
        self.end(End::Reset);
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end == End::Reset || state.end == end {
            return;
        }
        state.end = end;
        let (readers, writers) = (state.readers.take(), state.writers.take());
        drop(state);
        readers.wake();
        writers.wake();
    }

    /// The reader wants no more bytes but keeps the connection.
    pub(crate) fn shut_read(&self) {
        self.stop_reading(Reading::Ignoring);
    }

    /// The reader has gone; true when it left bytes unread.
    pub(crate) fn close_read(&self) -> bool {
        self.stop_reading(Reading::Gone)
    }

    fn stop_reading(&self, how: Reading) -> bool {
        let mut state = self.state.lock();
        if state.reading != Reading::Gone {
            state.reading = how;
        }
        let unread = std::mem::take(&mut state.len);
        state.chunks = VecDeque::new();
        state.tail = BytesMut::new();
        self.reader.release(unread);
        let (readers, writers) = (state.readers.take(), state.writers.take());
        drop(state);
        readers.wake();
        writers.wake();
        unread > 0
    }

    /// Gives room back. Writers wait until half the queue is free, lest they be woken for every
    /// few bytes.
    fn after_read(&self, mut state: parking_lot::MutexGuard<'_, State>, read: usize) {
        self.reader.release(read);
        if state.writers.is_empty() || state.len * 2 > self.reader.stream_capacity() {
            return;
        }
        let writers = state.writers.take();
        drop(state);
        writers.wake();
    }
}

fn writable(state: &State) -> Result<(), NetError> {
    if state.end == End::Open && state.reading != Reading::Gone {
        Ok(())
    } else {
        Err(NetError::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;
    use crate::account::Limits;

    fn pipe(stream_buffer: usize) -> Arc<Pipe> {
        Pipe::new(PodAccount::new(Limits {
            stream_buffer,
            ..Limits::default()
        }))
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Read(usize),
        ReadInto(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1usize..5000).prop_map(Step::Write),
            (1usize..5000).prop_map(Step::Read),
            (1usize..5000).prop_map(Step::ReadInto),
        ]
    }

    /// What may happen to a queue beside reading and writing, and to its pod.
    #[derive(Clone, Debug)]
    enum Event {
        Move(Step),
        Finish,
        Reset,
        ShutRead,
        CloseRead,
        TellReset,
        /// Other queues of the pod take or give back so much of its budget.
        Elsewhere(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            12 => step().prop_map(Event::Move),
            1 => Just(Event::Finish),
            1 => Just(Event::Reset),
            1 => Just(Event::ShutRead),
            1 => Just(Event::CloseRead),
            1 => Just(Event::TellReset),
            2 => (0usize..20_000).prop_map(Event::Elsewhere),
        ]
    }

    /// What the queue must be like, in the plainest words.
    #[derive(Default)]
    struct Model {
        bytes: VecDeque<u8>,
        finished: bool,
        reset: bool,
        told: bool,
        ignoring: bool,
        gone: bool,
    }

    impl Model {
        fn writable(&self) -> bool {
            !self.finished && !self.reset && !self.gone
        }

        /// What a read of nothing says: `None` when it waits.
        fn end(&mut self) -> Option<Result<(), NetError>> {
            if self.ignoring || self.gone {
                return Some(Ok(()));
            }
            if self.reset && !std::mem::replace(&mut self.told, true) {
                return Some(Err(NetError::ConnectionReset));
            }
            (self.reset || self.finished).then_some(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn a_queue_keeps_its_order_its_bounds_and_its_account_whatever_happens(
            events in prop::collection::vec(event(), 1..80),
        ) {
            const BUDGET: usize = 12_000;
            const CAPACITY: usize = 8192;
            let pod = PodAccount::new(Limits {
                stream_buffer: CAPACITY,
                buffered_bytes: BUDGET,
                ..Limits::default()
            });
            let pipe = Pipe::new(pod.clone());
            let (mut model, mut elsewhere, mut next) = (Model::default(), 0, 0u8);
            for event in events {
                let room = if model.bytes.len() + elsewhere < BUDGET {
                    CAPACITY
                } else {
                    Limits::MIN_STREAM_BUFFER
                };
                let room = room.saturating_sub(model.bytes.len());
                match event {
                    Event::Move(Step::Write(n)) => {
                        let data: Vec<u8> = (0..n).map(|i| next.wrapping_add(i as u8)).collect();
                        let written = pipe.push(Bytes::copy_from_slice(&data));
                        if !model.writable() {
                            prop_assert_eq!(written, Err(NetError::BrokenPipe));
                        } else if model.ignoring {
                            prop_assert_eq!(written, Ok(n));
                        } else {
                            let taken = n.min(room);
                            prop_assert_eq!(written, Ok(taken));
                            model.bytes.extend(&data[..taken]);
                            next = next.wrapping_add(taken as u8);
                        }
                    }
                    Event::Move(Step::Read(n) | Step::ReadInto(n)) if model.bytes.is_empty() => {
                        let ready = pipe.poll_readable(&mut context()).is_ready();
                        let read = pipe.poll_read(&mut context(), n);
                        match model.end() {
                            None => prop_assert!(read.is_pending() && !ready),
                            Some(end) => {
                                prop_assert!(ready);
                                prop_assert_eq!(read, Poll::Ready(end.map(|()| Bytes::new())));
                            }
                        }
                    }
                    Event::Move(Step::Read(n)) => {
                        prop_assert!(pipe.poll_readable(&mut context()).is_ready());
                        let Poll::Ready(Ok(bytes)) = pipe.poll_read(&mut context(), n) else {
                            panic!("there are bytes")
                        };
                        prop_assert!(!bytes.is_empty() && bytes.len() <= n);
                        let expected: Vec<u8> = model.bytes.drain(..bytes.len()).collect();
                        prop_assert_eq!(&bytes[..], &expected[..]);
                    }
                    Event::Move(Step::ReadInto(n)) => {
                        let mut space = vec![0; n];
                        let mut buffer = ReadBuf::new(&mut space);
                        prop_assert!(pipe.poll_read_into(&mut context(), &mut buffer).is_ready());
                        let length = n.min(model.bytes.len());
                        let expected: Vec<u8> = model.bytes.drain(..length).collect();
                        prop_assert_eq!(buffer.filled(), &expected[..]);
                    }
                    Event::Finish => {
                        pipe.finish();
                        model.finished = true;
                    }
                    Event::Reset => {
                        pipe.reset();
                        model.reset = true;
                    }
                    Event::ShutRead => {
                        pipe.shut_read();
                        model.ignoring = true;
                        model.bytes.clear();
                    }
                    Event::CloseRead => {
                        prop_assert_eq!(pipe.close_read(), !model.bytes.is_empty());
                        model.gone = true;
                        model.bytes.clear();
                    }
                    Event::TellReset => {
                        let told = model.reset && !std::mem::replace(&mut model.told, true);
                        // Nothing to tell leaves it untold.
                        model.told &= model.reset;
                        prop_assert_eq!(pipe.tell_reset(), told);
                    }
                    Event::Elsewhere(bytes) => {
                        pod.release(elsewhere);
                        pod.charge(bytes);
                        elsewhere = bytes;
                    }
                }
                prop_assert_eq!(pod.buffered(), model.bytes.len() + elsewhere);
            }
            drop(pipe);
        }
    }

    proptest! {
        #[test]
        fn a_queue_is_a_bounded_sequence_of_bytes(steps in prop::collection::vec(step(), 1..80)) {
            const CAPACITY: usize = 8192;
            let pipe = pipe(CAPACITY);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for step in steps {
                match step {
                    Step::Write(n) => {
                        let data: Vec<u8> = (0..n).map(|i| next.wrapping_add(i as u8)).collect();
                        let room = CAPACITY - model.len();
                        prop_assert_eq!(pipe.poll_writable(&mut context()).is_ready(), room > 0);
                        let taken = pipe.push(Bytes::copy_from_slice(&data)).unwrap();
                        prop_assert_eq!(taken, n.min(room));
                        model.extend(&data[..taken]);
                        next = next.wrapping_add(taken as u8);
                    }
                    Step::Read(n) => match pipe.poll_read(&mut context(), n) {
                        Poll::Ready(bytes) => {
                            let bytes = bytes.unwrap();
                            prop_assert!(!bytes.is_empty() && bytes.len() <= n);
                            let expected: Vec<u8> = model.drain(..bytes.len()).collect();
                            prop_assert_eq!(&bytes[..], &expected[..]);
                        }
                        Poll::Pending => prop_assert!(model.is_empty()),
                    },
                    Step::ReadInto(n) => {
                        let mut space = vec![0; n];
                        let mut buffer = ReadBuf::new(&mut space);
                        match pipe.poll_read_into(&mut context(), &mut buffer) {
                            Poll::Ready(result) => {
                                result.unwrap();
                                prop_assert_eq!(buffer.filled().len(), n.min(model.len()));
                                let expected: Vec<u8> =
                                    model.drain(..buffer.filled().len()).collect();
                                prop_assert_eq!(buffer.filled(), &expected[..]);
                            }
                            Poll::Pending => prop_assert!(model.is_empty()),
                        }
                    }
                }
                prop_assert_eq!(pipe.reader.buffered(), model.len());
            }
            pipe.close_read();
            prop_assert_eq!(pipe.reader.buffered(), 0);
        }
    }

    #[test]
    fn a_pod_past_its_budget_keeps_a_little_room_per_connection() {
        let pod = PodAccount::new(Limits {
            buffered_bytes: 10_000,
            ..Limits::default()
        });
        let (first, second) = (Pipe::new(pod.clone()), Pipe::new(pod.clone()));
        assert_eq!(first.push(Bytes::from(vec![0; 20_000])), Ok(20_000));
        assert_eq!(
            second.push(Bytes::from(vec![0; 20_000])),
            Ok(Limits::MIN_STREAM_BUFFER)
        );
        assert!(second.poll_writable(&mut context()).is_pending());
        assert!(first.close_read());
        assert_eq!(second.push(Bytes::from(vec![0; 20_000])), Ok(20_000));
    }

    #[test]
    fn a_writer_may_use_the_room_it_was_told_of_though_the_budget_ran_out() {
        let pod = PodAccount::new(Limits {
            buffered_bytes: 10_000,
            ..Limits::default()
        });
        let pipe = Pipe::new(pod.clone());
        let Poll::Ready(Ok(room)) = pipe.poll_writable(&mut context()) else {
            panic!("an empty queue has room")
        };
        pod.charge(10_000);
        assert_eq!(pipe.push(Bytes::from(vec![0; room])), Ok(room));
        assert_eq!(pipe.push(Bytes::from_static(b"x")), Ok(0));
    }

    #[test]
    fn queued_bytes_are_read_before_a_reset_shows() {
        let pipe = pipe(100);
        pipe.push(Bytes::from_static(b"last words")).unwrap();
        pipe.reset();
        let Poll::Ready(Ok(bytes)) = pipe.poll_read(&mut context(), 100) else {
            panic!("bytes")
        };
        assert_eq!(&bytes[..], b"last words");
        assert_eq!(
            pipe.poll_read(&mut context(), 100),
            Poll::Ready(Err(NetError::ConnectionReset))
        );
        assert_eq!(
            pipe.push(Bytes::from_static(b"x")),
            Err(NetError::BrokenPipe)
        );
    }

    #[test]
    fn a_reset_is_told_once_and_is_the_end_from_then_on() {
        let read = pipe(100);
        read.reset();
        assert!(read.poll_readable(&mut context()).is_ready());
        assert!(
            read.poll_read(&mut context(), 1)
                .map(|r| r.is_err())
                .is_ready()
        );
        assert_eq!(
            read.poll_read(&mut context(), 1),
            Poll::Ready(Ok(Bytes::new()))
        );
        assert!(!read.tell_reset());
        let asked = pipe(100);
        assert!(!asked.tell_reset());
        asked.reset();
        assert!(asked.tell_reset());
        assert!(asked.poll_readable(&mut context()).is_ready());
        assert_eq!(
            asked.poll_read(&mut context(), 1),
            Poll::Ready(Ok(Bytes::new()))
        );
    }
}
