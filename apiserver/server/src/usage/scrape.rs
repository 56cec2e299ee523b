//! A node's page of figures (`/metrics/resource`), read.

use std::collections::BTreeMap;

/// What one node and its containers had used by one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape {
    /// The node itself, if it said both of its figures.
    pub(super) node: Option<Point>,
    /// By namespace and name of the pod, then by container.
    pub(super) pods: BTreeMap<(String, String), BTreeMap<String, Point>>,
}

/// Two figures of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// When, in milliseconds since 1970.
    pub(super) at: i64,
    /// Nanoseconds of processor time since the start.
    pub(super) cpu: u64,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// The start, in milliseconds since 1970; 0 if it was not told.
    pub(super) started: i64,
}

/// A point of which not all may have been told yet.
#[derive(Default)]
struct Partial {
    at: Option<i64>,
    cpu: Option<u64>,
    memory: Option<u64>,
    started: Option<i64>,
}

impl Partial {
    /// A container that has told only some of its figures is left out, as metrics-server does.
    fn whole(&self) -> Option<Point> {
        Some(Point {
            at: self.at?,
            cpu: self.cpu?,
            memory: self.memory?,
            started: self.started.unwrap_or(0),
        })
    }

    fn take(&mut self, what: &str, line: &Line<'_>) {
        match what {
            "cpu_usage_seconds_total" => {
                self.cpu = scaled(line.value, 1e9);
                self.at = line.at.or(self.at);
            }
            "memory_working_set_bytes" => {
                self.memory = scaled(line.value, 1.0);
                self.at = line.at.or(self.at);
            }
            "start_time_seconds" => {
                self.started = scaled(line.value, 1e3).and_then(|ms| i64::try_from(ms).ok());
            }
            _ => {}
        }
    }
}

/// Reads a page; lines that say nothing of use are passed over. `now`, in milliseconds since 1970, is the time of
/// figures that have none of their own.
pub(super) fn read(page: &str, now: i64) -> Scrape {
    let mut node = Partial::default();
    let mut containers: BTreeMap<(&str, &str, &str), Partial> = BTreeMap::new();
    for line in page.lines() {
        let Some(mut line) = Line::read(line) else {
            continue;
        };
        line.at = line.at.or(Some(now));
        if let Some(what) = line.name.strip_prefix("node_") {
            node.take(what, &line);
        } else if let Some(what) = line.name.strip_prefix("container_") {
            let label = |key| line.label(key).filter(|value| !value.is_empty());
            if let (Some(namespace), Some(pod), Some(container)) =
                (label("namespace"), label("pod"), label("container"))
            {
                let known = containers.entry((namespace, pod, container));
                known.or_default().take(what, &line);
            }
        }
    }
    let mut scrape = Scrape {
        node: node.whole(),
        pods: BTreeMap::new(),
    };
    for ((namespace, pod, container), partial) in containers {
        if let Some(point) = partial.whole() {
            let pod = (namespace.to_owned(), pod.to_owned());
            let containers = scrape.pods.entry(pod).or_default();
            containers.insert(container.to_owned(), point);
        }
    }
    scrape
}

/// One figure of a page.
struct Line<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
    at: Option<i64>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => {
                let (labels, rest) = rest.rsplit_once('}')?;
                (name, labels, rest)
            }
            None => {
                let (name, rest) = line.split_once(' ')?;
                (name, "", rest)
            }
        };
        let mut words = rest.split_ascii_whitespace();
        Some(Self {
            name: name.trim(),
            labels,
            value: words.next()?.parse().ok()?,
            at: words.next().and_then(|at| at.parse().ok()),
        })
    }

    /// The value of a label; names of objects need no escapes, and others are of no use here.
    fn label(&self, wanted: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            if key.trim_start_matches(',').trim() == wanted {
                return Some(value);
            }
            rest = after;
        }
    }
}

/// A figure in a smaller unit, if it is one that can be.
fn scaled(value: f64, by: f64) -> Option<u64> {
    let scaled = value * by;
    (scaled.is_finite() && (0.0..1.8e19).contains(&scaled)).then(|| scaled.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_points_are_taken_and_the_rest_is_passed_over() {
        let page = "# HELP x y\n\
            container_cpu_usage_seconds_total{container=\"app\",namespace=\"a\",pod=\"web\"} 1.5 1000\n\
            container_memory_working_set_bytes{container=\"app\",namespace=\"a\",pod=\"web\"} 3.3554432e+07 1000\n\
            container_start_time_seconds{container=\"app\",namespace=\"a\",pod=\"web\"} 0.5\n\
            container_cpu_usage_seconds_total{container=\"half\",namespace=\"a\",pod=\"web\"} 1\n\
            container_memory_working_set_bytes{container=\"bad\",namespace=\"a\",pod=\"web\"} NaN\n\
            node_cpu_usage_seconds_total 2\n\
            node_memory_working_set_bytes 100\n\
            nonsense{\n{}\n= 1\n";
        let scrape = read(page, 7);
        let node = Point {
            at: 7,
            cpu: 2_000_000_000,
            memory: 100,
            started: 0,
        };
        assert_eq!(scrape.node, Some(node));
        let app = Point {
            at: 1000,
            cpu: 1_500_000_000,
            memory: 32 << 20,
            started: 500,
        };
        let pod = ("a".to_owned(), "web".to_owned());
        let containers = BTreeMap::from([("app".to_owned(), app)]);
        assert_eq!(scrape.pods, BTreeMap::from([(pod, containers)]));
    }
}
