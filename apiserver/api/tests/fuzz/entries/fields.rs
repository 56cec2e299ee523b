use coracle_api::apply::FieldSet;
use coracle_api::schema::parse_json;

use super::two_lines;

/// A field set reads as it is written, and two sets join and come apart by the laws of sets.
pub(crate) fn fields_v1(input: &[u8]) {
    let (first, second) = two_lines(input);
    let Some(a) = field_set(first) else { return };
    let Some(b) = field_set(second) else { return };
    let both = a.intersection(&b);
    let all = a.clone().union(&b);
    let only_a = a.difference(&b);
    let only_b = b.difference(&a);
    assert_eq!(all, b.clone().union(&a), "joining has no order");
    assert_eq!(both, b.intersection(&a), "what is shared has no order");
    assert_eq!(only_a.clone().union(&both), a, "taken apart and joined");
    assert_eq!(only_a.union(&both).union(&only_b), all);
    assert_eq!(all.difference(&a), only_b);
    assert_eq!(all.intersection(&a), a);
    assert!(a.difference(&a).is_empty());
    assert_eq!(a.clone().union(&a), a);
    // Members one by one; only the empty path is never one.
    for path in all.paths(usize::MAX) {
        assert!(all.has(&path));
        assert_eq!(both.has(&path), a.has(&path) && b.has(&path));
        assert_eq!(a.difference(&b).has(&path), a.has(&path) && !b.has(&path));
        let covered = (1..=path.len()).any(|end| b.has(&path[..end]));
        assert_eq!(a.outside(&b).has(&path), a.has(&path) && !covered);
    }
    let mut rebuilt = FieldSet::default();
    for path in all.paths(usize::MAX) {
        rebuilt.insert(&path);
    }
    assert_eq!(rebuilt, all);
}

fn field_set(text: &[u8]) -> Option<FieldSet> {
    let set = FieldSet::parse(&parse_json(text).ok()?).ok()?;
    let written = set.to_value();
    let again = FieldSet::parse(&written).expect("what was written is read");
    assert_eq!(again, set, "{written}");
    assert_eq!(again.to_value(), written);
    Some(set)
}
