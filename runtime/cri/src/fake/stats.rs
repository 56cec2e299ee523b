//! What scripted containers use: a steady rate, as their scripts say.

use std::time::Duration;

use coracle_clock::Timestamp;

use super::state::{Container, Inner};
use crate::{
    ContainerState, ContainerStats, CpuUsage, MemoryUsage, NetworkUsage, PodSandboxStats, SandboxId,
};

impl Inner {
    /// What a sandbox uses at this moment of the clock. Ended runs are not remembered.
    pub(super) fn stats(&self, id: &SandboxId) -> Option<PodSandboxStats> {
        let at = self.clock.now();
        let state = self.state();
        let sandbox = state.sandboxes.get(id)?;
        let containers: Vec<_> = sandbox
            .containers
            .iter()
            .filter_map(|container| container.stats(at))
            .collect();
        let started = containers.iter().map(|container| container.started_at);
        Some(PodSandboxStats {
            id: id.clone(),
            at,
            created_at: started.min().unwrap_or(at),
            cpu: containers.iter().map(|found| found.cpu.used).sum(),
            cpu_limit_millis: sandbox.config.cpu_limit_millis,
            throttled_periods: 0,
            working_set: containers
                .iter()
                .map(|found| found.memory.working_set)
                .sum(),
            memory_limit: sandbox.config.memory_limit,
            network: NetworkUsage::default(),
            containers,
        })
    }
}

impl Container {
    fn stats(&self, at: Timestamp) -> Option<ContainerStats> {
        let ContainerState::Running { started_at, .. } = self.status.state else {
            return None;
        };
        let (millis, bytes) = self.script.uses;
        let up = Duration::try_from(at.duration_since(started_at)).unwrap_or_default();
        let used = up.saturating_mul(u32::try_from(millis).unwrap_or(u32::MAX)) / 1000;
        Some(ContainerStats {
            id: self.status.id.clone(),
            restart_count: self.status.restart_count,
            started_at,
            cpu: CpuUsage {
                used,
                limit_millis: self.config.cpu_limit_millis,
                ..CpuUsage::default()
            },
            memory: MemoryUsage {
                working_set: bytes,
                peak: bytes,
                limit: self.config.memory_limit,
                exceeded: false,
            },
        })
    }
}
