//! Uses the interfaces of WASI 0.3 as its arguments say: a `wasi:cli/command` 0.3.
//!
//! | arguments | effect |
//! |---|---|
//! | `say WORD…` | the words, a line each |
//! | `env NAME` | that variable of the environment |
//! | `input` | what comes on standard input |
//! | `fail` | returns an error from `run` |
//! | `exit CODE` | ends with that code |
//! | `cat PATH` | the file, by descriptors of 0.3 |
//! | `write PATH TEXT` | makes or empties the file, writes the text into it |
//! | `clocks` | waits 20 ms; says whether that took as long, and whether the wall clock is set |
//! | `random` | whether two random numbers differ |
//! | `echo PORT` | serves for ever: sends back what comes, all connections at once |
//! | `connect HOST PORT TEXT` | sends the text and an end, prints what comes back and from where |
//! | `flood HOST PORT BYTES` | sends so many bytes, says how many came back |
//! | `lookup NAME` | `NAME ADDRESS…`, or what the host said |
//! | `twice PORT` | listens on the same port twice and says what the second said |
//! | `datagrams PORT` | sends a message to itself and says what came from where |
//!
//! A failure is a line on standard error and an error from `run`.

mod net;

use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::random::random::get_random_u64;
use wasip3::wit_stream;

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        match act(&words).await {
            Ok(()) => Ok(()),
            Err(problem) => {
                let (mut lines, stream) = wit_stream::new();
                let _ = futures::join!(stderr::write_via_stream(stream).into_future(), async {
                    lines.write_all(format!("{problem}\n").into_bytes()).await;
                    drop(lines);
                });
                Err(())
            }
        }
    }
}

async fn act(words: &[&str]) -> Result<(), String> {
    match words {
        ["say", words @ ..] => print(&words.join("\n")).await,
        ["env", name] => {
            let environment = environment::get_environment();
            let found = environment.iter().find(|(other, _)| other == name);
            print(found.map_or("", |(_, value)| value)).await;
        }
        ["input"] => {
            let (stream, end) = stdin::read_via_stream();
            let bytes = stream.collect().await;
            end.await.map_err(|code| format!("{code:?}"))?;
            print(&String::from_utf8_lossy(&bytes)).await;
        }
        ["fail"] => return Err("asked to fail".to_owned()),
        ["exit", code] => exit::exit_with_code(number(code)?),
        ["cat", path] => {
            let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
            let (stream, end) = file.read_via_stream(0);
            let bytes = stream.collect().await;
            end.await.map_err(|code| format!("{path}: {code:?}"))?;
            print(&String::from_utf8_lossy(&bytes)).await;
        }
        ["write", path, text] => {
            let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE;
            let file = open(path, flags, DescriptorFlags::WRITE).await?;
            let (mut bytes, stream) = wit_stream::new();
            let (written, ()) = futures::join!(file.write_via_stream(stream, 0).into_future(), async {
                bytes.write_all(text.as_bytes().to_vec()).await;
                drop(bytes);
            });
            written.map_err(|code| format!("{path}: {code:?}"))?;
        }
        ["clocks"] => {
            let before = monotonic_clock::now();
            monotonic_clock::wait_for(20_000_000).await;
            let waited = monotonic_clock::now() - before >= 20_000_000;
            let set = system_clock::now().seconds > 1_700_000_000;
            print(&format!("waited {waited}, set {set}")).await;
        }
        ["random"] => print(&format!("{}", get_random_u64() != get_random_u64())).await,
        words => return net::act(words).await,
    }
    Ok(())
}

/// A line on standard output.
pub(crate) async fn print(text: &str) {
    let (mut lines, stream) = wit_stream::new();
    let _ = futures::join!(stdout::write_via_stream(stream).into_future(), async {
        lines.write_all(format!("{text}\n").into_bytes()).await;
        drop(lines);
    });
}

pub(crate) fn number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

/// Opens `path` below the folder that it is in.
async fn open(path: &str, how: OpenFlags, rights: DescriptorFlags) -> Result<Descriptor, String> {
    let mut folders = get_directories();
    folders.sort_by_key(|(_, place)| std::cmp::Reverse(place.len()));
    let found = folders.iter().find_map(|(folder, place)| {
        let rest = path.strip_prefix(place.as_str())?;
        Some((folder, rest.trim_start_matches('/')))
    });
    let (folder, rest) = found.ok_or_else(|| format!("{path}: no folder has it"))?;
    folder
        .open_at(PathFlags::SYMLINK_FOLLOW, rest.to_owned(), how, rights)
        .await
        .map_err(|code| format!("{path}: {code:?}"))
}
