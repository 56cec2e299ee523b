//! Whatever happens to a pod, in whatever order: what always holds.
//!
//! A history is a list of happenings ([`generate`]); before each, [`World::look`] asks what is to be done and checks
//! the answer and the status. In the end everything goes well, and the pod has to come to rest.

mod generate;
mod happens;
mod world;

use proptest::prelude::*;

use super::*;
use generate::{Happening, happening, pods};
use world::World;

impl World {
    /// What runs to its end, and does.
    fn finishing(&self) -> Option<String> {
        parts(self.spec())
            .find(|part| {
                let runs = matches!(
                    self.observed.container(part.name()).run,
                    Run::Running { .. }
                );
                part.role == Role::Init && runs
            })
            .map(|part| part.name().to_owned())
    }

    /// A container whose startup probe has not passed.
    fn starting_up(&self) -> Option<String> {
        parts(self.spec())
            .find(|part| {
                let record = self.observed.container(part.name());
                let runs = matches!(record.run, Run::Running { .. });
                part.container.startup_probe.is_some() && runs && !record.probes.started
            })
            .map(|part| part.name().to_owned())
    }

    /// Everything succeeds from now on, and guests run for ever: the pod has to come to rest.
    fn settle(&mut self) {
        for _ in 0..400 {
            let wake_at = self.look();
            if self.forgotten {
                return;
            }
            if let Some(name) = self.pick(0, |run| *run == Run::Starting) {
                self.happens(&Happening::Runs(0));
                assert_ne!(self.observed.container(&name).run, Run::Starting);
            } else if !self.begun.is_empty() {
                self.carry_out(0, true);
            } else if let Some(name) = self.finishing() {
                self.exit(&name, 0);
            } else if let Some(name) = self.starting_up() {
                self.observed.container_mut(&name).probes.started = true;
            } else if let Some(wake_at) = wake_at {
                assert!(wake_at > self.now, "it wakes again and again");
                self.now = wake_at;
            } else {
                return;
            }
        }
        panic!("the pod does not come to rest: {:?}", self.observed);
    }

    fn is_at_rest(&self) -> bool {
        if self.pod.metadata.deletion_timestamp.is_some() {
            return self.forgotten;
        }
        match self.phase.as_str() {
            "Running" => self.observed.is_anything_running(),
            "Succeeded" | "Failed" => self.observed.sandbox == SandboxState::Absent,
            _ => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_pod_is_never_stuck_and_runs_nothing_twice(
        pod in pods(),
        history in prop::collection::vec(happening(), 0..80),
    ) {
        let mut world = World::new(pod);
        for happening in &history {
            world.look();
            if world.forgotten {
                return Ok(());
            }
            world.happens(happening);
        }
        world.settle();
        prop_assert!(world.is_at_rest(), "{:?} {:?}", world.pod.status, world.observed);
        if world.phase == "Running" && world.observed.ending_since.is_none() {
            // Every run has what its pod was granted, and so has the pod as a whole.
            let granted = whole::granted(&world.pod, &world.observed);
            let has = &world.observed.whole.allocated;
            prop_assert_eq!(has, &whole::wanted(&granted));
            let spec = granted.spec.as_ref().expect("a spec");
            for part in parts(spec).filter(|part| part.role == Role::Main) {
                let record = world.observed.container(part.name());
                let is_up = matches!(record.run, Run::Running { .. });
                prop_assert!(!is_up || !resize::is_wanted(spec, &part, record));
                let runs = record.image_ref.as_ref().map(|image| &image.image);
                prop_assert!(!is_up || runs == part.container.image.as_ref());
            }
        }
    }
}
