use super::*;

fn policy() -> Environment {
    Environment::admission(true, true).with(
        "variables",
        ObjectType::new("variables", [("n", Type::Int)]),
    )
}

#[test]
fn what_upstream_refuses_is_refused_in_its_words() {
    let cases = [
        (
            "Bad_Name!",
            "1:9: Syntax error: extraneous input '!' expecting <EOF>\n | Bad_Name!\n | ........^",
        ),
        (
            "1Zi",
            "1:2: Syntax error: extraneous input 'Zi' expecting <EOF>\n | 1Zi\n | .^",
        ),
        (
            "-x",
            "1:2: undeclared reference to 'x' (in container '')\n | -x\n | .^",
        ),
        (
            "variables.v == 1",
            "1:10: undefined field 'v'\n | variables.v == 1\n | .........^",
        ),
        (
            "request.nme == ''",
            "1:8: undefined field 'nme'\n | request.nme == ''\n | .......^",
        ),
        (
            "1 + 'a' == 2",
            "1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a' == 2\n | ..^",
        ),
        (
            "nope(1)",
            "1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^",
        ),
        (
            "1.a",
            "1:2: type 'int' does not support field selection\n | 1.a\n | .^",
        ),
        (
            "[1].all(x, y > x)",
            "1:12: undeclared reference to 'y' (in container '')\n | [1].all(x, y > x)\n | ...........^",
        ),
        (
            "request.name.a",
            "1:13: type 'string' does not support field selection\n | request.name.a\n | ............^",
        ),
    ];
    for (expression, why) in cases {
        let error = CelError::Compilation(format!("ERROR: <input>:{why}"));
        assert_eq!(check(expression, &policy()), Err(error), "{expression}");
    }
}

#[test]
fn several_findings_come_by_place() {
    let found = check("a == 1 &&\n  b == 2", &policy()).expect_err("two names are not there");
    let expected = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a == 1 \
                    &&\n | ^\nERROR: <input>:2:3: undeclared reference to 'b' (in container '')\n |   b == 2\n | ..^";
    assert_eq!(found.to_string(), expected);
}

#[test]
fn types_of_results_are_found() {
    let cases = [
        ("object.spec.replicas <= 5", Type::Bool),
        ("object.spec.x", Type::Dyn),
        ("request.name == 'a' || has(object.a)", Type::Bool),
        ("size(object.items) + 1", Type::Int),
        ("'a' + request.name", Type::String),
        ("request.userInfo.groups.exists(g, g == 'a')", Type::Bool),
        (
            "request.userInfo.groups.map(g, size(g))",
            Type::list(Type::Int),
        ),
        (
            "request.userInfo.groups.filter(g, g != '')",
            Type::list(Type::String),
        ),
        ("object.items.exists_one(i, i.a > variables.n)", Type::Bool),
        ("object == null ? 1 : 2", Type::Int),
        ("'x' in request.userInfo.extra", Type::Bool),
        ("request.userInfo.extra['x'][0]", Type::String),
        ("sets.contains([1], [1, 2])", Type::Bool),
        ("quantity('1Gi').isLessThan(quantity('2Gi'))", Type::Bool),
        (
            "authorizer.requestResource.check('get').allowed()",
            Type::Bool,
        ),
        ("isIP(object.a) && ip(object.a).family() == 4", Type::Bool),
        (
            "object.?metadata.?labels.optMap(l, l.size()).orValue(0) == 0",
            Type::Bool,
        ),
        (
            "params.a.transformList(i, v, i > 0, v).size() > 0",
            Type::Bool,
        ),
        (
            "timestamp(object.t) + duration('1h') > timestamp(object.u)",
            Type::Bool,
        ),
        ("'%s'.format([1])", Type::String),
        (
            "!format.dns1123Label().validate(object.a).hasValue()",
            Type::Bool,
        ),
        ("object.a in [1, 2]", Type::Bool),
        ("type(object) == string", Type::Bool),
    ];
    for (expression, found) in cases {
        assert_eq!(check(expression, &policy()), Ok(found), "{expression}");
    }
}

#[test]
fn results_are_asked_for() {
    let bools = |expression| check_result(expression, &policy(), &[Type::Bool], "bool");
    assert_eq!(bools("1 == 1"), Ok(Type::Bool));
    let error = bools("object.a").expect_err("it could be anything");
    assert_eq!(error.to_string(), "must evaluate to bool");
}

#[test]
fn large_and_deep_expressions_are_an_answer_not_a_crash() {
    let nested = |open: &str, close: &str, times: usize| {
        format!("{}1{}", open.repeat(times), close.repeat(times))
    };
    let plain = Environment::default();
    for (expression, found) in [
        (nested("(", ")", 200), Type::Int),
        (nested("!(", ")", 20).replace('1', "true"), Type::Bool),
        (format!("1{}", "+1".repeat(5_000)), Type::Int),
    ] {
        assert_eq!(check(&expression, &plain), Ok(found));
    }
    let why = |expression: &str| check(expression, &plain).expect_err("too much").to_string();
    let deep = "compilation failed: ERROR: <input>:-1:0: expression recursion limit exceeded: 250";
    assert_eq!(why(&nested("[", "]", 300)), deep);
    assert_eq!(why(&"(".repeat(90_000)), deep);
    assert_eq!(why(&format!("{}1", "true?1:".repeat(2_000))), deep);
    assert!(why(&"1".repeat(100_001)).contains("size: 100001, limit 100000"));
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(text in "[a-z0-9 .,:?!&|+*/%<>=(){}'\"\\\\\\[\\]\n\u{e9}-]{0,40}") {
        let _ = check(&text, &policy());
    }
}
