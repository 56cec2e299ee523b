//! Files that are read again when they change.

use std::path::PathBuf;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_server::config::ConfigError;

/// Between two looks. Mounted files change by renaming folders above them, so they are read, not watched.
const INTERVAL: Duration = Duration::from_secs(2);

type Replace = dyn Fn(&str) -> Result<(), ConfigError> + Send + Sync;

/// A file, what was last read of it, and what is done with another text.
pub(super) struct Followed {
    pub(super) what: &'static str,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) replace: Box<Replace>,
}

impl Followed {
    /// Reads the file again and again.
    pub(super) async fn run(mut self, clock: Clock) {
        loop {
            clock.sleep(INTERVAL).await;
            let read = tokio::fs::read_to_string(&self.path).await;
            self.look(read.map_err(|error| error.to_string()));
        }
    }

    /// Takes a text that is new. One that is wrong, or a file that is gone, leaves everything as it is, and is said once.
    pub(super) fn look(&mut self, read: Result<String, String>) {
        let (what, path) = (self.what, self.path.display());
        let text = match read {
            Ok(text) if text == self.text => return,
            Ok(text) => text,
            Err(error) => {
                // Said at every look: somebody should put the file back.
                tracing::warn!(
                    "the {what} configuration {path} cannot be read, the last one stays: {error}"
                );
                return;
            }
        };
        match (self.replace)(&text) {
            Ok(()) => tracing::info!("the {what} configuration {path} has changed and is in force"),
            Err(error) => {
                tracing::error!(
                    "the {what} configuration {path} has changed and is not usable, the last one stays: {error}"
                );
            }
        }
        self.text = text;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn only_new_texts_are_taken() {
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&taken);
        let mut followed = Followed {
            what: "test",
            path: PathBuf::from("/file"),
            text: "a".to_owned(),
            replace: Box::new(move |text| {
                into.lock().push(text.to_owned());
                match text {
                    "wrong" => Err(ConfigError::Decode("wrong".to_owned())),
                    _ => Ok(()),
                }
            }),
        };
        let texts = [
            Ok("a"),
            Ok("b"),
            Ok("b"),
            Ok("wrong"),
            Ok("wrong"),
            Err("gone"),
            Ok("c"),
        ];
        for text in texts {
            followed.look(text.map(str::to_owned).map_err(str::to_owned));
        }
        assert_eq!(*taken.lock(), ["b", "wrong", "c"]);
    }
}
