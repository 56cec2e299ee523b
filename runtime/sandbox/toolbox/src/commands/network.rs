//! What WASI cannot tell and the sandbox wrote down: the pod's containers, addresses, sockets and mounts.
//!
//! The files in [`FOLDER`] have a line per thing, its fields separated by tabs. The sandbox keeps them up to date while
//! a session lives (`exec/facts.rs` there).

use std::io::Write;
use std::time::SystemTime;

use super::parts::human;
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

/// Where the facts are.
const FOLDER: &str = "/.coracle";

/// The text of one file, if the sandbox gave it.
pub fn fact(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("{FOLDER}/{name}")).ok()
}

/// The lines of a file, cut into fields.
fn table(name: &str) -> Result<Vec<Vec<String>>, Failure> {
    let text = fact(name).ok_or_else(|| {
        Failure::new(format!(
            "the sandbox does not tell ({FOLDER}/{name} is missing)"
        ))
    })?;
    Ok(text
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect())
}

/// A field that may be missing.
fn field(row: &[String], at: usize) -> &str {
    row.get(at).map_or("", String::as_str)
}

fn address() -> Result<String, Failure> {
    let rows = table("address")?;
    Ok(rows
        .first()
        .map(|row| field(row, 0).to_owned())
        .unwrap_or_default())
}

/// One line per container: name, state, restarts, start in seconds since 1970, image, command.
pub fn ps(cx: &mut Cx, args: &[String]) -> Outcome {
    // Whatever is asked for, there is one answer.
    let _ = args;
    let rows = table("containers")?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    writeln!(
        cx.out,
        "{:<20} {:<8} {:>8} {:>10}  COMMAND",
        "CONTAINER", "STATE", "RESTARTS", "TIME"
    )?;
    for row in &rows {
        let started: u64 = field(row, 3).parse().unwrap_or(now);
        let seconds = now.saturating_sub(started);
        let time = format!(
            "{}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let time = if field(row, 1) == "Running" {
            time
        } else {
            "-".to_owned()
        };
        writeln!(
            cx.out,
            "{:<20} {:<8} {:>8} {time:>10}  {}",
            field(row, 0),
            field(row, 1),
            field(row, 2),
            field(row, 5)
        )?;
    }
    Ok(0)
}

pub fn hostname(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(
        args,
        "ifsId",
        &[
            ("ip-address", 'i'),
            ("fqdn", 'f'),
            ("short", 's'),
            ("all-ip-addresses", 'I'),
        ],
    )?;
    if options.has('i') || options.has('I') {
        let address = address()?;
        writeln!(cx.out, "{address}")?;
        return Ok(0);
    }
    let name = std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned());
    let name = name
        .ok()
        .or_else(|| cx.env.get("HOSTNAME").map(str::to_owned))
        .unwrap_or_default();
    let mut shown = name.clone();
    if options.has('f') {
        // The first name that the hosts file has for it is the full one.
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let full = hosts.lines().find_map(|line| {
            let names: Vec<&str> = line.split_whitespace().skip(1).collect();
            names.contains(&name.as_str()).then(|| names[0].to_owned())
        });
        shown = full.unwrap_or(name);
    } else if options.has('s') {
        shown = name.split('.').next().unwrap_or_default().to_owned();
    }
    writeln!(cx.out, "{shown}")?;
    Ok(0)
}

pub fn ip(cx: &mut Cx, args: &[String]) -> Outcome {
    let words: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let address = address()?;
    match words.first().copied().unwrap_or("addr") {
        "a" | "ad" | "addr" | "address" => write!(
            cx.out,
            "1: lo: <LOOPBACK,UP>\n    inet 127.0.0.1/8 scope host lo\n\
             2: eth0: <UP>\n    inet {address}/32 scope global eth0\n"
        )?,
        "r" | "ro" | "route" => writeln!(cx.out, "default dev eth0 src {address}")?,
        "l" | "link" => write!(cx.out, "1: lo: <LOOPBACK,UP>\n2: eth0: <UP>\n")?,
        other => {
            return Err(Failure::usage(format!(
                "{other}: the toolbox knows ip addr, ip route, ip link"
            )));
        }
    }
    Ok(0)
}

/// One line per socket: protocol, state, address.
pub fn netstat(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "tulnapWe4", &[])?;
    let rows = table("sockets")?;
    let both = !options.has('t') && !options.has('u');
    let listening_only = options.has('l');
    writeln!(cx.out, "{:<6} {:<24} STATE", "PROTO", "LOCAL ADDRESS")?;
    for row in &rows {
        let (protocol, state) = (field(row, 0), field(row, 1));
        let wanted = both
            || (protocol == "tcp" && options.has('t'))
            || (protocol == "udp" && options.has('u'));
        if wanted && (!listening_only || state == "LISTEN" || protocol == "udp") {
            writeln!(cx.out, "{protocol:<6} {:<24} {state}", field(row, 2))?;
        }
    }
    Ok(0)
}

/// One line per mount: path, `ro` or `rw`, bytes in all, used and free.
pub fn mount(cx: &mut Cx, _args: &[String]) -> Outcome {
    for row in table("mounts")? {
        writeln!(cx.out, "volume on {} ({})", field(&row, 0), field(&row, 1))?;
    }
    Ok(0)
}

pub fn df(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "hkPTaim", &[("human-readable", 'h')])?;
    let unit = if options.has('h') {
        "Size"
    } else {
        "1K-blocks"
    };
    writeln!(
        cx.out,
        "{unit:>12} {:>12} {:>12} {:>5} Mounted on",
        "Used", "Available", "Use%"
    )?;
    let mut rows = table("mounts")?;
    let wanted: Vec<String> = options.operands.iter().map(|name| cx.path(name)).collect();
    if !wanted.is_empty() {
        // The mount that a path lies in is the one with the longest name above it.
        let above = |path: &str, mount: &str| {
            mount == "/" || path == mount || path.starts_with(&format!("{mount}/"))
        };
        let of = |path: &String| {
            let mounts = rows.iter().filter(|row| above(path, field(row, 0)));
            mounts.max_by_key(|row| field(row, 0).len()).cloned()
        };
        rows = wanted.iter().filter_map(of).collect();
    }
    for row in rows {
        let number = |at: usize| field(&row, at).parse::<u64>().ok();
        let shown = |bytes: Option<u64>| match bytes {
            Some(bytes) if options.has('h') => human(bytes),
            Some(bytes) => (bytes / 1024).to_string(),
            None => "-".to_owned(),
        };
        let share = match (number(3), number(4)) {
            (Some(used), Some(free)) if used + free > 0 => {
                format!("{}%", (used * 100).div_ceil(used + free))
            }
            _ => "-".to_owned(),
        };
        writeln!(
            cx.out,
            "{:>12} {:>12} {:>12} {share:>5} {}",
            shown(number(2)),
            shown(number(3)),
            shown(number(4)),
            field(&row, 0)
        )?;
    }
    Ok(0)
}
