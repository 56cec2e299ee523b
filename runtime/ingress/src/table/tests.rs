use super::*;

fn target(name: &str, path: &str) -> Arc<Target> {
    Arc::new(Target {
        ingress: Some(ObjectKey::new("default", name)),
        path: path.to_owned(),
        backend: Backend::Service {
            service: ObjectKey::new("default", name),
            port: "80".to_owned(),
        },
        settings: Arc::default(),
        is_http2: false,
        has_tls: false,
    })
}

/// A table of lines such as `HOST prefix|exact PATH NAME` (`*` for every host).
fn table(lines: &[&str]) -> Table {
    let mut table = Table::default();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [host, kind, path, name] = words[..] else {
            panic!("{line}")
        };
        let host = if host == "*" { "" } else { host };
        let how = match kind {
            "exact" => Match::Exact,
            "prefix" => Match::Prefix,
            "regex" => Match::Expression(Regex::new(&format!("^{path}")).expect("valid")),
            other => panic!("{other}"),
        };
        table.add(host, how, &target(name, path));
    }
    table
}

fn answer(table: &Table, host: &str, path: &str) -> Option<String> {
    let found = table.route(host, path)?;
    found.target.ingress.as_ref().map(|key| key.name.clone())
}

/// The examples of the API's documentation, "Examples" below "Path types".
#[test]
fn paths_match_as_in_the_documentation() {
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&["prefix / a"], "/", Some("a")),
        (&["prefix / a"], "/any/path", Some("a")),
        (&["exact /foo a"], "/foo", Some("a")),
        (&["exact /foo a"], "/bar", None),
        (&["exact /foo a"], "/foo/", None),
        (&["exact /foo/ a"], "/foo", None),
        (&["prefix /foo a"], "/foo", Some("a")),
        (&["prefix /foo a"], "/foo/", Some("a")),
        (&["prefix /foo/ a"], "/foo", Some("a")),
        (&["prefix /foo/ a"], "/foo/", Some("a")),
        (&["prefix /aaa/bb a"], "/aaa/bbb", None),
        (&["prefix /aaa/bbb a"], "/aaa/bbb", Some("a")),
        (&["prefix /aaa/bbb/ a"], "/aaa/bbb", Some("a")),
        (&["prefix /aaa/bbb a"], "/aaa/bbb/", Some("a")),
        (&["prefix /aaa/bbb a"], "/aaa/bbb/ccc", Some("a")),
        (&["prefix /aaa/bbb a"], "/aaa/bbbxyz", None),
        (&["prefix / a", "prefix /aaa b"], "/aaa/ccc", Some("b")),
        (
            &["prefix / a", "prefix /aaa b", "prefix /aaa/bbb c"],
            "/aaa/bbb",
            Some("c"),
        ),
        (
            &["prefix / a", "prefix /aaa b", "prefix /aaa/bbb c"],
            "/ccc",
            Some("a"),
        ),
        (&["prefix /aaa a"], "/ccc", None),
        (&["prefix /foo a", "exact /foo b"], "/foo", Some("b")),
        // Elements have capitals, and other spellings of one path are that path.
        (&["prefix /foo a"], "/FOO", None),
        (
            &["prefix /foo a", "prefix /admin b"],
            "/foo/../admin",
            Some("b"),
        ),
        (
            &["prefix /foo a", "prefix /admin b"],
            "/foo/%2e%2E/%61dmin",
            Some("b"),
        ),
        (&["prefix /foo a"], "/foo%2Fbar", None),
    ];
    for (paths, path, wanted) in cases {
        let lines: Vec<String> = paths.iter().map(|line| format!("* {line}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let got = answer(&table(&lines), "any.example", path);
        assert_eq!(got.as_deref(), *wanted, "{path} in {paths:?}");
    }
}

#[test]
fn names_go_before_wildcards_and_those_before_every_host() {
    let table = table(&[
        "foo.com prefix /a name",
        "*.foo.com prefix / wildcard",
        "bar.foo.com prefix /b bar",
        "* prefix /c every",
    ]);
    for (host, path, wanted) in [
        ("foo.com", "/a", Some("name")),
        ("bar.foo.com", "/b", Some("bar")),
        ("bar.foo.com", "/other", Some("wildcard")),
        ("baz.foo.com", "/c", Some("wildcard")),
        ("baz.bar.foo.com", "/a", None),
        ("foo.com", "/c", Some("every")),
        ("foo.com", "/b", None),
        (".foo.com", "/b", None),
        ("127.0.0.1", "/c", Some("every")),
        ("", "/c", Some("every")),
    ] {
        assert_eq!(
            answer(&table, host, path).as_deref(),
            wanted,
            "{host}{path}"
        );
    }
    assert!(table.knows("foo.com") && table.knows("x.foo.com") && !table.knows("com"));
}

#[test]
fn names_below_localhost_are_wildcards_like_any_other() {
    let table = table(&["*.localhost prefix / all", "web.localhost prefix / web"]);
    assert_eq!(answer(&table, "web.localhost", "/").as_deref(), Some("web"));
    assert_eq!(answer(&table, "api.localhost", "/").as_deref(), Some("all"));
    assert_eq!(answer(&table, "localhost", "/"), None);
}

#[test]
fn who_has_a_path_keeps_it() {
    let mut table = table(&["a.com prefix /x first"]);
    let there = table.add("a.com", Match::Prefix, &target("second", "/x/"));
    let there = there.and_then(|there| there.ingress.clone());
    assert_eq!(there.map(|key| key.name).as_deref(), Some("first"));
    assert!(
        table
            .add("a.com", Match::Exact, &target("exact", "/x"))
            .is_none()
    );
    assert_eq!(answer(&table, "a.com", "/x/y").as_deref(), Some("first"));
    assert_eq!(answer(&table, "a.com", "/x").as_deref(), Some("exact"));
}

#[test]
fn default_backends_take_what_no_rule_wants() {
    let mut table = table(&["a.com prefix /x rule", "*.b.com prefix /x rule"]);
    assert_eq!(answer(&table, "a.com", "/"), None);
    let class = Target {
        ingress: Some(ObjectKey::new("default", "class")),
        ..Arc::into_inner(target("class", "")).expect("the only one")
    };
    table.set_class_default(class);
    assert_eq!(answer(&table, "a.com", "/").as_deref(), Some("class"));
    table.add_default(&[], &target("oldest", ""));
    table.add_default(&["a.com".to_owned()], &target("of-a", ""));
    table.add_default(
        &["a.com".to_owned(), "*.b.com".to_owned()],
        &target("of-b", ""),
    );
    for (host, path, wanted) in [
        ("a.com", "/x", "rule"),
        ("a.com", "/y", "of-a"),
        ("z.b.com", "/y", "of-b"),
        ("c.com", "/x", "oldest"),
    ] {
        assert_eq!(
            answer(&table, host, path).as_deref(),
            Some(wanted),
            "{host}{path}"
        );
    }
}

#[test]
fn expressions_go_between_exact_paths_and_prefixes_and_rewrite() {
    let mut table = table(&["a.com prefix / rest", "a.com exact /api/v1/exact exact"]);
    let rewriting = |name: &str, path: &str, rewrite: &str| {
        let settings = Settings {
            rewrite: Some(rewrite.to_owned()),
            ..Settings::default()
        };
        let whole = Arc::into_inner(target(name, path)).expect("the only one");
        let settings = Arc::new(settings);
        (
            Match::Expression(Regex::new(&format!("^{path}")).expect("valid")),
            Arc::new(Target { settings, ..whole }),
        )
    };
    for (name, path, rewrite) in [
        ("short", "/api(/|$)(.*)", "/${2}"),
        ("long", "/api/v1(/|$)(.*)", "/one/${2}"),
    ] {
        let (how, target) = rewriting(name, path, rewrite);
        table.add("a.com", how, &target);
    }
    for (path, wanted, asked) in [
        ("/api", "short", Some("/")),
        ("/api/x/y", "short", Some("/x/y")),
        ("/api/v1/x", "long", Some("/one/x")),
        ("/api/v1/exact", "exact", None),
        ("/apis", "rest", None),
    ] {
        let found = table.route("a.com", path).expect("found");
        let name = found.target.ingress.as_ref().map(|key| key.name.as_str());
        assert_eq!(
            (name, found.path.as_deref()),
            (Some(wanted), asked),
            "{path}"
        );
    }
}

#[test]
fn a_table_without_anything_is_empty() {
    assert!(Table::default().is_empty());
    assert!(!table(&["* prefix / a"]).is_empty());
    let mut with_default = Table::default();
    with_default.add_default(&[], &target("a", ""));
    assert!(!with_default.is_empty());
}

/// What the documentation says, word by word: of the rules whose host and path match, the one with the nearest host, the
/// longest path, and of two equal ones the exact one.
fn by_the_book<'a>(rules: &'a [(String, bool, String)], host: &str, path: &str) -> Option<&'a str> {
    let elements = |path: &str| -> Vec<String> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let nearness = |rule: &str| match rule.strip_prefix('*') {
        _ if rule == host => Some(2),
        _ if rule.is_empty() => Some(0),
        Some(end) => {
            let label = host.strip_suffix(end)?;
            (!label.is_empty() && !label.contains('.')).then_some(1)
        }
        None => None,
    };
    let mut best: Option<((i32, usize, bool), &str)> = None;
    for (rule_host, is_exact, rule) in rules {
        let (Some(near), asked, wanted) = (nearness(rule_host), elements(path), elements(rule))
        else {
            continue;
        };
        let matches = match is_exact {
            true => path == rule,
            false => asked.starts_with(&wanted),
        };
        let rank = (near, wanted.len(), *is_exact);
        // The first of equal ones stays.
        if matches && best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, rule));
        }
    }
    best.map(|(_, rule)| rule)
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = String> {
        "(/[ab]){0,3}/?".prop_map(|path| {
            if path.is_empty() {
                "/".to_owned()
            } else {
                path
            }
        })
    }

    fn host() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "x", "a.x", "b.a.x", "*.x", "*.a.x"]).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn the_table_answers_by_the_book(
            rules in prop::collection::vec((host(), any::<bool>(), path()), 0..12),
            asked in host(),
            path in path(),
        ) {
            let mut table = Table::default();
            for (host, is_exact, path) in &rules {
                let how = if *is_exact { Match::Exact } else { Match::Prefix };
                table.add(host, how, &target(path, path));
            }
            let asked = asked.replace('*', "any");
            let got = table.route(&asked, &path).map(|found| found.target.path.clone());
            let wanted = by_the_book(&rules, &asked, &path);
            // Of two prefixes that differ by the slash at their end, either is the same.
            let trimmed = |path: &str| path.trim_end_matches('/').to_owned();
            prop_assert_eq!(got.as_deref().map(trimmed), wanted.map(trimmed), "{} {}", asked, path);
        }
    }
}
