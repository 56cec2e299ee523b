//! What is told about seats and queues: `/metrics`, and upstream's `/debug/api_priority_and_fairness`.

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::FlowControl;
use super::gate::Waiting;
use super::seats::{Level, Reason, WAIT_BOUNDS};

/// Where the tables are.
pub(crate) const DEBUG: &str = "/debug/api_priority_and_fairness/";

type Number = fn(&Level<Waiting>) -> f64;

/// Gauges of levels: name, help and number.
const GAUGES: &[(&str, &str, Number)] = &[
    (
        "nominal_limit_seats",
        "Nominal number of seats of each priority level.",
        |level| level.nominal.into(),
    ),
    (
        "lower_limit_seats",
        "Seats that each priority level keeps.",
        |level| level.bounds.0.into(),
    ),
    (
        "upper_limit_seats",
        "Most seats that each priority level may have.",
        |level| level.bounds.1.into(),
    ),
    (
        "current_limit_seats",
        "Seats of each priority level as of now, with those that it borrows or lends.",
        |level| level.limit.into(),
    ),
    (
        "demand_seats_high_watermark",
        "Most seats that each priority level wanted in the last period.",
        |level| level.wanted().high,
    ),
    (
        "demand_seats_average",
        "Seats that each priority level wanted on average in the last period.",
        |level| level.wanted().average,
    ),
    (
        "demand_seats_stdev",
        "Deviation of the seats that each priority level wanted in the last period.",
        |level| level.wanted().deviation,
    ),
    (
        "demand_seats_smoothed",
        "What limits are moved towards.",
        |level| level.wanted().smoothed,
    ),
];

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}"
    );
}

impl FlowControl {
    /// The lines of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        self.level_metrics(&mut text);
        self.schema_metrics(&mut text);
        text
    }

    fn level_metrics(&self, text: &mut String) {
        let seats = self.seats.lock();
        for (name, help, number) in GAUGES {
            head(text, name, "gauge", help);
            for level in seats.levels() {
                let (label, number) = (&level.name, number(level));
                let _ = writeln!(
                    text,
                    "apiserver_flowcontrol_{name}{{priority_level=\"{label}\"}} {number}"
                );
            }
        }
        let name = "request_wait_duration_seconds";
        let help = "How long requests waited for their seats.";
        head(text, name, "histogram", help);
        for level in seats.levels() {
            let labels = format!("priority_level=\"{}\",execute=\"true\"", level.name);
            let mut sum = 0;
            for (bound, count) in WAIT_BOUNDS.iter().zip(level.waits.buckets) {
                sum += count;
                let _ = writeln!(
                    text,
                    "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"
                );
            }
            let (count, seconds) = (level.waits.count, level.waits.seconds);
            let _ = writeln!(
                text,
                "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n\
                 apiserver_flowcontrol_{name}_sum{{{labels}}} {seconds}\n\
                 apiserver_flowcontrol_{name}_count{{{labels}}} {count}"
            );
        }
        let name = "current_executing_seats";
        head(text, name, "gauge", "Seats in use.");
        for level in seats.levels() {
            let (label, used) = (&level.name, level.used);
            let _ = writeln!(
                text,
                "apiserver_flowcontrol_{name}{{priority_level=\"{label}\"}} {used}"
            );
        }
    }

    fn schema_metrics(&self, text: &mut String) {
        let table = self.table.read().clone();
        let labelled = table.routes().iter().map(|route| {
            let schema = &route.schema;
            let labels = format!(
                "priority_level=\"{}\",flow_schema=\"{}\"",
                schema.level, schema.name
            );
            (labels, &route.counts)
        });
        let labelled: Vec<_> = labelled.collect();
        let name = "dispatched_requests_total";
        head(text, name, "counter", "Requests that got seats.");
        for (labels, counts) in &labelled {
            let count = counts.dispatched.load(Ordering::Relaxed);
            let _ = writeln!(text, "apiserver_flowcontrol_{name}{{{labels}}} {count}");
        }
        let name = "rejected_requests_total";
        head(text, name, "counter", "Requests that were refused.");
        for (labels, counts) in &labelled {
            for reason in Reason::ALL {
                let count = counts.refused[reason as usize].load(Ordering::Relaxed);
                let reason = reason.text();
                let _ = writeln!(
                    text,
                    "apiserver_flowcontrol_{name}{{{labels},reason=\"{reason}\"}} {count}"
                );
            }
        }
        let name = "current_inqueue_requests";
        head(text, name, "gauge", "Requests that wait.");
        for (labels, counts) in &labelled {
            let count = counts.waiting.load(Ordering::Relaxed);
            let _ = writeln!(text, "apiserver_flowcontrol_{name}{{{labels}}} {count}");
        }
        let name = "current_executing_requests";
        head(text, name, "gauge", "Requests that have seats.");
        for (labels, counts) in &labelled {
            let count = counts.running.load(Ordering::Relaxed);
            let _ = writeln!(text, "apiserver_flowcontrol_{name}{{{labels}}} {count}");
        }
    }

    /// One of upstream's tables, by the end of its path.
    pub(crate) fn dump(&self, name: &str) -> Option<String> {
        let rows = match name {
            "dump_priority_levels" => self.dump_levels(),
            "dump_queues" => self.dump_queues(),
            "dump_requests" => self.dump_requests(),
            _ => return None,
        };
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.len() + 1).max().unwrap_or(0).max(7)
        };
        let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let last = row.len().saturating_sub(1);
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match at == last {
                    true => writeln!(text, "{cell}"),
                    false => write!(text, "{:<width$} ", format!("{cell},")),
                };
            }
        }
        Some(text)
    }

    fn dump_levels(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row([
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
        ])];
        for name in self.exempt_levels() {
            rows.push(none(name, 6));
        }
        for level in self.seats.lock().levels() {
            let waiting = level.queues.waiting();
            let active = level.queues.used().filter(|(_, q)| !q.waiting.is_empty());
            rows.push(vec![
                level.name.clone(),
                active.count().to_string(),
                (waiting == 0 && level.running == 0).to_string(),
                "false".to_owned(),
                waiting.to_string(),
                level.running.to_string(),
            ]);
        }
        rows
    }

    fn dump_queues(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row([
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for name in self.exempt_levels() {
            rows.push(none(name, 9));
        }
        for level in self.seats.lock().levels() {
            for (index, queue) in level.queues.used() {
                let wanted: u32 = queue.waiting.iter().map(|waiter| waiter.wants()).sum();
                let work: f64 = queue.waiting.iter().map(|w| w.grant.after_work).sum();
                rows.push(vec![
                    level.name.clone(),
                    index.to_string(),
                    queue.waiting.len().to_string(),
                    queue.running.to_string(),
                    queue.seats.saturating_sub(wanted).to_string(),
                    format!("{:.8}ss", queue.next),
                    wanted.to_string(),
                    wanted.to_string(),
                    format!("{work:.8}ss"),
                ]);
            }
        }
        rows
    }

    fn dump_requests(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row([
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
        ])];
        let (now, monotonic) = (self.clock.now(), self.now());
        for level in self.seats.lock().levels() {
            for (index, queue) in level.queues.used() {
                for (at, waiter) in queue.waiting.iter().enumerate() {
                    let age = Duration::from_secs_f64((monotonic - waiter.since).max(0.0));
                    let arrived = now.checked_sub(age).unwrap_or(now);
                    rows.push(vec![
                        level.name.clone(),
                        waiter.payload.route.schema.name.clone(),
                        index.to_string(),
                        at.to_string(),
                        waiter.payload.flow.clone(),
                        arrived.to_string(),
                        waiter.grant.width.to_string(),
                        waiter.grant.width.to_string(),
                        format!("{:?}", Duration::from_secs_f64(waiter.grant.after)),
                    ]);
                }
            }
        }
        rows
    }

    /// The names of levels without seats that a schema has.
    fn exempt_levels(&self) -> Vec<String> {
        let table = self.table.read().clone();
        let exempt = table.routes().iter().filter(|route| route.level.is_none());
        let mut names: Vec<String> = exempt.map(|route| route.schema.level.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn none(name: String, columns: usize) -> Vec<String> {
    let mut row = vec!["<none>".to_owned(); columns];
    row[0] = name;
    row
}
