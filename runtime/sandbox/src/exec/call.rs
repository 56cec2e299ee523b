//! Typed calls: `kubectl exec POD -- 'name(arguments)'`, in the syntax of WAVE.

use std::sync::Arc;

use coracle_cri::ExecError;
use wasm_wave::untyped::UntypedFuncCall;
use wasm_wave::wasm::DisplayType;
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Val};

use crate::container::Guest;
use crate::exec::nearest::nearest;
use crate::exit::Exit;
use crate::link::new_store;

/// Exports that a message lists at most.
const SHOWN: usize = 20;

/// Whether a command is a call: a name with brackets and nothing behind them.
pub(super) fn is_call(command: &[String]) -> bool {
    let [text] = command else { return false };
    let Some((name, _)) = text.split_once('(') else {
        return false;
    };
    let named = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_:/@.#%".contains(c));
    named && text.trim_end().ends_with(')')
}

/// A function that a component exports.
struct Export {
    /// The interface that it belongs to.
    interface: Option<String>,
    name: String,
    function: ComponentFunc,
}

impl Export {
    /// `add(a: u32, b: u32) -> u32`, with the interface in front.
    fn signature(&self) -> String {
        let parameters: Vec<_> = self
            .function
            .params()
            .map(|(name, ty)| format!("{name}: {}", DisplayType(&ty)))
            .collect();
        let results: Vec<_> = self
            .function
            .results()
            .map(|ty| format!(" -> {}", DisplayType(&ty)))
            .collect();
        let (name, results) = (self.full_name(), results.concat());
        format!("{name}({}){results}", parameters.join(", "))
    }

    fn full_name(&self) -> String {
        match &self.interface {
            Some(interface) => format!("{interface}#{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether `wanted` means it: the plain name, or with the interface in its full or short form.
    fn is_meant(&self, wanted: &str) -> bool {
        let wanted = wanted.trim_start_matches('%');
        if wanted == self.name {
            return true;
        }
        let Some(interface) = &self.interface else {
            return false;
        };
        let Some((of, name)) = wanted.rsplit_once('#').or_else(|| wanted.rsplit_once('.')) else {
            return false;
        };
        let plain = interface.split('@').next().unwrap_or(interface);
        let short = plain.rsplit('/').next().unwrap_or(plain);
        name == self.name && [interface.as_str(), plain, short].contains(&of)
    }
}

/// A call whose function was found and whose arguments fit.
pub(super) struct Call {
    component: Component,
    interface: Option<String>,
    name: String,
    arguments: Vec<Val>,
    results: usize,
}

impl Call {
    /// Reads `text` as a call of what `guest`'s component exports.
    pub(super) fn read(engine: &Engine, guest: &Guest, text: &str) -> Result<Self, ExecError> {
        let container = &guest.config.id.name;
        let Some(pre) = guest.program.linked.component() else {
            return Err(ExecError::CannotExecute(format!(
                "{text}: container {container} runs a core module; only exports of components can be called"
            )));
        };
        let component = pre.component().clone();
        let (name, arguments) = text
            .split_once('(')
            .expect("`is_call` found the bracket before");
        let exports = functions(engine, &component);
        let meant: Vec<&Export> = exports
            .iter()
            .filter(|export| export.is_meant(name))
            .collect();
        let export = match single(&meant) {
            Meant::One(export) => export,
            Meant::None => return Err(unknown(container, name, &exports)),
            Meant::Several => {
                let names: Vec<_> = meant.iter().map(|export| export.full_name()).collect();
                return Err(ExecError::CannotExecute(format!(
                    "{name}: several interfaces of container {container} export it; say which: {}",
                    names.join(", ")
                )));
            }
        };
        let misfit = |error: &dyn std::fmt::Display| {
            ExecError::CannotExecute(format!(
                "{text}: {error}; the function is {}",
                export.signature()
            ))
        };
        // The parser knows plain names only, and the name is settled.
        let call = format!("f({arguments}");
        let call = UntypedFuncCall::parse(call.trim_end()).map_err(|error| misfit(&error))?;
        let types: Vec<_> = export.function.params().map(|(_, ty)| ty).collect();
        let arguments = call
            .to_wasm_params::<Val>(types.iter())
            .map_err(|error| misfit(&error))?;
        if arguments.len() != types.len() {
            let (given, needed) = (arguments.len(), types.len());
            return Err(misfit(&format!(
                "{given} arguments for {needed} parameters"
            )));
        }
        Ok(Self {
            component,
            interface: export.interface.clone(),
            name: export.name.clone(),
            arguments,
            results: export.function.results().len(),
        })
    }

    /// Calls the function in an instance of its own; what it returned goes through `print`. An `err`
    /// is told by the exit code as well.
    pub(super) async fn run(self, guest: &Arc<Guest>, print: impl FnOnce(String)) -> Exit {
        match self.outcome(guest).await {
            Ok(Ok(results)) => {
                let failed = matches!(results[..], [Val::Result(Err(_))]);
                let texts: Result<Vec<_>, _> = results.iter().map(Val::to_wave).collect();
                match texts {
                    Ok(texts) if texts.is_empty() => {}
                    Ok(texts) => print(format!("{}\n", texts.join(", "))),
                    Err(error) => return Exit::not_started(&error),
                }
                Exit::with_code(i32::from(failed))
            }
            Ok(Err(error)) => Exit::from_error(&error, &guest.memory),
            Err(error) if guest.memory.refusal().is_some() || error.is::<wasmtime::Trap>() => {
                Exit::from_error(&error, &guest.memory)
            }
            Err(error) => Exit::not_started(&error),
        }
    }

    /// The outer error is one of starting, the inner one how the call ended.
    async fn outcome(&self, guest: &Arc<Guest>) -> wasmtime::Result<wasmtime::Result<Vec<Val>>> {
        let pre = guest
            .program
            .linked
            .component()
            .expect("`read` found a component");
        // What it returns counts as what it passes to the host, and a list has dozens of bytes there for each that it has.
        let mut store = new_store(&guest.engine.engine, guest.component_state()?, &guest.cpu);
        let instance = pre.instantiate_async(&mut store).await?;
        let function = instance
            .get_func(&mut store, self.index()?)
            .ok_or_else(|| wasmtime::Error::msg(format!("{} is no function", self.name)))?;
        let mut results = vec![Val::Bool(false); self.results];
        let done = function.call_async(&mut store, &self.arguments, &mut results);
        Ok(done.await.map(|()| results))
    }

    fn index(&self) -> wasmtime::Result<ComponentExportIndex> {
        let missing = || wasmtime::Error::msg(format!("{} is not exported", self.name));
        let interface = match &self.interface {
            Some(interface) => {
                let found = self.component.get_export_index(None, interface.as_str());
                Some(found.ok_or_else(missing)?)
            }
            None => None,
        };
        let index = self
            .component
            .get_export_index(interface.as_ref(), self.name.as_str());
        index.ok_or_else(missing)
    }
}

enum Meant<'a> {
    One(&'a Export),
    None,
    Several,
}

fn single<'a>(meant: &[&'a Export]) -> Meant<'a> {
    match meant {
        [] => Meant::None,
        [one] => Meant::One(one),
        // A function of the component itself goes before those of its interfaces.
        several => match several.iter().find(|export| export.interface.is_none()) {
            Some(own) => Meant::One(own),
            None => Meant::Several,
        },
    }
}

/// All functions that a component exports, those of resources left out.
fn functions(engine: &Engine, component: &Component) -> Vec<Export> {
    let mut functions = Vec::new();
    let mut add = |interface: Option<&str>, name: &str, item: ComponentItem| {
        if let ComponentItem::ComponentFunc(function) = item
            && !name.starts_with('[')
        {
            functions.push(Export {
                interface: interface.map(str::to_owned),
                name: name.to_owned(),
                function,
            });
        }
    };
    for (name, export) in component.component_type().exports(engine) {
        match export.ty {
            ComponentItem::ComponentInstance(instance) => {
                for (inner, export) in instance.exports(engine) {
                    add(Some(name), inner, export.ty);
                }
            }
            item => add(None, name, item),
        }
    }
    functions
}

fn unknown(container: &str, name: &str, exports: &[Export]) -> ExecError {
    let mut message = format!("{name}: container {container} exports no such function");
    let names = exports.iter().map(|export| export.name.as_str());
    if let Some(nearest) = nearest(name, names) {
        message.push_str(&format!("; did you mean {nearest}?"));
    }
    // Those of the world that it runs in are the runtime's to call.
    let own: Vec<_> = exports
        .iter()
        .filter(|export| {
            let interface = export.interface.as_deref();
            !interface.is_some_and(|name| name.starts_with("wasi:"))
        })
        .collect();
    let signatures: Vec<_> = own
        .iter()
        .take(SHOWN)
        .map(|export| export.signature())
        .collect();
    if signatures.is_empty() {
        message.push_str("; it exports none of its own");
    } else {
        message.push_str(&format!("; it exports {}", signatures.join(", ")));
    }
    if own.len() > SHOWN {
        message.push_str(&format!(" and {} more", own.len() - SHOWN));
    }
    ExecError::CommandNotFound(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_commands() {
        for (text, call) in [
            ("add(1, 2)", true),
            ("a:b/c@1.0.0#add()", true),
            ("ls", false),
            ("echo (a)", false),
            ("(a)", false),
            ("f(1) ", true),
            ("f(1) x", false),
        ] {
            assert_eq!(is_call(&[text.to_owned()]), call, "{text}");
        }
        assert!(!is_call(&["f(1)".to_owned(), "x".to_owned()]));
    }
}
