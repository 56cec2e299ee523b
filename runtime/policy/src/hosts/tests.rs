use super::*;

#[test]
fn names_and_addresses_are_let_through_as_the_list_says() {
    let list = AllowedHosts::read(
        "api.example.com, *.cdn.example:443 Other.Example.:8080,other.example:8081,192.0.2.0/24:80,\
         2001:db8::1,[2001:db8::2]:443, 198.51.100.7",
    );
    let these = |ports: &[u16]| Some(AllowedPorts::These(ports.to_vec()));
    for (name, wanted) in [
        ("api.example.com", Some(AllowedPorts::All)),
        ("x.api.example.com", None),
        ("example.com", None),
        ("a.cdn.example", these(&[443])),
        ("a.b.cdn.example", these(&[443])),
        ("cdn.example", None),
        ("evilcdn.example", None),
        ("other.example", these(&[8080, 8081])),
        ("192.0.2.1", None),
    ] {
        assert_eq!(list.ports_of(name), wanted, "{name}");
    }
    for (address, port, wanted) in [
        ("192.0.2.9", 80, true),
        ("::ffff:192.0.2.9", 80, true),
        ("192.0.2.9", 443, false),
        ("192.0.3.9", 80, false),
        ("198.51.100.7", 1, true),
        ("2001:db8::1", 9, true),
        ("2001:db8::2", 443, true),
        ("2001:db8::2", 80, false),
    ] {
        let ip = address.parse().expect("an address");
        assert_eq!(list.has_address(ip, port), wanted, "{address}:{port}");
    }
}

#[test]
fn an_empty_list_lets_nothing_through_and_a_star_all() {
    let none = AllowedHosts::read("  ");
    assert_eq!(none.ports_of("example.com"), None);
    assert!(!none.has_address([192, 0, 2, 1].into(), 80));
    let all = AllowedHosts::read("*");
    assert_eq!(all.ports_of("example.com"), Some(AllowedPorts::All));
    assert!(all.has_address([192, 0, 2, 1].into(), 80));
    let https = AllowedHosts::read("*:443");
    assert_eq!(
        https.ports_of("example.com"),
        Some(AllowedPorts::These(vec![443]))
    );
    assert!(!https.has_address([192, 0, 2, 1].into(), 80));
}

#[test]
fn what_cannot_be_read_lets_nothing_through() {
    for text in [
        "http://example.com",
        "exa mple",
        "*example.com",
        "a.*.com",
        "example.com:0",
        "example.com:65536",
        "example.com:http",
        "example..com",
        "192.0.2.0/33",
        "-",
        ":80",
        "é.example",
    ] {
        let list = AllowedHosts::read(text);
        assert_eq!(list.ports_of("example.com"), None, "{text}");
        assert!(!list.has_address([192, 0, 2, 1].into(), 80), "{text}");
    }
}
