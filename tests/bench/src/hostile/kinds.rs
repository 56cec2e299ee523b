//! The kinds of hostile guests.

use super::programs;

/// A kind of hostile guest, and the names of its figures: medians, then 99th percentiles, of http and of the API; then the
/// 99th percentiles once more, by those beside processes.
pub(super) struct Kind {
    pub(super) what: &'static str,
    pub(super) program: Program,
    pub(super) figures: [&'static str; 6],
}

/// What such a guest is.
pub(super) enum Program {
    /// One of the test guests, told to do this.
    Guest(&'static str, &'static [&'static str]),
    /// A program in text form.
    Text(&'static str),
    /// Images that are no two alike. What cannot run is followed by the next as soon as it was refused.
    Made {
        make: fn(u64) -> String,
        is_refused: bool,
    },
}

impl Program {
    /// Whether it goes on until it is ended.
    pub(super) fn is_endless(&self) -> bool {
        match self {
            Self::Guest(_, arguments) => !matches!(arguments, ["hog"] | ["recurse"]),
            Self::Text(_) => true,
            Self::Made { .. } => false,
        }
    }
}

macro_rules! figures {
    ($name:literal) => {
        [
            concat!("hostile.", $name, ".http_median"),
            concat!("hostile.", $name, ".api_median"),
            concat!("hostile.", $name, ".http_p99"),
            concat!("hostile.", $name, ".api_p99"),
            concat!("hostile.", $name, ".http_p99_by_wasmtime"),
            concat!("hostile.", $name, ".api_p99_by_wasmtime"),
        ]
    };
}

const fn diagnose(arguments: &'static [&'static str]) -> Program {
    Program::Guest("diagnose.wasm", arguments)
}

pub(super) const KINDS: &[Kind] = &[
    Kind {
        what: "endless loops",
        program: diagnose(&["spin"]),
        figures: figures!("spin"),
    },
    Kind {
        what: "floods of output",
        program: diagnose(&["flood", "1000000000000"]),
        figures: figures!("flood"),
    },
    Kind {
        what: "memory hogs",
        program: diagnose(&["hog"]),
        figures: figures!("hog"),
    },
    Kind {
        what: "recursion without an end",
        program: diagnose(&["recurse"]),
        figures: figures!("recurse"),
    },
    Kind {
        what: "tiny host calls",
        program: diagnose(&["call"]),
        figures: figures!("call"),
    },
    Kind {
        what: "turns given away",
        program: diagnose(&["yield"]),
        figures: figures!("yield"),
    },
    Kind {
        what: "tiny waits",
        program: diagnose(&["nap"]),
        figures: figures!("nap"),
    },
    Kind {
        what: "hoards of descriptors",
        program: diagnose(&["hoard"]),
        figures: figures!("descriptors"),
    },
    Kind {
        what: "hoards of sockets",
        program: Program::Guest("sockets.wasm", &["hoard"]),
        figures: figures!("sockets"),
    },
    Kind {
        what: "ways out of their folders",
        program: diagnose(&["escape"]),
        figures: figures!("escape"),
    },
    Kind {
        what: "giant component values",
        program: Program::Text(programs::GIANTS),
        figures: figures!("giants"),
    },
    Kind {
        what: "images that do not compile",
        program: Program::Made {
            make: programs::malformed,
            is_refused: true,
        },
        figures: figures!("malformed"),
    },
    Kind {
        what: "images that compile for seconds",
        program: Program::Made {
            make: programs::slow,
            is_refused: false,
        },
        figures: figures!("compile"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_figures_of_its_own() {
        let mut names: Vec<&str> = KINDS.iter().flat_map(|kind| kind.figures).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
