//! What containers of the fake runtime do.

use std::time::Duration;

use crate::ImageError;

/// What containers of an image do.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub(super) image_error: Option<ImageError>,
    pub(super) pull: Duration,
    pub(super) start_error: Option<String>,
    pub(super) exit: Option<ScriptedExit>,
    pub(super) serving: Serving,
    pub(super) ignores_stop: bool,
    pub(super) output: Vec<String>,
    /// Thousandths of a core, and bytes.
    pub(super) uses: (u64, u64),
}

#[derive(Clone, Debug)]
pub(super) struct ScriptedExit {
    pub(super) after: Duration,
    pub(super) code: i32,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Serving {
    #[default]
    AtOnce,
    After(Duration),
    Never,
}

impl Script {
    /// Runs until it is stopped.
    pub fn runs() -> Self {
        Self::default()
    }

    /// Ends by itself, at once unless [`after`](Self::after) says otherwise.
    pub fn exits(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let exit = ScriptedExit {
            after: Duration::ZERO,
            code,
            reason,
            message: String::new(),
        };
        Self {
            exit: Some(exit),
            ..Self::default()
        }
    }

    /// Ends with 137 and the reason `OOMKilled`.
    pub fn out_of_memory() -> Self {
        let mut script = Self::exits(137);
        if let Some(exit) = &mut script.exit {
            exit.reason = "OOMKilled".to_owned();
        }
        script
    }

    /// Runs, and begins to serve after `delay`.
    pub fn serves_after(delay: Duration) -> Self {
        Self {
            serving: Serving::After(delay),
            ..Self::default()
        }
    }

    /// Runs, and never serves.
    pub fn never_serves() -> Self {
        Self {
            serving: Serving::Never,
            ..Self::default()
        }
    }

    /// The image cannot be pulled.
    pub fn image_error(message: &str) -> Self {
        Self::fails_image(ImageError::Pull(message.to_owned()))
    }

    /// The image fails with this very error.
    pub fn fails_image(error: ImageError) -> Self {
        Self {
            image_error: Some(error),
            ..Self::default()
        }
    }

    /// Its image comes only after `delay`.
    pub fn pulls_for(mut self, delay: Duration) -> Self {
        self.pull = delay;
        self
    }

    /// The container cannot be started.
    pub fn start_error(message: &str) -> Self {
        Self {
            start_error: Some(message.to_owned()),
            ..Self::default()
        }
    }

    /// How long it runs before it exits.
    pub fn after(mut self, delay: Duration) -> Self {
        if let Some(exit) = &mut self.exit {
            exit.after = delay;
        }
        self
    }

    /// The termination message of its exit.
    pub fn message(mut self, message: &str) -> Self {
        if let Some(exit) = &mut self.exit {
            exit.message = message.to_owned();
        }
        self
    }

    /// A stop takes the whole grace period and ends with 137.
    pub fn ignores_stop(mut self) -> Self {
        self.ignores_stop = true;
        self
    }

    /// Runs use so many thousandths of a core all the time, and so many bytes of memory.
    pub fn uses(mut self, cpu_millis: u64, memory_bytes: u64) -> Self {
        self.uses = (cpu_millis, memory_bytes);
        self
    }

    /// Lines that each run writes to its log on standard output.
    pub fn prints(mut self, lines: &[&str]) -> Self {
        self.output
            .extend(lines.iter().map(|line| (*line).to_owned()));
        self
    }
}
