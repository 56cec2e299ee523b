//! Files that are read again when they change.

use std::path::PathBuf;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_server::config::ConfigError;

/// Between two looks. Mounted files change by renaming folders above them, so they are read, not watched.
const INTERVAL: Duration = Duration::from_secs(2);

type Replace = dyn Fn(&str) -> Result<(), ConfigError> + Send + Sync;

/// A file, the text of it that is in force, and what is done with another text.
pub(super) struct Followed {
    pub(super) what: &'static str,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) replace: Box<Replace>,
    /// What was last said to be wrong, as long as it is.
    pub(super) problem: Option<String>,
}

impl Followed {
    /// Reads the file again and again.
    pub(super) async fn run(mut self, clock: Clock) {
        loop {
            clock.sleep(INTERVAL).await;
            let read = tokio::fs::read_to_string(&self.path).await;
            let said = self.look(read.map_err(|error| error.to_string()));
            let (what, path) = (self.what, self.path.display());
            match said {
                Some(Ok(news)) => tracing::info!("the {what} configuration {path} {news}"),
                Some(Err(problem)) => {
                    tracing::error!(
                        "the {what} configuration {path} {problem}; the last one stays"
                    );
                }
                None => {}
            }
        }
    }

    /// Takes a text that is new; what there is to say of it. One that is wrong, or a file that is gone, leaves everything as
    /// it is. It is tried again at the next look, as what it names may be there by then, but the same problem is said once.
    fn look(&mut self, read: Result<String, String>) -> Option<Result<&'static str, String>> {
        let problem = match read {
            Ok(text) if text == self.text => {
                let news = self.problem.take().map(|_| "is the one in force again");
                return news.map(Ok);
            }
            Ok(text) => match (self.replace)(&text) {
                Ok(()) => {
                    (self.text, self.problem) = (text, None);
                    return Some(Ok("has changed and is in force"));
                }
                Err(error) => format!("has changed and is not usable: {error}"),
            },
            Err(error) => format!("cannot be read: {error}"),
        };
        if self.problem.as_ref() == Some(&problem) {
            return None;
        }
        self.problem = Some(problem.clone());
        Some(Err(problem))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn new_texts_are_taken_and_problems_are_said_once() {
        let taken: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&taken);
        let mut followed = Followed {
            what: "test",
            path: PathBuf::from("/file"),
            text: "a".to_owned(),
            problem: None,
            replace: Box::new(move |text| {
                into.lock().push(text.to_owned());
                match text {
                    "wrong" => Err(ConfigError::Decode("wrong".to_owned())),
                    _ => Ok(()),
                }
            }),
        };
        let in_force = Some(Ok("has changed and is in force"));
        let again = Some(Ok("is the one in force again"));
        let wrong = Some(Err("has changed and is not usable: wrong"));
        let gone = Some(Err("cannot be read: gone"));
        for (text, said) in [
            (Ok("a"), None),
            (Ok("b"), in_force),
            (Ok("b"), None),
            (Ok("wrong"), wrong),
            (Ok("wrong"), None),
            (Err("gone"), gone),
            (Err("gone"), None),
            (Ok("wrong"), wrong),
            (Ok("b"), again),
            (Ok("b"), None),
            (Err("gone"), gone),
            (Ok("c"), in_force),
        ] {
            let found = followed.look(text.map(str::to_owned).map_err(str::to_owned));
            let said = said.map(|said: Result<_, &str>| said.map_err(str::to_owned));
            assert_eq!(found, said, "{text:?}");
        }
        // What is wrong is tried at every look.
        assert_eq!(*taken.lock(), ["b", "wrong", "wrong", "wrong", "c"]);
    }
}
