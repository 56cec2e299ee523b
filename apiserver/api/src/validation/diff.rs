//! The difference of two values as messages about immutable fields show it: a unified diff of their JSON.

use serde_json::Value;

/// Lines that are shown around a difference.
const CONTEXT: usize = 3;

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

#[derive(Clone, Copy, PartialEq)]
enum Edit {
    Keep(usize, usize),
    Remove(usize, usize),
    Add(usize, usize),
}

fn lines(old: &[&str], new: &[&str]) -> String {
    let edits = edits(old, new);
    let changed: Vec<usize> = (0..edits.len())
        .filter(|index| !matches!(edits[*index], Edit::Keep(..)))
        .collect();
    let mut out = String::new();
    let mut next = 0;
    while next < changed.len() {
        // Changes that are close to each other are shown together.
        let mut last = next;
        while last + 1 < changed.len() && changed[last + 1] - changed[last] <= 2 * CONTEXT {
            last += 1;
        }
        let from = changed[next].saturating_sub(CONTEXT);
        let to = (changed[last] + CONTEXT + 1).min(edits.len());
        hunk(&edits[from..to], old, new, &mut out);
        next = last + 1;
    }
    out
}

fn hunk(edits: &[Edit], old: &[&str], new: &[&str], out: &mut String) {
    let start = match edits[0] {
        Edit::Keep(i, j) | Edit::Remove(i, j) | Edit::Add(i, j) => (i, j),
    };
    let removed = edits.iter().filter(|e| !matches!(e, Edit::Add(..))).count();
    let added = edits
        .iter()
        .filter(|e| !matches!(e, Edit::Remove(..)))
        .count();
    *out += &format!(
        "@@ -{},{removed} +{},{added} @@\n",
        start.0 + 1,
        start.1 + 1
    );
    for edit in edits {
        let (sign, line) = match edit {
            Edit::Keep(i, _) => (' ', old[*i]),
            Edit::Remove(i, _) => ('-', old[*i]),
            Edit::Add(_, j) => ('+', new[*j]),
        };
        out.push(sign);
        *out += line;
        out.push('\n');
    }
}

/// The shortest way from one list of lines to the other; what is taken away comes first.
fn edits(old: &[&str], new: &[&str]) -> Vec<Edit> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - prefix;
    let suffix = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(rest)
        .take_while(|(a, b)| a == b)
        .count();
    let (a, b) = (
        &old[prefix..old.len() - suffix],
        &new[prefix..new.len() - suffix],
    );
    let mut found: Vec<Edit> = (0..prefix).map(|index| Edit::Keep(index, index)).collect();
    let common = common_lengths(a, b);
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            found.push(Edit::Keep(prefix + i, prefix + j));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            found.push(Edit::Remove(prefix + i, prefix + j));
            i += 1;
        } else {
            found.push(Edit::Add(prefix + i, prefix + j));
            j += 1;
        }
    }
    let (i, j) = (old.len() - suffix, new.len() - suffix);
    found.extend((0..suffix).map(|index| Edit::Keep(i + index, j + index)));
    found
}

/// For each pair of places, how many lines the rests have in common. Very different values are not compared.
fn common_lengths(a: &[&str], b: &[&str]) -> Vec<Vec<u32>> {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    if a.len().saturating_mul(b.len()) > 4_000_000 {
        return table;
    }
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i][j] = if a[i] == b[j] {
                table[i + 1][j + 1] + 1
            } else {
                table[i + 1][j].max(table[i][j + 1])
            };
        }
    }
    table
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
