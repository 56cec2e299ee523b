//! Counters in Prometheus' text format, under CoreDNS's names where it has one for the same thing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use parking_lot::Mutex;

use crate::cache::Kept;
use crate::server::Via;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 9] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0,
];
/// Name servers that are told apart.
const UPSTREAMS: usize = 64;
/// Types that have a label of their own; all others are `other`.
const TYPES: [RecordType; 13] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::ANY,
    RecordType::CNAME,
    RecordType::DNSKEY,
    RecordType::DS,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::NS,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::TXT,
];

/// The label of whatever has none of its own.
const OTHER: &str = "other";
/// Codes that have a label of their own, which is their usual short name; all others are `other`.
const CODES: [(ResponseCode, &str); 7] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::BADVERS, "BADVERS"),
];

/// Who had the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Zone,
    Cache,
    Forward,
    /// The question was none.
    Nobody,
}

impl Source {
    const ALL: [Self; 4] = [Self::Zone, Self::Cache, Self::Forward, Self::Nobody];

    /// CoreDNS's plugin of that work.
    fn plugin(self) -> &'static str {
        match self {
            Self::Zone => "kubernetes",
            Self::Cache => "cache",
            Self::Forward => "forward",
            Self::Nobody => "",
        }
    }

    /// The place of its zone among [`ZONES`].
    fn zone(self) -> usize {
        match self {
            Self::Zone => 0,
            Self::Cache | Self::Forward => 1,
            Self::Nobody => 2,
        }
    }
}

/// Labels of zones; the first stands for the server's own, whose label is its name.
const ZONES: [&str; 3] = ["", ".", "dropped"];
/// Labels of where questions arrive.
const LISTENERS: [&str; 2] = ["dns://:53", "dns://host"];

/// Counts questions and answers. Those of the listeners have a counter for each combination of labels, so that threads which
/// answer at the same time wait for nothing.
#[derive(Default)]
pub struct Metrics {
    zone: String,
    /// By listener, transport, family, zone and type.
    requests: [[[[[AtomicU64; TYPES.len() + 1]; ZONES.len()]; 2]; 2]; LISTENERS.len()],
    /// By listener, who had it, and code.
    responses: [[[AtomicU64; CODES.len() + 1]; Source::ALL.len()]; LISTENERS.len()],
    /// By listener and zone.
    durations: [[Histogram; ZONES.len()]; LISTENERS.len()],
    upstreams: Mutex<BTreeMap<String, Upstream>>,
    hits: [AtomicU64; 2],
    misses: AtomicU64,
    rejected: AtomicU64,
    lookups: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Upstream {
    requests: u64,
    errors: u64,
    durations: BTreeMap<&'static str, Histogram>,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Up to each bound and above that of the one before; then above all.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        add(&self.buckets[bucket.unwrap_or(BUCKETS.len())], 1);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.nanoseconds, nanoseconds);
    }

    fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| value(bucket) == 0)
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(BUCKETS) {
            count += value(bucket);
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        count += value(&self.buckets[BUCKETS.len()]);
        let seconds = Duration::from_nanos(value(&self.nanoseconds)).as_secs_f64();
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{{labels}}} {seconds}");
        let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    /// Nothing counted; `apex` is the zone's label.
    pub fn new(apex: &str) -> Self {
        Self {
            zone: format!("{}.", apex.trim_end_matches('.')),
            ..Self::default()
        }
    }

    pub(crate) fn asked(&self, via: Via, source: Source, kind: u16) {
        let known = TYPES.iter().position(|known| u16::from(*known) == kind);
        let of_listener = &self.requests[usize::from(via.host)];
        let of_zone = &of_listener[usize::from(via.tcp)][usize::from(via.v6)][source.zone()];
        add(&of_zone[known.unwrap_or(TYPES.len())], 1);
    }

    pub(crate) fn answered(&self, via: Via, source: Source, code: ResponseCode, took: Duration) {
        let listener = usize::from(via.host);
        let known = CODES.iter().position(|(known, _)| *known == code);
        let of_source = &self.responses[listener][source as usize];
        add(&of_source[known.unwrap_or(CODES.len())], 1);
        self.durations[listener][source.zone()].add(took);
    }

    /// A lookup in process, without a packet.
    pub(crate) fn looked_up(&self, found: bool) {
        self.lookups[usize::from(found)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn hit(&self, denial: bool) {
        self.hits[usize::from(denial)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn forwarded(&self, server: SocketAddr) {
        self.upstream(server, |upstream| upstream.requests += 1);
    }

    pub(crate) fn upstream_failed(&self, server: SocketAddr) {
        self.upstream(server, |upstream| upstream.errors += 1);
    }

    pub(crate) fn upstream_answered(&self, server: SocketAddr, code: ResponseCode, took: Duration) {
        self.upstream(server, |upstream| {
            upstream
                .durations
                .entry(code_name(code))
                .or_default()
                .add(took);
        });
    }

    fn upstream(&self, server: SocketAddr, change: impl FnOnce(&mut Upstream)) {
        let mut upstreams = self.upstreams.lock();
        let mut name = server.to_string();
        if upstreams.len() >= UPSTREAMS && !upstreams.contains_key(&name) {
            OTHER.clone_into(&mut name);
        }
        change(upstreams.entry(name).or_default());
    }

    /// The text, with what the cache holds.
    pub(crate) fn render(&self, kept: Kept) -> String {
        let mut text = String::new();
        self.render_requests(&mut text);
        self.render_responses(&mut text);
        self.render_cache(&mut text, kept);
        self.render_upstreams(&mut text);
        let name = "coracle_dns_lookups_total";
        head(
            &mut text,
            name,
            "counter",
            "Lookups of guests in process, by whether an address was found.",
        );
        for (found, count) in [("false", &self.lookups[0]), ("true", &self.lookups[1])] {
            let _ = writeln!(
                text,
                "{name}{{found=\"{found}\"}} {}",
                count.load(Ordering::Relaxed)
            );
        }
        text
    }

    /// A zone's label.
    fn zone(&self, place: usize) -> &str {
        if place == Source::Zone.zone() {
            &self.zone
        } else {
            ZONES[place]
        }
    }

    fn render_requests(&self, text: &mut String) {
        let name = "coredns_dns_requests_total";
        let help = "Questions, by listener, zone, transport and type.";
        head(text, name, "counter", help);
        for (server, by_transport) in LISTENERS.iter().zip(&self.requests) {
            for (proto, by_family) in ["udp", "tcp"].iter().zip(by_transport) {
                for (family, by_zone) in [1, 2].iter().zip(by_family) {
                    for (place, by_type) in by_zone.iter().enumerate() {
                        let zone = self.zone(place);
                        for (place, count) in counted(by_type) {
                            let kind = TYPES.get(place).map_or(OTHER, |kind| (*kind).into());
                            let _ = writeln!(
                                text,
                                "{name}{{server=\"{server}\",zone=\"{zone}\",view=\"\",proto=\"{proto}\",family=\"{family}\",type=\"{kind}\"}} {count}",
                            );
                        }
                    }
                }
            }
        }
    }

    fn render_responses(&self, text: &mut String) {
        let name = "coredns_dns_responses_total";
        let help = "Answers, by listener, zone, code and who had it.";
        head(text, name, "counter", help);
        for (server, by_source) in LISTENERS.iter().zip(&self.responses) {
            for (source, by_code) in Source::ALL.iter().zip(by_source) {
                let (zone, plugin) = (self.zone(source.zone()), source.plugin());
                for (place, count) in counted(by_code) {
                    let code = CODES.get(place).map_or(OTHER, |(_, name)| name);
                    let _ = writeln!(
                        text,
                        "{name}{{server=\"{server}\",zone=\"{zone}\",view=\"\",rcode=\"{code}\",plugin=\"{plugin}\"}} {count}",
                    );
                }
            }
        }
        let name = "coredns_dns_request_duration_seconds";
        let help = "Time until the answer was ready, by listener and zone.";
        head(text, name, "histogram", help);
        for (server, by_zone) in LISTENERS.iter().zip(&self.durations) {
            for (place, histogram) in by_zone.iter().enumerate() {
                if !histogram.is_empty() {
                    let zone = self.zone(place);
                    let labels = format!("server=\"{server}\",zone=\"{zone}\",view=\"\"");
                    histogram.write(text, name, &labels);
                }
            }
        }
    }

    fn render_cache(&self, text: &mut String, kept: Kept) {
        let kinds = ["success", "denial"];
        head(
            text,
            "coredns_cache_hits_total",
            "counter",
            "Questions that the cache answered.",
        );
        for (kind, hits) in kinds.iter().zip(&self.hits) {
            let hits = hits.load(Ordering::Relaxed);
            let _ = writeln!(
                text,
                "coredns_cache_hits_total{{type=\"{kind}\",zones=\".\"}} {hits}"
            );
        }
        head(
            text,
            "coredns_cache_misses_total",
            "counter",
            "Questions that the cache did not answer.",
        );
        let misses = self.misses.load(Ordering::Relaxed);
        let _ = writeln!(text, "coredns_cache_misses_total{{zones=\".\"}} {misses}");
        head(
            text,
            "coredns_cache_entries",
            "gauge",
            "Answers in the cache.",
        );
        for (kind, count) in kinds.iter().zip([kept.successes, kept.denials]) {
            let _ = writeln!(
                text,
                "coredns_cache_entries{{type=\"{kind}\",zones=\".\"}} {count}"
            );
        }
    }

    fn render_upstreams(&self, text: &mut String) {
        let upstreams = self.upstreams.lock();
        let counters = [
            (
                "coredns_forward_requests_total",
                "Questions sent to other name servers.",
            ),
            (
                "coracle_dns_upstream_errors_total",
                "Questions that a name server did not answer.",
            ),
        ];
        for (index, (name, help)) in counters.into_iter().enumerate() {
            head(text, name, "counter", help);
            for (to, upstream) in upstreams.iter() {
                let count = [upstream.requests, upstream.errors][index];
                let _ = writeln!(text, "{name}{{to=\"{to}\"}} {count}");
            }
        }
        let name = "coredns_proxy_request_duration_seconds";
        head(
            text,
            name,
            "histogram",
            "Time until a name server answered, by its code.",
        );
        for (to, upstream) in upstreams.iter() {
            for (code, histogram) in &upstream.durations {
                let labels = format!("proxy_name=\"forward\",to=\"{to}\",rcode=\"{code}\"");
                histogram.write(text, name, &labels);
            }
        }
        let name = "coredns_forward_max_concurrent_rejects_total";
        head(
            text,
            name,
            "counter",
            "Questions refused because too many were under way.",
        );
        let _ = writeln!(text, "{name} {}", self.rejected.load(Ordering::Relaxed));
    }
}

/// The counters that have counted something, by their places.
fn counted(counters: &[AtomicU64]) -> impl Iterator<Item = (usize, u64)> {
    let values = counters.iter().map(value).enumerate();
    values.filter(|(_, count)| *count > 0)
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The code's usual short name.
fn code_name(code: ResponseCode) -> &'static str {
    let known = CODES.iter().find(|(known, _)| *known == code);
    known.map_or(OTHER, |(_, name)| name)
}
