use coracle_api::quantity::Quantity;

/// A quantity's canonical form stands for the same amount, and so does the form that objects keep, up to rounding.
pub(crate) fn quantity(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    for resource_list in [false, true] {
        let Ok(kept) = Quantity::kept_form(text, resource_list) else {
            continue;
        };
        let again = Quantity::kept_form(&kept, resource_list);
        assert_eq!(again.as_ref(), Ok(&kept), "{text:?}");
    }
    let Ok(quantity) = text.parse::<Quantity>() else {
        return;
    };
    let canonical = quantity.to_string();
    let again: Quantity = canonical.parse().expect("canonical forms parse");
    assert_eq!(again, quantity, "{text:?} is not {canonical:?}");
    assert_eq!(again.to_string(), canonical);
}
