//! What was measured, and how it is printed.

use serde_json::{Value, json};

/// One number, beside what it should be.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// `what.detail`, stable between versions.
    pub(crate) name: &'static str,
    /// The unit of every number here.
    pub(crate) unit: &'static str,
    /// The number; a median where there is a spread.
    pub(crate) value: f64,
    /// What the value should be below.
    pub(crate) below: Option<f64>,
    /// What the value should reach.
    pub(crate) at_least: Option<f64>,
    /// How far single measurements lay apart.
    pub(crate) spread: Option<Spread>,
}

impl Figure {
    /// A number of its own.
    pub(crate) fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            unit,
            value,
            below: None,
            at_least: None,
            spread: None,
        }
    }

    /// The median of several measurements.
    pub(crate) fn median(name: &'static str, unit: &'static str, samples: &[f64]) -> Self {
        let spread = Spread::of(samples);
        Self {
            value: spread.median,
            spread: Some(spread),
            ..Self::new(name, unit, 0.0)
        }
    }

    /// The same, with what it should be below.
    pub(crate) fn below(self, target: f64) -> Self {
        Self {
            below: Some(target),
            ..self
        }
    }

    /// The same, with what it should reach.
    pub(crate) fn at_least(self, target: f64) -> Self {
        Self {
            at_least: Some(target),
            ..self
        }
    }

    fn json(&self) -> Value {
        let mut value = json!({"name": self.name, "value": rounded(self.value), "unit": self.unit});
        if let Some(target) = self.below {
            value["target"] = json!(format!("< {target}"));
            value["met"] = json!(self.value < target);
        }
        if let Some(target) = self.at_least {
            value["target"] = json!(format!(">= {target}"));
            value["met"] = json!(self.value >= target);
        }
        if let Some(spread) = &self.spread {
            value["spread"] = json!({
                "samples": spread.samples, "min": rounded(spread.min), "median": rounded(spread.median),
                "p90": rounded(spread.p90), "p99": rounded(spread.p99), "max": rounded(spread.max),
            });
        }
        value
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{:<34} {:>12} {:<8}",
            self.name,
            rounded(self.value),
            self.unit
        );
        if let Some(target) = self.below {
            let verdict = if self.value < target { "met" } else { "MISSED" };
            line.push_str(&format!(" < {target} {verdict}"));
        }
        if let Some(target) = self.at_least {
            let is_met = self.value >= target;
            let verdict = if is_met { "met" } else { "MISSED" };
            line.push_str(&format!(" >= {target} {verdict}"));
        }
        if let Some(spread) = &self.spread {
            let (min, p90, p99, max) = (
                rounded(spread.min),
                rounded(spread.p90),
                rounded(spread.p99),
                rounded(spread.max),
            );
            line.push_str(&format!(
                "  min {min}, p90 {p90}, p99 {p99}, max {max} of {}",
                spread.samples
            ));
        }
        line
    }
}

/// How far measurements lie apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    samples: usize,
    min: f64,
    /// The 50th percentile.
    pub(crate) median: f64,
    p90: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
    max: f64,
}

impl Spread {
    /// The spread of `samples`; not a number where there are none.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank: a number that was measured, not one between two.
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            samples: sorted.len(),
            min: at(0.0),
            median: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// All figures of one run.
pub(crate) struct Report {
    figures: Vec<Figure>,
    load: Option<String>,
}

impl Report {
    /// An empty report; remembers how busy the machine was before the first measurement.
    pub(crate) fn new() -> Self {
        Self {
            figures: Vec::new(),
            load: load(),
        }
    }

    /// Adds a figure, and shows on standard error that it is there.
    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("{}", figure.line());
        self.figures.push(figure);
    }

    /// The number of a figure that was added.
    #[cfg(test)]
    fn value(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map(|figure| figure.value)
    }

    fn json(&self) -> Value {
        json!({
            "load_before": self.load,
            "load_after": load(),
            "processors": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        })
    }

    /// One JSON document on standard output.
    pub(crate) fn print_json(&self) {
        println!("{:#}", self.json());
    }

    /// A line per figure on standard output.
    pub(crate) fn print_table(&self) {
        for figure in &self.figures {
            println!("{}", figure.line());
        }
    }
}

/// The load averages of Linux; a machine that is busy with something else measures that.
fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    Some(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Four significant digits are more than any of these numbers deserves.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_made_of_measured_numbers() {
        let samples: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let spread = Spread::of(&samples);
        assert_eq!(
            (spread.min, spread.median, spread.p90, spread.max),
            (1.0, 5.0, 9.0, 10.0)
        );
        assert_eq!(spread.samples, 10);
        assert_eq!(Spread::of(&[3.0]).p90, 3.0);
    }

    #[test]
    fn numbers_are_rounded_to_four_digits() {
        assert_eq!(rounded(0.000_123_456), 0.000_123_5);
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.0), 0.0);
    }

    #[test]
    fn a_missed_target_is_said() {
        let mut report = Report::new();
        report.add(Figure::median("start.ready", "ms", &[160.0, 155.0, 190.0]).below(150.0));
        assert_eq!(report.value("start.ready"), Some(160.0));
        let json = report.json();
        assert_eq!(json["figures"][0]["met"], false);
        assert_eq!(json["figures"][0]["target"], "< 150");
        assert!(report.figures[0].line().contains("MISSED"));
    }
}
