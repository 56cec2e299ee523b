use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::*;

const TEXT: &str = "\
2030-01-01T00:00:01.000000000Z stdout F one
2030-01-01T00:00:02.000000000Z stderr F oops
2030-01-01T00:00:03.000000000Z stdout P thr
2030-01-01T00:00:03.500000000Z stdout F ee
";

struct Log {
    folder: tempfile::TempDir,
    running: Arc<AtomicBool>,
}

impl Log {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("0.log"), text).expect("written");
        Self {
            folder,
            running: Arc::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn read(&self, query: &str) -> BoxStream<'static, io::Result<Bytes>> {
        let running = self.running.clone();
        let is_running = Box::new(move || running.load(Ordering::SeqCst));
        let logs = PodLogs {
            path: self.path(),
            is_running,
            stop: CancellationToken::new(),
        };
        let now = "2030-01-01T00:00:05Z".parse().expect("a time");
        logs.read(&LogOptions::parse(query).expect("valid"), now)
    }

    async fn text(&self, query: &str) -> String {
        text(self.read(query)).await
    }

    fn append(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path())
            .expect("opens");
        io::Write::write_all(&mut file, text.as_bytes()).expect("written");
    }
}

async fn text(stream: BoxStream<'static, io::Result<Bytes>>) -> String {
    let blocks: Vec<Bytes> = stream.try_collect().await.expect("read");
    String::from_utf8(blocks.concat()).expect("text")
}

#[tokio::test]
async fn options_choose_lines() {
    let log = Log::with(TEXT);
    assert_eq!(log.text("").await, "one\noops\nthree\n");
    assert_eq!(log.text("tailLines=1").await, "three\n");
    assert_eq!(log.text("tailLines=0").await, "");
    assert_eq!(log.text("sinceSeconds=3").await, "oops\nthree\n");
    assert_eq!(
        log.text("sinceTime=2030-01-01T00%3A00%3A03Z").await,
        "three\n"
    );
    assert_eq!(log.text("sinceTime=2031-01-01T00:00:00Z").await, "");
    assert_eq!(log.text("limitBytes=6").await, "one\noo");
    assert_eq!(log.text("stream=Stderr").await, "oops\n");
    assert_eq!(
        log.text("timestamps=true&tailLines=2").await,
        "2030-01-01T00:00:02.000000000Z oops\n2030-01-01T00:00:03.000000000Z three\n"
    );
}

#[tokio::test]
async fn a_log_that_is_not_there_is_empty() {
    let log = Log::with("");
    std::fs::remove_file(log.path()).expect("removed");
    assert_eq!(log.text("tailLines=5").await, "");
}

#[tokio::test]
async fn lines_that_are_none_are_left_out() {
    let log = Log::with("garbage\n\nt stdout F ok\nt stdout X no\nunfinished");
    assert_eq!(log.text("").await, "ok\n");
}

#[tokio::test]
async fn following_ends_with_the_run_and_misses_nothing() {
    let log = Log::with(TEXT);
    log.running.store(true, Ordering::SeqCst);
    let mut stream = log.read("follow=true&tailLines=1");
    assert_eq!(
        stream.try_next().await.expect("read").as_deref(),
        Some(&b"three\n"[..])
    );
    log.append("2030-01-01T00:00:04.000000000Z stdout F fo");
    log.append("ur\n");
    assert_eq!(
        stream.try_next().await.expect("read").as_deref(),
        Some(&b"four\n"[..])
    );
    log.append("2030-01-01T00:00:05.000000000Z stdout F last\n");
    log.running.store(false, Ordering::SeqCst);
    assert_eq!(text(stream).await, "last\n");
}

#[tokio::test]
async fn following_goes_on_in_the_file_that_comes_next() {
    let log = Log::with("t stdout F one\n");
    log.running.store(true, Ordering::SeqCst);
    let mut stream = log.read("follow=true");
    assert_eq!(
        stream.try_next().await.expect("read").as_deref(),
        Some(&b"one\n"[..])
    );
    log.append("t stdout F two\n");
    std::fs::rename(log.path(), log.folder.path().join("0.log.aside")).expect("renamed");
    log.append("t stdout F three\n");
    log.running.store(false, Ordering::SeqCst);
    assert_eq!(text(stream).await, "two\nthree\n");
}

#[tokio::test]
async fn a_file_that_was_cut_within_a_line_is_not_mixed_with_the_next() {
    let log = Log::with("t stdout F one\nt stdout F two");
    log.running.store(true, Ordering::SeqCst);
    let mut stream = log.read("follow=true");
    assert_eq!(
        stream.try_next().await.expect("read").as_deref(),
        Some(&b"one\n"[..])
    );
    std::fs::rename(log.path(), log.folder.path().join("0.log.aside")).expect("renamed");
    log.append("t stdout F three\n");
    log.running.store(false, Ordering::SeqCst);
    assert_eq!(text(stream).await, "three\n");
}

#[tokio::test]
async fn the_kubelets_stop_ends_followers() {
    let log = Log::with(TEXT);
    let stop = CancellationToken::new();
    let logs = PodLogs {
        path: log.path(),
        is_running: Box::new(|| true),
        stop: stop.clone(),
    };
    stop.cancel();
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let stream = logs.read(&options, Timestamp::UNIX_EPOCH);
    assert_eq!(text(stream).await, "one\noops\nthree\n");
}

#[test]
fn options_that_cannot_be_read_are_named() {
    let error = LogOptions::parse("tailLines=-1")
        .expect_err("refused")
        .to_string();
    assert_eq!(
        error,
        "invalid value \"-1\" of tailLines: expected a number of 0 or more"
    );
    assert!(LogOptions::parse("sinceTime=yesterday").is_err());
    assert_eq!(
        LogOptions::parse("follow=0&unknown=1"),
        Ok(LogOptions::default())
    );
}
