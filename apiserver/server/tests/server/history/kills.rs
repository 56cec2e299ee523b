//! SIGKILL under clients: the server is a process of its own, on a real folder, and is killed and started again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use coracle_faults::{extent, seed};
use coracle_server::authn::StaticTokens;
use coracle_server::{ApiServer, Config};
use coracle_store::RedbStore;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

use super::api::{Api, TOKEN};
use super::crowd::Crowd;
use super::notes::{Event, history};

/// Where the child's store is.
const FOLDER: &str = "CORACLE_KILLED_SERVER";

/// How long a server may live, in milliseconds.
const MAX_LIFE: u64 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_clients_lose_nothing_that_was_answered() {
    let kills = extent("CORACLE_API_KILLS", 5, 200);
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::fake(seed());
    let (mut crowd, mut known) = (Crowd::new(clock.clone()), Vec::new());
    for _ in 0..kills {
        let (mut child, api) = start(folder.path());
        let killed = Arc::new(AtomicBool::new(false));
        let life = Duration::from_millis(clock.random_below(MAX_LIFE));
        let killing = {
            let killed = killed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(life).await;
                child.kill().expect("it runs");
                killed.store(true, Ordering::SeqCst);
                child.wait().expect("it ends");
            })
        };
        crowd
            .act(&api, move |_| !killed.load(Ordering::SeqCst))
            .await;
        killing.await.expect("the child ends");
        recall(folder.path(), &mut known).await;
    }
    let (mut child, api) = start(folder.path());
    crowd.finish(&api).await;
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    recall(folder.path(), &mut known).await;
    let figures = crowd.judge(&known);
    println!("{kills} kills: {figures:?}");
    assert!(figures.answered as u64 > kills, "{figures:?}");
    assert!(figures.unknown as u64 > kills, "{figures:?}");
    assert!(figures.watched > 0, "{figures:?}");
}

/// Starts the server in a process of its own.
fn start(folder: &Path) -> (Child, Arc<Api>) {
    let mut child = Command::new(std::env::current_exe().expect("a test has a file"))
        .args([
            "history::kills::child",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can be started");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let address = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
    let address = address.expect("the child listens");
    let client = Box::new(Client::builder(TokioExecutor::new()).build_http());
    (child, Arc::new(Api::There(address, client)))
}

/// Extends `known` by what the folder has. It looks at a copy, so that the next server finds what the kill left.
async fn recall(folder: &Path, known: &mut Vec<Event>) {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    let store = RedbStore::open(copy.path().join("store.redb"), Clock::system());
    let all = history(&store.expect("the store opens after a kill"), 1).await;
    let start = &all[..known.len().min(all.len())];
    assert_eq!(start, &known[..], "the history was written anew");
    *known = all;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that kills_under_clients_lose_nothing_that_was_answered starts and kills"]
async fn child() {
    let folder = std::env::var_os(FOLDER).expect("the parent says where the store is");
    let path = Path::new(&folder).join("store.redb");
    let store = RedbStore::open(path, Clock::system()).expect("the store opens");
    let mut config = Config::new(Arc::new(store), Clock::system());
    let tokens = StaticTokens::parse(&format!("{TOKEN},admin,1,\"system:masters\"\n"));
    config.authentication.static_tokens = tokens.expect("a token");
    let api = ApiServer::start(config).await.expect("a sound store");
    let made = api.bootstrap_namespaces().await;
    made.expect("namespaces are made");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("\nlistening on {}", listener.local_addr().expect("a port"));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let api = api.clone();
        // Clients come and go; what went wrong with one is of no interest here.
        tokio::spawn(async move { drop(api.serve(stream, None, None).await) });
    }
}
