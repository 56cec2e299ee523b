//! Sets of an Indexed Job's indexes as text, such as `0,2-5`.

/// How many indexes the text names, or what is wrong with it; `completions` bounds them.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    Ok(intervals(text, completions)?
        .iter()
        .map(|(first, last)| last - first + 1)
        .sum())
}

/// Reports two texts that name a common index; texts that make no sense are the caller's to report.
pub(super) fn overlap(completed: &str, failed: &str, completions: i64) -> Option<String> {
    let (completed, failed) = (
        intervals(completed, completions).ok()?,
        intervals(failed, completions).ok()?,
    );
    for (from, to) in &completed {
        if let Some((first, _)) = failed.iter().find(|(f, t)| f <= to && from <= t) {
            let common = first.max(from);
            return Some(format!(
                "failedIndexes and completedIndexes overlap at index: {common}"
            ));
        }
    }
    None
}

/// The intervals in order, both ends included.
fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',') {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = found.last()
            && *before >= first
        {
            return Err(format!(
                "non-increasing order, previous: {before}, current: {first}"
            ));
        }
        found.push((first, last));
    }
    Ok(found)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        ));
    }
    let number = |text: &str| {
        let parsed = text.parse::<i64>();
        parsed.map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
    };
    let first = number(limits[0])?;
    if first >= completions {
        return Err(format!("too large index: {:?}", limits[0]));
    }
    let Some(last_text) = limits.get(1) else {
        return Ok((first, first));
    };
    let last = number(last_text)?;
    if last >= completions {
        return Err(format!("too large index: {last_text:?}"));
    }
    if first >= last {
        return Err(format!(
            "non-increasing order, previous: {first}, current: {last}"
        ));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_refused_side_by_side() {
        for (text, number) in [("", 0), ("0", 1), ("0,2-4", 4), ("1-3,5", 4)] {
            assert_eq!(count(text, 6), Ok(number), "{text}");
        }
        for text in ["6", "0-6", "3-1", "2,1", "1-2-3", "a", "1,", "-1"] {
            assert!(count(text, 6).is_err(), "{text}");
        }
        assert!(overlap("0-2", "2", 6).is_some());
        assert!(overlap("0-2", "3", 6).is_none());
    }
}
