//! Which requests run at once: the seats of each priority level, and the turns of the whole server.
//!
//! **Seats** are upstream's. A level has its share of the server's, lends what it does not want and borrows what others
//! lend ([`super::borrow`]).
//!
//! **Turns** are ours. Six hundred requests at once are far more than a few processors can work at, and whoever has a
//! seat would wait for all the others in the queue of the scheduler. So beyond its first request a flow gets a turn only
//! while few have one; a flow that asks for one thing at a time never waits for those who ask for hundreds. Which
//! request is next when a turn is free is decided as for seats: among levels by their shares, in a level among its queues.

use std::collections::HashMap;

use super::borrow::{Claim, Demand, PERIOD, Wanted, share_out};
use super::queues::{GUESS, Queues, Queuing, Verdict, Waiter};
use super::refusals::Refusals;

/// Most seats of a request.
const MAX_WIDTH: u32 = 10;
/// How long delivering an event is taken to occupy a seat, in seconds, as upstream has it.
const EVENT_TIME: f64 = 0.005;
/// A flow whose last request ended so recently, in seconds, is in a hurry: a client that waits for its answer needs longer.
const HURRY: f64 = 15e-6;
/// How long after requests of two flows the server is taken to work for more than one, in seconds.
const MIXED: f64 = 0.1;
/// Most flows that are remembered after their requests.
const MAX_FLOWS: usize = 4096;

/// What a request needs while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A processor.
    #[default]
    Read,
    /// A processor, and then the disk.
    Write,
}

/// How many requests have turns beyond the first of each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) reads: u32,
    pub(super) writes: u32,
}

impl Turns {
    /// For a machine with so many processors.
    pub(super) fn of(processors: usize) -> Self {
        let processors = u32::try_from(processors.max(1)).unwrap_or(u32::MAX);
        Self {
            reads: processors,
            writes: processors,
        }
    }
}

/// A request, as far as seats are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Which flow it belongs to.
    pub(super) flow: u64,
    /// How many seats it is worth.
    pub(super) width: u32,
    /// How many seats its events will be worth for [`EVENT_TIME`] each; 0 if few watch.
    pub(super) events: u32,
    pub(super) kind: Kind,
}

/// What a level's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LevelConfig {
    pub(super) shares: u32,
    /// Percents of its nominal seats that others may use.
    pub(super) lendable: u32,
    /// Percents of its nominal seats that it may use of others; absent: any.
    pub(super) borrowing: Option<u32>,
    /// How requests wait; absent: they are refused.
    pub(super) queuing: Option<Queuing>,
}

/// Seats that a request has; they are given back as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Grant {
    pub(super) place: usize,
    pub(super) queue: u32,
    pub(super) flow: u64,
    pub(super) kind: Kind,
    pub(super) width: u32,
    /// How long it keeps seats after it has ended, in seconds, and what that is worth in seat-seconds.
    pub(super) after: f64,
    pub(super) after_work: f64,
}

/// What a request got.
#[derive(Debug, PartialEq)]
pub(super) enum Arrival {
    /// Seats and a turn. With `hurry`, its flow has another turn or just had one: others go first, if there are any.
    Runs { grant: Grant, hurry: bool },
    /// A place in a queue, as whom.
    Waits { queue: u32, id: u64 },
    /// Nothing.
    Refused(Reason),
}

/// A request that waited, and runs now.
#[derive(Debug)]
pub(super) struct Dispatched<T> {
    pub(super) grant: Grant,
    /// Whether it had its seats, and got a turn only.
    pub(super) seated: bool,
    pub(super) payload: T,
}

/// Why a request does not run, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

impl Reason {
    pub(super) const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::ConcurrencyLimit,
        Self::TimeOut,
        Self::Cancelled,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The seats of all levels.
#[derive(Debug)]
pub(super) struct Seats<T> {
    total: u32,
    turns: Turns,
    levels: Vec<Level<T>>,
    flows: HashMap<u64, Flow>,
    reading: u32,
    writing: u32,
    next_id: u64,
    waiting: usize,
    /// The flow of the last request, and when it was another one for the last time.
    last_flow: Option<u64>,
    mixed_at: f64,
    /// The virtual time of levels, as queues have one.
    now: f64,
    /// When limits move next.
    settle_at: f64,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    turns: u32,
    waiting: u32,
    /// Requests that have seats.
    running: u32,
    /// When its last turn ended.
    ended: f64,
    /// The virtual time at which its next request begins.
    next: f64,
}

impl Flow {
    fn is_idle(&self) -> bool {
        self.turns == 0 && self.waiting == 0 && self.running == 0
    }
}

/// One level. Its place stays its own while its requests are about.
#[derive(Debug)]
pub(super) struct Level<T> {
    pub(super) name: String,
    config: Option<LevelConfig>,
    pub(super) nominal: u32,
    /// What it keeps, and what it may have at most.
    pub(super) bounds: (u32, u32),
    /// What it has now.
    pub(super) limit: u32,
    pub(super) used: u32,
    pub(super) running: u32,
    /// Seats of those who wait.
    wanted: u64,
    demand: Demand,
    next: f64,
    /// The virtual time of its flows, and the latest of any of them.
    flows_now: f64,
    flows_latest: f64,
    pub(super) queues: Queues<T>,
    pub(super) waits: Waits,
    refusals: Refusals,
}

/// How long requests waited that got seats, in upstream's buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    pub(super) buckets: [u64; WAIT_BOUNDS.len()],
    pub(super) count: u64,
    pub(super) seconds: f64,
}

/// Upper bounds, in seconds.
pub(super) const WAIT_BOUNDS: [f64; 13] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];

impl Waits {
    fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.seconds += seconds;
        let bucket = WAIT_BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get_mut(bucket)) {
            *bucket += 1;
        }
    }
}

impl<T> Seats<T> {
    /// `now` is in seconds, here and everywhere else.
    pub(super) fn new(total: u32, turns: Turns, now: f64) -> Self {
        Self {
            total,
            turns,
            levels: Vec::new(),
            flows: HashMap::new(),
            reading: 0,
            writing: 0,
            next_id: 0,
            waiting: 0,
            last_flow: None,
            mixed_at: now - MIXED,
            now: 0.0,
            settle_at: now + PERIOD,
        }
    }

    /// Takes over the levels; the answers are their places, in order. Others drain. `exempt` are the shares of levels
    /// that have no limit.
    pub(super) fn configure(
        &mut self,
        configs: &[(String, LevelConfig)],
        exempt: u32,
        now: f64,
    ) -> Vec<usize> {
        for level in &mut self.levels {
            if !configs.iter().any(|(name, _)| *name == level.name) {
                level.config = None;
            }
        }
        let shares = configs.iter().map(|(_, config)| u64::from(config.shares));
        let sum = (shares.sum::<u64>() + u64::from(exempt)).max(1);
        let mut places = Vec::new();
        for (name, config) in configs {
            let place = self.place(name, now);
            let total = self.total;
            let level = &mut self.levels[place];
            let is_new = level.config.is_none() && level.running == 0;
            // As upstream: rounded up, so that a small share is at least one seat.
            let nominal = u64::from(total) * u64::from(config.shares);
            level.nominal = nominal.div_ceil(sum) as u32;
            let percent = |percents: u32| {
                (f64::from(level.nominal) * f64::from(percents) / 100.0).round() as u32
            };
            let low = level.nominal - percent(config.lendable.min(100)).min(level.nominal);
            let borrowed = config.borrowing.map_or(total, percent).min(total);
            level.bounds = (low, level.nominal.saturating_add(borrowed));
            level.limit = match is_new {
                true => level.nominal,
                false => level.limit.clamp(level.bounds.0, level.bounds.1),
            };
            level.config = Some(config.clone());
            places.push(place);
        }
        places
    }

    fn place(&mut self, name: &str, now: f64) -> usize {
        let own = self.levels.iter().position(|level| level.name == name);
        let unused = |level: &Level<T>| {
            level.config.is_none() && level.running == 0 && level.queues.waiting() == 0
        };
        let place = own.or_else(|| self.levels.iter().position(unused));
        if let Some(place) = place {
            if own.is_none() {
                self.levels[place] = Level::new(name, now);
            }
            return place;
        }
        self.levels.push(Level::new(name, now));
        self.levels.len() - 1
    }

    /// All levels that are configured.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Level<T>> {
        self.levels.iter().filter(|level| level.config.is_some())
    }

    /// Whether somebody waits, or somebody else may come at any moment: more than one flow has had requests lately.
    pub(super) fn is_crowded(&self, now: f64) -> bool {
        self.waiting > 0 || now - self.mixed_at < MIXED
    }

    /// A request of a flow comes; that of one that is exempt needs nothing else.
    pub(super) fn pass(&mut self, flow: u64, now: f64) {
        let last = self.last_flow.replace(flow);
        if last.is_some_and(|last| last != flow) {
            self.mixed_at = now;
        }
    }

    /// A request comes. `payload` is kept while it waits. After [`Arrival::Waits`], [`dispatch`](Self::dispatch) is due.
    pub(super) fn arrive(
        &mut self,
        place: usize,
        asked: Asked,
        now: f64,
        payload: impl FnOnce() -> T,
    ) -> Arrival {
        self.settle(now);
        self.pass(asked.flow, now);
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&asked.flow) {
            self.flows.retain(|_, flow| !flow.is_idle());
        }
        let Some(level) = self.levels.get(place) else {
            return Arrival::Refused(Reason::ConcurrencyLimit);
        };
        let flow = self.flows.entry(asked.flow).or_default();
        if flow.is_idle() {
            // What it did not use while it was idle is not saved up.
            flow.next = flow.next.max(level.flows_now);
        }
        let flow = *flow;
        let has_turn = self.has_turn(asked.kind, &flow) && flow.waiting == 0;
        let level = &mut self.levels[place];
        let mut grant = level.grant(place, asked);
        let width = grant.width;
        let queuing = level.config.as_ref().and_then(|config| config.queuing);
        if let Some(queuing) = queuing {
            grant.queue = level.queues.choose(queuing, asked.flow);
        } else if level.running > 0
            && u64::from(level.used) + level.wanted + u64::from(width) > u64::from(level.limit)
        {
            return Arrival::Refused(Reason::ConcurrencyLimit);
        }
        if has_turn && level.queues.waiting() == 0 && level.fits(width) {
            level.queues.begin(grant.queue, width);
            level.waits.add(0.0);
            self.begin(&grant, now);
            self.take_turn(asked.flow, asked.kind);
            let hurry = flow.turns > 0 || now - flow.ended < HURRY;
            return Arrival::Runs { grant, hurry };
        }
        let length = queuing.map_or(u32::MAX, |queuing| queuing.length);
        let id = self.next_id;
        let waiter = Waiter {
            id,
            grant,
            seated: false,
            since: now,
            payload: payload(),
        };
        if level.queues.push(grant.queue, length, waiter).is_err() {
            return Arrival::Refused(Reason::QueueFull);
        }
        level.wanted += u64::from(width);
        level.note(now);
        self.next_id += 1;
        self.waits(asked.flow, 1);
        let queue = grant.queue;
        Arrival::Waits { queue, id }
    }

    /// Gives a turn back, while the seats are kept: the request waits for its client, or is done.
    pub(super) fn rest(&mut self, flow: u64, kind: Kind, now: f64) {
        let turns = self.turns_of(kind);
        *turns = turns.saturating_sub(1);
        if let Some(flow) = self.flows.get_mut(&flow) {
            flow.turns = flow.turns.saturating_sub(1);
            flow.ended = now;
        }
    }

    /// A request that has seats wants a turn again; `None`: it has it. Otherwise it waits, as whom, and
    /// [`dispatch`](Self::dispatch) is due.
    pub(super) fn resume(
        &mut self,
        grant: &Grant,
        now: f64,
        payload: impl FnOnce() -> T,
    ) -> Option<u64> {
        let flow = *self.flows.entry(grant.flow).or_default();
        if self.has_turn(grant.kind, &flow) && flow.waiting == 0 {
            self.take_turn(grant.flow, grant.kind);
            return None;
        }
        let id = self.next_id;
        let waiter = Waiter {
            id,
            grant: *grant,
            seated: true,
            since: now,
            payload: payload(),
        };
        let level = self.levels.get_mut(grant.place)?;
        level.queues.push_front(grant.queue, waiter);
        self.next_id += 1;
        self.waits(grant.flow, 1);
        Some(id)
    }

    /// The seats of a request are free again; it took so many seat-seconds.
    pub(super) fn leave(&mut self, grant: &Grant, work: f64, now: f64) {
        if let Some(level) = self.levels.get_mut(grant.place) {
            level.used = level.used.saturating_sub(grant.width);
            level.running = level.running.saturating_sub(1);
            level.queues.end(grant.queue, grant.width, work);
            let rest = work - f64::from(grant.width) * GUESS;
            level.next += rest / level.weight();
            if let Some(flow) = self.flows.get_mut(&grant.flow) {
                flow.running = flow.running.saturating_sub(1);
                flow.next += rest;
                level.flows_latest = level.flows_latest.max(flow.next);
            }
            if level.running == 0 && level.queues.waiting() == 0 {
                // Nobody is there: all debts are forgiven.
                level.flows_now = level.flows_latest;
            }
            level.note(now);
        }
        self.settle(now);
    }

    /// Somebody does not wait any longer; whether they still did.
    pub(super) fn give_up(&mut self, place: usize, queue: u32, id: u64, now: f64) -> bool {
        let Some(level) = self.levels.get_mut(place) else {
            return false;
        };
        let Some(waiter) = level.queues.give_up(queue, id) else {
            return false;
        };
        level.wanted = level.wanted.saturating_sub(u64::from(waiter.wants()));
        level.note(now);
        self.waits(waiter.grant.flow, -1);
        true
    }

    /// A request of the level is refused; how many seconds its client should stay away.
    pub(super) fn refuse(&mut self, place: usize, now: f64) -> u64 {
        let level = self.levels.get_mut(place);
        level.map_or(1, |level| level.refusals.refuse(now as u64))
    }

    /// The next request that can run, if one waits.
    pub(super) fn dispatch(&mut self, now: f64) -> Option<Dispatched<T>> {
        if self.waiting == 0 {
            return None;
        }
        let mut best: Option<(f64, usize, u32)> = None;
        for (place, level) in self.levels.iter().enumerate() {
            if level.queues.waiting() == 0 || best.is_some_and(|(next, ..)| next <= level.next) {
                continue;
            }
            if let Some(queue) = level.queues.next(|waiter| self.judge(level, waiter)) {
                best = Some((level.next, place, queue));
            }
        }
        let (_, place, queue) = best?;
        let level = self.levels.get_mut(place)?;
        let waiter = level.queues.pop(queue)?;
        level.wanted = level.wanted.saturating_sub(u64::from(waiter.wants()));
        let grant = waiter.grant;
        if !waiter.seated {
            level.waits.add((now - waiter.since).max(0.0));
            self.begin(&grant, now);
        }
        self.waits(grant.flow, -1);
        self.take_turn(grant.flow, grant.kind);
        Some(Dispatched {
            grant,
            seated: waiter.seated,
            payload: waiter.payload,
        })
    }

    fn judge(&self, level: &Level<T>, waiter: &Waiter<T>) -> (Verdict, f64) {
        let Grant {
            flow, kind, width, ..
        } = waiter.grant;
        let flow = self.flows.get(&flow).copied().unwrap_or_default();
        let verdict = match (
            self.has_turn(kind, &flow),
            waiter.seated || level.fits(width),
        ) {
            (false, _) => Verdict::Skip,
            (true, true) => Verdict::Go,
            (true, false) => Verdict::Stop,
        };
        (verdict, flow.next)
    }

    /// Whether the flow may have one turn more.
    fn has_turn(&self, kind: Kind, flow: &Flow) -> bool {
        let free = match kind {
            Kind::Read => self.reading < self.turns.reads,
            Kind::Write => self.writing < self.turns.writes,
        };
        free || flow.turns == 0
    }

    fn turns_of(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Read => &mut self.reading,
            Kind::Write => &mut self.writing,
        }
    }

    fn take_turn(&mut self, flow: u64, kind: Kind) {
        *self.turns_of(kind) += 1;
        self.flows.entry(flow).or_default().turns += 1;
    }

    fn waits(&mut self, flow: u64, change: i32) {
        let flow = self.flows.entry(flow).or_default();
        flow.waiting = flow.waiting.saturating_add_signed(change);
        self.waiting = self.waiting.saturating_add_signed(change as isize);
    }

    /// A request has seats from now on; its queue was charged.
    fn begin(&mut self, grant: &Grant, now: f64) {
        let Some(level) = self.levels.get_mut(grant.place) else {
            return;
        };
        if level.running == 0 {
            level.next = level.next.max(self.now);
        }
        self.now = self.now.max(level.next);
        let guess = f64::from(grant.width) * GUESS;
        level.next += guess / level.weight();
        let flow = self.flows.entry(grant.flow).or_default();
        level.flows_now = level.flows_now.max(flow.next);
        flow.next += guess;
        flow.running += 1;
        level.flows_latest = level.flows_latest.max(flow.next);
        level.used += grant.width;
        level.running += 1;
        level.note(now);
    }

    /// Moves the levels' limits, if it is time to.
    fn settle(&mut self, now: f64) {
        if now < self.settle_at {
            return;
        }
        self.settle_at = now + PERIOD;
        let of_each = |level: &mut Level<T>| {
            let wanted = level.demand.settle(now);
            let (low, high) = level.bounds;
            let nominal = f64::from(level.nominal);
            let low = f64::from(low).max(nominal.min(wanted.high));
            Claim {
                target: wanted.smoothed.max(low),
                low,
                high: f64::from(high),
            }
        };
        let mut configured: Vec<_> = self
            .levels
            .iter_mut()
            .filter(|level| level.config.is_some())
            .collect();
        let claims: Vec<Claim> = configured.iter_mut().map(|level| of_each(level)).collect();
        let shares = share_out(f64::from(self.total), &claims);
        for (level, share) in configured.into_iter().zip(shares) {
            level.limit = share.round() as u32;
        }
    }
}

impl<T> Level<T> {
    fn new(name: &str, now: f64) -> Self {
        Self {
            name: name.to_owned(),
            config: None,
            nominal: 0,
            bounds: (0, 0),
            limit: 0,
            used: 0,
            running: 0,
            wanted: 0,
            demand: Demand::new(now),
            next: 0.0,
            flows_now: 0.0,
            flows_latest: 0.0,
            queues: Queues::default(),
            waits: Waits::default(),
            refusals: Refusals::default(),
        }
    }

    /// What it wanted in the last period.
    pub(super) fn wanted(&self) -> Wanted {
        self.demand.last
    }

    /// Whether a request gets its seats. One that is too wide for the level runs alone, as upstream lets it.
    fn fits(&self, width: u32) -> bool {
        self.running == 0 || u64::from(self.used) + u64::from(width) <= u64::from(self.limit)
    }

    /// The most seats of one request: so few that a flow's hand can be at work with them.
    fn widest(&self) -> u32 {
        let queuing = self.config.as_ref().and_then(|config| config.queuing);
        let hand = queuing.map_or(1, |queuing| queuing.hand.max(1));
        self.nominal.div_ceil(hand).clamp(1, MAX_WIDTH)
    }

    /// What the request is to get. Events that need many seats get fewer, for longer.
    fn grant(&self, place: usize, asked: Asked) -> Grant {
        let widest = self.widest();
        let width = asked.width.clamp(1, widest);
        let last = asked.events.min(widest);
        let work = f64::from(asked.events) * EVENT_TIME;
        Grant {
            place,
            queue: 0,
            flow: asked.flow,
            kind: asked.kind,
            width: width.max(last),
            after: if last > 0 {
                work / f64::from(last)
            } else {
                0.0
            },
            after_work: work,
        }
    }

    fn weight(&self) -> f64 {
        f64::from(
            self.config
                .as_ref()
                .map_or(1, |config| config.shares)
                .max(1),
        )
    }

    fn note(&mut self, now: f64) {
        self.demand.set(u64::from(self.used) + self.wanted, now);
    }
}

#[cfg(test)]
mod tests;
