use serde_json::{Value as Json, json};

use super::*;
use crate::cel::ObjectType;

mod kubernetes;

fn environment() -> Environment {
    Environment::default()
        .with("object", Type::Dyn)
        .with("claims", Type::map(Type::Dyn))
        .with("user", ObjectType::new("User", [("name", Type::String)]))
}

fn input() -> Json {
    json!({
        "name": "web", "replicas": 3, "big": 18446744073709551615_u64, "ratio": 2.5, "nothing": null,
        "labels": {"app": "web", "tier": "front"}, "items": [1, 2, 3, 4],
        "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}],
        "cpu": "1500m", "at": "2024-02-29T12:30:45.5Z",
    })
}

/// What the expression comes to, as text.
fn outcome(expression: &str) -> String {
    let input = input();
    let program = match Program::compile(expression, &environment()) {
        Ok(program) => program,
        Err(error) => return format!("not compiled: {error}"),
    };
    let variables = Variables::default()
        .with("object", &input)
        .with("claims", &input);
    match program.evaluate(&variables, COST_LIMIT) {
        Ok(Value::List(list)) => {
            let items: Vec<String> = list.iter().map(|item| convert::shown(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Ok(Value::Optional(Some(value))) => format!("some {}", convert::shown(&value)),
        Ok(Value::Optional(None)) => "none".to_owned(),
        Ok(value) => convert::shown(&value),
        Err(error) => format!("error: {error}"),
    }
}

fn check_all(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(outcome(expression), *expected, "{expression}");
    }
}

#[test]
fn operators_do_as_cel_does() {
    check_all(&[
        ("1 + 2 * 3 - 4", "3"),
        ("10 - 3 - 2", "5"),
        ("7 / 2 + 7 % 2", "4"),
        ("-7 / 2", "-3"),
        ("2u + 3u", "5"),
        ("1.5 * 2.0", "3"),
        ("'a' + 'b' + object.name", "abweb"),
        ("[1] + [2, 3]", "[1, 2, 3]"),
        ("dyn(1) == 1.0 && dyn(1u) == 1", "true"),
        ("dyn(1) == 'a'", "false"),
        ("dyn(1) < 1.5", "true"),
        (
            "9223372036854775807 == dyn(9.223372036854775807e18)",
            "false",
        ),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-(-9223372036854775807 - 1)", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0", "+Inf"),
        ("dyn(1) + 1.0", "error: no such overload"),
        ("'a' < 'b' && b'a' < b'b'", "true"),
        (
            "2 in [1, 2] && 'app' in object.labels && !('x' in object.labels)",
            "true",
        ),
        ("true ? 'yes' : 'no'", "yes"),
        (
            "{'a': dyn(1), 'b': [2]} == {'b': dyn([2]), 'a': 1.0}",
            "true",
        ),
        ("{1: 'x'}[dyn(1u)]", "x"),
        ("object.items[1] + object.items[dyn(2.0)]", "5"),
        ("object.items[9]", "error: index out of bounds: 9"),
        ("object.items[-1]", "error: index out of bounds: -1"),
        ("object.big > 1", "true"),
        ("object.ratio < object.replicas", "true"),
        (
            "{'a': 1, 'a': 2}",
            "error: insert failed: key already exists",
        ),
    ]);
}

#[test]
fn one_decisive_side_is_enough() {
    check_all(&[
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "error: division by zero"),
        ("object.nope || false", "error: no such key: nope"),
        ("has(object.nope) && object.nope", "false"),
        ("[1, 0].exists(i, 1 / i == 1)", "true"),
        ("[0, 1].exists(i, 1 / i == 1)", "true"),
        ("[0, 1].all(i, 1 / i == 7)", "false"),
        ("[0].all(i, 1 / i == 7)", "error: division by zero"),
    ]);
}

#[test]
fn fields_and_optional_values_are_found() {
    check_all(&[
        ("object.labels.app", "web"),
        ("object.labels['tier']", "front"),
        ("object.labels.nope", "error: no such key: nope"),
        ("object.nothing == null", "true"),
        ("has(object.labels.app) && !has(object.labels.nope)", "true"),
        ("claims.?labels.?app", "some web"),
        ("claims.?nope.?app", "none"),
        ("claims.?nope.orValue('x')", "x"),
        ("claims[?'name'].value()", "web"),
        (
            "optional.none().value()",
            "error: optional.none() dereference",
        ),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("object.?name.optMap(n, n + '!').orValue('')", "web!"),
        (
            "object.?name.optFlatMap(n, optional.none()).hasValue()",
            "false",
        ),
        ("[?object.?name, ?object.?nope]", "[web]"),
        ("{?'a': object.?nope}.size()", "0"),
        ("optional.none().or(optional.of(1)).value()", "1"),
        ("object.name.nope", "error: no such overload"),
    ]);
}

#[test]
fn macros_go_over_lists_and_maps() {
    check_all(&[
        ("object.items.map(i, i * 2)", "[2, 4, 6, 8]"),
        ("object.items.map(i, i > 2, i * 2)", "[6, 8]"),
        ("object.items.filter(i, i % 2 == 0)", "[2, 4]"),
        ("object.containers.all(c, c.image.contains(':'))", "true"),
        ("object.containers.exists_one(c, c.name == 'a')", "true"),
        ("object.labels.all(k, object.labels[k] != '')", "true"),
        ("object.labels.map(k, k)", "[app, tier]"),
        (
            "object.items.map(i, object.items.map(j, i * j).sum()).sum()",
            "100",
        ),
        (
            "[[1, 2], [3]].map(l, l.map(i, i + 1)).flatten()",
            "[2, 3, 4]",
        ),
        ("object.labels.exists(k, v, v == 'front')", "true"),
        ("object.items.all(i, v, v == i + 1)", "true"),
        ("object.items.existsOne(i, v, v == 4)", "true"),
        ("object.items.transformList(i, v, i * v)", "[0, 2, 6, 12]"),
        ("object.items.transformList(i, v, v > 2, v)", "[3, 4]"),
        ("object.labels.transformMap(k, v, v + k)['app']", "webapp"),
        ("['a', 'b'].transformMapEntry(i, v, {v: i})['b']", "1"),
        (
            "object.containers.sortBy(c, c.image).map(c, c.name)",
            "[a, b]",
        ),
        ("cel.bind(x, 2, x * x)", "4"),
        ("cel.bind(i, 5, object.items.map(i, i))", "[1, 2, 3, 4]"),
        ("object.name.map(c, c)", "error: no such overload"),
    ]);
}

#[test]
fn texts_are_worked_on() {
    check_all(&[
        ("'Grüße'.size()", "5"),
        ("'héllo'.charAt(1) + 'héllo'.substring(1, 3)", "éél"),
        ("'a'.charAt(2)", "error: index out of range: 2"),
        (
            "'abc'.substring(2, 1)",
            "error: invalid substring range. start: 2, end: 1",
        ),
        ("'a,b,c'.split(',')", "[a, b, c]"),
        ("'a,b,c'.split(',', 2)", "[a, b,c]"),
        ("'abc'.split('', 2)", "[a, bc]"),
        ("['a', 'b'].join('-')", "a-b"),
        (
            "'hello hello'.indexOf('lo') == 3 && 'hello hello'.lastIndexOf('lo') == 9",
            "true",
        ),
        (
            "'hello'.indexOf('l', 3) == 3 && 'hello'.lastIndexOf('l', 2) == 2",
            "true",
        ),
        (
            "'abab'.replace('a', 'x') + 'abab'.replace('a', 'x', 1)",
            "xbxbxbab",
        ),
        (
            "' a '.trim() + 'Ab'.lowerAscii() + 'Ab'.upperAscii() + 'ab'.reverse()",
            "aabABba",
        ),
        ("'oidc:jane@example.com'.matches('^oidc:[a-z]+@')", "true"),
        (
            "'a1b22'.find('[0-9]+') + 'a1b22'.findAll('[0-9]+')[1]",
            "122",
        ),
        (
            "'a'.matches('(')",
            "not compiled: compilation failed: ERROR: <input>:-1:0: error parsing regexp: \"(\"",
        ),
        (
            "'a'.matches(object.name + '(')",
            "error: error parsing regexp: \"web(\"",
        ),
        (
            "'%s has %d of %.1f'.format([object.name, 2, 2.25])",
            "web has 2 of 2.2",
        ),
        ("'%s'.format([[dyn(1), {'a': 'b'}]])", "[1, {a: b}]"),
        ("'%s'.format([])", "error: index out of range"),
        ("strings.quote('a\"b')", "\"a\\\"b\""),
        (
            "base64.encode(b'hello') + string(base64.decode('aGVsbG8'))",
            "aGVsbG8=hello",
        ),
    ]);
}

#[test]
fn lists_and_sets_are_worked_on() {
    check_all(&[
        ("[3, 1, 2].sort()", "[1, 2, 3]"),
        ("[3, 1].isSorted()", "false"),
        ("[1, 2].sum() + [1, 2].max() + [1, 2].min()", "6"),
        ("object.items.slice(1, 3)", "[2, 3]"),
        (
            "object.items.slice(3, 9)",
            "error: cannot slice(3, 9), list is length 4",
        ),
        ("[1, 1, 2].distinct()", "[1, 2]"),
        ("object.items.reverse().first()", "some 4"),
        ("[1, 2].last()", "some 2"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("object.items.indexOf(3)", "2"),
        (
            "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
            "true",
        ),
        ("[].min()", "error: min called on empty list"),
    ]);
}

#[test]
fn only_values_that_have_an_order_are_sorted() {
    // So many, so mixed that the standard library's sort notices that it was told no order, and panics.
    let mixed = |odd: &str| {
        let all = (0..21).map(|at| match at % 3 {
            0 => odd.to_owned(),
            _ => format!("{}.0", at * 37 % 101),
        });
        format!("[{}].sort()", all.collect::<Vec<_>>().join(", "))
    };
    let why = "error: list elements must be comparable";
    for odd in ["double('NaN')", "dyn('a')", "dyn([])"] {
        assert_eq!(outcome(&mixed(odd)), why, "{odd}");
    }
    check_all(&[
        ("[dyn(3), dyn(1.5), dyn(2u)].sort()", "[1.5, 2, 3]"),
        ("[1.0, double('NaN')].sort()", why),
        ("[dyn(1), dyn('a')].sortBy(x, x)", why),
        ("[double('NaN')].sort().size()", "1"),
    ]);
}

#[test]
fn types_are_converted() {
    check_all(&[
        ("int('42') + int(2.9) + int(3u)", "47"),
        (
            "int('x')",
            "error: type conversion error from 'string' to 'int': \"x\"",
        ),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("int(1e30)", "error: integer overflow"),
        (
            "string(1.0) + ' ' + string(1e21) + ' ' + string(0.000001) + ' ' + string(1234567.0)",
            "1 1e+21 1e-06 1.234567e+06",
        ),
        ("string(true) + string(b'abc') + string(7u)", "trueabc7"),
        ("bool('true') && !bool('f')", "true"),
        ("double('2.5') * 2.0", "5"),
        (
            "type(1) == int && type('') == string && type([]) == list",
            "true",
        ),
        (
            "string(duration('90m')) + ' ' + string(duration('-1.5s'))",
            "5400s -1.5s",
        ),
        (
            "timestamp('2024-01-01T00:00:00Z') + duration('1h') == timestamp('2024-01-01T01:00:00Z')",
            "true",
        ),
        (
            "timestamp(object.at).getDayOfMonth() + timestamp(object.at).getMonth()",
            "29",
        ),
        ("timestamp(object.at).getHours('+01:30')", "14"),
        ("timestamp(object.at).getMilliseconds()", "500"),
        (
            "timestamp('2024-01-01')",
            "error: type conversion error: \"2024-01-01\" is no RFC 3339 timestamp",
        ),
        ("duration('1h').getMinutes()", "60"),
        (
            "duration('1x')",
            "error: time: unknown unit \"x\" in duration \"1x\"",
        ),
        (
            "timestamp('9999-12-01T00:00:00Z') + duration('99999h')",
            "error: timestamp overflow",
        ),
        (
            "math.greatest(1, 2.5, 2) == 2.5 && math.abs(-3) == 3",
            "true",
        ),
    ]);
}

#[test]
fn what_cannot_be_run_is_refused_before() {
    let refused = |expression: &str, environment: &Environment| {
        Program::compile(expression, environment)
            .expect_err(expression)
            .to_string()
    };
    let admission = Environment::admission(false, true);
    let authorizer = refused("authorizer.path('/x').check('get').allowed()", &admission);
    assert!(
        authorizer.contains("function 'allowed' cannot be run here"),
        "{authorizer}"
    );
    for unknown in ["jsonpatch.escapeKey('a/b')", "format.email()"] {
        let why = refused(unknown, &environment());
        assert!(why.contains("cannot be run here"), "{why}");
    }
    let nested = format!("{}true{}", "!(".repeat(200), ")".repeat(200));
    let nested = refused(&nested, &environment());
    assert!(
        nested.contains("nests too deep to be run: limit 128"),
        "{nested}"
    );
    let result = Program::compile_result("object.name", &environment(), &[Type::Bool], "bool");
    assert_eq!(
        result.expect_err("dyn").to_string(),
        "must evaluate to bool"
    );
}

#[test]
fn selections_are_told() {
    let program = |text: &str| Program::compile(text, &environment()).expect(text);
    assert!(program("claims.email == 'a'").selects(Some("claims"), "email"));
    assert!(program("claims.?email.orValue('')").selects(Some("claims"), "email"));
    assert!(program("[claims].all(c, has(c.email))").selects(None, "email"));
    assert!(!program("object.email == ''").selects(Some("claims"), "email"));
}

/// What would run for years, or take all memory, ends at its limit.
#[test]
fn hostile_expressions_end() {
    let digits = "[0,1,2,3,4,5,6,7,8,9]";
    let mut product = "true".to_owned();
    for level in 0..12 {
        product = format!("{digits}.all(x{level}, {product})");
    }
    let mut doubling = "'0123456789'".to_owned();
    for level in 0..60 {
        doubling = format!("cel.bind(v{level}, {doubling}, v{level} + v{level})");
    }
    let mut lists = digits.to_owned();
    for level in 0..40 {
        lists = format!("cel.bind(v{level}, {lists}, v{level} + v{level})");
    }
    // Shared parts make a small value look like a large one.
    let mut nested = "[1]".to_owned();
    for level in 0..60 {
        nested = format!("cel.bind(v{level}, {nested}, [v{level}, v{level}])");
    }
    let equal = format!("{nested} == {nested}");
    let shown = format!("'%s'.format([{nested}])");
    let replaced = "'aaaaaaaaaaaaaaaaaaaa'.replace('a', 'aaaaaaaaaaaaaaaaaaaa')";
    let replaced = format!(
        "{replaced}{}",
        ".replace('a', 'aaaaaaaaaaaaaaaaaaaa')".repeat(8)
    );
    let patterns = format!(
        "lists.range(100000).all(i, 'aaaaaaaaaaaaaaaa'.matches('(a|aa)+b' + string(i)) == false && {product})"
    );
    for expression in [
        product.as_str(),
        doubling.as_str(),
        lists.as_str(),
        equal.as_str(),
        shown.as_str(),
        replaced.as_str(),
        patterns.as_str(),
        "lists.range(9223372036854775807)",
        "lists.range(1000).map(i, lists.range(1000).map(j, i * j))",
    ] {
        let end = "error: operation cancelled: actual cost limit exceeded";
        assert_eq!(outcome(expression), end, "{expression:.100}");
    }
    // An error that operators swallow is not one of these.
    let swallowed = outcome(&format!("{product} || true"));
    assert!(swallowed.contains("cost limit exceeded"), "{swallowed}");
    let large = outcome("'a'.matches('(((a{100}){100}){100}){100}')");
    assert!(large.contains("the pattern is too large"), "{large}");
}

#[test]
fn deep_and_long_expressions_fit_on_a_small_stack() {
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let run = || {
        let deep = format!("{}true{}", "[".repeat(120), "]".repeat(120));
        assert_eq!(outcome(&format!("size({deep})")), "1");
        let negated = format!("{}true{}", "!(".repeat(120), ")".repeat(120));
        assert_eq!(outcome(&negated), "true");
        assert_eq!(outcome(&format!("1{}", "+1".repeat(20_000))), "20001");
        assert_eq!(
            outcome(&format!("false{}", "||false".repeat(9_000))),
            "false"
        );
    };
    thread
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
}

#[test]
fn programs_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Program>();
}

proptest::proptest! {
    #[test]
    fn no_expression_is_a_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "object", "claims", ".name", ".items", ".labels", "[0]", "[?'x']", ".?x", "1", "-1", "2u", "0.5", "'a'",
            "b'a'", "null", "true", " + ", " - ", " * ", " / ", " % ", " == ", " < ", " in ", " && ", " || ", "!", "(",
            ")", "[", "]", "{", "}", ":", ", ", " ? ", ".map(i, i)", ".all(i, i > 0)", ".filter(i, i)", ".size()",
            "size(", "int(", "string(", "timestamp(", "duration(", "quantity(", "ip(", "url(", ".substring(1, ",
            ".charAt(", ".indexOf(", ".split(", ".replace(", ".matches(", ".format(", ".slice(", ".sum()", ".sort()",
            ".orValue(", ".value()", ".lastIndexOf('é', ", "'éa'", "9223372036854775807", "cel.bind(i, ",
        ]), 0..9)
    ) {
        let _ = outcome(&words.concat());
    }
}
