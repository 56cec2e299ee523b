//! What a budget allows, and what it forgets.
//!
//! Upstream: `pkg/controller/disruption`. Whoever evicts takes from `disruptionsAllowed` and notes the
//! Pod in `disruptedPods`; here the numbers are counted anew, and a Pod leaves the notes when it goes,
//! or when it should have gone and has not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::kube::core::SelectorExt;
use coracle_client::{EventKind, Selector, controller_of, is_terminating};
use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// How long an evicted Pod may take until its deletion begins.
pub(crate) const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a Pod may be marked for disruption without being deleted.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(120);

const ALLOWED: &str = "DisruptionAllowed";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) budget: Arc<PodDisruptionBudget>,
    /// The Pods that the budget selects, finished ones among them.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// What the Pods' controllers ask for, by the UIDs that the Pods name; a text says why nobody knows.
    pub(crate) scales: HashMap<String, Result<Option<Scale>, String>>,
    pub(crate) now: Timestamp,
}

/// How many Pods somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Of whoever asks: a Deployment, if the Pod's ReplicaSet is one's.
    pub(crate) uid: String,
    pub(crate) replicas: i32,
}

/// What a round decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// The status, if it is another one than there is.
    pub(crate) status: Option<Box<PodDisruptionBudgetStatus>>,
    /// What to tell, with the status.
    pub(crate) notes: Vec<Note>,
    /// When to look again though nothing changes.
    pub(crate) again: Option<Duration>,
    /// The numbers could not be counted.
    pub(crate) failed: bool,
}

/// Something to tell about the budget, or about a Pod that it selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) kind: EventKind,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) pod: Option<Arc<Pod>>,
}

impl Note {
    fn new(kind: EventKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            pod: None,
        }
    }
}

/// Counts a budget's Pods.
pub(crate) fn reconcile(world: &World) -> Decision {
    let budget = world.budget.as_ref();
    let before = budget.status.clone().unwrap_or_default();
    let counted = match expected(world) {
        Ok(counted) => counted,
        Err(problem) => return failed(world, &before, problem),
    };
    let mut decision = Decision::default();
    if world.pods.is_empty() {
        let note = Note::new(EventKind::Normal, "NoPods", "No matching pods found");
        decision.notes.push(note);
    }
    if counted.unmanaged {
        let selector = selector_text(spec(budget).and_then(|spec| spec.selector.as_ref()));
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a \
             result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
             To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        let note = Note::new(EventKind::Warning, "UnmanagedPods", message);
        decision.notes.push(note);
    }
    let disrupted = still_disrupted(world, &before, &mut decision);
    let healthy = count_healthy(world, &disrupted);
    let mut allowed = (healthy - counted.desired).max(0);
    // A budget whose Pods are not seen yet allows nothing.
    if counted.expected <= 0 {
        allowed = 0;
    }
    let generation = budget.metadata.generation;
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(counted.desired),
        expected_pods: Some(counted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|disrupted| !disrupted.is_empty()),
        observed_generation: generation,
        conditions: before.conditions.clone(),
    };
    let (verdict, reason) = match allowed > 0 {
        true => ("True", "SufficientPods"),
        false => ("False", "InsufficientPods"),
    };
    let status = with_condition(status, verdict, reason, "", world.now);
    settle(decision, &before, status)
}

/// What is worth a write, and worth telling only with one.
fn settle(
    mut decision: Decision,
    before: &PodDisruptionBudgetStatus,
    status: PodDisruptionBudgetStatus,
) -> Decision {
    let none = |status: &PodDisruptionBudgetStatus| PodDisruptionBudgetStatus {
        disrupted_pods: status
            .disrupted_pods
            .clone()
            .filter(|pods| !pods.is_empty()),
        ..status.clone()
    };
    if none(before) == none(&status) {
        decision.notes.clear();
    } else {
        decision.status = Some(Box::new(status));
    }
    decision
}

/// A budget that cannot be counted allows nothing, and says why.
fn failed(world: &World, before: &PodDisruptionBudgetStatus, problem: String) -> Decision {
    let message = format!("Failed to calculate the number of expected pods: {problem}");
    let note = Note::new(
        EventKind::Warning,
        "CalculateExpectedPodCountFailed",
        message,
    );
    let status = PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        ..before.clone()
    };
    let status = with_condition(status, "False", "SyncFailed", &problem, world.now);
    let decision = Decision {
        notes: vec![note],
        failed: true,
        ..Decision::default()
    };
    settle(decision, before, status)
}

struct Counted {
    expected: i32,
    desired: i32,
    unmanaged: bool,
}

/// How many Pods there should be, and how many of them healthy.
fn expected(world: &World) -> Result<Counted, String> {
    let spec = spec(&world.budget);
    let (most, least) = (
        spec.and_then(|spec| spec.max_unavailable.as_ref()),
        spec.and_then(|spec| spec.min_available.as_ref()),
    );
    match (most, least) {
        (Some(most), _) => {
            let (expected, unmanaged) = scale(world)?;
            let desired = expected.saturating_sub(share(most, expected)?).max(0);
            Ok(Counted {
                expected,
                desired,
                unmanaged,
            })
        }
        (None, Some(IntOrString::Int(least))) => Ok(Counted {
            expected: i32::try_from(world.pods.len()).unwrap_or(i32::MAX),
            desired: *least,
            unmanaged: false,
        }),
        (None, Some(least)) => {
            let (expected, unmanaged) = scale(world)?;
            Ok(Counted {
                expected,
                desired: share(least, expected)?,
                unmanaged,
            })
        }
        (None, None) => Ok(Counted {
            expected: 0,
            desired: 0,
            unmanaged: false,
        }),
    }
}

/// Whether the budget speaks of shares of what controllers ask for.
pub(crate) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    spec(budget).is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// What all controllers of the Pods ask for together, and whether some Pod has none.
fn scale(world: &World) -> Result<(i32, bool), String> {
    let mut asked: HashMap<&str, i32> = HashMap::new();
    let mut unmanaged = false;
    for pod in &world.pods {
        let Some(owner) = controller_of(pod.as_ref()) else {
            unmanaged = true;
            continue;
        };
        match world.scales.get(&owner.uid) {
            Some(Ok(Some(scale))) => {
                asked.insert(&scale.uid, scale.replicas);
            }
            Some(Err(problem)) => return Err(problem.clone()),
            Some(Ok(None)) | None => {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(format!("found no controllers for pod {pod:?}"));
            }
        }
    }
    let total = asked.values().fold(0i32, |sum, n| sum.saturating_add(*n));
    Ok((total, unmanaged))
}

/// A number, or a share of `total` in percent, rounded up.
fn share(amount: &IntOrString, total: i32) -> Result<i32, String> {
    match amount {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok());
            let percent: i64 = percent.ok_or_else(|| {
                "invalid value for IntOrString: invalid type: string is not a percentage".to_owned()
            })?;
            let part = percent.saturating_mul(total.into()).saturating_add(99) / 100;
            Ok(i32::try_from(part).unwrap_or(i32::MAX))
        }
    }
}

/// Evicted Pods whose deletion has yet to begin.
fn still_disrupted(
    world: &World,
    before: &PodDisruptionBudgetStatus,
    decision: &mut Decision,
) -> BTreeMap<String, Time> {
    let mut still = BTreeMap::new();
    let Some(noted) = &before.disrupted_pods else {
        return still;
    };
    for pod in world
        .pods
        .iter()
        .filter(|pod| !is_terminating(pod.as_ref()))
    {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(since) = noted.get(name) else {
            continue;
        };
        match left(since.0, DELETION_TIMEOUT, world.now) {
            Some(wait) => {
                decision.again = Some(decision.again.map_or(wait, |again| again.min(wait)));
                still.insert(name.to_owned(), since.clone());
            }
            None => {
                let namespace = world
                    .budget
                    .metadata
                    .namespace
                    .as_deref()
                    .unwrap_or_default();
                // Upstream names the namespace twice, and the budget not at all.
                let message = format!(
                    "Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't"
                );
                decision.notes.push(Note {
                    pod: Some(Arc::clone(pod)),
                    ..Note::new(EventKind::Warning, "NotDeleted", message)
                });
            }
        }
    }
    still
}

/// What is left of `limit` since a moment; `None` once it is over.
fn left(since: Timestamp, limit: Duration, now: Timestamp) -> Option<Duration> {
    let gone = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    // One more moment, so that the next look finds it over.
    (gone <= limit).then(|| limit - gone + Duration::from_millis(1))
}

fn count_healthy(world: &World, disrupted: &BTreeMap<String, Time>) -> i32 {
    let healthy = world.pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !is_terminating(pod.as_ref()) && !disrupted.contains_key(name) && pods::is_ready(pod)
    });
    i32::try_from(healthy.count()).unwrap_or(i32::MAX)
}

/// The condition's time is that of its last other status.
fn with_condition(
    mut status: PodDisruptionBudgetStatus,
    verdict: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let conditions = status.conditions.get_or_insert_default();
    let had = conditions.iter_mut().find(|had| had.type_ == ALLOWED);
    let since = had.as_ref().filter(|had| had.status == verdict);
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: verdict.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since.map_or_else(
            || Time(seconds(now)),
            |had| had.last_transition_time.clone(),
        ),
    };
    match had {
        Some(had) => *had = condition,
        None => conditions.push(condition),
    }
    status
}

/// Times in objects are whole seconds.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What becomes of a Pod's mark that it is about to be disrupted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    /// There is none, or it is right.
    Fine,
    /// It may still come true.
    Wait(Duration),
    /// Nobody deleted the Pod: the mark says so from now on.
    Clear(Box<PodCondition>),
}

/// Looks at a Pod's condition `DisruptionTarget`: one that the kubelet made, or that is on an ended Pod, stays.
pub(crate) fn stale_mark(pod: &Pod, now: Timestamp) -> Mark {
    let mark = pods::condition(pod, "DisruptionTarget").filter(|mark| {
        mark.status == "True" && mark.reason.as_deref() != Some("TerminationByKubelet")
    });
    let Some(mark) = mark.filter(|_| pods::is_active(pod)) else {
        return Mark::Fine;
    };
    let since = mark.last_transition_time.as_ref().map(|time| time.0);
    match since.and_then(|since| left(since, STALE_AFTER, now)) {
        Some(wait) => Mark::Wait(wait),
        None => Mark::Clear(Box::new(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "False".to_owned(),
            last_transition_time: Some(Time(seconds(now))),
            ..PodCondition::default()
        })),
    }
}

pub(crate) fn spec(budget: &PodDisruptionBudget) -> Option<&PodDisruptionBudgetSpec> {
    budget.spec.as_ref()
}

/// Whether the budget covers the Pod; one with an empty selector covers all of its namespace, without one none.
pub(crate) fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let none = BTreeMap::new();
    selector(budget)
        .is_some_and(|selector| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none)))
}

/// The budget's selector; `None` if it has none or it cannot be read.
pub(crate) fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    let selector = spec(budget)?.selector.clone()?;
    Selector::try_from(selector).ok()
}

/// A selector as Go prints it.
fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions: String = expressions
        .map(|expression| {
            let values = expression.values.iter().flatten().cloned();
            let values = values.collect::<Vec<_>>().join(" ");
            let (key, operator) = (&expression.key, &expression.operator);
            format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
