//! Recorded answers of an upstream kube-apiserver, compared with those of this server, in process.
//!
//! Each area of `tests/oracle/scenarios` is one test. A scenario may differ from upstream only if
//! `tests/oracle/expected-failures.txt` names it; `docs/oracle.md` says how to run, look at and bless them.
//!
//! ```text
//! scenarios/*.jsonl.gz ─▶ scenario ─▶ replay ─▶ ApiServer::handle
//!                                       │ answers
//!                                       ▼
//!                                   normalise ─▶ compare ─▶ expectations
//! ```

mod compare;
#[path = "../deep/mod.rs"]
mod deep;
mod expectations;
mod normalise;
mod replay;
mod scenario;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::compare::Difference;
use crate::expectations::Expectations;
use crate::replay::TestServer;
use crate::scenario::{Scenario, areas};

/// What came of the areas that ran: the differing scenarios of each, and how many there were in all.
type Outcomes = Arc<Mutex<BTreeMap<String, (Vec<String>, usize)>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // What has a slash names scenarios, not areas: each is then a test of its own, and shows all its differences.
    if let Some(pattern) = arguments.filter.take_if(|filter| filter.contains('/')) {
        let scenarios = areas().into_iter().flat_map(|area| scenario::load(&area));
        let trials = scenarios
            .filter(|scenario| scenario.matches(&pattern))
            .map(single);
        return libtest_mimic::run(&arguments, trials.collect()).exit_code();
    }
    let expectations = Arc::new(Expectations::load());
    let outcomes = Outcomes::default();
    let blessing = is_set("CORACLE_ORACLE_BLESS");
    let trials = areas().into_iter().map(|area| {
        let (expectations, outcomes) = (Arc::clone(&expectations), Arc::clone(&outcomes));
        Trial::test(area.clone(), move || {
            let failures = replay_area(&area, &outcomes);
            if blessing {
                return Ok(());
            }
            judge(&area, failures, &expectations)
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let outcomes = outcomes.lock().expect("no test panics while it holds this");
    for (area, (failed, all)) in &*outcomes {
        println!(
            "{area}: {} as upstream, {} not",
            all - failed.len(),
            failed.len()
        );
    }
    let failed: usize = outcomes.values().map(|(failed, _)| failed.len()).sum();
    let all: usize = outcomes.values().map(|(_, all)| all).sum();
    println!("total: {} as upstream, {failed} not", all - failed);
    if blessing {
        let outcomes = outcomes
            .iter()
            .map(|(area, (failed, _))| (area.as_str(), failed.as_slice()));
        expectations.bless(outcomes);
    }
    conclusion.exit_code()
}

/// Runs an area's scenarios one after another on a server of their own, and returns those that differ.
fn replay_area(area: &str, outcomes: &Outcomes) -> Vec<(String, Vec<Difference>)> {
    let scenarios = scenario::load(area);
    let all = scenarios.len();
    let failures = TestServer::run(async |server| {
        let mut failures = Vec::new();
        for scenario in &scenarios {
            let differences = server.replay(scenario).await;
            if !differences.is_empty() {
                failures.push((scenario.name.clone(), differences));
            }
        }
        failures
    });
    let names = failures.iter().map(|(name, _)| name.clone()).collect();
    let mut outcomes = outcomes.lock().expect("no test panics while it holds this");
    outcomes.insert(area.to_owned(), (names, all));
    failures
}

/// An area is as it should be when exactly the scenarios on the list differ.
fn judge(
    area: &str,
    failures: Vec<(String, Vec<Difference>)>,
    expectations: &Expectations,
) -> Result<(), Failed> {
    let mut report = String::new();
    for (name, differences) in &failures {
        if !expectations.contains(name) {
            let (first, more) = (&differences[0], differences.len() - 1);
            let _ = writeln!(
                report,
                "{name} differs from upstream: {first} (and {more} more)"
            );
        }
    }
    for name in expectations.stale(area, &failures) {
        let _ = writeln!(report, "{name} is on the list, but as upstream by now");
    }
    if report.is_empty() {
        return Ok(());
    }
    report += "\nSee one in full: cargo test -p coracle-server --test oracle -- 'AREA/NAME'\
               \nTake this as the new list: CORACLE_ORACLE_BLESS=1 cargo test -p coracle-server --test oracle";
    Err(Failed::from(report))
}

/// A scenario on a server of its own, on the list or not.
fn single(scenario: Scenario) -> Trial {
    Trial::test(scenario.name.clone(), move || {
        let differences = TestServer::run(async |server| server.replay(&scenario).await);
        if differences.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = differences.iter().map(Difference::in_full).collect();
        Err(Failed::from(lines.join("\n")))
    })
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}
