//! Commands about the guest itself.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::parts::{Calendar, DAYS, MONTHS};
use crate::context::{Cx, Var};
use crate::failure::{Failure, Outcome};
use crate::options::Options;

pub fn env(cx: &mut Cx, args: &[String]) -> Outcome {
    let mut saved = None;
    let mut rest = args;
    while let Some((first, more)) = rest.split_first() {
        match first.split_once('=') {
            _ if first == "-i" || first == "-" => {
                saved.get_or_insert_with(|| cx.env.clone());
                cx.env.vars.clear();
            }
            _ if first == "-u" => {
                saved.get_or_insert_with(|| cx.env.clone());
                if let Some(name) = more.first() {
                    cx.env.vars.remove(name);
                }
                rest = more.get(1..).unwrap_or_default();
                continue;
            }
            Some((name, value)) => {
                saved.get_or_insert_with(|| cx.env.clone());
                cx.env.vars.insert(
                    name.to_owned(),
                    Var {
                        value: value.to_owned(),
                        exported: true,
                    },
                );
            }
            None => break,
        }
        rest = more;
    }
    let code = match rest.split_first() {
        Some((name, args)) => super::run(cx, crate::base_name(name), args),
        None => {
            let lines: Vec<String> = exported(cx)
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect();
            cx.out.write_all(lines.concat().as_bytes())?;
            0
        }
    };
    if let Some(saved) = saved {
        cx.env = saved;
    }
    Ok(code)
}

fn exported(cx: &Cx) -> impl Iterator<Item = (&String, &String)> {
    cx.env
        .vars
        .iter()
        .filter(|(_, var)| var.exported)
        .map(|(name, var)| (name, &var.value))
}

pub fn printenv(cx: &mut Cx, args: &[String]) -> Outcome {
    if args.is_empty() {
        return env(cx, args);
    }
    let mut code = 0;
    for name in args {
        match cx.env.vars.get(name).filter(|var| var.exported) {
            Some(var) => {
                let value = var.value.clone();
                writeln!(cx.out, "{value}")?;
            }
            None => code = 1,
        }
    }
    Ok(code)
}

pub fn pwd(cx: &mut Cx, _args: &[String]) -> Outcome {
    let cwd = cx.env.cwd.clone();
    writeln!(cx.out, "{cwd}")?;
    Ok(0)
}

/// WASI has no users. Programs that ask want to hear of one; it is the one that may do what a guest may.
pub fn id(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "ugnrG", &[])?;
    let text = match (
        options.has('u') || options.has('g') || options.has('G'),
        options.has('n'),
    ) {
        (true, true) => "root",
        (true, false) => "0",
        _ => "uid=0(root) gid=0(root) groups=0(root)",
    };
    writeln!(cx.out, "{text}")?;
    Ok(0)
}

pub fn uname(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "asnrvmo", &[("all", 'a')])?;
    let host = cx.env.get("HOSTNAME").unwrap_or("localhost").to_owned();
    let version = super::network::fact("version").unwrap_or_default();
    let version = if version.trim().is_empty() {
        "0"
    } else {
        version.trim()
    };
    let parts = [
        ('s', "WASI"),
        ('n', host.as_str()),
        ('r', version),
        ('m', "wasm32"),
        ('o', "Coracle"),
    ];
    let all = options.has('a');
    let none = !parts.iter().any(|(letter, _)| options.has(*letter)) && !all;
    let shown = parts
        .iter()
        .filter(|(letter, _)| all || options.has(*letter) || (none && *letter == 's'));
    let shown: Vec<&str> = shown.map(|(_, part)| *part).collect();
    writeln!(cx.out, "{}", shown.join(" "))?;
    Ok(0)
}

pub fn sleep(cx: &mut Cx, args: &[String]) -> Outcome {
    cx.flush();
    let mut total = Duration::ZERO;
    if args.is_empty() {
        return Err(Failure::usage("needs a number of seconds"));
    }
    for arg in args {
        total = total.saturating_add(duration(arg)?);
    }
    std::thread::sleep(total);
    Ok(0)
}

/// `1.5`, `2m`, `infinity`.
pub fn duration(text: &str) -> Result<Duration, Failure> {
    if text.starts_with("inf") {
        return Ok(Duration::from_secs(u64::from(u32::MAX)));
    }
    let (digits, unit) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        Some('d') => (&text[..text.len() - 1], 86_400.0),
        _ => (text, 1.0),
    };
    let seconds: f64 = digits
        .parse()
        .map_err(|_| Failure::usage(format!("{text}: not a duration")))?;
    Duration::try_from_secs_f64(seconds * unit)
        .map_err(|_| Failure::usage(format!("{text}: not a duration")))
}

pub fn date(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(
        args,
        "uRd:I",
        &[("utc", 'u'), ("iso-8601", 'I'), ("date", 'd')],
    );
    // `-Iseconds` is one word with an optional value.
    let iso = args.iter().find_map(|arg| arg.strip_prefix("-I"));
    let now = match &options {
        Ok(options) if options.value('d').is_some() => {
            let text = options.value('d').unwrap_or_default();
            let seconds = text.strip_prefix('@').and_then(|text| text.parse().ok());
            let seconds = seconds.ok_or_else(|| {
                Failure::usage(format!("{text}: only @SECONDS is understood here"))
            })?;
            Calendar::of_unix(seconds, 0)
        }
        _ => Calendar::of(SystemTime::now()),
    };
    let format = match (args.iter().find_map(|arg| arg.strip_prefix('+')), iso) {
        (Some(format), _) => format,
        (None, Some("" | "date")) => "%Y-%m-%d",
        (None, Some("ns")) => "%Y-%m-%dT%H:%M:%S,%N+00:00",
        (None, Some(_)) => "%Y-%m-%dT%H:%M:%S+00:00",
        (None, None) if args.iter().any(|arg| arg == "-R") => "%a, %d %b %Y %H:%M:%S +0000",
        (None, None) => {
            options?;
            "%a %b %e %H:%M:%S UTC %Y"
        }
    };
    writeln!(cx.out, "{}", formatted(&now, format))?;
    Ok(0)
}

fn formatted(now: &Calendar, format: &str) -> String {
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut kind = rest.next().unwrap_or('%');
        // `%3N` and its like: digits of a second.
        let digits = kind
            .to_digit(10)
            .filter(|_| rest.clone().next() == Some('N'));
        if digits.is_some() {
            kind = rest.next().unwrap_or('N');
        }
        let month = MONTHS[now.month as usize - 1];
        let day = DAYS[now.weekday as usize];
        let shown = match kind {
            'Y' => now.year.to_string(),
            'y' => format!("{:02}", now.year.rem_euclid(100)),
            'm' => format!("{:02}", now.month),
            'd' => format!("{:02}", now.day),
            'e' => format!("{:2}", now.day),
            'H' => format!("{:02}", now.hour),
            'I' => format!("{:02}", (now.hour + 11) % 12 + 1),
            'p' => if now.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'M' => format!("{:02}", now.minute),
            'S' => format!("{:02}", now.second),
            'N' => {
                let all = format!("{:09}", now.nanos);
                all[..digits.map_or(9, |digits| digits.clamp(1, 9) as usize)].to_owned()
            }
            's' => now.unix.to_string(),
            'j' => format!("{:03}", now.day_of_year),
            'u' => if now.weekday == 0 { 7 } else { now.weekday }.to_string(),
            'w' => now.weekday.to_string(),
            'a' => day[..3].to_owned(),
            'A' => day.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'B' => month.to_owned(),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            'F' => formatted(now, "%Y-%m-%d"),
            'T' => formatted(now, "%H:%M:%S"),
            'R' => formatted(now, "%H:%M"),
            'D' => formatted(now, "%m/%d/%y"),
            'c' => formatted(now, "%a %b %e %H:%M:%S %Y"),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        };
        text.push_str(&shown);
    }
    text
}
