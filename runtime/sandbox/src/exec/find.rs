//! What a command of `exec` means.
//!
//! ```text
//! 'name(arguments)'      an export of the container's component
//! a path, or x.wasm      a file that the container sees: a module, or a script for the toolbox' shell
//! the image's own name   the image's program once more, with these arguments
//! ls, sh, tar …          the toolbox
//! ```

use std::sync::Arc;

use coracle_cri::ExecError;

use super::call::{self, Call};
use super::nearest::nearest;
use super::{toolbox, view};
use crate::compile::{Compiler, Program};
use crate::container::{Guest, program_name};
use crate::engine::GuestEngine;

/// What was found.
pub(super) enum Target {
    Call(Call),
    /// A program and its whole command line.
    Program(Arc<Program>, Vec<String>),
    /// The same for the toolbox, which is told more than others.
    Toolbox(Arc<Program>, Vec<String>),
}

/// Looks `command` up for the container that `guest` is.
pub(super) async fn find(
    compiler: &Compiler,
    engine: &GuestEngine,
    guest: &Guest,
    command: &[String],
) -> Result<Target, ExecError> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(ExecError::CannotExecute("no command was given".to_owned()));
    };
    if call::is_call(command) {
        return Call::read(&engine.engine, guest, name).map(Target::Call);
    }
    let is_path = name.contains('/') || name.ends_with(".wasm");
    if is_path && let Some(target) = file(compiler, guest, name, arguments).await? {
        return Ok(target);
    }
    let tool = toolbox::command(name);
    if is_own_name(guest, name) {
        let linked = &guest.program.linked;
        if linked.is_command() {
            return Ok(Target::Program(guest.program.clone(), command.to_vec()));
        }
        if tool.is_none() {
            return Err(ExecError::CannotExecute(format!(
                "{name}: the program of container {} {} and is no command",
                guest.config.id.name,
                linked.purpose()
            )));
        }
    }
    match tool {
        Some(tool) => {
            let mut line = vec![tool.to_owned()];
            line.extend_from_slice(arguments);
            toolbox_target(compiler, line).await
        }
        None => Err(unknown(guest, name)),
    }
}

async fn toolbox_target(compiler: &Compiler, line: Vec<String>) -> Result<Target, ExecError> {
    let program = compiler.embedded(toolbox::NAME, toolbox::WASM).await;
    let program = program.map_err(|error| ExecError::Failed(format!("the toolbox: {error}")))?;
    Ok(Target::Toolbox(program, line))
}

/// A program or a script among the container's files.
async fn file(
    compiler: &Compiler,
    guest: &Guest,
    name: &str,
    arguments: &[String],
) -> Result<Option<Target>, ExecError> {
    let path = view::absolute(&guest.config.working_dir, name);
    let bytes = match view::read(&guest.preopens, &path).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) => return Err(ExecError::CannotExecute(format!("{name}: {error}"))),
    };
    if bytes.starts_with(b"#!") {
        let first = bytes
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let interpreter = String::from_utf8_lossy(first);
        let interpreter = interpreter.trim_start_matches("#!").trim();
        let is_shell = interpreter
            .split_whitespace()
            .filter_map(|word| word.rsplit('/').next())
            .any(|word| matches!(word, "sh" | "ash" | "bash"));
        if !is_shell {
            return Err(ExecError::CannotExecute(format!(
                "{name}: a script for {interpreter}; the toolbox has a shell only"
            )));
        }
        let mut line = vec!["sh".to_owned(), path];
        line.extend_from_slice(arguments);
        return toolbox_target(compiler, line).await.map(Some);
    }
    let program = compiler.bytes(name, bytes).await;
    let program = program.map_err(|error| ExecError::CannotExecute(error.to_string()))?;
    if !program.linked.is_command() {
        return Err(ExecError::CannotExecute(format!(
            "{name}: a component that {}, no command",
            program.linked.purpose()
        )));
    }
    let mut line = vec![name.to_owned()];
    line.extend_from_slice(arguments);
    Ok(Some(Target::Program(program, line)))
}

/// Whether `name` is what the container's own program is called.
fn is_own_name(guest: &Guest, name: &str) -> bool {
    let image = program_name(&guest.config.image.image);
    let given = guest.config.command.first().map(String::as_str);
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let is =
        |own: &str| name == own || last(own) == name || own.strip_suffix(".wasm") == Some(name);
    is(image) || given.is_some_and(is)
}

fn unknown(guest: &Guest, name: &str) -> ExecError {
    let own = program_name(&guest.config.image.image);
    let near = nearest(name, toolbox::COMMANDS.iter().copied().chain([own]));
    let hint = near.map_or_else(String::new, |near| format!(" Did you mean {near}?"));
    let program = match guest.program.linked.is_command() {
        true => format!("the image's program {own}, "),
        false => String::new(),
    };
    ExecError::CommandNotFound(format!(
        "{name}: not found in container {}.{hint} There is {program}any .wasm file that it sees, given \
         by its path, the exports of a component as 'name(arguments)', and the commands of the toolbox \
         (`help` lists them)",
        guest.config.id.name
    ))
}
