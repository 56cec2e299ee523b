//! From a question to its answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use hickory_proto::op::ResponseCode;

use crate::cache::Cache;
use crate::forward::{ForwardError, Forwarder};
use crate::message::{self, Arrived, Asked, Carrier, Outcome, Request};
use crate::metrics::{Metrics, Source};
use crate::plain;
use crate::upstreams::UpstreamConfig;
use crate::zone::{Data, Found, Kind, Lookup, Zone};

/// How many names may stand for one another.
const ALIASES: usize = 8;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Via {
    /// As part of a stream, else as a datagram.
    pub tcp: bool,
    /// From an IPv6 address.
    pub v6: bool,
    /// From outside the pod network.
    pub host: bool,
}

impl Via {
    fn carrier(self) -> Carrier {
        if self.tcp { Carrier::Tcp } else { Carrier::Udp }
    }
}

/// Who asks, for servers whose askers may not know every name.
pub trait Asker: Send + Sync {
    /// Whether the name (lower case, without the last dot) may be answered; if not, it does not exist for the asker.
    fn may_ask(&self, name: &str) -> bool;

    /// The name was answered with these addresses.
    fn told(&self, name: &str, addresses: &[IpAddr]);
}

/// What is to be done with what arrived.
pub enum Now {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// Others have to be asked first: see [`Server::later`].
    Later(Box<Pending>),
    /// Stay silent.
    Nothing,
}

/// A question that waits for others.
pub struct Pending {
    request: Request,
    via: Via,
    started: Duration,
    walk: Walk,
    asker: Option<Arc<dyn Asker>>,
}

/// Why a lookup in process found no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name does not exist, or has no address.
    #[error("the name has no address")]
    NotFound,
    /// Whoever knows it did not answer; later they may.
    #[error("no name server answered")]
    Again,
    /// It leads nowhere, or to a server's refusal.
    #[error("the name cannot be resolved")]
    Failed,
    /// No name server is there to be asked for this name, to which the one that was looked up led.
    #[error("no name server is configured, so nobody knows {0}")]
    NoServers(String),
}

/// Answers questions from a zone, a cache and other name servers. Shared by all listeners.
pub struct Server {
    zone: Arc<dyn Zone>,
    forwarder: Forwarder,
    cache: Cache,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// How far the search for an answer has come.
#[derive(Clone, Debug)]
struct Walk {
    /// What is looked up now.
    name: String,
    /// The aliases so far: of whom, and for whom.
    aliases: Vec<(String, String)>,
}

enum Step {
    Done(Outcome, Source),
    /// Other name servers know.
    Forward(Asked),
    /// The zone is not filled.
    Wait,
}

impl Server {
    /// Answers names of `zone` from it, and all others as `upstreams` says.
    pub fn new(zone: Arc<dyn Zone>, upstreams: UpstreamConfig, clock: Clock) -> Self {
        let metrics = Arc::new(Metrics::new(zone.apex()));
        Self {
            forwarder: Forwarder::new(upstreams, clock.clone(), metrics.clone()),
            zone,
            cache: Cache::default(),
            clock,
            metrics,
        }
    }

    /// The counters in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.metrics.render(self.cache.kept())
    }

    /// The name servers that names elsewhere are asked of, as of now.
    pub fn upstream_servers(&self) -> Vec<SocketAddr> {
        self.forwarder.servers()
    }

    /// Answers what arrived if memory is enough for it. Never waits.
    pub fn now(&self, bytes: &[u8], via: Via) -> Now {
        self.now_for(bytes, via, None)
    }

    /// The same for somebody who may not know every name.
    pub fn now_for(&self, bytes: &[u8], via: Via, asker: Option<Arc<dyn Asker>>) -> Now {
        let started = self.clock.monotonic();
        if asker.is_none()
            && let Some(reply) = self.plainly(bytes, via, started)
        {
            return Now::Reply(reply);
        }
        self.generally(bytes, via, asker, started)
    }

    /// Answers what nearly all ask, from the zone alone; nothing if it takes more than that.
    pub(crate) fn plainly(&self, bytes: &[u8], via: Via, started: Duration) -> Option<Vec<u8>> {
        let question = plain::read(bytes)?;
        let (apex, ttl, carrier) = (self.zone.apex(), self.zone.ttl(), via.carrier());
        let (code, reply) = match self.zone.lookup(&question.name, question.kind) {
            Lookup::Found(found) => {
                let reply = question.found(&found, apex, ttl, carrier);
                (ResponseCode::NoError, reply?)
            }
            Lookup::NoName => {
                let code = ResponseCode::NXDomain;
                (code, question.nothing(code, apex, ttl, carrier)?)
            }
            Lookup::Alias(_) | Lookup::Elsewhere | Lookup::NotYet => return None,
        };
        self.count(via, Source::Zone, question.type_number(), code, started);
        Some(reply)
    }

    /// Answers whatever arrived.
    pub(crate) fn generally(
        &self,
        bytes: &[u8],
        via: Via,
        asker: Option<Arc<dyn Asker>>,
        started: Duration,
    ) -> Now {
        let request = match message::read(bytes) {
            Arrived::Nothing => return Now::Nothing,
            Arrived::Wrong(code, reply) => {
                self.metrics.asked(via, Source::Nobody, 0);
                self.metrics
                    .answered(via, Source::Nobody, code, Duration::ZERO);
                return Now::Reply(reply);
            }
            Arrived::Request(request) => *request,
        };
        let mut walk = Walk::to(&request.name);
        let is_closed = asker
            .as_ref()
            .is_some_and(|asker| !asker.may_ask(&request.name));
        let step = match is_closed {
            true => Step::Done(Outcome::of(ResponseCode::NXDomain), Source::Nobody),
            false => self.step(&request, &mut walk),
        };
        match step {
            Step::Done(outcome, source) => {
                let pending = Pending {
                    request,
                    via,
                    started,
                    walk,
                    asker,
                };
                self.reply(&pending, outcome, source)
                    .map_or(Now::Nothing, Now::Reply)
            }
            Step::Forward(_) | Step::Wait => Now::Later(Box::new(Pending {
                request,
                via,
                started,
                walk,
                asker,
            })),
        }
    }

    /// Answers what has to wait for others.
    pub async fn later(&self, pending: Pending) -> Option<Vec<u8>> {
        let mut walk = pending.walk.clone();
        let (outcome, source) = self.finish(&pending.request, &mut walk).await;
        self.reply(&pending, outcome, source)
    }

    /// The addresses of an absolute name (lower case, without the last dot), in the order to be
    /// tried: what a guest's own resolver would make of our answers.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let both = tokio::join!(
            self.of_family(name, Kind::A),
            self.of_family(name, Kind::Aaaa)
        );
        self.joined(both)
    }

    /// The same by other name servers alone, as if there were no zone.
    pub async fn addresses_elsewhere(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let both = tokio::join!(
            self.elsewhere(name, Kind::A),
            self.elsewhere(name, Kind::Aaaa)
        );
        self.joined(both)
    }

    fn joined(
        &self,
        (v4, v6): (
            Result<Vec<IpAddr>, LookupError>,
            Result<Vec<IpAddr>, LookupError>,
        ),
    ) -> Result<Vec<IpAddr>, LookupError> {
        let found = match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                if v4.is_empty() {
                    Err(LookupError::NotFound)
                } else {
                    Ok(v4)
                }
            }
            // One family is enough; that the other could not be asked for matters only without it.
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => Ok(some),
            (Ok(_), Err(error)) | (Err(error), _) => Err(error),
        };
        self.metrics.looked_up(found.is_ok());
        found
    }

    async fn of_family(&self, name: &str, kind: Kind) -> Result<Vec<IpAddr>, LookupError> {
        // The usual case needs no message at all.
        match self.zone.lookup(name, kind) {
            Lookup::Found(found) => return Ok(addresses(&found)),
            Lookup::NoName => return Err(LookupError::NotFound),
            Lookup::Alias(_) | Lookup::Elsewhere | Lookup::NotYet => {}
        }
        let request = message::request(name, kind).ok_or(LookupError::NotFound)?;
        let mut walk = Walk::to(name);
        let (outcome, source) = self.finish(&request, &mut walk).await;
        self.judged(&outcome, source, &walk.name)
    }

    async fn elsewhere(&self, name: &str, kind: Kind) -> Result<Vec<IpAddr>, LookupError> {
        let asked = message::request(name, kind).and_then(|request| request.asked(name));
        let asked = asked.ok_or(LookupError::NotFound)?;
        let (outcome, source) = match self.cache.get(&asked, self.clock.monotonic()) {
            Some((outcome, denial)) => {
                self.metrics.hit(denial);
                (outcome, Source::Cache)
            }
            None => (self.forward(&asked).await, Source::Forward),
        };
        self.judged(&outcome, source, name)
    }

    fn judged(
        &self,
        outcome: &Outcome,
        source: Source,
        name: &str,
    ) -> Result<Vec<IpAddr>, LookupError> {
        match outcome.code {
            ResponseCode::NoError => Ok(outcome.addresses()),
            ResponseCode::NXDomain => Err(LookupError::NotFound),
            _ if source == Source::Zone => Err(LookupError::Failed),
            ResponseCode::Refused => Err(LookupError::Failed),
            _ if source == Source::Forward && self.forwarder.servers().is_empty() => {
                Err(LookupError::NoServers(name.to_owned()))
            }
            _ => Err(LookupError::Again),
        }
    }

    /// What other name servers say, kept for the next who asks.
    async fn forward(&self, asked: &Asked) -> Outcome {
        self.metrics.missed();
        match self.forwarder.resolve(asked).await {
            Ok(reply) => {
                self.cache.put(asked, &reply, self.clock.monotonic());
                reply.outcome
            }
            Err(ForwardError::Busy) => Outcome::of(ResponseCode::Refused),
            Err(ForwardError::NoServers | ForwardError::NoAnswer) => {
                Outcome::of(ResponseCode::ServFail)
            }
        }
    }

    async fn finish(&self, request: &Request, walk: &mut Walk) -> (Outcome, Source) {
        let mut waited = false;
        loop {
            match self.step(request, walk) {
                Step::Done(outcome, source) => return (outcome, source),
                Step::Forward(asked) => {
                    let outcome = self.forward(&asked).await;
                    return (self.behind(request, walk, outcome), Source::Forward);
                }
                Step::Wait if !waited && self.zone.filled().await => waited = true,
                Step::Wait => {
                    return (Outcome::of(ResponseCode::ServFail), Source::Cache);
                }
            }
        }
    }

    /// Follows names through the zone and the cache as far as they lead.
    fn step(&self, request: &Request, walk: &mut Walk) -> Step {
        loop {
            match self.zone.lookup(&walk.name, request.kind) {
                Lookup::Found(found) => {
                    return Step::Done(self.found(request, walk, found), Source::Zone);
                }
                Lookup::NoName => {
                    let mut outcome = Outcome::of(ResponseCode::NXDomain);
                    outcome.authorities.extend(self.authority(&walk.name));
                    return Step::Done(self.own(request, walk, outcome), Source::Zone);
                }
                Lookup::Alias(_) if request.kind == Kind::Cname && !walk.aliases.is_empty() => {
                    return Step::Done(self.found(request, walk, Found::default()), Source::Zone);
                }
                Lookup::Alias(target) => {
                    let of = std::mem::replace(&mut walk.name, target.clone());
                    walk.aliases.push((of, target));
                    if request.kind == Kind::Cname {
                        let outcome = Outcome::of(ResponseCode::NoError);
                        return Step::Done(self.own(request, walk, outcome), Source::Zone);
                    }
                    if walk.aliases.len() > ALIASES {
                        tracing::debug!(
                            name = request.name,
                            "too many names stand for one another"
                        );
                        let outcome = Outcome::of(ResponseCode::ServFail);
                        return Step::Done(self.own(request, walk, outcome), Source::Zone);
                    }
                }
                Lookup::NotYet => return Step::Wait,
                Lookup::Elsewhere => {
                    let Some(asked) = request.asked(&walk.name) else {
                        let outcome = Outcome::of(ResponseCode::ServFail);
                        return Step::Done(self.own(request, walk, outcome), Source::Zone);
                    };
                    return match self.cache.get(&asked, self.clock.monotonic()) {
                        Some((outcome, denial)) => {
                            self.metrics.hit(denial);
                            Step::Done(self.behind(request, walk, outcome), Source::Cache)
                        }
                        None => Step::Forward(asked),
                    };
                }
            }
        }
    }

    /// The zone's records for the name that was reached.
    fn found(&self, request: &Request, walk: &Walk, found: Found) -> Outcome {
        let mut outcome = Outcome::of(ResponseCode::NoError);
        let ttl = self.zone.ttl();
        let owner = match walk.aliases.is_empty() {
            true => Some(request.owner()),
            false => message::parse(&walk.name),
        };
        if let Some(owner) = owner {
            let record = |data| message::record(owner.clone(), ttl, data);
            outcome.answers = found.records.iter().filter_map(record).collect();
            if request.kind == Kind::Soa && walk.name == self.zone.apex() {
                outcome.answers.extend(self.authority(&walk.name));
            }
        }
        let additional = |(name, address): &(String, IpAddr)| {
            message::record(message::parse(name)?, ttl, &Data::Address(*address))
        };
        outcome.additionals = found.additional.iter().filter_map(additional).collect();
        if outcome.answers.is_empty() {
            outcome.authorities.extend(self.authority(&walk.name));
        }
        self.own(request, walk, outcome)
    }

    /// An outcome of the zone's own, behind the aliases that led to it.
    fn own(&self, request: &Request, walk: &Walk, outcome: Outcome) -> Outcome {
        Outcome {
            authoritative: true,
            ..self.behind(request, walk, outcome)
        }
    }

    /// Puts the aliases that led to it before an outcome's answers.
    fn behind(&self, request: &Request, walk: &Walk, mut outcome: Outcome) -> Outcome {
        if walk.aliases.is_empty() {
            return outcome;
        }
        let alias = |(index, (of, target)): (usize, &(String, String))| {
            let owner = match index {
                0 => request.owner(),
                _ => message::parse(of)?,
            };
            message::alias(owner, self.zone.ttl(), target)
        };
        let aliases = walk.aliases.iter().enumerate().filter_map(alias);
        outcome.answers = aliases
            .chain(std::mem::take(&mut outcome.answers))
            .collect();
        // A part of the answer is nobody's word but ours.
        outcome.authentic = false;
        outcome
    }

    /// The start of authority above a name of the zone.
    fn authority(&self, name: &str) -> Option<hickory_proto::rr::Record> {
        let apex = self.zone.apex();
        let above = ["in-addr.arpa", "ip6.arpa"]
            .into_iter()
            .find(|zone| name.ends_with(zone));
        message::authority(
            above.unwrap_or(apex),
            self.zone.ttl(),
            &format!("ns.dns.{apex}"),
        )
    }

    fn reply(&self, pending: &Pending, outcome: Outcome, source: Source) -> Option<Vec<u8>> {
        let Pending {
            request,
            via,
            started,
            ..
        } = pending;
        let code = outcome.code;
        if let Some(asker) = &pending.asker {
            asker.told(&request.name, &outcome.addresses());
        }
        let reply = request.reply(outcome, via.carrier());
        self.count(*via, source, request.type_number(), code, *started);
        reply
    }

    fn count(&self, via: Via, source: Source, kind: u16, code: ResponseCode, started: Duration) {
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.asked(via, source, kind);
        self.metrics.answered(via, source, code, took);
    }
}

impl Walk {
    fn to(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            aliases: Vec::new(),
        }
    }
}

fn addresses(found: &Found) -> Vec<IpAddr> {
    let address = |data: &Data| match data {
        Data::Address(address) => Some(*address),
        _ => None,
    };
    found.records.iter().filter_map(address).collect()
}
