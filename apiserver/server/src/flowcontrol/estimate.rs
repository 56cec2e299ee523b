//! How many seats a request is worth.
//!
//! Upstream: `k8s.io/apiserver/pkg/util/flowcontrol/request`. A list takes a seat for each 100 kB that it shows, ten at most,
//! a watch likewise if it asks for what is there first, and a write takes seats for its events after it was answered.

use super::seats::{Asked, Kind};
use crate::request_info::RequestInfo;

/// Bytes of a list for a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// What a list from the cache takes of memory at once, at most: it is sent in pieces.
const MAX_BYTES: u64 = 1_000_000;
/// An event for so many watchers is worth a seat.
const WATCHES_PER_SEAT: usize = 10;

/// What is known of the objects that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// How many there are.
    pub(crate) objects: usize,
    /// The bytes of all of them.
    pub(crate) bytes: usize,
    /// How many watch them.
    pub(crate) watchers: usize,
}

/// What a request of the flow asks for. `stats` is called if they matter; `None`: nothing is known.
pub(super) fn estimate(
    info: &RequestInfo,
    flow: u64,
    stats: impl FnOnce() -> Option<Stats>,
) -> Asked {
    let plain = Asked {
        flow,
        width: 1,
        events: 0,
        kind: Kind::Read,
    };
    if !info.is_resource {
        return plain;
    }
    match info.verb {
        "list" => Asked {
            width: list(info, stats),
            ..plain
        },
        "watch" if info.query.get("sendInitialEvents") == Some("true") => Asked {
            width: list(info, stats),
            ..plain
        },
        "get" | "watch" | "" => plain,
        "create" | "update" | "patch" | "delete" if info.subresource != "token" => Asked {
            events: stats().map_or(0, |stats| events(stats.watchers)),
            kind: Kind::Write,
            ..plain
        },
        _ => Asked {
            kind: Kind::Write,
            ..plain
        },
    }
}

fn list(info: &RequestInfo, stats: impl FnOnce() -> Option<Stats>) -> u32 {
    if !info.name.is_empty() || info.query.get("fieldSelector").is_some_and(names_one) {
        return 1;
    }
    let Some(stats) = stats().filter(|stats| stats.objects > 0) else {
        return 1;
    };
    let asked: Option<usize> = info.query.get("limit").and_then(|text| text.parse().ok());
    let shown = asked.filter(|limit| *limit > 0);
    let shown = shown.map_or(stats.objects, |limit| limit.min(stats.objects));
    let bytes = stats.bytes as u64 * shown as u64 / stats.objects as u64;
    let seats = bytes.min(MAX_BYTES).div_ceil(BYTES_PER_SEAT);
    seats.max(1) as u32
}

/// Whether a field selector leaves one object at most.
fn names_one(selector: &str) -> bool {
    selector.split(',').any(|term| {
        let rest = term.trim().strip_prefix("metadata.name=");
        rest.is_some_and(|name| !name.trim_start_matches('=').is_empty())
    })
}

fn events(watchers: usize) -> u32 {
    match watchers >= WATCHES_PER_SEAT {
        true => u32::try_from(watchers.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_worth_what_they_read_and_whom_they_tell() {
        let (read, write) = (Kind::Read, Kind::Write);
        let pods = "/api/v1/namespaces/a/pods";
        for (method, query, width, events, kind) in [
            ("GET", "/x", 1, 0, read),
            ("GET", "", 8, 0, read),
            ("GET", "?limit=100", 1, 0, read),
            ("GET", "?limit=101", 2, 0, read),
            ("GET", "?limit=0", 8, 0, read),
            ("GET", "?limit=9999", 8, 0, read),
            ("GET", "?fieldSelector=metadata.name%3Dx", 1, 0, read),
            ("GET", "?fieldSelector=spec.nodeName%3Dx", 8, 0, read),
            ("GET", "?watch=1", 1, 0, read),
            ("GET", "?watch=1&sendInitialEvents=true", 8, 0, read),
            ("POST", "", 1, 3, write),
            ("PATCH", "/x", 1, 3, write),
            ("DELETE", "/x", 1, 3, write),
            ("DELETE", "", 1, 0, write),
        ] {
            let uri = format!("{pods}{query}").parse().expect("a uri");
            let info = RequestInfo::parse(&method.parse().expect("a method"), &uri);
            let stats = || {
                Some(Stats {
                    objects: 800,
                    bytes: 800_000,
                    watchers: 21,
                })
            };
            let asked = estimate(&info, 7, stats);
            let found = (asked.width, asked.events, asked.kind);
            assert_eq!(found, (width, events, kind), "{method} {query}");
        }
    }

    #[test]
    fn a_large_list_is_worth_ten_seats_and_an_empty_one_has_one() {
        let uri = "/api/v1/pods".parse().expect("a uri");
        let info = RequestInfo::parse(&http::Method::GET, &uri);
        for (objects, bytes, width) in [(0, 0, 1), (9, 9, 1), (10_000, 11_000_000, 10)] {
            let stats = || {
                Some(Stats {
                    objects,
                    bytes,
                    watchers: 0,
                })
            };
            assert_eq!(estimate(&info, 7, stats).width, width, "{objects}");
        }
        assert_eq!(estimate(&info, 7, || None).width, 1);
    }

    #[test]
    fn few_watchers_cost_nothing() {
        let found: Vec<u32> = [0, 9, 10, 11, 1000].map(events).to_vec();
        assert_eq!(found, [0, 0, 1, 2, 100]);
    }
}
