//! Sockets and Services as text, for people.

use std::fmt::Write;

use serde_json::Value;

use crate::image::bytes;

const SOCKETS: [&str; 8] = [
    "PROTO", "STATE", "RECV-Q", "SEND-Q", "LOCAL", "PEER", "RECEIVED", "SENT",
];
const SERVICES: [&str; 11] = [
    "SERVICE", "ADDRESS", "PORTS", "READY", "TAKEN", "OPEN", "REFUSED", "RESET", "WAIT",
    "RECEIVED", "SENT",
];

/// A paragraph for each pod, and one for all Services.
pub(super) fn text(pods: &[Value], services: &[Value]) -> String {
    let mut text = String::new();
    for pod in pods {
        describe(pod, &mut text);
        text.push('\n');
    }
    if pods.is_empty() {
        text.push_str("no pods\n\n");
    }
    table(&SERVICES, services.iter().map(service), "", &mut text);
    // Without the empty line after the last paragraph.
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn describe(pod: &Value, text: &mut String) {
    let (namespace, name) = (word(&pod["namespace"]), word(&pod["name"]));
    let addresses = joined(&pod["addresses"], " ");
    let address = match addresses.is_empty() {
        true => word(&pod["address"]).to_owned(), // an older node
        false => addresses,
    };
    let moved = |field: &str| bytes(number(&pod[field]));
    let (received, sent) = (moved("receivedBytes"), moved("sentBytes"));
    line(text, format_args!("{namespace}/{name}  {address}"));
    let counts = &pod["connections"];
    let counted = ["accepted", "opened", "refused", "failed", "denied", "reset"]
        .map(|what| format!("{} {what}", number(&counts[what])));
    line(text, format_args!("  connections: {}", counted.join(", ")));
    let lost = number(&pod["droppedDatagrams"]);
    let waited = match wait(counts) {
        Some(wait) => format!(", accepted after {wait} on average"),
        None => String::new(),
    };
    line(
        text,
        format_args!("  received {received}, sent {sent}, datagrams lost {lost}{waited}"),
    );
    let sockets = pod["sockets"].as_array().map_or(&[][..], Vec::as_slice);
    table(&SOCKETS, sockets.iter().map(socket), "  ", text);
}

/// The rows below the head, in columns as wide as what stands in them; nothing without rows.
fn table<const N: usize>(
    head: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
    indent: &str,
    text: &mut String,
) {
    let head = std::iter::once(head.map(str::to_owned));
    let rows: Vec<[String; N]> = head.chain(rows).collect();
    if rows.len() == 1 {
        return;
    }
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    });
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        line(
            text,
            format_args!("{indent}{}", cells.join("  ").trim_end()),
        );
    }
}

fn socket(socket: &Value) -> [String; 8] {
    let peer = match (socket["peer"].as_str(), socket["peerPod"].as_str()) {
        (Some(peer), Some(pod)) => format!("{peer} ({pod})"),
        (Some(peer), None) => peer.to_owned(),
        (None, _) => "*".to_owned(),
    };
    let count = |field: &str| number(&socket[field]).to_string();
    let moved = |field: &str| socket[field].as_u64().map_or_else(String::new, bytes);
    [
        word(&socket["protocol"]).to_owned(),
        word(&socket["state"]).to_owned(),
        count("receiveQueue"),
        count("sendQueue"),
        word(&socket["local"]).to_owned(),
        peer,
        moved("receivedBytes"),
        moved("sentBytes"),
    ]
}

fn service(service: &Value) -> [String; 11] {
    let addresses = joined(&service["addresses"], ",");
    let place = match service["externalName"].as_str() {
        Some(name) => name.to_owned(),
        None if addresses.is_empty() => "None".to_owned(), // headless, as kubectl says it
        None => addresses,
    };
    let ports = match joined(&service["ports"], ",") {
        none if none.is_empty() => "<none>".to_owned(), // likewise
        ports => ports,
    };
    let counts = &service["connections"];
    let by = |counts: &Value| {
        let counts = counts.as_object().into_iter().flatten();
        let some: Vec<_> = counts.filter(|(_, count)| number(count) > 0).collect();
        let sum: u64 = some.iter().map(|(_, count)| number(count)).sum();
        let each: Vec<_> = some
            .iter()
            .map(|(why, count)| format!("{count} {why}"))
            .collect();
        match each.is_empty() {
            true => "0".to_owned(),
            false => format!("{sum} ({})", each.join(", ")),
        }
    };
    [
        format!("{}/{}", word(&service["namespace"]), word(&service["name"])),
        place,
        ports,
        number(&service["readyEndpoints"]).to_string(),
        number(&counts["taken"]).to_string(),
        number(&counts["open"]).to_string(),
        by(&counts["refused"]),
        by(&counts["reset"]),
        wait(counts).unwrap_or_else(|| "-".to_owned()),
        bytes(number(&service["receivedBytes"])),
        bytes(number(&service["sentBytes"])),
    ]
}

/// How long connections waited to be accepted, on average; `None` if none was.
fn wait(counts: &Value) -> Option<String> {
    let accepted = number(&counts["accepted"]);
    let seconds = counts["acceptWaitSeconds"].as_f64()?;
    (accepted > 0).then(|| {
        let micros = seconds * 1e6 / accepted as f64;
        match micros {
            ..1e3 => format!("{micros:.0} µs"),
            1e3..1e6 => format!("{:.1} ms", micros / 1e3),
            _ => format!("{:.1} s", micros / 1e6),
        }
    })
}

fn joined(words: &Value, between: &str) -> String {
    let words = words.as_array().into_iter().flatten();
    words.map(word).collect::<Vec<_>>().join(between)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("strings take everything");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_a_paragraph_with_its_sockets_in_columns() {
        let connections = json!({
            "accepted": 3, "opened": 0, "refused": 1, "failed": 0, "denied": 0, "reset": 0,
            "acceptWaitSeconds": 0.0003,
        });
        let pod = json!({
            "namespace": "default", "name": "web", "address": "10.240.0.2",
            "addresses": ["10.240.0.2", "fd00::2"],
            "receivedBytes": 1200, "sentBytes": 3, "droppedDatagrams": 0,
            "connections": connections,
            "sockets": [
                {"protocol": "tcp", "state": "LISTEN", "local": "0.0.0.0:80",
                 "receiveQueue": 0, "sendQueue": 128},
                {"protocol": "tcp", "state": "ESTAB", "local": "10.240.0.2:80",
                 "peer": "10.240.0.3:40000", "peerPod": "default/ask",
                 "receiveQueue": 0, "sendQueue": 0, "receivedBytes": 1200, "sentBytes": 3},
            ],
        });
        assert_eq!(
            text(&[pod], &[]),
            "\
default/web  10.240.0.2 fd00::2
  connections: 3 accepted, 0 opened, 1 refused, 0 failed, 0 denied, 0 reset
  received 1.2 kB, sent 3 B, datagrams lost 0, accepted after 100 µs on average
  PROTO  STATE   RECV-Q  SEND-Q  LOCAL          PEER                            RECEIVED  SENT
  tcp    LISTEN  0       128     0.0.0.0:80     *
  tcp    ESTAB   0       0       10.240.0.2:80  10.240.0.3:40000 (default/ask)  1.2 kB    3 B
"
        );
    }

    #[test]
    fn services_are_a_table_below_the_pods() {
        let service = |name: &str, addresses: &[&str], connections: Value| {
            json!({
                "namespace": "default", "name": name, "addresses": addresses, "externalName": null,
                "ports": ["80/TCP", "53/UDP"], "readyEndpoints": 2, "connections": connections,
                "receivedBytes": 1200, "sentBytes": 3,
            })
        };
        let used = json!({
            "taken": 4, "open": 1, "endpointRefusals": 3,
            "refused": {"no-endpoints": 1, "endpoints": 0, "policy": 2, "timeout": 0},
            "reset": {"client": 0, "endpoint": 0}, "accepted": 2, "acceptWaitSeconds": 2.5,
        });
        let mut elsewhere = service("out", &[], json!({}));
        elsewhere["externalName"] = "example.org".into();
        elsewhere["ports"] = json!([]);
        let services = [
            service("both", &["10.96.0.7", "fd00::7"], used),
            service("headless", &[], json!({})),
            elsewhere,
        ];
        assert_eq!(
            text(&[], &services),
            "\
no pods

SERVICE           ADDRESS            PORTS          READY  TAKEN  OPEN  REFUSED                       RESET  WAIT   RECEIVED  SENT
default/both      10.96.0.7,fd00::7  80/TCP,53/UDP  2      4      1     3 (1 no-endpoints, 2 policy)  0      1.2 s  1.2 kB    3 B
default/headless  None               80/TCP,53/UDP  2      0      0     0                             0      -      1.2 kB    3 B
default/out       example.org        <none>         2      0      0     0                             0      -      1.2 kB    3 B
"
        );
    }

    #[test]
    fn no_pods_are_said_to_be_none() {
        assert_eq!(text(&[], &[]), "no pods\n");
    }
}
