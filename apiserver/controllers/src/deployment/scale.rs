//! Resizing in the middle of a rollout: every ReplicaSet grows or shrinks by its share.

use super::reconcile::{Round, available, desired, max_surge, recreates, replicas};
use super::revision::{DESIRED, MAXIMUM, annotation};

/// Brings the sum of replicas to what the Deployment asks for without moving the rollout on.
pub(super) fn in_proportion(round: &mut Round<'_>) {
    let want = desired(round.deployment());
    if let Some(only) = active_or_latest(round) {
        if replicas(&round.sets[only].is) != want {
            round.resize(only, want);
        }
        return;
    }
    let old = round.old();
    if is_saturated(round) {
        for index in old {
            if replicas(&round.sets[index].is) > 0 {
                round.resize(index, 0);
            }
        }
        return;
    }
    if recreates(round.deployment()) {
        return;
    }

    let allowed = if want > 0 {
        want.saturating_add(max_surge(round.deployment()))
    } else {
        0
    };
    let to_add = allowed - round.total();
    let mut active: Vec<usize> = (0..round.sets.len())
        .filter(|index| replicas(&round.sets[*index].is) > 0)
        .collect();
    // The largest is changed first; among equals the newest grows first and the oldest shrinks first.
    active.sort_by_key(|index| {
        let age = i64::try_from(*index).unwrap_or(i64::MAX);
        (
            -replicas(&round.sets[*index].is),
            if to_add > 0 { -age } else { age },
        )
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for index in &active {
        let share = share(round, *index, to_add, added);
        added += share;
        sizes.push(replicas(&round.sets[*index].is) + share);
    }
    // What rounding left over goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        round.resize(index, size);
    }
}

/// The one ReplicaSet that matters, if only one does.
fn active_or_latest(round: &Round<'_>) -> Option<usize> {
    let mut active = (0..round.sets.len()).filter(|index| replicas(&round.sets[*index].is) > 0);
    match (active.next(), active.next()) {
        (None, _) => round.new.or_else(|| round.sets.len().checked_sub(1)),
        (only, None) => only,
        _ => None,
    }
}

/// Whether the current ReplicaSet has arrived at the size asked for, and works.
fn is_saturated(round: &Round<'_>) -> bool {
    let want = desired(round.deployment());
    round.current().is_some_and(|set| {
        replicas(set) == want
            && annotation(&set.metadata, DESIRED) == Some(want)
            && available(set) == want
    })
}

/// How many of `to_add` (which may be negative) this ReplicaSet gets after `added` are given away.
fn share(round: &Round<'_>, index: usize, to_add: i32, added: i32) -> i32 {
    let (set, deployment) = (&round.sets[index].is, round.deployment());
    let has = replicas(set);
    if has == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let want = desired(deployment);
    let fraction = if want == 0 {
        -has
    } else {
        let observed = deployment
            .status
            .as_ref()
            .and_then(|status| status.replicas)
            .unwrap_or(0);
        // What the ReplicaSet was made for: its share of that is its share of the new size.
        let made_for = annotation(&set.metadata, MAXIMUM).unwrap_or(observed);
        if made_for == 0 {
            return 0;
        }
        let size = f64::from(has) * f64::from(want.saturating_add(max_surge(deployment)))
            / f64::from(made_for);
        size.round() as i32 - has
    };
    let left = to_add - added;
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}
