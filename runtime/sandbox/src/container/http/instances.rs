//! Instances of `wasi:http` 0.3 that answer several requests, one after another and at once.
//!
//! ```text
//! request ─▶ an instance with room? ─ yes ─▶ seat ─┬─ answered ─▶ idle ─ too long ─▶ finishing ─▶ gone
//!                     └ no ─▶ a new one ─▶ seat ───┤                └ had its number ─┘
//!                                                  └─ given up ─▶ no new request ─ last one gone ─▶ gone
//! ```
//!
//! An instance has a task of its own; a request that is given up cannot be taken out of it, so that
//! nothing new is put beside it and the instance is dropped with the last of the others.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Request;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::answer::Label;
use super::request::RequestBody;
use super::settings::Reuse;
use super::turns::Turn;
use super::{AFTERWARDS, Handler, ResponseSender};
use crate::container::service::{self, Health};
use crate::link::{ComponentState, new_component_store};

/// The instances of a container.
#[derive(Default)]
pub(super) struct Instances(Mutex<Vec<Arc<Instance>>>);

/// A request on its way to an instance.
pub(super) struct Job {
    pub(super) request: Request<RequestBody>,
    pub(super) sender: ResponseSender,
    pub(super) label: Label,
    pub(super) turn: Turn,
}

/// What an instance is asked to do.
struct Call {
    request: Request<RequestBody>,
    sender: ResponseSender,
}

struct Instance {
    reuse: Reuse,
    seats: Mutex<Seats>,
    /// Bounded by the seats.
    calls: UnboundedSender<Call>,
    /// Something about the seats is new.
    changed: Notify,
    /// It computes at this moment; what comes now would wait for that.
    is_busy: AtomicBool,
}

/// A request that an instance answers. Dropped, it is given up.
pub(super) struct Seat {
    instance: Arc<Instance>,
    number: u64,
    is_answered: bool,
    turn: Option<Turn>,
}

/// Who uses an instance.
#[derive(Default)]
struct Seats {
    /// Requests so far.
    taken: u64,
    /// Those in flight.
    sitting: BTreeMap<u64, Label>,
    /// One was given up.
    is_spoilt: bool,
    /// Nothing is taken any more.
    is_closed: bool,
    /// The turn of the last request, until what the instance does after it has ended.
    turn: Option<Turn>,
}

/// What an instance may be used for.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Idle,
    /// It has had as many requests as it may.
    Finished,
    /// The last one that counted is gone; what still runs is nobody's.
    Spoilt,
}

impl Seats {
    fn may_sit(&self, reuse: &Reuse, is_busy: bool) -> bool {
        let sitting = self.sitting.len() as u64;
        !self.is_closed
            && !self.is_spoilt
            && self.taken < reuse.requests
            && (sitting == 0 || sitting < reuse.at_once && !is_busy)
    }

    fn sit(&mut self, label: Label) -> u64 {
        self.taken += 1;
        self.sitting.insert(self.taken, label);
        self.taken
    }

    fn stage(&self, reuse: &Reuse) -> Stage {
        if !self.sitting.is_empty() {
            Stage::Serving
        } else if self.is_spoilt {
            Stage::Spoilt
        } else if self.taken >= reuse.requests {
            Stage::Finished
        } else {
            Stage::Idle
        }
    }
}

impl Instances {
    /// Gives the request to an instance that has room: the one with the fewest requests.
    pub(super) fn join(&self, job: Box<Job>) -> Result<Seat, Box<Job>> {
        let instances = self.0.lock();
        let mut best: Option<(usize, &Arc<Instance>)> = None;
        for instance in &*instances {
            let is_busy = instance.is_busy.load(Ordering::Relaxed);
            let seats = instance.seats.lock();
            let sitting = seats.sitting.len();
            if seats.may_sit(&instance.reuse, is_busy)
                && best.is_none_or(|(fewest, _)| sitting < fewest)
            {
                best = Some((sitting, instance));
            }
        }
        match best {
            Some((_, instance)) => instance.sit(job),
            None => Err(job),
        }
    }

    /// Makes an instance for the request, in the place that the node gave it.
    pub(super) fn start(
        &self,
        handler: &Arc<Handler>,
        pre: &ServicePre<ComponentState>,
        place: OwnedSemaphorePermit,
        job: Box<Job>,
    ) -> Result<Seat, Box<Job>> {
        let (calls, waiting) = unbounded_channel();
        let instance = Arc::new(Instance {
            reuse: handler.settings.reuse,
            seats: Mutex::default(),
            calls,
            changed: Notify::new(),
            is_busy: AtomicBool::new(true),
        });
        let seat = instance.sit(job)?;
        self.0.lock().push(instance.clone());
        let (this, pre) = (handler.clone(), pre.clone());
        handler.spawner.spawn(handler.guest.meter(async move {
            run(&this, &instance, &pre, waiting).await;
            drop(place);
        }));
        Ok(seat)
    }

    fn remove(&self, instance: &Arc<Instance>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, instance));
    }
}

impl Instance {
    fn sit(self: &Arc<Self>, job: Box<Job>) -> Result<Seat, Box<Job>> {
        let Job {
            request,
            sender,
            label,
            turn,
        } = *job;
        if let Err(failed) = self.calls.send(Call { request, sender }) {
            let Call { request, sender } = failed.0;
            return Err(Box::new(Job {
                request,
                sender,
                label,
                turn,
            }));
        }
        let number = self.seats.lock().sit(label);
        Ok(Seat {
            instance: self.clone(),
            number,
            is_answered: false,
            turn: Some(turn),
        })
    }

    /// Waits until the instance has to end; true if what it still does may come to its end.
    async fn keep(&self, drain: &CancellationToken) -> bool {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let stage = self.seats.lock().stage(&self.reuse);
            match stage {
                Stage::Serving => changed.await,
                Stage::Spoilt => return false,
                Stage::Finished => return true,
                Stage::Idle => {
                    tokio::select! {
                        () = changed => continue,
                        () = tokio::time::sleep(self.reuse.idle) => {}
                        () = drain.cancelled() => {}
                    }
                    let mut seats = self.seats.lock();
                    if seats.sitting.is_empty() {
                        seats.is_closed = true;
                        return true;
                    }
                }
            }
        }
    }

    /// Takes nothing any more; the requests that it has.
    fn close(&self) -> Vec<Label> {
        let mut seats = self.seats.lock();
        seats.is_closed = true;
        let turn = seats.turn.take();
        let sitting = seats.sitting.values().cloned().collect();
        drop(seats);
        drop(turn);
        sitting
    }
}

impl Seat {
    /// The answer was taken to its end.
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.instance.seats.lock();
        seats.sitting.remove(&self.number);
        seats.is_spoilt |= !self.is_answered;
        if !seats.is_closed && seats.stage(&self.instance.reuse) == Stage::Finished {
            seats.turn = self.turn.take();
        }
        drop(seats);
        self.instance.changed.notify_one();
    }
}

/// Runs an instance to its end.
async fn run(
    handler: &Arc<Handler>,
    instance: &Arc<Instance>,
    pre: &ServicePre<ComponentState>,
    waiting: UnboundedReceiver<Call>,
) {
    let health = Health::default();
    let outcome = serve(handler, instance, pre, waiting, &health).await;
    let sitting = instance.close();
    handler.instances.remove(instance);
    if let Err(error) = outcome {
        let labels: Vec<_> = sitting.iter().map(Label::to_string).collect();
        let label = match labels.len() {
            0 => "after its answers".to_owned(),
            1 => labels.concat(),
            n => format!("{} ({n} requests of one instance)", labels.join(", ")),
        };
        handler.failed(&label, &error);
    }
}

async fn serve(
    handler: &Arc<Handler>,
    instance: &Arc<Instance>,
    pre: &ServicePre<ComponentState>,
    mut waiting: UnboundedReceiver<Call>,
    health: &Health,
) -> wasmtime::Result<()> {
    let guest = &handler.guest;
    let mut store = new_component_store(guest)?;
    let service = pre.instantiate_async(&mut store).await?;
    let finishing = CancellationToken::new();
    let outcome = {
        let serving = store.run_concurrent(async |accessor| {
            let mut calls = FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    Some(done) = calls.next() => done?,
                    Some(Call { request, sender }) = waiting.recv() => {
                        calls.push(service::call(accessor, &service, request, sender, health));
                    }
                    () = finishing.cancelled() => break,
                }
            }
            service::rest(accessor).await;
            Ok(())
        });
        let mut serving = pin!(serving);
        let serving = std::future::poll_fn(|context| {
            instance.is_busy.store(true, Ordering::Relaxed);
            let polled = serving.as_mut().poll(context);
            instance.is_busy.store(false, Ordering::Relaxed);
            polled
        });
        let end = async {
            if instance.keep(&handler.drain).await {
                finishing.cancel();
                tokio::time::sleep(AFTERWARDS).await;
            }
        };
        tokio::select! {
            outcome = serving => outcome.flatten(),
            () = end => Ok(()),
        }
    };
    if outcome.is_err() {
        // Before the store goes, and the bodies that it makes end with it.
        health.fail();
    }
    handler.turns.learn(store.data().memory.charged());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Uri};

    const REUSE: Reuse = Reuse {
        requests: 3,
        at_once: 2,
        idle: std::time::Duration::ZERO,
    };

    fn label() -> Label {
        Label::new(Method::GET, Uri::from_static("/"))
    }

    #[test]
    fn an_instance_takes_so_many_at_once_and_so_many_in_all() {
        let mut seats = Seats::default();
        assert!(seats.may_sit(&REUSE, true), "an empty one is never busy");
        let first = seats.sit(label());
        assert!(seats.may_sit(&REUSE, false));
        assert!(!seats.may_sit(&REUSE, true));
        let second = seats.sit(label());
        assert!(!seats.may_sit(&REUSE, false), "two at once");
        seats.sitting.remove(&first);
        assert!(seats.may_sit(&REUSE, false));
        let third = seats.sit(label());
        seats.sitting.remove(&second);
        assert!(!seats.may_sit(&REUSE, false), "three in all");
        assert_eq!(seats.stage(&REUSE), Stage::Serving);
        seats.sitting.remove(&third);
        assert_eq!(seats.stage(&REUSE), Stage::Finished);
    }

    #[test]
    fn one_that_was_left_ends_with_the_last_of_the_others() {
        let mut seats = Seats::default();
        assert_eq!(seats.stage(&REUSE), Stage::Idle);
        let (gone, other) = (seats.sit(label()), seats.sit(label()));
        seats.sitting.remove(&gone);
        seats.is_spoilt = true;
        assert!(!seats.may_sit(&REUSE, false));
        assert_eq!(seats.stage(&REUSE), Stage::Serving);
        seats.sitting.remove(&other);
        assert_eq!(seats.stage(&REUSE), Stage::Spoilt);
        assert!(!seats.may_sit(&REUSE, false));
    }
}
