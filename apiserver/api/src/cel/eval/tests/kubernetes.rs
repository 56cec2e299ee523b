//! Kubernetes' own types and functions.

use super::check_all;

#[test]
fn kubernetes_own_types_are_known() {
    check_all(&[
        ("quantity(object.cpu).isGreaterThan(quantity('1'))", "true"),
        (
            "quantity('1Gi').add(quantity('1Gi')).asInteger()",
            "2147483648",
        ),
        (
            "quantity('1500m').isInteger() || quantity('1500m').asApproximateFloat() != 1.5",
            "false",
        ),
        ("isQuantity('1x')", "false"),
        (
            "ip('10.1.2.3').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
            "true",
        ),
        (
            "cidr('10.0.0.0/8').containsCIDR('10.2.0.0/16') && !cidr('10.0.0.0/8').containsIP('::1')",
            "true",
        ),
        ("cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')", "true"),
        (
            "ip('127.0.0.1').isLoopback() && ip('::').isUnspecified() && ip('8.8.8.8').isGlobalUnicast()",
            "true",
        ),
        ("isIP('1.2.3') || isCIDR('1.2.3.4')", "false"),
        (
            "url('https://[::1]:80/a%20b?x=1&x=2&y=%41').getHostname()",
            "::1",
        ),
        (
            "url('https://u@example.com:8080/a').getHost() + url('https://e.com:8080').getPort()",
            "example.com:80808080",
        ),
        ("url('https://e.com/?x=1&x=2').getQuery()['x']", "[1, 2]"),
        ("isURL('nope') || isURL('https://a b')", "false"),
        (
            "url('/path').getScheme() + url('/path').getEscapedPath()",
            "/path",
        ),
    ]);
}

#[test]
fn versions_are_read_and_compared() {
    check_all(&[
        ("semver('1.2.3').major()", "1"),
        ("semver('1.20.3-rc.1+build').minor()", "20"),
        ("semver('1.2.3').patch() + 1", "4"),
        ("semver('1.2.3').compareTo(semver('1.10.0'))", "-1"),
        (
            "semver('1.0.0-alpha.9').isLessThan(semver('1.0.0-alpha.10'))",
            "true",
        ),
        (
            "semver('1.0.0-alpha.beta').isGreaterThan(semver('1.0.0-alpha.1'))",
            "true",
        ),
        ("semver('1.0.0-rc').isLessThan(semver('1.0.0'))", "true"),
        ("semver('1.0.0-a').isLessThan(semver('1.0.0-a.b'))", "true"),
        ("semver('1.0.0+a') == semver('1.0.0+b')", "true"),
        ("semver('v1.02', true) == semver('1.2.0')", "true"),
        ("semver('01.01.00', true).minor()", "1"),
        (
            "isSemver('1.0.0') && !isSemver('v1.0.0') && isSemver('v1.0', true)",
            "true",
        ),
        ("isSemver('1.0-rc', true)", "false"),
        ("semver('')", "error: Version string empty"),
        (
            "semver('1.2')",
            "error: No Major.Minor.Patch elements found",
        ),
        (
            "semver('a.2.3')",
            "error: Invalid character(s) found in major number \"a\"",
        ),
        (
            "semver('1.02.3')",
            "error: Minor number must not contain leading zeroes \"02\"",
        ),
        (
            "semver('1.2.99999999999999999999')",
            "error: strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
        ),
        (
            "semver('1.2.')",
            "error: strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        ("semver('1.2.3-')", "error: Prerelease is empty"),
        (
            "semver('1.2.3-01')",
            "error: Numeric PreRelease version must not contain leading zeroes \"01\"",
        ),
        (
            "semver('1.2.3-ä')",
            "error: Invalid character(s) found in prerelease \"ä\"",
        ),
        ("semver('1.2.3+')", "error: Build meta data is empty"),
        (
            "semver('1.2.3+_')",
            "error: Invalid character(s) found in build meta data \"_\"",
        ),
        ("semver(1)", "error: no such overload"),
    ]);
}

#[test]
fn texts_are_judged_by_named_formats() {
    check_all(&[
        ("format.dns1123Label().validate('my-label')", "none"),
        (
            "format.dns1123Label().validate('a.b').value()",
            "[must not contain dots]",
        ),
        ("format.dns1123LabelPrefix().validate('my-label-')", "none"),
        (
            "format.dns1123Label().validate('my-label-').hasValue()",
            "true",
        ),
        ("format.dns1123SubdomainPrefix().validate('a.b-')", "none"),
        ("format.dns1035Label().validate('1a').hasValue()", "true"),
        (
            "format.dns1035LabelPrefix().validate('-').hasValue()",
            "true",
        ),
        (
            "format.qualifiedName().validate('example.com/name')",
            "none",
        ),
        (
            "format.labelValue().validate('a'.replace('a', '%')).hasValue()",
            "true",
        ),
        ("format.uri().validate('https://example.com/a')", "none"),
        (
            "format.uri().validate('x').value()",
            "[parse \"x\": invalid URI for request]",
        ),
        (
            "format.uuid().validate('123e4567-e89b-12d3-A456-426614174000')",
            "none",
        ),
        (
            "format.uuid().validate('123e4567e89b12d3a456426614174000')",
            "none",
        ),
        (
            "format.uuid().validate('123').value()",
            "[does not match the UUID format]",
        ),
        ("format.byte().validate('aGVsbG8=')", "none"),
        (
            "format.byte().validate('aGVsbG8').value()",
            "[invalid base64]",
        ),
        ("format.byte().validate('').hasValue()", "true"),
        ("format.date().validate('2024-02-29')", "none"),
        (
            "format.date().validate('2023-02-29').value()",
            "[invalid date]",
        ),
        (
            "format.datetime().validate('2021-01-01T00:00:00.5+23:59')",
            "none",
        ),
        ("format.datetime().validate('2021-01-01t00:00:00z')", "none"),
        (
            "format.datetime().validate('2021-01-01T24:00:00Z').value()",
            "[invalid datetime]",
        ),
        (
            "format.datetime().validate('2021-01-01 00:00:00Z').hasValue()",
            "true",
        ),
        ("format.named('uuid').value() == format.uuid()", "true"),
        ("format.named('email')", "none"),
        (
            "format.named('date').value().validate('x').value()[0]",
            "invalid date",
        ),
        ("format.uuid().validate(1)", "error: no such overload"),
    ]);
}
