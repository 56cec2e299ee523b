//! What a pod asks for, and may use, as a whole: upstream's `PodRequests` and `PodLimits` (`component-helpers/resource`).

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Amounts by the names of resources, as the API has them.
pub(crate) type Amounts = BTreeMap<String, ApiQuantity>;
type Sums<'a> = BTreeMap<&'a str, Quantity>;

/// What counts for a pod: its containers, and what they and the pod as a whole have.
pub(crate) struct Counted<'a> {
    pub(crate) spec: &'a PodSpec,
    /// What is said of the pod as a whole; it counts instead of what its containers have together.
    pub(crate) whole: Option<&'a ResourceRequirements>,
    /// What a container has.
    pub(crate) of: &'a dyn Fn(&'a Container) -> Option<&'a ResourceRequirements>,
}

impl<'a> Counted<'a> {
    /// What the pod asks for.
    pub(crate) fn requests(&self) -> Amounts {
        let mut all = self.together(|one| one.requests.as_ref());
        self.as_a_whole(&mut all, |whole| whole.requests.as_ref());
        for (name, overhead) in parsed(self.spec.overhead.as_ref()) {
            *all.entry(name).or_default() += overhead;
        }
        shown(all)
    }

    /// What bounds the pod: what each of its containers has a limit of, or the pod as a whole.
    pub(crate) fn limits(&self) -> Amounts {
        let mut all = self.together(|one| one.limits.as_ref());
        all.retain(|name, _| {
            self.containers().all(|container| {
                let limits = (self.of)(container).and_then(|own| own.limits.as_ref());
                limits.is_some_and(|limits| limits.contains_key(*name))
            })
        });
        self.as_a_whole(&mut all, |whole| whole.limits.as_ref());
        for (name, overhead) in parsed(self.spec.overhead.as_ref()) {
            if let Some(limit) = all.get_mut(name).filter(|limit| !limit.is_zero()) {
                *limit += overhead;
            }
        }
        shown(all)
    }

    fn containers(&self) -> impl Iterator<Item = &'a Container> {
        let init = self.spec.init_containers.iter().flatten();
        init.chain(&self.spec.containers)
    }

    /// What containers have together: they run at the same time, init containers one after the other beside the sidecars
    /// that were started before them; the larger of the two counts.
    fn together(&self, list: impl Fn(&'a ResourceRequirements) -> Option<&'a Amounts>) -> Sums<'a> {
        let of = |container: &'a Container| parsed((self.of)(container).and_then(&list));
        let (mut all, mut starting) = (Sums::new(), Sums::new());
        for container in self.spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                add(&mut all, of(container));
                raise(&mut starting, &all);
            } else {
                let mut own = all.clone();
                add(&mut own, of(container));
                raise(&mut starting, &own);
            }
        }
        for container in &self.spec.containers {
            add(&mut all, of(container));
        }
        raise(&mut all, &starting);
        all
    }

    fn as_a_whole(
        &self,
        all: &mut Sums<'a>,
        list: impl Fn(&'a ResourceRequirements) -> Option<&'a Amounts>,
    ) {
        all.extend(parsed(self.whole.and_then(list)));
    }
}

/// A quantity that cannot be read counts as absent; the API refuses it.
fn parsed(amounts: Option<&Amounts>) -> impl Iterator<Item = (&str, Quantity)> {
    let all = amounts.into_iter().flatten();
    all.filter_map(|(name, quantity)| Some((name.as_str(), quantity.0.parse().ok()?)))
}

fn add<'a>(sums: &mut Sums<'a>, more: impl Iterator<Item = (&'a str, Quantity)>) {
    for (name, quantity) in more {
        match sums.get_mut(name) {
            Some(sum) => *sum += quantity,
            None => drop(sums.insert(name, quantity)),
        }
    }
}

fn raise<'a>(most: &mut Sums<'a>, to: &Sums<'a>) {
    for (name, quantity) in to {
        let known = most.entry(name).or_insert(*quantity);
        *known = (*known).max(*quantity);
    }
}

fn shown(sums: Sums<'_>) -> Amounts {
    let all = sums.into_iter();
    all.map(|(name, sum)| (name.to_owned(), ApiQuantity(sum.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: &Value) -> (Value, Value) {
        let spec: PodSpec = serde_json::from_value(spec.clone()).expect("a spec");
        let counted = Counted {
            spec: &spec,
            whole: spec.resources.as_ref(),
            of: &|container| container.resources.as_ref(),
        };
        (json!(counted.requests()), json!(counted.limits()))
    }

    #[test]
    fn containers_count_together_and_limits_where_all_have_one() {
        let asking =
            |requests: Value, limits: Value| json!({"requests": requests, "limits": limits});
        let spec = json!({
            "initContainers": [
                {"name": "proxy", "restartPolicy": "Always", "resources": asking(json!({"cpu": "100m"}), json!({"cpu": "1"}))},
                {"name": "setup", "resources": asking(json!({"cpu": "2"}), json!({"cpu": "2", "memory": "1Gi"}))},
            ],
            "containers": [
                {"name": "a", "resources": asking(json!({"cpu": "500m", "ephemeral-storage": "1Gi"}), json!({"cpu": "1", "memory": "1Gi"}))},
                {"name": "b", "resources": asking(json!({"memory": "64Mi"}), json!({"cpu": "500m"}))},
            ],
        });
        let requests = json!({"cpu": "2100m", "memory": "64Mi", "ephemeral-storage": "1Gi"});
        assert_eq!(of(&spec), (requests, json!({"cpu": "3"})));
        let mut whole = spec;
        whole["resources"] = asking(json!({"cpu": "3"}), json!({"memory": "2Gi"}));
        whole["overhead"] = json!({"cpu": "10m", "memory": "1Gi"});
        let requests = json!({"cpu": "3010m", "memory": "1088Mi", "ephemeral-storage": "1Gi"});
        let limits = json!({"cpu": "3010m", "memory": "3Gi"});
        assert_eq!(of(&whole), (requests, limits));
        let none = json!({"containers": [{"name": "a"}]});
        assert_eq!(of(&none), (json!({}), json!({})));
    }
}
