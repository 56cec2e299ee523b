//! What a guest leaves to be said of its end: the file that it wrote, or the end of its log.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use coracle_cri::TerminationMessage;

use crate::exec::open_below;
use crate::exit::Exit;
use crate::preopens::own_folder;

/// Most of the file that is read: its end (`MaxContainerTerminationMessageLength` upstream).
const MOST_OF_FILE: u64 = 4096;
/// Most of the log that is told, in lines and in bytes (upstream's `…LogLines` and `…LogLength`).
const MOST_LINES: usize = 80;
const MOST_OF_LOG: usize = 2048;
/// How much of the log's end is looked at: lines carry a prefix each.
const LOOK_AT: u64 = 64 << 10;

/// Where to look once a run has ended.
pub(crate) struct Termination {
    root: PathBuf,
    log: PathBuf,
    message: TerminationMessage,
}

impl Termination {
    /// Makes the empty file in the fresh `root` of a run, as Kubernetes does. A place that a mount
    /// hides is made all the same, and nothing will be found there. Blocks on the disk.
    pub(crate) fn prepare(
        root: PathBuf,
        log: PathBuf,
        message: TerminationMessage,
    ) -> io::Result<Self> {
        let termination = Self { root, log, message };
        let Some(way) = termination.way() else {
            return Ok(termination);
        };
        let folder = own_folder(&termination.root, way.parent().unwrap_or(Path::new("")))?;
        let file = folder.join(way.file_name().unwrap_or_default());
        // An image may have put a link there that leads out of the root.
        if std::fs::symlink_metadata(&file).is_ok_and(|found| !found.is_dir()) {
            std::fs::remove_file(&file)?;
        }
        File::create_new(&file)?;
        Ok(termination)
    }

    /// Adds the guest's own words to those of the runtime.
    pub(crate) async fn explain(self, mut exit: Exit) -> Exit {
        let failed = exit.code != 0;
        let said = tokio::task::spawn_blocking(move || self.said(failed)).await;
        let said = said.unwrap_or_default();
        if !said.is_empty() {
            if !exit.message.is_empty() {
                exit.message.push_str(": ");
            }
            exit.message.push_str(&said);
        }
        exit
    }

    fn said(&self, failed: bool) -> String {
        let said = self.own_words().unwrap_or_default();
        if said.is_empty() && failed && self.message.fall_back_to_logs {
            let log = File::open(&self.log).and_then(|log| end_of(log, LOOK_AT));
            return last_lines(&String::from_utf8_lossy(&log.unwrap_or_default()));
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// What the file says. The guest may have put a link there that leads out of its root, and commands
    /// that run beside it may be about to.
    fn own_words(&self) -> io::Result<Vec<u8>> {
        let file = match self.way() {
            Some(way) => open_below(&self.root, &way)?,
            None => None,
        };
        file.map_or_else(|| Ok(Vec::new()), |file| end_of(file, MOST_OF_FILE))
    }

    /// The file's path below the root; None when there is none, or it leads nowhere.
    fn way(&self) -> Option<PathBuf> {
        let mut way = PathBuf::new();
        for part in Path::new(&self.message.path).components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(part) => way.push(part),
                Component::ParentDir | Component::Prefix(_) => return None,
            }
        }
        (way != Path::new("")).then_some(way)
    }
}

/// The last `most` bytes.
fn end_of(mut file: File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of a log, without what stands before each: time, stream, and whether it is whole.
fn last_lines(log: &str) -> String {
    let parse = |line: &str| {
        let mut parts = line.splitn(4, ' ').skip(1);
        let (stream, tag) = (parts.next()?.to_owned(), parts.next()?);
        // The first line may have lost its beginning.
        let known = matches!(stream.as_str(), "stdout" | "stderr") && matches!(tag, "F" | "P");
        let end = if tag == "F" { "\n" } else { "" };
        known.then(|| format!("{}{end}", parts.next().unwrap_or_default()))
    };
    let lines: Vec<String> = log.lines().filter_map(parse).collect();
    let skipped = lines.len().saturating_sub(MOST_LINES);
    let text = lines[skipped..].concat();
    let mut from = text.len().saturating_sub(MOST_OF_LOG);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(path: &str, fall_back_to_logs: bool) -> (tempfile::TempDir, Termination) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir_all(&root).expect("made");
        let message = TerminationMessage {
            path: path.to_owned(),
            fall_back_to_logs,
        };
        let log = folder.path().join("0.log");
        let termination = Termination::prepare(root, log, message);
        (folder, termination.expect("prepared"))
    }

    #[tokio::test]
    async fn the_guest_has_the_last_word() {
        let (folder, termination) = prepared("/dev/termination-log", true);
        let file = folder.path().join("root/dev/termination-log");
        assert!(file.is_file(), "it is there before the guest is");
        std::fs::write(&file, "x".repeat(5000) + "no such table").expect("written");
        let mut exit = Exit::with_code(1);
        exit.message = "trap".into();
        let exit = termination.explain(exit).await;
        assert!(exit.message.starts_with("trap: xxx") && exit.message.ends_with("no such table"));
        assert_eq!(exit.message.len(), 4096 + "trap: ".len());
    }

    #[tokio::test]
    async fn the_end_of_the_log_stands_in_when_a_run_failed_without_a_word() {
        let lines: String = (0..100)
            .map(|number| format!("2030-01-01T00:00:00Z stderr F line {number}\n"))
            .collect();
        for (code, fall_back, expected) in [(1, true, true), (0, true, false), (1, false, false)] {
            let (folder, termination) = prepared("/dev/termination-log", fall_back);
            std::fs::write(folder.path().join("0.log"), &lines).expect("written");
            let exit = termination.explain(Exit::with_code(code)).await;
            assert_eq!(
                exit.message.ends_with("line 98\nline 99\n"),
                expected,
                "{code} {fall_back}"
            );
            assert_eq!(
                exit.message.starts_with("line 20\n"),
                expected,
                "{code} {fall_back}"
            );
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_of_an_image_do_not_lead_the_file_out() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().expect("a folder");
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "of the host").expect("written");
        for (number, links) in [
            [("dev", "..")].as_slice(),
            &[("dev/precious", "../../precious")],
            &[("dev/precious", "../missing/precious"), ("missing", "..")],
        ]
        .into_iter()
        .enumerate()
        {
            let root = folder.path().join(number.to_string());
            std::fs::create_dir(&root).expect("made");
            for (link, to) in links {
                let link = root.join(link);
                std::fs::create_dir_all(link.parent().expect("a folder")).expect("made");
                symlink(to, link).expect("linked");
            }
            let message = TerminationMessage {
                path: "/dev/precious".to_owned(),
                fall_back_to_logs: false,
            };
            let log = folder.path().join("0.log");
            let prepared = Termination::prepare(root.clone(), log, message);
            let termination = prepared.expect("prepared");
            let kept = std::fs::read_to_string(&precious).expect("read");
            assert_eq!(kept, "of the host", "{links:?}");
            std::fs::write(root.join("dev/precious"), "its own").expect("written");
            let exit = termination.explain(Exit::with_code(0)).await;
            assert_eq!(exit.message, "its own", "{links:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_leads_nowhere() {
        let (folder, termination) = prepared("/out/message", false);
        let root = folder.path().join("root");
        std::fs::write(folder.path().join("message"), "a secret of the host").expect("written");
        std::fs::remove_dir_all(root.join("out")).expect("removed");
        std::os::unix::fs::symlink(folder.path(), root.join("out")).expect("linked");
        assert_eq!(termination.explain(Exit::with_code(1)).await.message, "");
        for path in ["", "/", "/../message"] {
            let (_folder, termination) = prepared(path, false);
            assert_eq!(termination.way(), None, "{path}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_within_the_root_leads_to_what_the_guest_sees() {
        let (folder, termination) = prepared("/out/message", false);
        let root = folder.path().join("root");
        std::fs::remove_file(root.join("out/message")).expect("removed");
        std::fs::write(root.join("log"), "no such table").expect("written");
        std::os::unix::fs::symlink("../log", root.join("out/message")).expect("linked");
        let exit = termination.explain(Exit::with_code(1)).await;
        assert_eq!(exit.message, "no such table");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_that_comes_and_goes_leads_nowhere_either() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let (folder, termination) = prepared("/out/message", false);
        let root = folder.path().join("root");
        std::fs::write(folder.path().join("message"), "a secret of the host").expect("written");
        std::fs::write(root.join("out/message"), "its own").expect("written");
        let link = root.join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("linked");
        let done = AtomicBool::new(false);
        let said = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (out, aside) = (root.join("out"), root.join("aside"));
                while !done.load(Ordering::Relaxed) {
                    for (from, to) in [(&out, &aside), (&link, &out), (&out, &link), (&aside, &out)]
                    {
                        std::fs::rename(from, to).expect("renamed");
                    }
                }
            });
            let said: Vec<String> = (0..5000).map(|_| termination.said(true)).collect();
            done.store(true, Ordering::Relaxed);
            said
        });
        for said in said {
            assert!(said.is_empty() || said == "its own", "{said}");
        }
    }
}
