//! What a container has from its image, where its pod says nothing else; what is told while the image
//! comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_cri::{ContainerConfig, ImageStep};
use coracle_image::{Digest, Progress, RunConfig};
use parking_lot::Mutex;

/// How often the progress of one image is told.
const STEPS: u64 = 20;

/// Tells `announce` of an image as a whole, in so many steps that a large image does not crowd out the
/// news of containers.
pub(crate) fn downloads(announce: impl Fn(ImageStep) + Send + Sync + 'static) -> Progress {
    let (blobs, told) = (Mutex::new(HashMap::new()), AtomicU64::new(0));
    Arc::new(move |digest: &Digest, done: u64, total: u64| {
        let mut blobs = blobs.lock();
        blobs.insert(*digest, (done, total));
        let sum = |sum: (u64, u64), blob: &(u64, u64)| (sum.0 + blob.0, sum.1 + blob.1);
        let (done, total) = blobs.values().fold((0, 0), sum);
        let step = done.saturating_mul(STEPS) / total.max(1);
        if told.swap(step, Ordering::Relaxed) != step {
            announce(ImageStep::Downloading { done, total });
        }
    })
}

/// Fills in what `config` leaves to its image, by the rules of Kubernetes: a `command` replaces entry
/// point and arguments, `args` alone replace the arguments, and the pod's environment wins.
pub(crate) fn apply_image(image: &RunConfig, config: &mut ContainerConfig) {
    if config.command.is_empty() {
        config.command.clone_from(&image.entrypoint);
        if config.args.is_empty() {
            config.args.clone_from(&image.cmd);
        }
    }
    let mut env: Vec<(String, String)> = Vec::new();
    for entry in &image.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        let is_set = |list: &[(String, String)]| list.iter().any(|(other, _)| other == name);
        if !name.is_empty() && !is_set(&config.env) && !is_set(&env) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    env.append(&mut config.env);
    config.env = env;
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_cri::{ContainerId, ImageRef, SandboxId};

    use super::*;

    fn merged(command: &[&str], args: &[&str], env: &[(&str, &str)]) -> ContainerConfig {
        let list = |list: &[&str]| list.iter().map(|part| (*part).to_owned()).collect();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut config = ContainerConfig {
            id: ContainerId {
                sandbox: SandboxId("pod".to_owned()),
                name: "app".to_owned(),
            },
            image: ImageRef {
                image: "app:1".to_owned(),
                digest: String::new(),
                size: 0,
            },
            command: list(command),
            args: list(args),
            env: env.iter().map(pair).collect(),
            working_dir: String::new(),
            mounts: Vec::new(),
            ports: Vec::new(),
            memory_limit: None,
            cpu_limit_millis: None,
            cpu_weight_millis: 1,
            restart_count: 0,
            stdin: false,
            stdin_once: false,
            tty: false,
            read_only_root: false,
            termination_message: Default::default(),
            annotations: BTreeMap::new(),
        };
        let image = RunConfig {
            env: list(&["A=1", "B=2", "EMPTY", "A=3"]),
            entrypoint: list(&["/app.wasm", "serve"]),
            cmd: list(&["--fast"]),
            working_dir: "/data".to_owned(),
        };
        apply_image(&image, &mut config);
        config
    }

    #[test]
    fn command_and_args_replace_what_kubernetes_says_they_replace() {
        for (command, args, wanted) in [
            (&[][..], &[][..], &["/app.wasm", "serve", "--fast"][..]),
            (&[], &["x"], &["/app.wasm", "serve", "x"]),
            (&["/other.wasm"], &[], &["/other.wasm"]),
            (&["/other.wasm"], &["x"], &["/other.wasm", "x"]),
        ] {
            let config = merged(command, args, &[]);
            let all: Vec<_> = config.command.iter().chain(&config.args).collect();
            assert_eq!(all, wanted.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn downloads_are_told_in_steps() {
        let told: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let heard = told.clone();
        let progress = downloads(move |step| {
            if let ImageStep::Downloading { done, total } = step {
                heard.lock().push((done, total));
            }
        });
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        progress(&one, 0, 1000);
        progress(&two, 0, 1000);
        for done in 1..=1000 {
            progress(&one, done, 1000);
        }
        progress(&two, 1000, 1000);
        let told = told.lock();
        assert_eq!(told.len(), 11, "{told:?}");
        assert_eq!((told[0], told[10]), ((100, 2000), (2000, 2000)));
    }

    #[test]
    fn the_pods_environment_wins() {
        let config = merged(&[], &[], &[("B", "pod"), ("C", "pod")]);
        let env: Vec<_> = config.env.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(env, [("A", "1"), ("EMPTY", ""), ("B", "pod"), ("C", "pod")]);
        assert_eq!(config.working_dir, "/data");
    }
}
