//! The table of commands.

mod archive;
mod columns;
mod digest;
mod files;
mod find;
mod grep;
mod list;
mod net;
mod network;
mod parts;
mod system;
mod tail;
mod test;
mod text;
mod web;

pub use find::names;
pub use grep::glob;

use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::Filter;

/// A command of the toolbox.
pub struct Command {
    pub name: &'static str,
    /// For `help`: what it does and the options it knows.
    pub about: &'static str,
    pub run: fn(&mut Cx, &[String]) -> Outcome,
    /// The command as a stage of a pipe, when its arguments make it one that only filters.
    pub filter: Option<fn(&Cx, &[String]) -> Result<Option<Box<dyn Filter>>, Failure>>,
}

const fn command(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Cx, &[String]) -> Outcome,
) -> Command {
    Command {
        name,
        about,
        run,
        filter: None,
    }
}

const fn filter(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Cx, &[String]) -> Outcome,
    filter: fn(&Cx, &[String]) -> Result<Option<Box<dyn Filter>>, Failure>,
) -> Command {
    Command {
        name,
        about,
        run,
        filter: Some(filter),
    }
}

/// In the order of the alphabet.
pub const COMMANDS: &[Command] = &[
    command("[", "evaluates a condition, up to ]", test::bracket),
    filter(
        "base64",
        "encodes, or decodes with -d; -w COLUMNS",
        digest::base64,
        digest::base64_filter,
    ),
    command("basename", "the last part of a path", text::basename),
    filter(
        "cat",
        "copies files to the output; -n",
        text::cat,
        text::cat_filter,
    ),
    command(
        "chgrp",
        "accepted, changes nothing: guests have no users",
        files::no_users,
    ),
    command(
        "chmod",
        "accepted, changes nothing: guests have no users",
        files::no_users,
    ),
    command(
        "chown",
        "accepted, changes nothing: guests have no users",
        files::no_users,
    ),
    command("clear", "clears the terminal", text::clear),
    command("cp", "copies; -r -a -p -f", files::cp),
    command(
        "curl",
        "HTTP/1.1 request; -I -X -d -H -o -i -s -S -v -f -L -w -u -A -m, no https",
        web::curl,
    ),
    filter(
        "cut",
        "columns of lines; -d -f -c",
        columns::cut,
        columns::cut_filter,
    ),
    command("date", "the time in UTC; +FORMAT -I -u", system::date),
    command("df", "space on the container's mounts; -h", network::df),
    command("dirname", "a path without its last part", text::dirname),
    command("du", "sizes of folders; -s -h -a", list::du),
    command("echo", "writes its arguments; -n -e", text::echo),
    command("egrep", "grep -E", grep::egrep),
    command("env", "the environment; NAME=VALUE COMMAND…", system::env),
    command("false", "fails", |_, _| Ok(1)),
    command(
        "find",
        "walks folders; -name -iname -path -type -maxdepth -mindepth -size -newer -print0",
        find::find,
    ),
    command(
        "getent",
        "addresses of a name: getent hosts NAME",
        net::getent,
    ),
    filter(
        "grep",
        "lines that match; -r -i -n -v -c -l -o -q -w -h -H -E -F -e -A -B",
        grep::grep,
        grep::grep_filter,
    ),
    filter(
        "head",
        "the first lines; -n -c",
        text::head,
        text::head_filter,
    ),
    command("help", "this list", help),
    command(
        "hostname",
        "the pod's host name; -i its address, -f its full name",
        network::hostname,
    ),
    command("id", "who this is; -u -g -n", system::id),
    command("ip", "ip addr, ip route, ip link", network::ip),
    command("ln", "links; -s -f", files::ln),
    command(
        "ls",
        "lists folders; -l -a -A -1 -R -h -d -t -r -S -F",
        list::ls,
    ),
    command("md5sum", "not there: use sha256sum", digest::no_md5),
    command("mkdir", "makes folders; -p", files::mkdir),
    command(
        "mktemp",
        "makes an empty file in /tmp; -d a folder",
        files::mktemp,
    ),
    command("mount", "the container's mounts", network::mount),
    command("mv", "renames or moves; -f", files::mv),
    command(
        "nc",
        "TCP from input to output; -l PORT, -z, -v, -N, -w SECONDS",
        net::nc,
    ),
    command(
        "netstat",
        "the pod's sockets; -t -u -l -n -a -p",
        network::netstat,
    ),
    command("nslookup", "looks a name up as guests do", net::nslookup),
    command("printenv", "values of variables", system::printenv),
    command("printf", "writes by a format: %s %d %x %%", text::printf),
    command("ps", "the pod's containers", network::ps),
    command("pwd", "the working directory", system::pwd),
    command(
        "readlink",
        "where a link leads; -f the whole path",
        files::readlink,
    ),
    command("realpath", "a path without links", files::realpath),
    command("rm", "removes; -r -f", files::rm),
    command("rmdir", "removes empty folders", files::rmdir),
    command("seq", "numbers", text::seq),
    command(
        "sh",
        "a small shell; -c SCRIPT, a file, or a prompt",
        crate::sh::sh,
    ),
    filter(
        "sha256sum",
        "digests; -c checks",
        digest::sha256sum,
        digest::sha256_filter,
    ),
    command("sleep", "waits; seconds, or with s, m, h", system::sleep),
    filter(
        "sort",
        "sorts lines; -r -n -u",
        columns::sort,
        columns::sort_filter,
    ),
    command("ss", "as netstat", network::netstat),
    command("stat", "a file's facts; -c FORMAT", list::stat),
    filter(
        "tail",
        "the last lines; -n -c -f, +N counts from the start",
        tail::tail,
        tail::tail_filter,
    ),
    command(
        "tar",
        "archives; c x t, f v z C m, --exclude, --strip-components",
        archive::tar,
    ),
    filter(
        "tee",
        "copies the input to files as well; -a",
        text::tee,
        text::tee_filter,
    ),
    command("test", "evaluates a condition", test::test_command),
    command(
        "touch",
        "makes files or renews their times; -c",
        files::touch,
    ),
    filter(
        "tr",
        "replaces or deletes (-d) characters; -s",
        columns::tr,
        columns::tr_filter,
    ),
    command("true", "succeeds", |_, _| Ok(0)),
    command("uname", "what this runs on; -a -s -n -r -m", system::uname),
    filter(
        "uniq",
        "leaves out repeated lines; -c -d",
        columns::uniq,
        columns::uniq_filter,
    ),
    filter(
        "wc",
        "counts lines, words and bytes; -l -w -c",
        text::wc,
        text::wc_filter,
    ),
    command(
        "wget",
        "fetches by HTTP/1.1; -O -q -S --spider --post-data -T",
        web::wget,
    ),
    command("which", "says which commands are there", which),
    command("whoami", "who this is", |cx, _| {
        system::id(cx, &["-un".to_owned()])
    }),
];

/// Other names of commands.
const ALIASES: &[(&str, &str)] = &[
    ("ash", "sh"),
    ("bash", "sh"),
    ("busybox", "help"),
    ("toolbox", "help"),
    ("ll", "ls"),
    ("netcat", "nc"),
];

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, name)| name);
    COMMANDS.iter().find(|command| command.name == name)
}

/// Runs the command `name`, or says that there is none.
pub fn run(cx: &mut Cx, name: &str, args: &[String]) -> u8 {
    match find(name) {
        Some(command) => {
            let outcome = (command.run)(cx, args);
            report(cx, name, outcome)
        }
        None => {
            cx.complain(
                "toolbox",
                &format!("{name}: not found; `help` lists the commands"),
            );
            127
        }
    }
}

/// Tells a failure on stderr; the exit code.
pub fn report(cx: &mut Cx, name: &str, outcome: Outcome) -> u8 {
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                cx.complain(name, &failure.message);
            }
            failure.code
        }
    }
}

fn help(cx: &mut Cx, _args: &[String]) -> Outcome {
    use std::io::Write;
    writeln!(
        cx.out,
        "The toolbox of Coracle runs beside the container, with its files, environment and network.\n"
    )?;
    for command in COMMANDS {
        writeln!(cx.out, "  {:<10} {}", command.name, command.about)?;
    }
    Ok(0)
}

fn which(cx: &mut Cx, args: &[String]) -> Outcome {
    use std::io::Write;
    let mut code = 0;
    for name in args {
        match find(name) {
            Some(command) => writeln!(cx.out, "/bin/{}", command.name)?,
            None => code = 1,
        }
    }
    Ok(code)
}
