//! Forms as browsers send them: `application/x-www-form-urlencoded`.

/// The value of a field, or nothing when the form has no such field.
pub fn field(form: &[u8], name: &str) -> String {
    form.split(|b| *b == b'&')
        .filter_map(|pair| {
            let split = pair.iter().position(|b| *b == b'=')?;
            (decode(&pair[..split]) == name).then(|| decode(&pair[split + 1..]))
        })
        .next()
        .unwrap_or_default()
}

/// Undoes the encoding: `+` is a space, `%41` is A; what isn't an escape stays as it is.
fn decode(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        rest = match escape {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                &tail[2..]
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
