//! Resource quantities: exact decimal amounts such as `250m`, `1.5` or `2Gi`.
//!
//! A quantity keeps the family of its suffix, so that sums and canonical forms read as users wrote them. Amounts are
//! exact to a billionth and bounded as upstream's are: smaller parts round away from zero, larger amounts are capped.

use std::{
    cmp::Ordering,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub, SubAssign},
    str::FromStr,
};

/// The largest whole amount.
const MAX: i128 = i64::MAX as i128 * NANO;
const NANO: i128 = 1_000_000_000;

/// Which family of suffixes a quantity is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    /// `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`.
    DecimalExponent,
}

/// An exact amount of a resource; compared by amount, displayed in canonical form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseQuantityError(&'static str);

impl ParseQuantityError {
    pub(crate) const FORMAT: &'static str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    const SUFFIX: &'static str = "unable to parse quantity's suffix";
    const NUMBER: &'static str = "unable to parse numeric part of quantity";
}

impl Quantity {
    /// A whole amount, written with decimal suffixes.
    pub fn from_value(value: i64) -> Quantity {
        Quantity {
            nanos: i128::from(value) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// An amount in thousandths, written with decimal suffixes.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// A whole amount, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity {
            nanos: i128::from(bytes) * NANO,
            format: Format::BinarySi,
        }
    }

    /// The amount, rounded away from zero to a whole number.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The form in which the API keeps a quantity that it was given: a whole number as it was written, within
    /// bounds; anything else in canonical form.
    ///
    /// In a `resource_list`, parts below a thousandth round up.
    pub fn kept_form(text: &str, resource_list: bool) -> Result<String, ParseQuantityError> {
        let quantity: Quantity = text.parse()?;
        let (digits, rest) = split_digits(text.trim_start_matches(['+', '-']));
        let suffix = rest.strip_prefix('.').unwrap_or(rest);
        if let Some((base, power, _)) = parse_suffix(suffix) {
            let digits = digits.trim_start_matches('0').len() as i32;
            let room = if base == 2 { 14 - power * 3 / 10 } else { 18 };
            if power >= 0 && digits <= room {
                return Ok(text.to_owned());
            }
        }
        let milli = NANO / 1000;
        if resource_list && quantity.nanos % milli != 0 {
            return Ok(quantity
                .with_nanos(divide_away(quantity.nanos, milli) * milli)
                .to_string());
        }
        Ok(quantity.to_string())
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = divide_away(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    fn with_nanos(self, nanos: i128) -> Quantity {
        Quantity {
            nanos: nanos.clamp(-MAX, MAX),
            format: self.format,
        }
    }
}

/// Divides, rounding away from zero.
fn divide_away(number: i128, by: i128) -> i128 {
    let whole = number / by;
    match (number % by).cmp(&0) {
        Ordering::Less => whole - 1,
        Ordering::Equal => whole,
        Ordering::Greater => whole + 1,
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = ParseQuantityError(ParseQuantityError::FORMAT);
        if text.is_empty() {
            return Err(wrong);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
        if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong);
        }
        let (base, power, format) =
            parse_suffix(suffix).ok_or(ParseQuantityError(ParseQuantityError::SUFFIX))?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(ParseQuantityError(ParseQuantityError::NUMBER));
        }
        let nanos = nanos(whole, fraction, base, power);
        let format = if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            Format::DecimalSi
        } else {
            format
        };
        Ok(Quantity {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The base, the power of it and the family that a suffix stands for.
fn parse_suffix(suffix: &str) -> Option<(i128, i32, Format)> {
    let decimal = |power| Some((10, power, Format::DecimalSi));
    let binary = |power| Some((2, power, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((10, power, Format::DecimalExponent))
        }
    }
}

/// The amount in billionths of `whole.fraction × base^power`, rounded up and capped.
fn nanos(whole: &str, fraction: &str, base: i128, power: i32) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().all(|digit| digit == b'0') {
        return 0;
    }
    // The decimal exponent of the last digit, counted in billionths.
    let mut exponent = 9 - fraction.len() as i64 + if base == 10 { i64::from(power) } else { 0 };
    // More digits than this can only matter for rounding; a product with a binary suffix must still fit.
    let limit: i128 = if base == 2 {
        10_i128.pow(18)
    } else {
        10_i128.pow(30)
    };
    let mut number: i128 = 0;
    let mut dropped = 0;
    let mut inexact = false;
    for digit in digits() {
        if number < limit {
            number = number * 10 + i128::from(digit - b'0');
        } else {
            dropped += 1;
            inexact |= digit != b'0';
        }
    }
    exponent += dropped;
    if base == 2 {
        match number.checked_mul(1_i128 << power) {
            Some(product) => number = product,
            None => return MAX,
        }
    }
    while exponent > 0 {
        if number > MAX {
            return MAX;
        }
        number *= 10;
        exponent -= 1;
    }
    while exponent < 0 && number > 0 {
        inexact |= number % 10 != 0;
        number /= 10;
        exponent += 1;
    }
    (number + i128::from(inexact)).min(MAX)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && whole.abs() >= 1024 {
            let mut number = whole;
            let mut suffix = 0;
            while number % 1024 == 0 && suffix < 6 {
                number /= 1024;
                suffix += 1;
            }
            return write!(
                f,
                "{number}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]
            );
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{exponent}"),
            _ => {
                let suffix =
                    ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][(exponent / 3 + 3) as usize];
                write!(f, "{number}{suffix}")
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The sum, written as the left side is; a left side of zero takes the right side's form.
    fn add(self, other: Quantity) -> Quantity {
        let shape = if self.is_zero() { other } else { self };
        shape.with_nanos(self.nanos + other.nanos)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let shape = if self.is_zero() { other } else { self };
        shape.with_nanos(self.nanos - other.nanos)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::default(), |sum, quantity| sum + quantity)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("0.0", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1000e0", "1k"),
            ("12e1", "120"),
            ("1E", "1E"),
            ("100Mi", "100Mi"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("000100", "100"),
            ("10000000k", "10G"),
            ("2u", "2u"),
            ("0.0005Ki", "512m"),
            ("9223372036854775807", "9223372036854775807"),
            ("1e100", "9223372036854775807e0"),
        ];
        for (text, canonical) in cases {
            // `1000e0` and the cap keep their family; a zero exponent isn't written.
            let canonical = canonical.trim_end_matches("e0");
            let quantity: Quantity = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            let expected = if text == "1000e0" { "1e3" } else { canonical };
            assert_eq!(quantity.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_upstreams_words() {
        for text in [
            "", "abc", "1.2.3", "1 ", " 1", "1x", "1.5.", "0x10", "1Mb", "é",
        ] {
            let error = text.parse::<Quantity>().expect_err(text).to_string();
            assert_eq!(error, ParseQuantityError::FORMAT, "{text}");
        }
        for text in ["1K", "1ki", "1e", "1Gii", "1mm", "1kM", "1m3", "1e+", "--1"] {
            let error = text.parse::<Quantity>().expect_err(text).to_string();
            assert_eq!(error, ParseQuantityError::SUFFIX, "{text}");
        }
        for text in ["-", "Ki", ".", "+.", "m"] {
            let error = text.parse::<Quantity>().expect_err(text).to_string();
            assert_eq!(error, ParseQuantityError::NUMBER, "{text}");
        }
    }

    #[test]
    fn the_api_keeps_whole_numbers_as_they_were_written() {
        let cases = [
            ("+1", "+1"),
            ("5.", "5."),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1024Mi", "1024Mi"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("0.1m", "1m"),
            ("1n", "1m"),
            ("1u", "1m"),
            ("1.0000000001", "1001m"),
        ];
        for (given, kept) in cases {
            assert_eq!(
                Quantity::kept_form(given, true).as_deref(),
                Ok(kept),
                "{given}"
            );
        }
        assert_eq!(Quantity::kept_form("1u", false).as_deref(), Ok("1u"));
        assert!(Quantity::kept_form("1 Gi", true).is_err());
    }

    #[test]
    fn values_round_away_from_zero() {
        let value = |text: &str| text.parse::<Quantity>().expect(text);
        assert_eq!(value("1500m").value(), 2);
        assert_eq!(value("-1500m").value(), -2);
        assert_eq!(value("100u").milli_value(), 1);
        assert_eq!(value("2Gi").value(), 2 << 30);
        assert_eq!(value("8E").milli_value(), i64::MAX);
        assert_eq!((value("1Gi") + value("512Mi")).to_string(), "1536Mi");
        assert_eq!((value("1") - value("250m")).to_string(), "750m");
    }

    proptest! {
        #[test]
        fn a_canonical_form_stands_for_the_same_amount(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|e-?[0-9]{1,2})?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let canonical = quantity.to_string();
                let again: Quantity = canonical.parse().expect("canonical forms parse");
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), canonical);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn sums_come_apart_again(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let (a, b) = (Quantity::from_milli(a), Quantity::from_milli(b));
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!((a + b).milli_value(), a.milli_value() + b.milli_value());
        }
    }
}
