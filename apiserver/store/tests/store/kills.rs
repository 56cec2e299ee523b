//! SIGKILL: a process that writes is killed again and again, and another looks whether an answered write is lost.
//!
//! `CORACLE_KILLS` sets how many kills there are (20; 200 in the long form). A kill leaves the page cache, so this proves what power cuts
//! don't: that nothing depends on the end of the process, and that the files' locks go with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_faults::{extent, seed};
use coracle_store::{Op, Precondition, RedbStore, Revision, Store};

use crate::{all_events, new_value};

/// Where the child's store is.
const PATH: &str = "CORACLE_KILLED_STORE";

#[test]
fn kills_lose_no_answered_write() {
    let kills = extent("CORACLE_KILLS", 20, 200);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let clock = Clock::fake(seed());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut answered = BTreeMap::new();
    for kill in 0..kills {
        answered.extend(write_until_killed(
            &path,
            1 + clock.random_below(200) as usize,
        ));
        runtime.block_on(audit(&path, &answered, kill));
    }
    // Every process was killed after it had answered something.
    assert!(answered.len() as u64 >= kills, "{} answers", answered.len());
}

/// Lets a process write until it has printed so many answers, kills it, and returns all that it printed.
fn write_until_killed(path: &Path, answers: usize) -> Vec<(u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kills::child", "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < answers {
        let line = lines.next().expect("the child writes until it is killed");
        seen.extend(answer(&line.unwrap()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was printed before the kill was answered, too; a line that was cut short was not read by anyone.
    seen.extend(lines.map_while(Result::ok).filter_map(|line| answer(&line)));
    seen
}

/// A line `answered REVISION KEY .`, as revision and key.
fn answer(line: &str) -> Option<(u64, String)> {
    let words: Vec<_> = line.split(' ').collect();
    let ["answered", revision, key, "."] = words[..] else {
        return None;
    };
    Some((revision.parse().ok()?, key.to_owned()))
}

async fn audit(path: &Path, answered: &BTreeMap<u64, String>, kill: u64) {
    let store = RedbStore::open(path, Clock::system())
        .unwrap_or_else(|error| panic!("after kill {kill}: {error:?}"));
    let events: BTreeMap<_, _> = all_events(&store)
        .await
        .into_iter()
        .map(|event| (event.revision.0, event))
        .collect();
    for (revision, key) in answered {
        let event = events.get(revision);
        let event = event.unwrap_or_else(|| panic!("after kill {kill}: {revision} is lost"));
        assert_eq!(event.key, key, "after kill {kill}");
        assert_eq!(new_value(event), Some(&value()[..]), "after kill {kill}");
    }
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; 1500])
}

#[test]
#[ignore = "the process that kills_lose_no_answered_write starts and kills"]
fn child() {
    let path = std::env::var_os(PATH).expect("the parent says where the store is");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Arc::new(RedbStore::open(path, Clock::system()).unwrap());
    runtime.block_on(async {
        let writers: Vec<_> = (0..4)
            .map(|writer| tokio::spawn(write_for_ever(store.clone(), writer)))
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write_for_ever(store: Arc<RedbStore>, writer: usize) {
    for number in 0.. {
        let key = format!("key/{writer}/{}", number % 50);
        let op = Op::put(key.clone(), value());
        let Revision(revision) = store.write(op, Precondition::None, None).await.unwrap();
        // One write of the whole line: a line is printed or it isn't.
        let line = format!("answered {revision} {key} .\n");
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
