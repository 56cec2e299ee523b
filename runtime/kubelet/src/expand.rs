//! `$(NAME)` in commands, arguments and environment values (`k8s.io/kubernetes/third_party/forked/golang/expansion`).

/// The most bytes that the environment of a container, or its command line, may come to. A value may
/// name an earlier one twice, which may do so in turn: without a bound, a page of manifest would take
/// all the memory there is.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// Replaces every `$(NAME)` that `lookup` knows; `$$` stands for `$`, and what is unknown or not
/// closed stays as it is. `None` when the result has more than `most` bytes.
pub(crate) fn expand(
    input: &str,
    most: usize,
    lookup: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut output = String::new();
    let mut rest = input;
    while let Some(start) = rest.find('$') {
        output.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            output.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => output.push_str(&value),
                None => output.push_str(&rest[start..rest.len() - tail.len()]),
            }
            rest = tail;
        } else {
            output.push('$');
            rest = after;
        }
        if output.len() > most {
            return None;
        }
    }
    output.push_str(rest);
    (output.len() <= most).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_upstream_replaces_them() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (input, output) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("a$", "a$"),
            ("$()", "$()"),
        ] {
            assert_eq!(
                expand(input, 100, lookup).as_deref(),
                Some(output),
                "{input}"
            );
        }
    }

    #[test]
    fn a_result_above_the_bound_is_none() {
        let long = |_: &str| Some("x".repeat(60));
        assert_eq!(expand("$(A)", 60, long), Some("x".repeat(60)));
        assert_eq!(expand("$(A)$(A)", 60, long), None);
    }
}
