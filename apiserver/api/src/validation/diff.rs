//! The difference of two values as messages about immutable fields show it: a unified diff of their JSON.

use std::collections::HashMap;

use serde_json::Value;

/// Lines that are shown around a difference.
const CONTEXT: usize = 3;

/// Texts with more lines are not compared: that could take long, and nobody reads it.
const MOST_LINES: usize = 20_000;

/// The difference between `old` and `new`.
pub fn values(old: &Value, new: &Value) -> String {
    let (old, new) = (text(old), text(new));
    lines(
        &old.lines().collect::<Vec<_>>(),
        &new.lines().collect::<Vec<_>>(),
    )
}

/// JSON with one space for each level.
fn text(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => String::new(),
    }
}

/// A run of lines: `old[old_from..old_to]` stands where `new[new_from..new_to]` stands now.
#[derive(Clone, Copy)]
struct Run {
    equal: bool,
    old_from: usize,
    old_to: usize,
    new_from: usize,
    new_to: usize,
}

fn lines(old: &[&str], new: &[&str]) -> String {
    if old == new || old.len().max(new.len()) > MOST_LINES {
        return String::new();
    }
    let mut out = String::new();
    let mut group: Vec<Run> = Vec::new();
    let runs = runs(old, new);
    for (index, run) in runs.iter().enumerate() {
        if !run.equal {
            group.push(*run);
            continue;
        }
        let length = run.old_to - run.old_from;
        let (first, last) = (index == 0, index + 1 == runs.len());
        if !first && (last || length > 2 * CONTEXT) {
            let shown = length.min(CONTEXT);
            group.push(Run {
                old_to: run.old_from + shown,
                new_to: run.new_from + shown,
                ..*run
            });
            hunk(&std::mem::take(&mut group), old, new, &mut out);
        }
        if !last && (first || length > 2 * CONTEXT) {
            let shown = length.min(CONTEXT);
            group.push(Run {
                old_from: run.old_to - shown,
                new_from: run.new_to - shown,
                ..*run
            });
        } else if !last {
            group.push(*run);
        }
    }
    if group.iter().any(|run| !run.equal) {
        hunk(&group, old, new, &mut out);
    }
    out
}

fn hunk(runs: &[Run], old: &[&str], new: &[&str], out: &mut String) {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return;
    };
    *out += &format!(
        "@@ -{} +{} @@\n",
        range(first.old_from, last.old_to),
        range(first.new_from, last.new_to)
    );
    let mut write = |sign: char, lines: &[&str]| {
        for line in lines {
            out.push(sign);
            *out += line;
            out.push('\n');
        }
    };
    for run in runs {
        let (before, after) = (
            &old[run.old_from..run.old_to],
            &new[run.new_from..run.new_to],
        );
        if run.equal {
            write(' ', before);
        } else {
            write('-', before);
            write('+', after);
        }
    }
}

fn range(from: usize, to: usize) -> String {
    match to - from {
        0 => format!("{from},0"),
        1 => format!("{}", from + 1),
        length => format!("{},{length}", from + 1),
    }
}

/// The whole of both texts as runs, equal ones and others in turn.
fn runs(old: &[&str], new: &[&str]) -> Vec<Run> {
    let mut found = Vec::new();
    let (mut i, mut j) = (0, 0);
    let end = Match {
        old: old.len(),
        new: new.len(),
        length: 0,
    };
    for block in matches(old, new).into_iter().chain([end]) {
        if i < block.old || j < block.new {
            found.push(Run {
                equal: false,
                old_from: i,
                old_to: block.old,
                new_from: j,
                new_to: block.new,
            });
        }
        (i, j) = (block.old + block.length, block.new + block.length);
        if block.length > 0 {
            found.push(Run {
                equal: true,
                old_from: block.old,
                old_to: i,
                new_from: block.new,
                new_to: j,
            });
        }
    }
    found
}

/// A run of lines that both texts have.
#[derive(Clone, Copy)]
struct Match {
    old: usize,
    new: usize,
    length: usize,
}

/// What both texts have: the longest run, then the longest before and after it, and so on.
///
/// Upstream's library works like Python's `difflib`, and where lines could be matched in several ways its choice
/// shows. So do its lines that are too common to begin a match with.
fn matches(old: &[&str], new: &[&str]) -> Vec<Match> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(index);
    }
    if new.len() >= 200 {
        let most = new.len() / 100 + 1;
        places.retain(|_, places| places.len() <= most);
    }
    let mut found: Vec<Match> = Vec::new();
    let mut open = vec![(0, old.len(), 0, new.len())];
    while let Some((old_from, old_to, new_from, new_to)) = open.pop() {
        let best = longest(old, new, &places, (old_from, old_to, new_from, new_to));
        if best.length > 0 {
            open.push((old_from, best.old, new_from, best.new));
            open.push((
                best.old + best.length,
                old_to,
                best.new + best.length,
                new_to,
            ));
            found.push(best);
        }
    }
    found.sort_by_key(|block| block.old);
    // Runs that touch are one.
    let mut joined: Vec<Match> = Vec::new();
    for block in found {
        match joined.last_mut() {
            Some(last)
                if last.old + last.length == block.old && last.new + last.length == block.new =>
            {
                last.length += block.length;
            }
            _ => joined.push(block),
        }
    }
    joined
}

fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    (old_from, old_to, new_from, new_to): (usize, usize, usize, usize),
) -> Match {
    let mut best = Match {
        old: old_from,
        new: new_from,
        length: 0,
    };
    // The length of the run that ends at a place of `new`, and at the line of `old` before.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for (i, line) in old.iter().enumerate().take(old_to).skip(old_from) {
        let mut next = HashMap::new();
        let candidates = places.get(line).map_or(&[][..], Vec::as_slice);
        for &j in candidates {
            if j < new_from || j >= new_to {
                continue;
            }
            let before = j.checked_sub(1).and_then(|before| lengths.get(&before));
            let length = before.copied().unwrap_or(0) + 1;
            next.insert(j, length);
            if length > best.length {
                best = Match {
                    old: i + 1 - length,
                    new: j + 1 - length,
                    length,
                };
            }
        }
        lengths = next;
    }
    while best.old > old_from && best.new > new_from && old[best.old - 1] == new[best.new - 1] {
        best.old -= 1;
        best.new -= 1;
        best.length += 1;
    }
    while best.old + best.length < old_to
        && best.new + best.length < new_to
        && old[best.old + best.length] == new[best.new + best.length]
    {
        best.length += 1;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_changed_field_is_shown_with_its_surroundings() {
        let old = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6});
        let mut new = old.clone();
        new["e"] = json!(7);
        assert_eq!(
            values(&old, &new),
            "@@ -3,6 +3,6 @@\n  \"b\": 2,\n  \"c\": 3,\n  \"d\": 4,\n- \"e\": 5,\n+ \"e\": 7,\n  \"f\": 6\n }\n"
        );
        assert_eq!(values(&old, &old), "");
    }
}
