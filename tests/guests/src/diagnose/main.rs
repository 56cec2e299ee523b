//! Does what its arguments say, and says what it sees. Built twice: as a WASI 0.1 module and as a 0.2 component.
//!
//! | arguments | effect |
//! |---|---|
//! | `print [PATH…]` | arguments, environment (sorted), working directory, and what lies in the folders, one item a line |
//! | `cat PATH…` | the files' contents |
//! | `write PATH TEXT` | writes a file |
//! | `stdin` | copies stdin to stdout to its end, then says how many bytes |
//! | `stderr TEXT` | a line on stderr, another on stdout |
//! | `tick MILLISECONDS [COUNT]` | numbered lines at that pace, for ever or so many |
//! | `sleep MILLISECONDS` | ends with 0 after that time |
//! | `exit CODE` | ends with that code |
//! | `spin` | an endless loop without host calls |
//! | `hog [MEBIBYTES]` | takes and touches memory, a line per MiB, for ever or so much; then ends with 0 |
//! | `grow` | grows the memory by 64 MiB at a time without touching it, until that is refused; then ends with 0 |
//! | `flood BYTES` | so many bytes of stdout in lines of 80 |
//! | `line BYTES` | one line of so many bytes, without an end |
//! | `recurse [DEPTH]` | calls itself that deep, or until the stack ends |
//! | `call` | asks for the time, for ever |
//! | `yield` | gives its turn away, for ever |
//! | `nap` | waits for a nanosecond, for ever |
//! | `hoard [ROUNDS]` | opens its root until that is refused, says how often it could and why not, closes all and begins again |
//! | `escape [ROUNDS]` | looks for ways out of its folders, a line for each that leads nowhere; one that leads out is a failure |
//! | `trap` | executes `unreachable` three functions deep: `outer`, `middle`, `innermost` |
//! | `panic TEXT` | a Rust panic: the text on stderr, then a trap |
//!
//! A failure is a line on stderr and code 1; arguments that make no sense are code 2.

mod hostile;
mod realloc;

use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match run(&words, &args) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str], args: &[String]) -> io::Result<ExitCode> {
    match words {
        ["print", paths @ ..] => print(args, paths)?,
        ["cat", paths @ ..] => {
            for path in paths {
                io::stdout().write_all(&fs::read(path).map_err(|e| about(path, &e))?)?;
            }
        }
        ["write", path, text] => fs::write(path, text).map_err(|e| about(path, &e))?,
        ["stdin"] => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            io::stdout().write_all(&bytes)?;
            println!("{} bytes", bytes.len());
        }
        ["stderr", text] => {
            eprintln!("{text}");
            println!("said so");
        }
        ["tick", pace] => tick(number(pace)?, u64::MAX),
        ["tick", pace, count] => tick(number(pace)?, number(count)?),
        ["sleep", time] => sleep(Duration::from_millis(number(time)?)),
        // Not through `ExitCode`, which has eight bits.
        ["exit", code] => std::process::exit(number::<i32>(code)?),
        ["spin"] => hostile::spin(),
        ["hog"] => hostile::hog(u64::MAX)?,
        ["hog", mebibytes] => hostile::hog(number(mebibytes)?)?,
        ["grow"] => hostile::grow(),
        ["flood", bytes] => hostile::flood(number(bytes)?)?,
        ["line", bytes] => hostile::line(number(bytes)?)?,
        ["recurse"] => hostile::recurse(u64::MAX),
        ["recurse", depth] => hostile::recurse(number(depth)?),
        ["call"] => hostile::call(),
        ["yield"] => hostile::give_way(),
        ["nap"] => hostile::nap(),
        ["hoard"] => hostile::hoard(u64::MAX)?,
        ["hoard", rounds] => hostile::hoard(number(rounds)?)?,
        ["escape"] => hostile::escape(u64::MAX)?,
        ["escape", rounds] => hostile::escape(number(rounds)?)?,
        ["trap"] => hostile::outer(),
        ["panic", text] => panic!("{text}"),
        _ => {
            eprintln!("unknown arguments {words:?}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &[String], paths: &[&str]) -> io::Result<()> {
    for (i, arg) in args.iter().enumerate() {
        println!("arg {i} {arg}");
    }
    let mut variables: Vec<(String, String)> = std::env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        println!("env {name}={value}");
    }
    match std::env::current_dir() {
        Ok(path) => println!("cwd {}", path.display()),
        Err(e) => println!("cwd unknown: {e}"),
    }
    for path in paths {
        list(path)?;
    }
    Ok(())
}

/// Lists a folder and what lies under it, sorted.
fn list(path: &str) -> io::Result<()> {
    let entries = fs::read_dir(path).map_err(|e| about(path, &e))?;
    let mut entries = entries
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| about(path, &e))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!(
            "{}/{}",
            path.trim_end_matches('/'),
            entry.file_name().to_string_lossy()
        );
        let kind = entry.file_type().map_err(|e| about(&path, &e))?;
        if kind.is_dir() {
            println!("dir {path}");
            list(&path)?;
        } else {
            let size = fs::metadata(&path).map_or(0, |m| m.len());
            println!(
                "{} {path} {size}",
                if kind.is_symlink() { "link" } else { "file" }
            );
        }
    }
    Ok(())
}

fn tick(pace: u64, count: u64) {
    for n in 1..=count {
        println!("tick {n}");
        sleep(Duration::from_millis(pace));
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{word} is no such number"),
        )
    })
}

fn about(path: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{path}: {e}"))
}
