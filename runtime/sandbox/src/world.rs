//! What kind of program an image is, read from its first bytes and its exports.
//!
//! Detection never compiles: a file that cannot run is refused in microseconds, with a message that
//! says what was found and what is needed.

mod foreign;
mod outline;

use wasmparser::Encoding;

use outline::{Needs, Outline};

/// The kinds of programs that this runtime runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A core module with `_start`: a WASI 0.1 command.
    Preview1 {
        /// Made by Go's compiler, whose runtime needs inherited listeners to be non-blocking.
        go: bool,
    },
    /// A component that exports `wasi:cli/run`.
    Command(Wasi),
    /// A component that exports `wasi:http/incoming-handler` 0.2 or `wasi:http/handler` 0.3: the
    /// runtime serves it.
    Http(Wasi),
    /// A component that exports functions of its own and nothing to run: it is there to be called.
    Functions,
}

/// The versions of WASI that components are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// 0.2, with pollables and streams of `wasi:io`.
    P2,
    /// 0.3, with the asynchronous functions, streams and futures of the component model.
    P3,
}

/// The bytes are nothing that this runtime runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image isn't runnable: found {found}; needed is {needed}")]
pub struct NotRunnable {
    found: String,
    needed: &'static str,
}

const WASM: &str = "a WebAssembly module or component (a .wasm file)";
const ENTRY: &str = "a WASI 0.1 module with `_start`, or a component that exports `wasi:cli/run@0.2` or `@0.3`, \
     `wasi:http/incoming-handler@0.2`, `wasi:http/handler@0.3`, or functions of its own";
const ONE_THREAD: &str =
    "a build for one thread, such as Rust's and clang's target wasm32-wasip1 without -threads";
const FOR_WASI: &str = "a build for WASI, such as Rust's target wasm32-wasip2 or Go's GOOS=wasip1";
/// The interface leaves to its host which keys are watched and what becomes of an event that nobody could take;
/// `docs/guests.md` tells more.
const WATCHER: &str = "something that runs: wasi:keyvalue/watcher does not say which keys are to be watched, and nothing \
     here calls it; export `wasi:cli/run`, and look for changes with `wasi:keyvalue/store`";
const RELEASED: &str = "a build for a released version of WASI, 0.2 or 0.3.0";

impl NotRunnable {
    /// A program whose world is right but whose bytes or imports are not.
    pub(crate) fn unsupported(found: String) -> Self {
        Self {
            found,
            needed: "a valid module or component that imports only WASI 0.1, 0.2 or 0.3, wasi:config, \
                     wasi:keyvalue or wasi:logging",
        }
    }
}

impl World {
    /// The kind in words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Preview1 { .. } => "a WASI 0.1 module",
            Self::Command(Wasi::P2) => "a wasi:cli 0.2 component",
            Self::Command(Wasi::P3) => "a wasi:cli 0.3 component",
            Self::Http(Wasi::P2) => "a wasi:http 0.2 component",
            Self::Http(Wasi::P3) => "a wasi:http 0.3 component",
            Self::Functions => "a component with functions",
        }
    }

    /// Reads the kind of program from the bytes of an image.
    pub fn detect(bytes: &[u8]) -> Result<Self, NotRunnable> {
        if !bytes.starts_with(b"\0asm") {
            return Err(NotRunnable {
                found: foreign::describe(bytes),
                needed: WASM,
            });
        }
        let outline = Outline::read(bytes).map_err(|error| NotRunnable {
            found: format!("damaged wasm: {error}"),
            needed: WASM,
        })?;
        match outline.encoding {
            Encoding::Module => module(&outline),
            Encoding::Component => component(&outline),
        }
    }
}

fn module(outline: &Outline) -> Result<World, NotRunnable> {
    let (found, needed) = match outline.needs {
        Needs::Threads => (
            "a module that wants threads in one memory (wasi-threads, which WASI has given up)"
                .to_owned(),
            ONE_THREAD,
        ),
        Needs::Other(host) => (format!("a module that wants {host}"), FOR_WASI),
        Needs::Nothing if outline.exports.iter().any(|export| export.name == "_start") => {
            return Ok(World::Preview1 { go: outline.go });
        }
        Needs::Nothing => (others("a core module", outline), ENTRY),
    };
    Err(NotRunnable { found, needed })
}

/// Of several worlds the one that answers requests goes first, and of two versions the newer.
fn component(outline: &Outline) -> Result<World, NotRunnable> {
    const KNOWN: &[(&str, &str, World)] = &[
        ("wasi:http/handler", "0.3.", World::Http(Wasi::P3)),
        ("wasi:http/incoming-handler", "0.2.", World::Http(Wasi::P2)),
        ("wasi:cli/run", "0.3.", World::Command(Wasi::P3)),
        ("wasi:cli/run", "0.2.", World::Command(Wasi::P2)),
    ];
    let is_known = |(interface, version, world): &&(&str, &str, World)| {
        let built = cfg!(feature = "p3") || !world.is_newer();
        built && outline.has(interface, version)
    };
    if let Some((_, _, world)) = KNOWN.iter().find(is_known) {
        return Ok(*world);
    }
    if outline.has_functions() {
        return Ok(World::Functions);
    }
    let (found, needed) = (others("a component", outline), ENTRY);
    let newer = |(_, _, world): &&(&str, &str, World)| world.is_newer();
    let mut newer = KNOWN.iter().filter(newer);
    if newer.any(|(interface, version, _)| outline.has(interface, version)) {
        let found = format!("{found}, in a runtime that was built without its feature p3");
        return Err(NotRunnable { found, needed });
    }
    if outline.exports_interface("wasi:keyvalue/watcher") {
        let needed = WATCHER;
        return Err(NotRunnable { found, needed });
    }
    let early = outline.exports.iter().any(|export| {
        export.name.starts_with("wasi:")
            && (export.name.contains("-rc-") || export.name.contains("-draft"))
    });
    let needed = if early { RELEASED } else { needed };
    Err(NotRunnable { found, needed })
}

impl World {
    fn is_newer(self) -> bool {
        matches!(self, Self::Command(Wasi::P3) | Self::Http(Wasi::P3))
    }
}

fn others(kind: &str, outline: &Outline) -> String {
    match outline.exports.is_empty() {
        true => format!("{kind} without exports"),
        false => format!("{kind} that exports only {}", outline.names()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(text: &str) -> Result<World, NotRunnable> {
        World::detect(&wat::parse_str(text).unwrap())
    }

    fn message(bytes: &[u8]) -> String {
        World::detect(bytes).unwrap_err().to_string()
    }

    fn component(names: &[&str]) -> String {
        let exports: Vec<_> = names
            .iter()
            .map(|name| format!(r#"(export "{name}" (instance $i))"#))
            .collect();
        format!("(component (instance $i) {})", exports.join(" "))
    }

    #[test]
    fn worlds_are_told_by_their_exports() {
        let go = r#"(module (@custom "producers" "\01\08language\01\02Go\001.24") (func (export "_start")))"#;
        assert_eq!(detect(go), Ok(World::Preview1 { go: true }));
        let plain = r#"(module (func (export "_start") (nop)) (func (export "other")))"#;
        assert_eq!(detect(plain), Ok(World::Preview1 { go: false }));
        for (names, world) in [
            (&["wasi:cli/run@0.2.3"][..], World::Command(Wasi::P2)),
            (&["wasi:http/incoming-handler@0.2.0"], World::Http(Wasi::P2)),
            (&["demo:math/ops@1.0.0"], World::Functions),
            (
                &["demo:math/ops", "wasi:cli/run@0.2.3"],
                World::Command(Wasi::P2),
            ),
        ] {
            assert_eq!(detect(&component(names)), Ok(world), "{names:?}");
        }
        let function = r#"(component (core module $m (func (export "f"))) (core instance $m (instantiate $m))
            (func (export "hello") (canon lift (core func $m "f"))))"#;
        assert_eq!(detect(function), Ok(World::Functions));
    }

    #[test]
    #[cfg(feature = "p3")]
    fn wasi_0_3_goes_before_0_2_and_http_before_a_command() {
        for (names, world) in [
            (&["wasi:cli/run@0.3.0"][..], World::Command(Wasi::P3)),
            (
                &["wasi:cli/run@0.2.0", "wasi:cli/run@0.3.1"],
                World::Command(Wasi::P3),
            ),
            (&["wasi:http/handler@0.3.0"], World::Http(Wasi::P3)),
            (
                &[
                    "wasi:http/handler@0.3.0",
                    "wasi:http/incoming-handler@0.2.0",
                ],
                World::Http(Wasi::P3),
            ),
            (
                &["wasi:cli/run@0.3.0", "wasi:http/incoming-handler@0.2.0"],
                World::Http(Wasi::P2),
            ),
        ] {
            assert_eq!(detect(&component(names)), Ok(world), "{names:?}");
        }
    }

    #[test]
    fn a_message_says_what_was_found() {
        assert!(message(b"").contains("an empty file"));
        assert!(message(b"\x7fELF\x02\x01").contains("native program"));
        assert!(message(b"hello world").contains("text that starts with \"hello world\""));
        assert!(message(b"(module)").contains("text form"));
        assert!(message(&[0xff, 1, 2]).contains("ff 01 02"));
        assert!(message(b"\0asm\x01\0\0\0\x07\xff").contains("damaged wasm"));
        assert!(message(b"\0asm").contains("damaged wasm"));
        for (text, found, needed) in [
            (
                r#"(module (func (export "add")))"#,
                "exports only add",
                "`_start`",
            ),
            (
                "(component)",
                "a component without exports",
                "functions of its own",
            ),
            (
                r#"(module (import "wasi" "thread-spawn" (func (param i32) (result i32))) (func (export "_start")))"#,
                "wants threads",
                "one thread",
            ),
            (
                r#"(module (import "env" "memory" (memory 1 2 shared)) (func (export "_start")))"#,
                "wants threads",
                "one thread",
            ),
            (
                r#"(module (memory (export "memory") 1 2 shared) (func (export "_start")))"#,
                "wants threads",
                "one thread",
            ),
            (
                r#"(module (import "gojs" "runtime.wasmExit" (func)) (func (export "run")))"#,
                "wants JavaScript around it (Go's GOOS=js)",
                "GOOS=wasip1",
            ),
            (
                r#"(module (import "wasix_32v1" "proc_fork" (func)) (func (export "_start")))"#,
                "wants WASIX",
                "a build for WASI",
            ),
            (
                &component(&["wasi:cli/run@0.3.0-rc-2025-09-16"]),
                "0.3.0-rc-2025-09-16",
                "a released version of WASI",
            ),
            (
                &component(&["wasi:keyvalue/watcher@0.2.0-draft"]),
                "exports only wasi:keyvalue/watcher@0.2.0-draft",
                "does not say which keys are to be watched",
            ),
        ] {
            let message = message(&wat::parse_str(text).unwrap());
            assert!(message.contains(found), "{message}");
            assert!(message.contains(needed), "{message}");
        }
    }
}
