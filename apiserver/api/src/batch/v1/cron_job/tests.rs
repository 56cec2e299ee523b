use super::schedule::{check, time_zone};
use super::*;

#[test]
fn schedules_are_judged_as_upstream_judges_them() {
    for text in [
        "*/5 * * * *",
        "0 0 1 jan sun",
        "1-5,7 ? * * MON-FRI",
        "@hourly",
        "@every 1h30m",
        "0 0/2 * * *",
        "CRON_TZ=Europe/Rome 0 0 * * *",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    let refused = [
        ("", "empty spec string"),
        ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        (
            "5-1 * * * *",
            "beginning of range (5) beyond end of range (1): 5-1",
        ),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        (
            "*/0 * * * *",
            "step of range should be a positive number: */0",
        ),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        (
            "a * * * *",
            "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax",
        ),
        ("@fortnightly", "unrecognized descriptor: @fortnightly"),
        (
            "@every 5",
            "failed to parse duration @every 5: time: missing unit in duration \"5\"",
        ),
        (
            "TZ=Nowhere * * * * *",
            "provided bad location Nowhere: unknown time zone Nowhere",
        ),
    ];
    for (text, error) in refused {
        assert_eq!(check(text), Err(error.to_owned()));
    }
}

#[test]
fn time_zones_have_names() {
    let findings = |name: &str| {
        let value = Value::from(name);
        let mut errors = FieldErrors::default();
        time_zone(&At::root(&value, "spec.timeZone"), &mut errors);
        errors.len()
    };
    for name in ["UTC", "Etc/UTC", "Europe/Rome", "America/Argentina/Ushuaia"] {
        assert_eq!(findings(name), 0, "{name}");
    }
    for name in ["", "-x", "Europe/Nowhere", "../etc", "LOCAL ", "/UTC"] {
        assert_eq!(findings(name), 1, "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged(text in "\\PC*") {
        let _ = check(&text);
        let _ = crate::duration::parse(&text);
    }
}
