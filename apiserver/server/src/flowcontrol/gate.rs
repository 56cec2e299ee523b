//! What a request holds while it runs: seats of its level, and a turn. Both are given back when they are dropped.
//!
//! ```text
//! enter ─▶ waits ─▶ seats, turn ─▶ aside (the client is slow): seats ─▶ seats, turn ─▶ a large answer: seats ─▶ sent
//!            │ a quarter of its time
//!            └──▶ 429
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures::future::poll_fn;
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::FlowControl;
use super::estimate::{Stats, estimate};
use super::seats::{Arrival, Grant, Kind, Reason};
use super::table::Route;
use crate::answer::Answer;
use crate::authn::Identity;
use crate::pause::{look_around, others_first};
use crate::request_info::RequestInfo;

/// The longest that a request waits for seats.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long a refusal is held back. Who comes again at once, against what the refusal says, would keep the server busy
/// with refusing.
const REFUSE_AFTER: Duration = Duration::from_millis(50);

/// A request's place among those at work, shared by all who work on it.
pub(crate) type Place = Arc<Pass>;

/// What a request holds.
pub(crate) enum Pass {
    /// Not limited by priority and fairness; the permit bounds how many there are.
    Exempt(Option<OwnedSemaphorePermit>),
    /// Seats of a level, and a turn while it is at work.
    Limited {
        seat: Seat,
        turn: Mutex<Option<Turn>>,
    },
}

impl Pass {
    /// Gives the turn back, and keeps the seats.
    pub(crate) fn done(&self) {
        if let Self::Limited { turn, .. } = self {
            drop(turn.lock().take());
        }
    }

    /// Does what depends on somebody outside, who may take long: without a turn, unless it is ready at once.
    pub(crate) async fn aside<F: Future>(&self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        if let Poll::Ready(output) =
            poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await
        {
            return output;
        }
        self.done();
        let output = work.await;
        if let Self::Limited { seat, turn } = self {
            let again = seat.flow.turn_again(&seat.grant, &seat.route).await;
            *turn.lock() = again;
        }
        output
    }
}

/// Seats of a level.
pub(crate) struct Seat {
    flow: Arc<FlowControl>,
    grant: Grant,
    route: Arc<Route>,
    /// In seconds.
    since: f64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.route.counts.running.fetch_sub(1, Ordering::Relaxed);
        let (flow, grant, now) = (Arc::clone(&self.flow), self.grant, self.flow.now());
        let work = f64::from(grant.width) * (now - self.since) + grant.after_work;
        let leave = move || {
            let now = flow.now();
            flow.seats.lock().leave(&grant, work, now);
            flow.dispatch();
        };
        // Without a runtime everything is over.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if grant.after > 0.0 => {
                let clock = self.flow.clock.clone();
                runtime.spawn(async move {
                    clock.sleep(Duration::from_secs_f64(grant.after)).await;
                    leave();
                });
            }
            _ => leave(),
        }
    }
}

/// A turn.
pub(crate) struct Turn {
    flow: Arc<FlowControl>,
    grant: Grant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.flow.now();
        let mut seats = self.flow.seats.lock();
        seats.rest(self.grant.flow, self.grant.kind, now);
        drop(seats);
        self.flow.dispatch();
    }
}

/// What somebody who waits is sent.
pub(super) struct Granted {
    /// `None` for one who had seats.
    seat: Option<Seat>,
    turn: Turn,
}

/// Somebody who waits.
pub(super) struct Waiting {
    wake: oneshot::Sender<Granted>,
    pub(super) route: Arc<Route>,
    /// What tells its flow from others of its schema.
    pub(super) flow: String,
}

/// A place in a queue; dropping it leaves the queue.
struct InQueue<'a> {
    flow: &'a Arc<FlowControl>,
    route: &'a Route,
    place: usize,
    queue: u32,
    id: u64,
    /// Why it is refused if it leaves; `None` for one who has seats.
    reason: Option<Reason>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.route.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        let now = self.flow.now();
        let mut seats = self.flow.seats.lock();
        let waited = seats.give_up(self.place, self.queue, self.id, now);
        drop(seats);
        if !waited {
            return;
        }
        if let Some(reason) = self.reason {
            self.route.counts.refuse(reason);
        }
        // Behind one who wanted many seats, others may have waited for whom there are enough.
        self.flow.dispatch();
    }
}

impl FlowControl {
    /// Gives a request of `route` its place, for which it waits at most a quarter of `limit`; or the answer that it can't
    /// have one. A caller that goes away waits no more.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        route: &Arc<Route>,
        identity: &Identity,
        info: &RequestInfo,
        limit: Option<Duration>,
        stats: impl FnOnce() -> Option<Stats>,
    ) -> Result<Pass, Answer> {
        let flow = route.schema.flow(identity, info);
        let Some(level) = route.level else {
            let (mut seats, now) = (self.seats.lock(), self.now());
            seats.pass(flow, now);
            self.tell_store(seats.is_crowded(now));
            return Ok(Pass::Exempt(None));
        };
        let asked = estimate(info, flow, stats);
        let limit = limit.map_or(LONGEST_WAIT, |limit| (limit / 4).min(LONGEST_WAIT));
        let lists = info.verb == "list";
        let long = lists || asked.kind == Kind::Write;
        let now = self.now();
        let mut receiver = None;
        let arrival = {
            let mut seats = self.seats.lock();
            let arrival = seats.arrive(level, asked, now, || {
                let (wake, waits) = oneshot::channel();
                receiver = Some(waits);
                Waiting {
                    wake,
                    route: Arc::clone(route),
                    flow: route.schema.distinguished(identity, info).to_owned(),
                }
            });
            self.tell_store(seats.is_crowded(now));
            arrival
        };
        let granted = match (arrival, receiver) {
            (Arrival::Runs { grant, hurry }, _) => {
                let granted = self.granted(grant, Arc::clone(route), false);
                // Many lists that come at once must not be begun one after the other.
                if hurry || lists {
                    pause(long).await;
                }
                Ok(granted)
            }
            (Arrival::Waits { queue, id }, Some(receiver)) => {
                route.counts.waiting.fetch_add(1, Ordering::Relaxed);
                let place = (level, queue, id);
                self.wait(route, place, receiver, Some(limit), long).await
            }
            (Arrival::Refused(reason), _) => {
                route.counts.refuse(reason);
                Err(reason)
            }
            _ => Err(Reason::Cancelled),
        };
        if let Ok(Granted {
            seat: Some(seat),
            turn,
        }) = granted
        {
            let turn = Mutex::new(Some(turn));
            return Ok(Pass::Limited { seat, turn });
        }
        let after = self.seats.lock().refuse(level, self.now());
        self.clock.sleep(REFUSE_AFTER).await;
        Err(too_many_requests(after))
    }

    /// Waits in a queue, until it is the turn of whoever waits there; without a limit if they have seats. `long` is work
    /// that takes longer than most.
    async fn wait(
        self: &Arc<Self>,
        route: &Route,
        (place, queue, id): (usize, u32, u64),
        mut receiver: oneshot::Receiver<Granted>,
        limit: Option<Duration>,
        long: bool,
    ) -> Result<Granted, Reason> {
        let mut in_queue = InQueue {
            flow: self,
            route,
            place,
            queue,
            id,
            reason: limit.is_some().then_some(Reason::Cancelled),
        };
        self.dispatch();
        if let Ok(granted) = receiver.try_recv() {
            return Ok(granted);
        }
        let granted = match limit {
            Some(limit) => match tokio::time::timeout(limit, receiver).await {
                Ok(granted) => granted,
                Err(_) => {
                    in_queue.reason = Some(Reason::TimeOut);
                    return Err(Reason::TimeOut);
                }
            },
            None => receiver.await,
        };
        let granted = granted.map_err(|_| Reason::Cancelled)?;
        // It has its turn, and others are looked after first: those who have just come, and whoever waits for nothing.
        pause(long).await;
        Ok(granted)
    }

    /// A turn for a request that has seats.
    async fn turn_again(self: &Arc<Self>, grant: &Grant, route: &Arc<Route>) -> Option<Turn> {
        let mut receiver = None;
        let waits = self.seats.lock().resume(grant, self.now(), || {
            let (wake, waits) = oneshot::channel();
            receiver = Some(waits);
            Waiting {
                wake,
                route: Arc::clone(route),
                flow: String::new(),
            }
        });
        let (Some(id), Some(receiver)) = (waits, receiver) else {
            return Some(Turn {
                flow: Arc::clone(self),
                grant: *grant,
            });
        };
        route.counts.waiting.fetch_add(1, Ordering::Relaxed);
        let place = (grant.place, grant.queue, id);
        let granted = self.wait(route, place, receiver, None, true).await;
        granted.ok().map(|granted| granted.turn)
    }

    fn granted(self: &Arc<Self>, grant: Grant, route: Arc<Route>, seated: bool) -> Granted {
        let seat = (!seated).then(|| {
            route.counts.dispatched.fetch_add(1, Ordering::Relaxed);
            route.counts.running.fetch_add(1, Ordering::Relaxed);
            Seat {
                flow: Arc::clone(self),
                grant,
                route,
                since: self.now(),
            }
        });
        Granted {
            seat,
            turn: Turn {
                flow: Arc::clone(self),
                grant,
            },
        }
    }

    /// Tells the store whether it may hold up the threads of those who write.
    fn tell_store(&self, crowded: bool) {
        if self.crowded.load(Ordering::Relaxed) != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
            self.store.crowded(crowded);
        }
    }

    /// Lets those run who can. The lock is not held while they are told: one who has gone gives everything back.
    pub(super) fn dispatch(self: &Arc<Self>) {
        loop {
            let next = {
                let (mut seats, now) = (self.seats.lock(), self.now());
                let next = seats.dispatch(now);
                self.tell_store(seats.is_crowded(now));
                next
            };
            let Some(next) = next else {
                return;
            };
            let granted = self.granted(next.grant, next.payload.route, next.seated);
            drop(next.payload.wake.send(granted));
        }
    }
}

/// Lets others have their turn before work that is long, or as short as theirs.
async fn pause(long: bool) {
    match long {
        true => others_first().await,
        false => look_around().await,
    }
}

/// 429, as upstream's filter writes it; the client should stay away for so many seconds.
fn too_many_requests(after: u64) -> Answer {
    let text = "Too many requests, please try again later.\n";
    let mut answer = Answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    answer.headers = vec![
        (RETRY_AFTER, HeaderValue::from(after)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    answer
}

#[cfg(test)]
mod tests {
    use coracle_api::Registry;
    use coracle_clock::Clock;
    use coracle_store::MemoryStore;

    use super::*;
    use crate::cache::Caches;

    async fn flow() -> Arc<FlowControl> {
        let (clock, registry) = (Clock::fake(1), Registry::builtin());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let caches = Caches::start(store.clone(), &registry).await;
        let caches = caches.expect("an empty store is read");
        FlowControl::follow(&caches, &registry, 600, 1, store, clock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_pauses_between_its_steps_only_while_others_are_about() {
        let flow = flow().await;
        assert!(futures::poll!(std::pin::pin!(flow.breathe())).is_ready());
        for user in ["jane", "joe"] {
            let mut seats = flow.seats.lock();
            seats.pass(user.len() as u64, flow.now());
            flow.tell_store(seats.is_crowded(flow.now()));
        }
        let mut pause = std::pin::pin!(flow.breathe());
        assert!(futures::poll!(&mut pause).is_pending());
        pause.await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_seats_and_waits_for_no_turn_any_longer_is_not_refused() {
        let flow = flow().await;
        let jane = Identity::component("jane");
        let uri = "/api/v1/namespaces/a/pods/x".parse().expect("a uri");
        let info = RequestInfo::parse(&http::Method::GET, &uri);
        let route = flow
            .route(&jane, &info)
            .expect("there is one for everybody");
        let enter = async || {
            let entered = flow.enter(&route, &jane, &info, None, || None).await;
            entered.unwrap_or_else(|_| panic!("there are seats"))
        };
        let first = enter().await;
        first.done();
        let _second = enter().await;
        // Once it has done what is aside, the first waits for the turn that the second has.
        let mut aside = Box::pin(first.aside(tokio::task::yield_now()));
        for _ in 0..2 {
            assert!(futures::poll!(&mut aside).is_pending());
        }
        let counts = &route.counts;
        assert_eq!(counts.waiting.load(Ordering::Relaxed), 1);
        drop(aside);
        assert_eq!(counts.waiting.load(Ordering::Relaxed), 0);
        for refused in &counts.refused {
            assert_eq!(refused.load(Ordering::Relaxed), 0);
        }
    }
}
