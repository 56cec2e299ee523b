//! How many instances a node holds at once, and what to do when they are too few.

use crate::engine::Ceiling;

/// The number of instances, and what it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Instances at once; at least one.
    pub(crate) most: u32,
    /// What the system admits, where that is less than was configured.
    lowered_by: Option<Ceiling>,
}

impl Places {
    /// As many as `configured`, unless the system admits fewer.
    pub(crate) fn new(configured: u32, ceiling: Option<Ceiling>) -> Self {
        let lowered_by = ceiling.filter(|ceiling| ceiling.instances < configured);
        let most = lowered_by.map_or(configured, |ceiling| ceiling.instances);
        Self {
            most: most.max(1),
            lowered_by,
        }
    }

    /// What is said to whoever finds no place; names what is to be changed.
    pub(crate) fn refusal(&self) -> String {
        let most = self.most;
        match self.lowered_by {
            Some(Ceiling {
                mappings,
                instances,
            }) => {
                let more = mappings.saturating_mul(4);
                format!(
                    "this node already runs {instances} instances, as many as vm.max_map_count = {mappings} of its \
                     system admits; to run more, raise it with `sysctl -w vm.max_map_count={more}` and start the \
                     node again"
                )
            }
            None => format!(
                "this node already runs {most} instances, as many as it was configured for; to run more, configure \
                 it for more pods and start it again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_the_bound_that_counts() {
        let system = Ceiling {
            mappings: 65_530,
            instances: 9_556,
        };
        let lowered = Places::new(11_000, Some(system));
        assert_eq!(lowered.most, 9_556);
        let refusal = lowered.refusal();
        assert!(refusal.contains("vm.max_map_count = 65530"), "{refusal}");
        assert!(
            refusal.contains("sysctl -w vm.max_map_count=262120"),
            "{refusal}"
        );

        for ceiling in [Some(system), None] {
            let configured = Places::new(64, ceiling);
            assert_eq!(configured.most, 64);
            let refusal = configured.refusal();
            assert!(refusal.contains("runs 64 instances"), "{refusal}");
            assert!(!refusal.contains("sysctl"), "{refusal}");
        }
        assert_eq!(Places::new(0, None).most, 1);
    }
}
