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

/// Who had the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Zone,
    Cache,
    Forward,
    /// The question was none.
    Nobody,
}

impl Source {
    /// CoreDNS's plugin of that work.
    fn plugin(self) -> &'static str {
        match self {
            Self::Zone => "kubernetes",
            Self::Cache => "cache",
            Self::Forward => "forward",
            Self::Nobody => "",
        }
    }
}

/// Counts questions and answers.
#[derive(Default)]
pub struct Metrics {
    zone: String,
    requests: Mutex<BTreeMap<(Via, &'static str, &'static str), u64>>,
    responses: Mutex<BTreeMap<Answered, u64>>,
    durations: Mutex<BTreeMap<(Listener, &'static str), Histogram>>,
    upstreams: Mutex<BTreeMap<String, Upstream>>,
    hits: [AtomicU64; 2],
    misses: AtomicU64,
    rejected: AtomicU64,
    lookups: [AtomicU64; 2],
}

/// Where questions arrive, for labels.
type Listener = bool;
/// Where, of which zone, by whom and with which code.
type Answered = (Listener, &'static str, Source, &'static str);

#[derive(Clone, Debug, Default)]
struct Upstream {
    requests: u64,
    errors: u64,
    durations: BTreeMap<&'static str, Histogram>,
}

#[derive(Clone, Debug, Default)]
struct Histogram {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", self.seconds);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", self.count);
    }
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
        let kind = RecordType::from(kind);
        let known = TYPES.contains(&kind);
        let kind = if known { kind.into() } else { "other" };
        let zone = zone(source);
        *self.requests.lock().entry((via, zone, kind)).or_default() += 1;
    }

    pub(crate) fn answered(&self, via: Via, source: Source, code: ResponseCode, took: Duration) {
        let (listener, zone) = (via.host, zone(source));
        let key = (listener, zone, source, code_name(code));
        *self.responses.lock().entry(key).or_default() += 1;
        self.durations
            .lock()
            .entry((listener, zone))
            .or_default()
            .add(took);
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
            "other".clone_into(&mut name);
        }
        change(upstreams.entry(name).or_default());
    }

    /// The text, with what the cache holds.
    pub(crate) fn render(&self, kept: Kept) -> String {
        let mut text = String::new();
        let zone = |zone: &'static str| {
            if zone == ZONE {
                self.zone.as_str()
            } else {
                zone
            }
        };
        head(
            &mut text,
            "coredns_dns_requests_total",
            "counter",
            "Questions, by listener, zone, transport and type.",
        );
        for ((via, place, kind), count) in self.requests.lock().iter() {
            let (proto, family) = (
                if via.tcp { "tcp" } else { "udp" },
                if via.v6 { 2 } else { 1 },
            );
            let _ = writeln!(
                text,
                "coredns_dns_requests_total{{server=\"{}\",zone=\"{}\",view=\"\",proto=\"{proto}\",family=\"{family}\",type=\"{kind}\"}} {count}",
                server(via.host),
                zone(place),
            );
        }
        head(
            &mut text,
            "coredns_dns_responses_total",
            "counter",
            "Answers, by listener, zone, code and who had it.",
        );
        for ((host, place, source, code), count) in self.responses.lock().iter() {
            let _ = writeln!(
                text,
                "coredns_dns_responses_total{{server=\"{}\",zone=\"{}\",view=\"\",rcode=\"{code}\",plugin=\"{}\"}} {count}",
                server(*host),
                zone(place),
                source.plugin(),
            );
        }
        let name = "coredns_dns_request_duration_seconds";
        head(
            &mut text,
            name,
            "histogram",
            "Time until the answer was ready, by listener and zone.",
        );
        for ((host, place), histogram) in self.durations.lock().iter() {
            let labels = format!(
                "server=\"{}\",zone=\"{}\",view=\"\"",
                server(*host),
                zone(place)
            );
            histogram.write(&mut text, name, &labels);
        }
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
        let upstreams = self.upstreams.lock().clone();
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
            for (to, upstream) in &upstreams {
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
        for (to, upstream) in &upstreams {
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

/// Stands for the zone's own name.
const ZONE: &str = "zone";

fn zone(source: Source) -> &'static str {
    match source {
        Source::Zone => ZONE,
        Source::Cache | Source::Forward => ".",
        Source::Nobody => "dropped",
    }
}

fn server(host: Listener) -> &'static str {
    if host { "dns://host" } else { "dns://:53" }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The code's usual short name.
fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
