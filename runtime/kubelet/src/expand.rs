//! `$(NAME)` in commands, arguments and environment values (`k8s.io/kubernetes/third_party/forked/golang/expansion`).

/// Replaces every `$(NAME)` that `lookup` knows; `$$` stands for `$`, and what is unknown or not
/// closed stays as it is.
pub(crate) fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
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
    }
    output.push_str(rest);
    output
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
            assert_eq!(expand(input, lookup), output, "{input}");
        }
    }
}
