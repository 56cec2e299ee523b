//! What kind of program an image is, read from its first bytes and its exports.
//!
//! Detection never compiles: a file that cannot run is refused in microseconds, with a message that
//! says what was found and what is needed.

use wasmparser::{Chunk, Encoding, Parser, Payload};

/// The kinds of programs that this runtime runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A core module with `_start`: a WASI 0.1 command.
    Preview1 {
        /// Made by Go's compiler, whose runtime needs inherited listeners to be non-blocking.
        go: bool,
    },
    /// A component that exports `wasi:cli/run` 0.2.
    Command,
    /// A component that exports `wasi:http/incoming-handler` 0.2: the runtime serves it.
    Http,
}

/// The bytes are nothing that this runtime runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image isn't runnable: found {found}; needed is {needed}")]
pub struct NotRunnable {
    found: String,
    needed: &'static str,
}

const WASM: &str = "a WebAssembly module or component (a .wasm file)";
const ENTRY: &str = "a WASI 0.1 module with `_start`, or a component that exports `wasi:cli/run@0.2` or \
     `wasi:http/incoming-handler@0.2`";

/// Names that are listed in a message at most.
const NAMES_SHOWN: usize = 8;

impl NotRunnable {
    /// A program whose world is right but whose bytes or imports are not.
    pub(crate) fn unsupported(found: String) -> Self {
        Self {
            found,
            needed: "a valid module or component that imports only WASI 0.1 or 0.2",
        }
    }
}

impl World {
    /// The kind in words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Preview1 { .. } => "a WASI 0.1 module",
            Self::Command => "a wasi:cli 0.2 component",
            Self::Http => "a wasi:http 0.2 component",
        }
    }

    /// Reads the kind of program from the bytes of an image.
    pub fn detect(bytes: &[u8]) -> Result<Self, NotRunnable> {
        if !bytes.starts_with(b"\0asm") {
            return Err(NotRunnable {
                found: describe_foreign(bytes),
                needed: WASM,
            });
        }
        let outline = Outline::read(bytes).map_err(|error| NotRunnable {
            found: format!("damaged wasm: {error}"),
            needed: WASM,
        })?;
        outline.world()
    }
}

/// The outermost exports and what made the module.
struct Outline {
    encoding: Encoding,
    exports: Vec<String>,
    go: bool,
}

impl Outline {
    fn read(mut bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut outline = Self {
            encoding: Encoding::Module,
            exports: Vec::new(),
            go: false,
        };
        let mut parser = Parser::new(0);
        loop {
            let (payload, consumed) = match parser.parse(bytes, true)? {
                Chunk::Parsed { payload, consumed } => (payload, consumed),
                Chunk::NeedMoreData(_) => unreachable!("all data was given"),
            };
            let mut skip = 0;
            match payload {
                Payload::Version { encoding, .. } => outline.encoding = encoding,
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.exports.push(export?.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        outline.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) => {
                    outline.go |= section.name() == "go:buildid"
                        || section.name() == "go.buildid"
                        || (section.name() == "producers" && is_made_by_go(section.data()));
                }
                Payload::CodeSectionStart { size, .. } => {
                    parser.skip_section();
                    skip = size as usize;
                }
                Payload::ModuleSection {
                    unchecked_range, ..
                }
                | Payload::ComponentSection {
                    unchecked_range, ..
                } => {
                    skip = unchecked_range.end - unchecked_range.start;
                }
                Payload::End(_) => return Ok(outline),
                _ => {}
            }
            let next = consumed.saturating_add(skip);
            bytes = bytes.get(next..).unwrap_or_default();
        }
    }

    fn world(&self) -> Result<World, NotRunnable> {
        let exports = |interface: &str, version: &str| {
            let versioned = format!("{interface}@{version}");
            self.exports.iter().any(|name| name.starts_with(&versioned))
        };
        match self.encoding {
            Encoding::Module if self.exports.iter().any(|name| name == "_start") => {
                return Ok(World::Preview1 { go: self.go });
            }
            Encoding::Component if exports("wasi:http/incoming-handler", "0.2.") => {
                return Ok(World::Http);
            }
            Encoding::Component if exports("wasi:cli/run", "0.2.") => return Ok(World::Command),
            _ => {}
        }
        let newer = self.encoding == Encoding::Component
            && (exports("wasi:http/handler", "0.3.") || exports("wasi:cli/run", "0.3."));
        let kind = match self.encoding {
            Encoding::Module => "a core module",
            Encoding::Component => "a component",
        };
        let found = if newer {
            format!(
                "{kind} for WASI 0.3, which this version doesn't run yet (exports {})",
                self.names()
            )
        } else if self.exports.is_empty() {
            format!("{kind} without exports")
        } else {
            format!("{kind} that exports only {}", self.names())
        };
        Err(NotRunnable {
            found,
            needed: ENTRY,
        })
    }

    fn names(&self) -> String {
        let mut names: Vec<_> = self
            .exports
            .iter()
            .take(NAMES_SHOWN)
            .map(|name| shorten(name))
            .collect();
        if self.exports.len() > NAMES_SHOWN {
            names.push(format!("{} more", self.exports.len() - NAMES_SHOWN));
        }
        names.join(", ")
    }
}

/// The `producers` section names languages and compilers as length-prefixed strings.
fn is_made_by_go(producers: &[u8]) -> bool {
    producers.windows(3).any(|window| window == b"\x02Go")
        && !producers.windows(6).any(|window| window == b"TinyGo")
}

/// Says what bytes are that are not wasm.
fn describe_foreign(bytes: &[u8]) -> String {
    const KNOWN: &[(&[u8], &str)] = &[
        (
            b"\x7fELF",
            "a native program or library (ELF) or code compiled ahead of time (.cwasm); \
           give the .wasm that it was made from",
        ),
        (b"MZ", "a Windows program"),
        (b"\xcf\xfa\xed\xfe", "a macOS program (Mach-O)"),
        (b"\xca\xfe\xba\xbe", "a macOS program or Java class"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer; run `git lfs pull` to get the file",
        ),
        (b"#!", "a script"),
    ];
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*what).to_owned();
    }
    let start = &bytes[..bytes.len().min(24)];
    let text = std::str::from_utf8(start).ok().filter(|text| {
        text.chars()
            .all(|c| !c.is_control() || c.is_ascii_whitespace())
    });
    match text {
        Some(text)
            if text.trim_start().starts_with("(module")
                || text.trim_start().starts_with("(component") =>
        {
            "WebAssembly in its text form; convert it with `wasm-tools parse`".to_owned()
        }
        Some(text) => format!("text that starts with {text:?}"),
        None => {
            let hex: Vec<_> = start
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("bytes that start with {}", hex.join(" "))
        }
    }
}

/// Export names come from the image and may be of any length.
fn shorten(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
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

    #[test]
    fn worlds_are_told_by_their_exports() {
        let go = r#"(module (@custom "producers" "\01\08language\01\02Go\001.24") (func (export "_start")))"#;
        assert_eq!(detect(go), Ok(World::Preview1 { go: true }));
        let plain = r#"(module (func (export "_start") (nop)) (func (export "other")))"#;
        assert_eq!(detect(plain), Ok(World::Preview1 { go: false }));
        for (name, world) in [
            ("wasi:cli/run@0.2.3", World::Command),
            ("wasi:http/incoming-handler@0.2.0", World::Http),
        ] {
            let component = format!(
                r#"(component (core module (func (export "a"))) (instance $i) (export "{name}" (instance $i)))"#
            );
            assert_eq!(detect(&component), Ok(world), "{name}");
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
        let plugin = wat::parse_str(r#"(module (func (export "add")))"#).unwrap();
        assert!(message(&plugin).contains("exports only add"));
        let newer = wat::parse_str(
            r#"(component (instance $i) (export "wasi:cli/run@0.3.0" (instance $i)))"#,
        );
        assert!(message(&newer.unwrap()).contains("WASI 0.3"));
    }
}
