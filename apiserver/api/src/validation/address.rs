//! IP addresses, address ranges and host names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{At, FieldErrors};

/// An address as upstream's strict parser takes it: no leading zeros, no IPv4 in IPv6, no zone.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

/// Reports a value that is not an IP address.
pub fn ip(at: &At<'_>, errors: &mut FieldErrors) {
    if parse_ip(at.str()).is_some() {
        return;
    }
    let octets: Vec<&str> = at.str().split('.').collect();
    let decimal = octets.len() == 4 && octets.iter().all(|octet| octet.parse::<u8>().is_ok());
    if decimal {
        errors.invalid(at, "must not have leading 0s");
    } else if at.str().parse::<Ipv6Addr>().is_ok() {
        errors.invalid(at, "must not be an IPv4-mapped IPv6 address");
    } else {
        errors.invalid(
            at,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

/// Reports a value that is not an IP address in its canonical form.
pub fn canonical_ip(at: &At<'_>, errors: &mut FieldErrors) {
    match parse_ip(at.str()).map(|ip| ip.to_string()) {
        None => ip(at, errors),
        Some(form) if form != at.str() => {
            errors.invalid(at, format!("must be in canonical form ({form:?})"));
        }
        Some(_) => {}
    }
}

/// Whether the range holds the address.
pub fn contains(range: (IpAddr, u8), address: IpAddr) -> bool {
    range.0.is_ipv4() == address.is_ipv4() && masked(range.0, range.1) == masked(address, range.1)
}

/// The address with only its first `bits` kept.
pub fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

/// Reports a value that is not an address range in its canonical form.
pub fn canonical_cidr(at: &At<'_>, errors: &mut FieldErrors) {
    let Some((address, bits)) = parse_cidr(at.str()) else {
        return cidr(at, errors);
    };
    let form = format!("{}/{bits}", masked(address, bits));
    if masked(address, bits) != address {
        cidr(at, errors);
    } else if form != at.str() {
        errors.invalid(at, format!("must be in canonical form ({form:?})"));
    }
}

/// An address and the number of its leading bits that count.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let plain = bits.len() <= 3 && !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let bits: u8 = bits.parse().ok().filter(|bits| plain && *bits <= most)?;
    Some((address, bits))
}

/// Reports a value that is not an address range: an address, and how many of its bits count; the others are 0.
pub fn cidr(at: &At<'_>, errors: &mut FieldErrors) {
    let detail = match parse_cidr(at.str()) {
        Some((address, bits)) if masked(address, bits) == address => return,
        Some(_) => "must not have bits set beyond the prefix length",
        None => why_no_cidr(at.str()),
    };
    errors.invalid(at, detail);
}

/// What is wrong with a text that Go's older parser may have taken.
fn why_no_cidr(text: &str) -> &'static str {
    let invalid = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let Some((address, bits)) = text.split_once('/') else {
        return invalid;
    };
    let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let Some(bits) = bits.parse::<u32>().ok().filter(|_| digits) else {
        return invalid;
    };
    let octets: Vec<&str> = address.split('.').collect();
    let decimal = octets.len() == 4 && octets.iter().all(|octet| octet.parse::<u8>().is_ok());
    if decimal && bits <= 32 {
        "must not have leading 0s in IP or prefix length"
    } else if address.parse::<Ipv6Addr>().is_ok() && bits <= 128 {
        "must not have an IPv4-mapped IPv6 address"
    } else {
        invalid
    }
}

/// The canonical form of an IPv6 range that is written in another one.
fn other_ipv6_form(text: &str) -> Option<String> {
    let (address, bits) = parse_cidr(text)?;
    let form = format!("{}/{bits}", masked(address, bits));
    (address.is_ipv6() && form != text).then_some(form)
}

/// What to say of an IPv6 address that is written in another form than its canonical one.
pub fn warning(at: &At<'_>) -> Option<String> {
    let address = parse_ip(at.str()).filter(IpAddr::is_ipv6)?;
    let (form, text) = (address.to_string(), at.str());
    (form != text).then(|| {
        format!(
            "{}: IPv6 address {text:?} should be in RFC 5952 canonical format ({form:?})",
            at.path()
        )
    })
}

/// The same of a range.
pub fn range_warning(at: &At<'_>) -> Option<String> {
    let (form, text) = (other_ipv6_form(at.str())?, at.str());
    Some(format!(
        "{}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({form:?})",
        at.path()
    ))
}

/// Reports an address that is unspecified, loopback, link-local or link-local multicast.
pub fn non_special_ip(at: &At<'_>, errors: &mut FieldErrors) {
    let Some(address) = parse_ip(at.str()) else {
        return ip(at, errors);
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), is_local_multicast_v4(v4)),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), is_local_multicast_v6(v6)),
    };
    if address.is_unspecified() {
        errors.invalid(at, format!("may not be unspecified ({address})"));
    }
    if address.is_loopback() {
        errors.invalid(
            at,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    if link_local {
        errors.invalid(
            at,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if link_local_multicast {
        errors.invalid(
            at,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

fn is_local_multicast_v4(address: Ipv4Addr) -> bool {
    address.octets()[..3] == [224, 0, 0]
}

fn is_local_multicast_v6(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xff0f == 0xff02
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_addresses_and_ranges_are_taken() {
        assert!(parse_ip("10.0.0.1").is_some() && parse_ip("::1").is_some());
        assert!(parse_ip("010.0.0.1").is_none() && parse_ip("::ffff:1.2.3.4").is_none());
        assert!(parse_cidr("10.0.0.0/8").is_some() && parse_cidr("::/128").is_some());
        let whys = [
            "10.0.0.1/8",
            "010.0.0.0/8",
            "::ffff:1.2.3.4/128",
            "10.0.0.0/33",
        ]
        .map(|text| {
            let value = serde_json::Value::from(text);
            let mut errors = FieldErrors::default();
            cidr(&At::root(&value, "x"), &mut errors);
            errors
                .iter()
                .map(|error| error.detail.clone())
                .collect::<String>()
        });
        assert!(whys[0].contains("beyond") && whys[1].contains("leading 0s"));
        assert!(whys[2].contains("IPv4-mapped") && whys[3].contains("valid CIDR"));
        assert!(parse_cidr("10.0.0.0/33").is_none() && parse_cidr("10.0.0.0").is_none());
    }
}
