//! The outermost names of a module or component, read without compiling it.

use wasmparser::{Chunk, ComponentExternalKind, Encoding, Parser, Payload, TypeRef};

/// Names that are listed in a message at most.
const NAMES_SHOWN: usize = 8;

/// Exports, and what the imports and custom sections tell of the compiler.
pub(super) struct Outline {
    pub(super) encoding: Encoding,
    pub(super) exports: Vec<Export>,
    /// Made by Go's own compiler, not by TinyGo.
    pub(super) go: bool,
    pub(super) needs: Needs,
}

/// An outermost export.
pub(super) struct Export {
    pub(super) name: String,
    /// Something that can be called, or an interface, which may have such things.
    pub(super) callable: bool,
}

/// What a module wants of its host that no WASI host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// Other threads that work in its memory: `wasi-threads`, or a memory to share.
    Threads,
    /// Another host, in words.
    Other(&'static str),
}

/// Modules to import from that only other hosts have.
const OTHERS: &[(&str, &str)] = &[
    ("wbg", "JavaScript around it (wasm-bindgen)"),
    (
        "__wbindgen_placeholder__",
        "JavaScript around it (wasm-bindgen)",
    ),
    ("gojs", "JavaScript around it (Go's GOOS=js)"),
    ("go", "JavaScript around it (Go's GOOS=js)"),
    ("wasix_32v1", "WASIX"),
    ("wasix_64v1", "WASIX"),
    ("wasi_unstable", "WASI before 0.1 (wasi_unstable)"),
];

impl Outline {
    pub(super) fn read(mut bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut outline = Self {
            encoding: Encoding::Module,
            exports: Vec::new(),
            go: false,
            needs: Needs::Nothing,
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
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        outline.note_import(import.module, import.name, import.ty);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        if memory?.shared {
                            outline.needs = Needs::Threads;
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.add(export?.name, true);
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let callable = matches!(
                            export.kind,
                            ComponentExternalKind::Func | ComponentExternalKind::Instance
                        );
                        outline.add(export.name.name, callable);
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

    fn add(&mut self, name: &str, callable: bool) {
        self.exports.push(Export {
            name: name.to_owned(),
            callable,
        });
    }

    fn note_import(&mut self, module: &str, name: &str, ty: TypeRef) {
        let shares = matches!(ty, TypeRef::Memory(memory) if memory.shared);
        if shares || (module, name) == ("wasi", "thread-spawn") {
            self.needs = Needs::Threads;
        } else if self.needs == Needs::Nothing
            && let Some((_, host)) = OTHERS.iter().find(|(from, _)| *from == module)
        {
            self.needs = Needs::Other(host);
        }
    }

    /// Whether an interface is exported, in any of the versions that begin with `version` and are
    /// released.
    pub(super) fn has(&self, interface: &str, version: &str) -> bool {
        self.exports.iter().any(|export| {
            let found = export.name.strip_prefix(interface);
            let found = found.and_then(|rest| rest.strip_prefix('@'));
            found.is_some_and(|found| found.starts_with(version) && !found.contains('-'))
        })
    }

    /// Whether an interface is exported, in any version or none.
    pub(super) fn exports_interface(&self, interface: &str) -> bool {
        self.exports.iter().any(|export| {
            let rest = export.name.strip_prefix(interface);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
        })
    }

    /// Whether there is something to call that the component itself gives a meaning to.
    pub(super) fn has_functions(&self) -> bool {
        let own = |export: &Export| export.callable && !export.name.starts_with("wasi:");
        self.exports.iter().any(own)
    }

    /// The exports, for a message.
    pub(super) fn names(&self) -> String {
        let shown = self.exports.iter().take(NAMES_SHOWN);
        let mut names: Vec<_> = shown.map(|export| shorten(&export.name)).collect();
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

/// Export names come from the image and may be of any length.
fn shorten(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
