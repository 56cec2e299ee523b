//! Where an answer differs from the recorded one.

use std::fmt;

use serde_json::Value;

/// One place at which the recorded answer and this server's differ.
pub(crate) struct Difference {
    /// Method and path of the request.
    pub(crate) request: String,
    /// The place in the answer, such as `body.metadata.name`.
    pub(crate) place: String,
    /// What upstream answered there.
    pub(crate) want: Option<Value>,
    /// What this server answered there.
    pub(crate) got: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            request,
            place,
            want,
            got,
        } = self;
        let (want, got) = (clip(want.as_ref(), 120), clip(got.as_ref(), 120));
        write!(out, "{request}: {place}: want {want}, got {got}")
    }
}

impl Difference {
    /// On several lines, with room for long values.
    pub(crate) fn in_full(&self) -> String {
        let Self {
            request,
            place,
            want,
            got,
        } = self;
        let (want, got) = (clip(want.as_ref(), 2000), clip(got.as_ref(), 2000));
        format!("{request}: {place}\n  want {want}\n  got  {got}")
    }
}

fn clip(value: Option<&Value>, length: usize) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How many lines of a pod's spec, as messages about forbidden changes show it, the recorded server had more than
/// upstream has: its build adds a source to the volume of the service account's token. The recordings of the volume
/// itself leave that source out, so line numbers after it are the only trace of it.
const LINES_OF_EXTRA_SOURCE: usize = 18;

/// Whether two messages are the same but for line numbers that lie behind the recorded server's additional lines.
fn same_diff(want: &str, got: &str) -> bool {
    let same_line = |want: &str, got: &str| match (hunk(want), hunk(got)) {
        (Some(want), Some(got)) => {
            let shifted = |(from, length)| (from + LINES_OF_EXTRA_SOURCE, length);
            want == got || want == (shifted(got.0), shifted(got.1))
        }
        _ => want == got,
    };
    want.contains("pod updates may not change fields other than")
        && want.lines().count() == got.lines().count()
        && want
            .lines()
            .zip(got.lines())
            .all(|(want, got)| same_line(want, got))
}

/// The header of a hunk, as ranges of lines before and after.
fn hunk(line: &str) -> Option<Hunk<'_>> {
    let (old, new) = line
        .strip_prefix("@@ -")?
        .strip_suffix(" @@")?
        .split_once(" +")?;
    Some((range(old)?, range(new)?))
}

/// Whether two cells are the same but for how long ago something was, which grows with the day of the replay.
fn same_but_age(want: &str, got: &str) -> bool {
    let base = |text: &'_ str| {
        let (base, age) = text.strip_suffix(" ago)")?.rsplit_once(" (")?;
        let is_age = age
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"smhdy".contains(&byte));
        is_age.then(|| base.to_owned())
    };
    base(want).is_some_and(|want| base(got) == Some(want))
}

/// The lines of a hunk, before and after.
type Hunk<'a> = ((usize, &'a str), (usize, &'a str));

/// `from,length` of a hunk.
fn range(text: &str) -> Option<(usize, &str)> {
    let (from, length) = text.split_once(',').unwrap_or((text, "1"));
    Some((from.parse().ok()?, length))
}

/// Collects the places at which `want` and `got` differ. Numbers are compared with their types, objects without their
/// order.
pub(crate) fn compare(want: &Value, got: &Value, place: &str, found: &mut Vec<Difference>) {
    let mut differs = |place: String, want: Option<&Value>, got: Option<&Value>| {
        found.push(Difference {
            request: String::new(),
            place,
            want: want.cloned(),
            got: got.cloned(),
        });
    };
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            let mut keys: Vec<&String> = want.keys().chain(got.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let place = if place.is_empty() {
                    key.clone()
                } else {
                    format!("{place}.{key}")
                };
                match (want.get(key), got.get(key)) {
                    (Some(want), Some(got)) => compare(want, got, &place, found),
                    (want, got) => found.push(Difference {
                        request: String::new(),
                        place,
                        want: want.cloned(),
                        got: got.cloned(),
                    }),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) => {
            if want.len() != got.len() {
                let lengths = (Value::from(want.len()), Value::from(got.len()));
                differs(
                    format!("{place}.length"),
                    Some(&lengths.0),
                    Some(&lengths.1),
                );
            }
            for (index, (want, got)) in want.iter().zip(got).enumerate() {
                compare(want, got, &format!("{place}[{index}]"), found);
            }
        }
        (Value::String(want), Value::String(got))
            if same_diff(want, got) || same_but_age(want, got) => {}
        (want, got) if want != got => differs(place.to_owned(), Some(want), Some(got)),
        _ => {}
    }
}
